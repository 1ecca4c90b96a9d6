package check_test

import (
	"cmp"
	"context"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/quorate/quorate/check"
	"github.com/quorate/quorate/test/etcdlab"
)

// TestMain makes the test binary act as etcd too.
func TestMain(m *testing.M) { etcdlab.Main(m) }

// patience bounds what a test waits for.
const patience = etcdlab.Patience

// lab is a cluster of real etcd processes.
type lab struct {
	*etcdlab.Cluster
	t *testing.T
}

// newLab starts a cluster, which ends with the test; the test itself is its binary
// where none is given.
func newLab(t *testing.T, members int, binary string) *lab {
	t.Helper()
	return &lab{etcdlab.New(t, etcdlab.Options{Members: members, Binary: binary}).Ready(), t}
}

// killer kills one member after another with SIGKILL, and starts each again.
type killer struct {
	l    *lab
	down time.Duration
	next int
}

func (k *killer) Kind() string { return "kill" }

func (k *killer) Disturb(ctx context.Context) (string, error) {
	n := k.l.Members[k.next%len(k.l.Members)]
	k.next++
	n.Kill()
	timer := time.NewTimer(k.down)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return n.Name, n.TryStart() //nolint:contextcheck // what is started outlives the disturbance
}

// pauser holds one member after another still.
type pauser struct {
	l    *lab
	held time.Duration
	next int
}

func (p *pauser) Kind() string { return "pause" }

func (p *pauser) Disturb(ctx context.Context) (string, error) {
	n := p.l.Members[p.next%len(p.l.Members)]
	p.next++
	if err := n.Signal(syscall.SIGSTOP); err != nil {
		return "", err
	}
	timer := time.NewTimer(p.held)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return n.Name, n.Signal(syscall.SIGCONT)
}

// run checks, and says on failure what came of it.
func run(t *testing.T, o check.Options) *check.Result {
	t.Helper()
	o.File = cmp.Or(o.File, filepath.Join(t.TempDir(), "history.zst"))
	r, err := check.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: %s; %d watches, %d events, %.0f op/s, gap %.1f s, hash %s, %v", r.Verdict, r.Summary, r.Stats.Watches, r.Stats.WatchEvents,
		r.Stats.PerSecond, r.Stats.LongestWriteGapSeconds, r.Hash, r.Stats.Kinds)
	for _, n := range r.Notes {
		t.Logf("note: %s", n)
	}
	for _, v := range r.Report.Violations {
		t.Logf("%s: %s\n  %s", v.Rule, v.Title, strings.Join(v.Evidence, "\n  "))
	}
	return r
}

// left is how many keys of the prefix are there.
func (l *lab) left(prefix string) int64 {
	l.t.Helper()
	var n int64
	c := l.Members[0].Dial()
	etcdlab.Until(l.t, "read", func(ctx context.Context) error {
		r, err := c.Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err == nil {
			n = r.Count
		}
		return err
	})
	return n
}
