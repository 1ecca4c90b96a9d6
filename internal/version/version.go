// Package version says which Quorate this is, and which etcd is linked into it.
package version

import (
	"runtime/debug"
	"sync"

	etcd "go.etcd.io/etcd/api/v3/version"
)

// fallback is the version of a binary that was built without a version and
// outside of a checkout.
const fallback = "v0.1.0-dev"

// version is set by the Makefile with -ldflags "-X …/internal/version.version=v1.2.3".
var version string

var resolved = sync.OnceValue(func() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = nil
	}
	return resolve(version, info)
})

// Version is this Quorate, such as v0.1.0, v0.1.0-3-gabc1234 or abc1234-dirty. It
// is never empty.
func Version() string { return resolved() }

// Etcd is the etcd linked into this binary, such as 3.7.3.
func Etcd() string { return etcd.Version }

// resolve prefers what the build was told, then the module's version (go install),
// then the commit that the go command recorded.
func resolve(set string, info *debug.BuildInfo) string {
	if set != "" {
		return set
	}
	if info == nil {
		return fallback
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	var commit, dirty string
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			commit = s.Value[:min(12, len(s.Value))]
		case "vcs.modified":
			if s.Value == "true" {
				dirty = "-dirty"
			}
		}
	}
	if commit == "" {
		return fallback
	}
	return commit + dirty
}
