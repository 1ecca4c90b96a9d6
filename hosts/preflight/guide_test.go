package preflight_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/hosts/preflight"
)

// TestGuide: the guide tells of every check, with the threshold that it has, and of no
// other; its twin tells of the same.
func TestGuide(t *testing.T) {
	read := func(name string) string {
		raw, err := os.ReadFile("../../docs/guide/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	english, chinese := read("host-check.md"), read("host-check.zh-CN.md")
	o := options
	o.ServerTime = offset(0, time.Microsecond)
	list := preflight.Run(t.Context(), good(), o)
	for _, c := range list {
		row := "| `" + c.Name + "` | " + c.Threshold
		if !strings.Contains(english, row) {
			t.Errorf("the guide has no row %q", row)
		}
		if !strings.Contains(chinese, "| `"+c.Name+"` | ") {
			t.Errorf("its twin has no row of %s", c.Name)
		}
	}
	if n := strings.Count(english, "\n| `"); n != len(list) || strings.Count(chinese, "\n| `") != n {
		t.Errorf("the guide tells of %d checks, its twin of %d, and there are %d", n, strings.Count(chinese, "\n| `"), len(list))
	}
}
