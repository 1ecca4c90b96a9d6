package s3lab

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Proxy stands before a server and disturbs it. Without a fault it changes nothing. Faults
// add up until Heal.
type Proxy struct {
	// Address, host:port.
	Address string

	mu     sync.Mutex
	faults []*Fault
	// seen counts requests, and hurt those that a fault met.
	seen, hurt atomic.Int64
}

// Fault is one kind of disturbance.
type Fault struct {
	// Match chooses requests; all if nil.
	Match func(*http.Request) bool
	// Share of the chosen ones that are met, 0 to 1; 0 is all. Chance decides, but never lets
	// it be two more or less than the share.
	Share float64
	// Times is how many are met at most; 0 is without end.
	Times int

	// One of these is done.

	// Status answers so, with Code in S3's form.
	Status int
	Code   string
	// CutRequest breaks the connection after so many bytes of the request's body.
	CutRequest int64
	// CutResponse breaks the connection after so many bytes of the answer's body.
	CutResponse int64
	// FlipRequest and FlipResponse turn a bit of this byte of the body, counted from 1.
	FlipRequest, FlipResponse int64
	// DropResponse lets the server do it, and breaks the connection instead of answering.
	DropResponse bool
	// Freeze answers nothing, until the client gives up.
	Freeze bool
	// BytesPerSecond slows the body of the request.
	BytesPerSecond int64
	// Skew has the client's clock be so far ahead of the server's.
	Skew time.Duration

	chosen, met int
}

// NewProxy starts one before a server.
func NewProxy(tb testing.TB, target string) *Proxy {
	tb.Helper()
	ln, err := (&net.ListenConfig{}).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	p := &Proxy{Address: ln.Addr().String()}
	forward := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: target})
			// The name is signed.
			r.Out.Host = r.In.Host
		},
		Transport:     &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 16},
		FlushInterval: -1,
		ErrorLog:      log.New(io.Discard, "", 0),
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) {
			panic(http.ErrAbortHandler) // breaks the connection, as the server's would
		},
	}
	server := &http.Server{Handler: p.handler(forward), ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			tb.Errorf("the proxy: %v", err)
		}
	}()
	tb.Cleanup(func() {
		_ = server.Close() // what goes on is broken off
		<-done
	})
	return p
}

// Add has faults happen from now on.
func (p *Proxy) Add(faults ...Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range faults {
		p.faults = append(p.faults, &faults[i])
	}
}

// Heal ends all faults, and says how many requests they met.
func (p *Proxy) Heal() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = nil
	return p.hurt.Swap(0)
}

// Seen is how many requests came.
func (p *Proxy) Seen() int64 { return p.seen.Load() }

// Method matches requests with a method and, if part is not empty, with that in their URL.
func Method(method, part string) func(*http.Request) bool {
	return func(r *http.Request) bool { return r.Method == method && strings.Contains(r.URL.String(), part) }
}

// choose picks the fault that meets a request, or nil.
func (p *Proxy) choose(r *http.Request) *Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.faults {
		if (f.Match != nil && !f.Match(r)) || (f.Times > 0 && f.met >= f.Times) {
			continue
		}
		f.chosen++
		owed := float64(f.chosen)*f.Share - float64(f.met)
		if f.Share > 0 && owed < 2 && (owed <= -1 || rand.Float64() >= f.Share) {
			continue
		}
		f.met++
		p.hurt.Add(1)
		return f
	}
	return nil
}

func (p *Proxy) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.seen.Add(1)
		f := p.choose(r)
		if f == nil {
			next.ServeHTTP(w, r)
			return
		}
		f.disturb(w, r, next)
	})
}

func (f *Fault) disturb(w http.ResponseWriter, r *http.Request, next http.Handler) {
	switch {
	case f.Status != 0:
		_, _ = io.Copy(io.Discard, r.Body) // a client that still sends would see a reset
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(f.Status)
		_, _ = io.WriteString(w, "<Error><Code>"+f.Code+"</Code><Message>by the fault proxy</Message></Error>")
		return
	case f.Freeze:
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	case f.CutRequest > 0:
		_, _ = io.CopyN(io.Discard, r.Body, f.CutRequest)
		panic(http.ErrAbortHandler)
	case f.FlipRequest > 0:
		r.Body = &flipper{ReadCloser: r.Body, at: f.FlipRequest}
	case f.BytesPerSecond > 0:
		r.Body = &slow{r.Context(), r.Body, f.BytesPerSecond}
	case f.Skew != 0:
		shift(r.Header, f.Skew)
	}
	next.ServeHTTP(&disturbed{ResponseWriter: w, f: f}, r)
	if f.DropResponse {
		panic(http.ErrAbortHandler)
	}
}

// shift moves the time of a signed request.
func shift(h http.Header, by time.Duration) {
	const form = "20060102T150405Z"
	if at, err := time.Parse(form, h.Get("X-Amz-Date")); err == nil {
		moved := at.Add(by)
		h.Set("X-Amz-Date", moved.Format(form))
		// The day is part of the scope.
		h.Set("Authorization", strings.ReplaceAll(h.Get("Authorization"), at.Format("/20060102/"), moved.Format("/20060102/")))
	}
}

// flipper turns one bit of a body.
type flipper struct {
	io.ReadCloser
	at, n int64
}

func (f *flipper) Read(p []byte) (int, error) {
	n, err := f.ReadCloser.Read(p)
	if i := f.at - 1 - f.n; i >= 0 && i < int64(n) {
		p[i] ^= 1
	}
	f.n += int64(n)
	return n, err
}

// slow reads a body at a rate.
type slow struct {
	ctx context.Context
	io.ReadCloser
	perSecond int64
}

func (s *slow) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p[:min(len(p), int(max(s.perSecond/20, 1)))])
	select {
	case <-time.After(time.Duration(n) * time.Second / time.Duration(s.perSecond)):
	case <-s.ctx.Done():
	}
	return n, err
}

// disturbed spoils an answer.
type disturbed struct {
	http.ResponseWriter
	f *Fault
	n int64
}

func (d *disturbed) WriteHeader(status int) {
	if d.f.DropResponse {
		return
	}
	if d.f.Skew != 0 {
		d.Header().Set("Date", time.Now().Add(-d.f.Skew).UTC().Format(http.TimeFormat))
	}
	d.ResponseWriter.WriteHeader(status)
}

func (d *disturbed) Write(p []byte) (int, error) {
	f := d.f
	if f.DropResponse {
		return len(p), nil
	}
	if f.CutResponse > 0 && d.n+int64(len(p)) >= f.CutResponse {
		_, _ = d.ResponseWriter.Write(p[:f.CutResponse-d.n])
		d.Flush()
		panic(http.ErrAbortHandler)
	}
	if i := f.FlipResponse - 1 - d.n; f.FlipResponse > 0 && i >= 0 && i < int64(len(p)) {
		p = bytes.Clone(p)
		p[i] ^= 1
	}
	d.n += int64(len(p))
	return d.ResponseWriter.Write(p)
}

func (d *disturbed) Flush() {
	if d.f.DropResponse {
		return
	}
	_ = http.NewResponseController(d.ResponseWriter).Flush() // the client may be gone
}
