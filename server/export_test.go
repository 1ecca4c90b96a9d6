package server

import "time"

// SetStall sets how long a client may take for a piece of a body.
func (s *Server) SetStall(d time.Duration) { s.stall = d }

// SetAnswerTime sets how long an agent may take to begin its answer.
func (s *Server) SetAnswerTime(d time.Duration) { s.hub.answer = d }

// Calls is how many requests to agents are waiting to be answered.
func (s *Server) Calls() int {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	return len(s.hub.calls)
}
