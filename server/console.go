package server

import (
	"io"
	"net/http"
	"strings"
	"time"
)

// mount puts the console in front of what is not the API's.
func (s *Server) mount(console http.Handler) {
	api := s.handler
	s.console, s.segments = console, segments(s.routes())
	s.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.ofConsole(r) {
			s.serveConsole(w, r)
			return
		}
		api.ServeHTTP(w, r)
	})
}

// segments are the first segments of the API's paths.
func segments(routes []route) map[string]bool {
	found := map[string]bool{}
	for _, rt := range routes {
		found[segment(rt.path)] = true
	}
	return found
}

func segment(path string) string {
	first, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return first
}

// ofConsole reports whether a request is the console's to answer. A browser that
// asks for the API's description comes without a token: the console knows it by
// its cookie, which means nothing here, and asks in its name.
func (s *Server) ofConsole(r *http.Request) bool {
	first := segment(r.URL.Path)
	if described(first) {
		return r.Header.Get("Authorization") == ""
	}
	return !s.segments[first]
}

// described are the first segments of the pages about the API itself.
func described(segment string) bool { return segment == "docs" || segment == "openapi.json" }

// serveConsole lets the console answer, with the API's care for slow clients.
func (s *Server) serveConsole(plain http.ResponseWriter, r *http.Request) {
	w := &patientWriter{ResponseWriter: plain, control: http.NewResponseController(plain), stall: s.stall}
	if r.ContentLength != 0 {
		// Lifted with the end of the body: the reader of a stream says nothing more.
		_ = w.control.SetReadDeadline(time.Now().Add(s.stall))
		limited := http.MaxBytesReader(w, r.Body, maxBody)
		r.Body = struct {
			io.Reader
			io.Closer
		}{&patient{limited, w.control, s.stall}, limited}
	}
	s.console.ServeHTTP(w, r)
}

// patientWriter cuts off clients that don't read. Like response, it deliberately
// hides io.ReaderFrom.
type patientWriter struct {
	http.ResponseWriter

	control *http.ResponseController
	stall   time.Duration
}

// Unwrap serves http.ResponseController.
func (w *patientWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Write gives the client a fresh while to take the next piece.
func (w *patientWriter) Write(p []byte) (int, error) {
	// A writer without deadlines, as in tests, is not a slow client.
	_ = w.control.SetWriteDeadline(time.Now().Add(w.stall))
	return w.ResponseWriter.Write(p)
}

// Flush sends what was written.
func (w *patientWriter) Flush() {
	_ = w.control.SetWriteDeadline(time.Now().Add(w.stall))
	_ = w.control.Flush() // who is gone is noticed by the next Write
}
