// Package browser_test drives the console in a real browser, on a real server with
// real etcds: what a person clicks, and what they see of it.
//
// They are run by make browser, which names a directory in QUORATE_SCREENSHOTS for
// pictures of every page, which somebody should look at. Without it they are
// skipped: what a person waits for can't be told while other tests take the machine.
package browser_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/quorate/quorate/store/remote"
)

// patience is how long anything that a page waits for may take.
const patience = 60 * time.Second

// built is the binary under test.
var built = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "quorate-browser-")
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "quorate")
	out, err := exec.Command("go", "build", "-o", file, "github.com/quorate/quorate/cmd/quorate").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build: %w: %s", err, out)
	}
	return file, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if file, err := built(); err == nil {
		_ = os.RemoveAll(filepath.Dir(file))
	}
	os.Exit(code)
}

// quorate is a running server.
type quorate struct {
	url, dir string
	// link logs in once.
	link string
}

var (
	consoleLine = regexp.MustCompile(`(https?://\S+/login\?code=\S+)`)
	serverURL   = regexp.MustCompile(`(https?://[0-9.:]+)`)
)

// start runs `quorate up` or `quorate server` until the test ends, and waits until
// it has said what ready looks for.
func start(t *testing.T, ready *regexp.Regexp, args ...string) *quorate {
	t.Helper()
	binary, err := built()
	if err != nil {
		t.Fatal(err)
	}
	q := &quorate{dir: t.TempDir()}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), binary, append(args, "--data-dir", q.dir, "--listen", "127.0.0.1:0")...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := make(chan string)
	go func() {
		defer close(said)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			said <- lines.Text()
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGINT)
		for line := range said {
			_ = line
		}
		_ = cmd.Wait()
	})
	var all []string
	deadline := time.After(patience)
	for {
		select {
		case line, ok := <-said:
			if !ok {
				t.Fatalf("%s ended: %s", args[0], strings.Join(all, "\n"))
			}
			all = append(all, line)
			if m := serverURL.FindString(line); q.url == "" && m != "" {
				q.url = m
			}
			if m := ready.FindStringSubmatch(line); m != nil {
				q.link = m[len(m)-1]
				go func() {
					for line := range said {
						_ = line
					}
				}()
				return q
			}
		case <-deadline:
			t.Fatalf("%s did not become ready: %s", args[0], strings.Join(all, "\n"))
		}
	}
}

// client is the command line's way to the server.
func (q *quorate) client(t *testing.T) *remote.Client {
	t.Helper()
	cfg, err := remote.LoadConfig(filepath.Join(q.dir, "client.json"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := remote.New(cfg, remote.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	q.url = c.Server()
	return c
}

// browser is a window of Chromium.
type browser struct {
	t   *testing.T
	ctx context.Context

	mu    sync.Mutex
	wrong []string
}

// open starts Chromium with an empty profile, or skips the test.
func open(t *testing.T) *browser {
	t.Helper()
	if screenshotDir() == "" {
		t.Skip("the console is driven in a browser by make browser (QUORATE_SCREENSHOTS)")
	}
	program := os.Getenv("QUORATE_BROWSER")
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); program == "" && err == nil {
			program = found
		}
	}
	if program == "" {
		t.Fatal("there is no Chromium: install it (apt-get install chromium), or name it in QUORATE_BROWSER")
	}
	ctx, cancel := chromedp.NewExecAllocator(t.Context(),
		chromedp.ExecPath(program), chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun,
		chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true))
	t.Cleanup(cancel)
	ctx, cancelWindow := chromedp.NewContext(ctx)
	t.Cleanup(cancelWindow)
	b := &browser{t: t, ctx: ctx}
	// The context of the first action is the one that the browser lives in.
	if err := chromedp.Do(ctx, chromedp.Navigate("about:blank"), chromedp.EmulateViewport(1440, 900)); err != nil {
		t.Fatal(err)
	}
	if err := chromedp.Listen(ctx, b.listen); err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.Call(ctx, log.Enable, cdp.Empty{}); err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.Call(ctx, runtime.Enable, cdp.Empty{}); err != nil {
		t.Fatal(err)
	}
	return b
}

// listen gathers what the page's own console says is wrong.
func (b *browser) listen(event any) {
	text := ""
	switch e := event.(type) {
	case *runtime.EventConsoleAPICalled:
		if e.Type == "error" || e.Type == "warning" {
			raw, _ := json.Marshal(e.Args)
			text = string(raw)
		}
	case *runtime.EventExceptionThrown:
		text = e.ExceptionDetails.Text
		if x := e.ExceptionDetails.Exception; x != nil {
			text += " " + x.Description
		}
	case *log.EventEntryAdded:
		if e.Entry.Level == "error" {
			text = e.Entry.Text + " " + e.Entry.URL
		}
	}
	if text != "" {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.wrong = append(b.wrong, text)
	}
}

// quiet fails the test if the browser's console has complained.
func (b *browser) quiet() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, text := range b.wrong {
		b.t.Errorf("the browser's console: %s", text)
	}
	b.wrong = nil
}

func (b *browser) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		b.t.Fatal(err)
	}
}

func (b *browser) visit(address string) {
	b.t.Helper()
	b.do(chromedp.Navigate(address))
}

// js runs an expression in the page.
func js[T any](b *browser, expression string) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// await waits until an expression is true in the page. While one page makes room
// for the next there is none to ask.
func (b *browser) await(what, expression string) {
	b.t.Helper()
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		ctx, cancel := context.WithTimeout(b.ctx, 5*time.Second)
		ok, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("!!("+expression+")"))
		cancel()
		if err == nil && ok {
			return
		}
		if b.ctx.Err() != nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	text, _ := chromedp.Run(b.ctx, chromedp.Evaluate[string]("location.href + '\\n' + document.body.innerText"))
	b.t.Fatalf("waited for %s (%s) in vain; the page shows: %.2000s", what, expression, text)
}

// click clicks as a person does, at the place where the element is.
func (b *browser) click(selector string) {
	b.t.Helper()
	b.await("something to click", fmt.Sprintf("document.querySelector(%q)?.checkVisibility()", selector))
	b.do(chromedp.Click(chromedp.CSS(selector)))
}

// fill types into a field.
func (b *browser) fill(selector, text string) {
	b.t.Helper()
	b.await("a field", fmt.Sprintf("document.querySelector(%q)?.checkVisibility()", selector))
	js[bool](b, fmt.Sprintf(`(() => { const f = document.querySelector(%q); f.focus(); f.value = ""; return true })()`, selector))
	b.do(chromedp.SendKeys(chromedp.CSS(selector), text))
}

func (b *browser) cookie(server, name, value string) {
	b.t.Helper()
	if _, err := chromedp.Call(b.ctx, network.SetCookie, network.SetCookieParams{Name: name, Value: value, URL: server}); err != nil {
		b.t.Fatal(err)
	}
}

// fits fails the test if the page must be scrolled sideways.
func (b *browser) fits(what string) {
	b.t.Helper()
	if wide := js[int](b, "document.documentElement.scrollWidth - innerWidth"); wide > 0 {
		b.t.Errorf("%s is %d pixels too wide", what, wide)
	}
}

// prefer makes the system prefer light or dark, and waits until the page has turned.
func (b *browser) prefer(theme string) {
	b.t.Helper()
	_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: theme}},
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.await("the colours to have changed", `!document.getAnimations().some((a) => a instanceof CSSTransition)`)
}

// picture writes a picture of the whole page.
func (b *browser) picture(file string) {
	b.t.Helper()
	js[bool](b, "scrollTo(0, 0), true")
	raw, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
	err = errors.Join(err, os.MkdirAll(filepath.Dir(file), 0o750))
	if err == nil {
		err = os.WriteFile(file, raw, 0o600)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}
