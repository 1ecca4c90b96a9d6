package version

import (
	"regexp"
	"runtime/debug"
	"testing"
)

func TestResolve(t *testing.T) {
	vcs := func(mainVersion, revision, modified string) *debug.BuildInfo {
		return &debug.BuildInfo{
			Main: debug.Module{Version: mainVersion},
			Settings: []debug.BuildSetting{
				{Key: "vcs", Value: "git"},
				{Key: "vcs.revision", Value: revision},
				{Key: "vcs.modified", Value: modified},
			},
		}
	}
	for _, tc := range []struct {
		name, set string
		info      *debug.BuildInfo
		want      string
	}{
		{"the Makefile's wins", "v1.2.3", vcs("v9.9.9", "0123456789abcdef", "true"), "v1.2.3"},
		{"go install", "", vcs("v1.2.3", "", ""), "v1.2.3"},
		{"a checkout", "", vcs("(devel)", "0123456789abcdef", "false"), "0123456789ab"},
		{"a changed checkout", "", vcs("", "0123456789abcdef", "true"), "0123456789ab-dirty"},
		{"a short revision", "", vcs("", "01234", "false"), "01234"},
		{"outside of a checkout", "", &debug.BuildInfo{}, fallback},
		{"no build information", "", nil, fallback},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := resolve(tc.set, tc.info); got != tc.want {
				t.Errorf("resolve = %q, want %q", got, tc.want)
			}
		})
	}
}

func TestVersionIsNeverEmpty(t *testing.T) {
	if Version() == "" {
		t.Error("Version is empty")
	}
	if !regexp.MustCompile(`^3\.[0-9]+\.[0-9]+$`).MatchString(Etcd()) {
		t.Errorf("Etcd = %q, want a version such as 3.7.3", Etcd())
	}
}
