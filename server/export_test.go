package server

import (
	"context"
	"time"
)

// SetStall sets how long a client may take for a piece of a body.
func (s *Server) SetStall(d time.Duration) { s.stall = d }

// SetPatience sets how long a client may take for the head and for the body of a
// request. It must be called before Serve.
func (s *Server) SetPatience(d time.Duration) { s.head, s.patience = d, d }

// Routes lists all routes as METHOD /path.
func Routes() []string {
	var names []string
	for _, rt := range (&Server{}).routes() {
		names = append(names, rt.method+" "+rt.path)
	}
	return names
}

// Document describes all routes as OpenAPI.
func Document() ([]byte, error) { return buildDocument((&Server{}).routes()) }

// SetAnswerTime sets how long an agent may take to begin its answer.
func (s *Server) SetAnswerTime(d time.Duration) { s.hub.answer = d }

// SetNow sets what tells the time to tokens.
func (s *Server) SetNow(now func() time.Time) { s.tokens.now, s.identities.now = now, now }

// SetWrongTime sets how long a wrong log-in code waits.
func (s *Server) SetWrongTime(d time.Duration) { s.wrongTime = d }

// Sweep removes the sessions that are over.
func (s *Server) Sweep(ctx context.Context) { s.sweep(ctx) }

// Calls is how many requests to agents are waiting to be answered.
func (s *Server) Calls() int {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	return len(s.hub.calls)
}
