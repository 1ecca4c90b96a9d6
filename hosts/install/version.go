package install

import (
	"regexp"
	"strconv"
)

// described is a version as `git describe` writes it: a tag, and the number of commits
// after it.
var described = regexp.MustCompile(`^v?(\d+)\.(\d+)\.(\d+)(?:-(\d+)-g[0-9a-f]+)?(-.+)?$`)

// newer reports whether version a is known to be newer than b. Builds without a version,
// or with the same one, are not.
func newer(a, b string) bool {
	x, y := described.FindStringSubmatch(a), described.FindStringSubmatch(b)
	if x == nil || y == nil {
		return false
	}
	for i := 1; i <= 4; i++ {
		n, _ := strconv.Atoi(x[i]) // no commits after the tag are 0
		m, _ := strconv.Atoi(y[i])
		if n != m {
			return n > m
		}
	}
	// A release is newer than what was built before it, such as v1.0.0-rc.1.
	return x[5] == "" && y[5] != "" && y[5] != "-dirty"
}
