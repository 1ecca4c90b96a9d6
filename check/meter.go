package check

import (
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/quorate/quorate/history"
)

func attrError(err error) slog.Attr { return slog.Any("error", err) }

// meter counts what happens. It is safe for concurrent use.
type meter struct {
	mu      sync.Mutex
	began   time.Time
	stats   Stats
	written time.Time
	gap     time.Duration
	ended   time.Time
}

func newMeter() *meter {
	m := &meter{stats: Stats{Kinds: map[string]int{}}}
	m.start()
	return m
}

// start begins the time of the traffic.
func (m *meter) start() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.began = time.Now()
	m.written = m.began
}

func (m *meter) count(op *history.Operation) {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stats.Operations++
	m.stats.Kinds[string(op.Kind)]++
	switch op.Outcome {
	case history.OK:
		m.stats.OK++
	case history.Failed:
		m.stats.Failed++
	default:
		m.stats.Unknown++
	}
	if op.Outcome == history.OK && (op.Kind == history.Put || op.Kind == history.Delete || op.Kind == history.Txn) {
		m.stats.Writes++
		m.gap = max(m.gap, now.Sub(m.written))
		m.written = now
	}
}

func (m *meter) events(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stats.WatchEvents += n
}

func (m *meter) watchEnded() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stats.Watches++
}

// stop ends the time of the traffic.
func (m *meter) stop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ended = time.Now()
	m.gap = max(m.gap, m.ended.Sub(m.written))
}

// now is what was counted, with the rates until now or until stop.
func (m *meter) now() Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.stats
	s.Kinds = maps.Clone(s.Kinds)
	until := m.ended
	if until.IsZero() {
		until = time.Now()
	}
	s.Seconds = until.Sub(m.began).Seconds()
	if s.Seconds > 0 {
		s.PerSecond = float64(s.Operations) / s.Seconds
	}
	s.LongestWriteGapSeconds = m.gap.Seconds()
	return s
}
