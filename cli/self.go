package cli

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/quorate/quorate/app"
)

// self is the program and its data directory as a person can type them again in
// the same directory.
func (e *env) self(dataDir string) string {
	program := e.program()
	if dataDir != "" && dataDir != app.DefaultDataDir() {
		program += " --data-dir " + quoted(dataDir)
	}
	return program
}

// program is the program as a person can type it again in the same directory.
func (e *env) program() string {
	if strings.ContainsRune(e.arg0, filepath.Separator) {
		return quoted(e.arg0)
	}
	if !onPath(e.arg0) {
		if path, err := os.Executable(); err == nil {
			return quoted(path)
		}
	}
	return e.arg0
}

// called is the program with the flags by which it was told which server to reach:
// what a hint says to type must reach the same one.
func (e *env) called() string {
	words := []string{e.program()}
	for _, f := range []struct{ name, value string }{
		{"--data-dir", e.dataDir}, {"--server", e.server}, {"--token-file", e.tokenFile}, {"--ca-file", e.caFile},
	} {
		if f.value != "" {
			words = append(words, f.name, quoted(f.value))
		}
	}
	return strings.Join(words, " ")
}

// hint is where a text tells a person to type a command.
var hint = regexp.MustCompile("(see )?`quorate ")

// typed writes the commands of a text as this program was called. Texts come from
// the server too, which doesn't know that.
func (e *env) typed(text string) string {
	return hint.ReplaceAllStringFunc(text, func(found string) string {
		if strings.HasPrefix(found, "see") { // a help needs no server
			return "see `" + e.program() + " "
		}
		return "`" + e.called() + " "
	})
}

// onPath reports whether the shell would find this very program by its bare name.
func onPath(name string) bool {
	found, err := exec.LookPath(name)
	if err != nil && !errors.Is(err, exec.ErrDot) {
		return false
	}
	self, err := os.Stat("/proc/self/exe")
	if err != nil {
		return false
	}
	other, err := os.Stat(found)
	return err == nil && os.SameFile(self, other)
}

var needsNoQuotes = regexp.MustCompile(`^[A-Za-z0-9_@%+=:,./-]+$`)

// quoted is a word as a shell takes it.
func quoted(word string) string {
	if needsNoQuotes.MatchString(word) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
