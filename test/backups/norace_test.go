//go:build !race

package backups

// raceEnabled: see race_test.go.
const raceEnabled = false
