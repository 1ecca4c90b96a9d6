//go:build race

package backups

// raceEnabled: the race detector takes memory of its own.
const raceEnabled = true
