package server

import (
	"slices"
	"sync"
	"time"

	"github.com/quorate/quorate/store/remote/wire"
)

// agentPatience is how long an agent that holds its channel open may be silent before
// another takes its place: its machine may have lost power and be back already.
const agentPatience = 15 * time.Second

// Hosts remembers when each agent was last heard of, for as long as the process
// lives. Only what an agent has sent counts: a stream that can be written to may
// long have lost its reader.
type Hosts struct {
	mu    sync.Mutex
	seen  map[string]time.Time
	conns map[string][]*agentConn
}

// NewHosts returns Hosts that have heard of no one.
func NewHosts() *Hosts {
	return &Hosts{seen: map[string]time.Time{}, conns: map[string][]*agentConn{}}
}

// LastSeen returns when the agent of the host last sent anything to this server;
// the zero time when it never did.
func (h *Hosts) LastSeen(host string) time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.seen[host]
}

// Connected reports whether the agent of the host holds its channel open.
func (h *Hosts) Connected(host string) bool { return h.newest(host) != nil }

func (h *Hosts) saw(host string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seen[host] = time.Now()
}

func (h *Hosts) connectedCount() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.conns)
}

// agentConn is a channel that an agent holds open.
type agentConn struct {
	// instance tells the agent's process from others with its certificate, and from is
	// where it is; an agent that is older than the server names none.
	instance, from string
	requests       chan wire.Request
	// done closes with the channel.
	done chan struct{}
}

// connect adds a channel. An agent that comes back before its old channel was
// found dead has two for a while; the newest is used.
func (h *Hosts) connect(host, instance, from string) *agentConn {
	h.mu.Lock()
	defer h.mu.Unlock()
	conn := &agentConn{instance: instance, from: from, requests: make(chan wire.Request), done: make(chan struct{})}
	h.conns[host] = append(h.conns[host], conn)
	return conn
}

func (h *Hosts) disconnect(host string, conn *agentConn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	close(conn.done)
	h.conns[host] = slices.DeleteFunc(h.conns[host], func(c *agentConn) bool { return c == conn })
	if len(h.conns[host]) == 0 {
		delete(h.conns, host)
	}
}

// other is the agent that stands for the host in place of this one: it holds its channel
// open, and was heard of lately. Nil where there is none. Two that both acted would each
// undo and deny what the other does.
func (h *Hosts) other(host, instance string) *agentConn {
	conn := h.newest(host)
	if conn == nil || instance == "" || conn.instance == "" || conn.instance == instance || time.Since(h.LastSeen(host)) > agentPatience {
		return nil
	}
	return conn
}

func (h *Hosts) newest(host string) *agentConn {
	h.mu.Lock()
	defer h.mu.Unlock()
	conns := h.conns[host]
	if len(conns) == 0 {
		return nil
	}
	return conns[len(conns)-1]
}
