package install

import (
	"strings"
	"testing"
	"time"
)

func TestParseTarget(t *testing.T) {
	for text, want := range map[string]string{
		"ssh://root@10.0.0.7":              "ssh://root@10.0.0.7",
		"ssh://root@10.0.0.7:22":           "ssh://root@10.0.0.7",
		"ssh://ops@db1.example.com:2222/":  "ssh://ops@db1.example.com:2222",
		"ssh://10.0.0.7":                   "ssh://me@10.0.0.7",
		"ssh://root@[fd00::7]:2222":        "ssh://root@[fd00::7]:2222",
		"ssh://root@[fd00::7]":             "ssh://root@[fd00::7]",
		"10.0.0.7":                         "",
		"http://10.0.0.7":                  "",
		"ssh://":                           "",
		"ssh://root:secret@10.0.0.7":       "",
		"ssh://root@10.0.0.7/var":          "",
		"ssh://root@10.0.0.7?x=1":          "",
		"ssh://root@10.0.0.7:0":            "",
		"ssh://root@10.0.0.7:65536":        "",
		"ssh://root@-oProxyCommand=reboot": "",
		"ssh://a%20b@10.0.0.7":             "",
	} {
		got, err := ParseTarget(text, "me")
		switch {
		case want == "" && err == nil:
			t.Errorf("%s: read as %s", text, got)
		case want == "" && strings.Contains(err.Error(), "secret"):
			t.Errorf("%s: the error tells the password: %v", text, err)
		case want != "" && (err != nil || got.String() != want):
			t.Errorf("%s: %s, %v, not %s", text, got, err, want)
		}
	}
	if target, err := ParseTarget("ssh://ops@10.0.0.7", ""); err != nil || !target.IsAt("ssh://root@10.0.0.7:22") || target.IsAt("ssh://ops@10.0.0.8") || target.IsAt("") {
		t.Errorf("%s is not told from others: %v", target, err)
	}
}

func TestNewer(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		want bool
	}{
		{"v1.2.0", "v1.1.9", true},
		{"v1.1.9", "v1.2.0", false},
		{"v1.10.0", "v1.9.0", true},
		{"v1.2.0", "v1.2.0", false},
		{"v1.2.0-3-gabc1234", "v1.2.0", true},
		{"v1.2.0", "v1.2.0-3-gabc1234", false},
		{"v1.2.0-10-gabc1234", "v1.2.0-9-gfff1234", true},
		{"v1.2.0", "v1.2.0-rc.1", true},
		{"v1.2.0-rc.1", "v1.2.0", false},
		{"v1.2.0", "v1.2.0-dirty", false},
		{"485279f", "v1.2.0", false},
		{"v1.2.0", "485279f", false},
		{"", "", false},
	} {
		if got := newer(tc.a, tc.b); got != tc.want {
			t.Errorf("%q newer than %q: %t", tc.a, tc.b, got)
		}
	}
}

func TestClockVerdict(t *testing.T) {
	for _, tc := range []struct {
		offset, margin time.Duration
		wrong, warned  bool
	}{
		{0, 10 * time.Millisecond, false, false},
		{400 * time.Millisecond, time.Millisecond, false, false},
		{-2 * time.Second, 10 * time.Millisecond, false, true},
		// What the round trip alone may explain is no finding.
		{2 * time.Second, 3 * time.Second, false, false},
		{-time.Hour, time.Second, true, false},
		{time.Hour, time.Second, true, false},
	} {
		warning, wrong := clockVerdict(&facts{offset: tc.offset, margin: tc.margin})
		if (wrong != nil) != tc.wrong || (warning != "") != tc.warned {
			t.Errorf("%s ± %s: %v, %q", tc.offset, tc.margin, wrong, warning)
		}
		if way := map[bool]string{true: "behind", false: "ahead of"}[tc.offset < 0]; wrong != nil && !strings.Contains(wrong.Error(), way) {
			t.Errorf("%s: %v", tc.offset, wrong)
		}
	}
}

// TestScriptsHoldNoBackslash: a login shell may take one between single quotes for an
// escape.
func TestScriptsHoldNoBackslash(t *testing.T) {
	for _, script := range []string{factsScript(DefaultDataDir), put("/a/b", "0600", "x", ""), stopSession, startScript("quorate")} {
		if strings.Contains(script, `\`) {
			t.Errorf("a backslash in\n%s", script)
		}
	}
}
