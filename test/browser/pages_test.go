package browser_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"github.com/quorate/quorate/history"
	"github.com/quorate/quorate/history/historytest"
)

// TestPages looks at the pages that `quorate bench` and `quorate check` write: from
// real loads, and of a violation that was planted. Each must stand by itself: no
// network, no console error, nothing wider than the window.
func TestPages(t *testing.T) {
	b := open(t)
	q := start(t, consoleLine, "up")
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	for _, run := range [][]string{
		{"bench", "-c", "playground", "--workload", "mixed", "--clients", "16", "--duration", "6s", "--html", file("bench.html")},
		{"bench", "-c", "playground", "--rate", "300", "--request-timeout", "10ms", "--duration", "5s", "--html", file("errors.html")},
		{"bench", "-c", "playground", "--find-max", "--p99", "30ms", "--step", "1s", "--html", file("limit.html")},
		{"bench", "matrix", "-c", "playground", "--cells", "1x16,4x8", "--duration", "2s", "--html", file("matrix.html")},
	} {
		quiet(t, q, 0, run...)
	}
	record(t, file("broken.history.zst"))
	quiet(t, q, 12, "check", "history", file("broken.history.zst"), "--html", file("violation.html"))
	for _, page := range []string{"bench", "errors", "limit", "matrix", "violation"} {
		for _, theme := range []string{"light", "dark"} {
			_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
				Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: theme}},
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, width := range []int64{1440, 390} {
				b.do(chromedp.EmulateViewport(width, 900))
				b.visit("file://" + file(page+".html"))
				b.await("the page", `document.readyState === "complete" && document.querySelector("svg")`)
				if wide := js[int](b, "document.documentElement.scrollWidth - innerWidth"); wide > 0 {
					t.Errorf("%s at %d is %d pixels too wide", page, width, wide)
				}
				if n := js[int](b, `performance.getEntriesByType("resource").length`); n > 0 {
					t.Errorf("%s fetches %d more files", page, n)
				}
				if js[string](b, "document.title") == "" || js[string](b, "document.documentElement.lang") == "" {
					t.Errorf("%s has no title or no language", page)
				}
				b.picture(filepath.Join(screenshotDir(), fmt.Sprintf("%s-%s-%d.png", page, theme, width)))
			}
		}
	}
	b.quiet()
}

// quiet runs a command of the playground's, which must end with that code.
func quiet(t *testing.T, q *quorate, want int, args ...string) {
	t.Helper()
	binary, err := built()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), binary, args...)
	cmd.Env = append(os.Environ(), "QUORATE_DATA_DIR="+q.dir)
	out, err := cmd.CombinedOutput()
	code := 0
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		code, err = exit.ExitCode(), nil
	}
	if err != nil || code != want {
		t.Fatalf("%v ended with %d, want %d: %v\n%s", args, code, want, err, out)
	}
}

// record writes a history in which promises are broken.
func record(t *testing.T, path string) {
	t.Helper()
	h := historytest.Generate(1, 3000, 8)
	for _, bug := range historytest.Bugs[:3] {
		if err := historytest.Plant(h, bug); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err = errors.Join(history.Write(f, h), f.Close()); err != nil {
		t.Fatal(err)
	}
}
