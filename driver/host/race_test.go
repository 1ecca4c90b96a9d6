//go:build race

package host_test

// raceEnabled: the race detector takes memory of its own.
const raceEnabled = true
