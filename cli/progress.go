package cli

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

const (
	clearLine = "\r\x1b[K"
	bold      = "\x1b[1m"
	dim       = "\x1b[2m"
	red       = "\x1b[31m"
	green     = "\x1b[32m"
	cyan      = "\x1b[36m"
	yellow    = "\x1b[33m"
	noColour  = "\x1b[0m"
)

// progress writes lines about what goes on: on a terminal the latest one is
// rewritten in place, elsewhere each is a line. It is a writer too, for a logger
// whose lines must not run into the one that is rewritten. It is safe for
// concurrent use.
type progress struct {
	mu       sync.Mutex
	w        io.Writer
	columns  int
	terminal bool
	last     string
	// live is set while the cursor stands behind a line that is to be rewritten.
	live bool
}

func newProgress(e *env) *progress {
	return &progress{w: e.Err, terminal: isTerminal(e.Err), columns: width(e.Err)}
}

// step shows what goes on now. The same text twice is shown once.
func (p *progress) step(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if text == p.last {
		return
	}
	p.last = text
	if !p.terminal {
		_, _ = fmt.Fprintln(p.w, text)
		return
	}
	if short := []rune(text); p.columns > 4 && len(short) >= p.columns {
		text = string(short[:p.columns-2]) + "…"
	}
	p.live = true
	_, _ = io.WriteString(p.w, clearLine+text)
}

// end is a last line, which stays. Where each step was a line, it has been said.
func (p *progress) end(text string) {
	p.done()
	if p.terminal {
		_, _ = io.WriteString(p.w, text+"\n")
	}
}

// done removes the line that was rewritten.
func (p *progress) done() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	p.last = ""
}

func (p *progress) clear() {
	if p.live {
		_, _ = io.WriteString(p.w, clearLine)
		p.live = false
	}
}

// Write writes whole lines, above the one that is rewritten.
func (p *progress) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	live := p.live
	p.clear()
	n, err := p.w.Write(b)
	if live && bytes.HasSuffix(b, []byte("\n")) {
		_, _ = io.WriteString(p.w, strings.TrimRight(p.last, "\n"))
		p.live = true
	}
	return n, err
}

// patience is how long a command may take before it says what it does.
const patience = 2 * time.Second

// slowly says what is under way once it has taken a while; done takes that back.
func (e *env) slowly(what string) (done func()) {
	p := newProgress(e)
	var mu sync.Mutex
	over := false
	timer := time.AfterFunc(patience, func() {
		mu.Lock()
		defer mu.Unlock()
		if !over {
			p.step(what + "…")
		}
	})
	return func() {
		timer.Stop()
		mu.Lock()
		defer mu.Unlock()
		over = true
		p.done()
	}
}

// painted colours text where out may be coloured.
func (e *env) painted(colour, text string) string {
	if !e.colour(e.Out) {
		return text
	}
	return colour + text + noColour
}
