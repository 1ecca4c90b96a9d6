// Package cli is Quorate's command line: one file for each noun or verb. A command
// is a function of a context, its arguments and its streams, and returns an error;
// Main turns that into text and an exit code.
//
// Output follows a few rules. What was asked for goes to stdout, everything else
// to stderr. Progress rewrites its line on a terminal and is plain lines elsewhere.
// Colour is used on a terminal only, and not with NO_COLOR. An error says which
// object, the cause and the next step, and never dumps the usage.
package cli
