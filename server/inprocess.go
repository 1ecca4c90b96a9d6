package server

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
)

// InProcess calls a handler of this process as if it were reached over the network:
// a body comes as it is written, and the handler's request ends when the caller's
// context does or the body is closed.
func InProcess(api http.Handler) http.RoundTripper { return &inProcess{api} }

type inProcess struct{ api http.Handler }

// RoundTrip implements http.RoundTripper.
func (t *inProcess) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(req.Context())
	out, in := io.Pipe()
	w := &pipeWriter{header: http.Header{}, in: in, begun: make(chan struct{})}
	r := req.Clone(ctx)
	if r.Body == nil {
		r.Body = http.NoBody
	}
	r.Trailer = req.Trailer // its sender fills it in while it sends
	r.RequestURI, r.RemoteAddr = req.URL.RequestURI(), "in-process"
	if r.Host == "" {
		r.Host = req.URL.Host
	}
	resp := &http.Response{Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: req, ContentLength: -1}
	w.resp = resp
	go func() {
		defer cancel()
		defer func() { _ = r.Body.Close() }()
		defer w.end()
		t.api.ServeHTTP(w, r)
	}()
	select {
	case <-w.begun:
	case <-ctx.Done():
	}
	if err := req.Context().Err(); err != nil {
		cancel()
		_ = out.CloseWithError(err) // never fails
		return nil, err
	}
	<-w.begun // what else ends ctx is the end of the handler
	stop := context.AfterFunc(req.Context(), func() { _ = in.CloseWithError(req.Context().Err()) })
	resp.Body = &pipeBody{PipeReader: out, end: func() { stop(); cancel() }}
	return resp, nil
}

// pipeBody ends its request when it is closed.
type pipeBody struct {
	*io.PipeReader

	end func()
}

// Close ends the request.
func (b *pipeBody) Close() error {
	b.end()
	return b.PipeReader.Close()
}

// pipeWriter is a http.ResponseWriter into a pipe. It has no deadlines, for the
// reader is in this process, and nothing to flush, for nothing is kept back.
type pipeWriter struct {
	header http.Header
	in     *io.PipeWriter
	resp   *http.Response
	once   sync.Once
	// begun closes once the head of resp is complete.
	begun chan struct{}
}

// Header implements http.ResponseWriter.
func (w *pipeWriter) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *pipeWriter) WriteHeader(code int) {
	w.once.Do(func() {
		w.resp.StatusCode, w.resp.Status = code, http.StatusText(code)
		w.resp.Header, w.resp.Trailer = w.header.Clone(), http.Header{}
		close(w.begun)
	})
}

// Write implements http.ResponseWriter.
func (w *pipeWriter) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.in.Write(p)
}

// Flush implements http.Flusher.
func (w *pipeWriter) Flush() { w.WriteHeader(http.StatusOK) }

// end completes the response with its trailer. A handler that gave up by a panic,
// as net/http lets it, breaks the response off.
func (w *pipeWriter) end() {
	failed := recover()
	w.WriteHeader(http.StatusOK)
	if failed != nil {
		_ = w.in.CloseWithError(fmt.Errorf("the handler gave up: %v", failed)) // never fails
		return
	}
	for name, values := range w.header {
		if key, ok := strings.CutPrefix(name, http.TrailerPrefix); ok {
			w.resp.Trailer[http.CanonicalHeaderKey(key)] = values
		}
	}
	_ = w.in.Close() // never fails
}
