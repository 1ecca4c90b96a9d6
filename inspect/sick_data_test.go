package inspect_test

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/inspect"
	"github.com/quorate/quorate/pki"
	"github.com/quorate/quorate/test/etcdlab"
)

// edit changes the database of a member that is stopped.
func edit(t *testing.T, n *node, change func(*bbolt.Tx) error) {
	t.Helper()
	db, err := bbolt.Open(filepath.Join(n.Dir, "member", "snap", "db"), 0o600, &bbolt.Options{Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if err = errors.Join(db.Update(change), db.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestCorrupt: one bit more or less on one disk, until etcd's own check finds it.
func TestCorrupt(t *testing.T) {
	t.Parallel()
	l := newLab(t, labOptions{Members: 3, Flags: []string{"--feature-gates=CompactHashCheck=true", "--compact-hash-check-time=1s"}}).ready()
	c := l.client(l.Members[0])
	l.must("write", func(ctx context.Context) error {
		_, err := c.Put(ctx, "key", "the-right-value")
		return err
	})
	sick := l.Members[2]
	l.ready(sick)
	sick.Stop()
	edit(t, sick, func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte("key"))
		for k, v := b.Cursor().First(); k != nil; k, v = b.Cursor().Seek(append(k, 0)) {
			if bytes.Contains(v, []byte("the-right-value")) {
				return b.Put(slices.Clone(k), bytes.Replace(v, []byte("right"), []byte("wrong"), 1))
			}
		}
		return errors.New("the value is not in the file")
	})
	sick.Start()
	l.ready()
	l.until("found out", func(ctx context.Context) error {
		// A compaction has its hash compared; the alarm then refuses it.
		p, err := c.Put(ctx, "more", "x")
		if err != nil {
			if strings.Contains(err.Error(), "corrupt cluster") {
				return nil
			}
			return err
		}
		if _, err = c.Compact(ctx, p.Header.Revision); err != nil && strings.Contains(err.Error(), "corrupt cluster") {
			return nil
		}
		return errors.New("no alarm yet")
	})
	r := look(t, inspect.Options{Endpoints: l.URLs(l.Members[0])})
	f := finding(t, r, "alarm-corrupt")
	if f.Severity != inspect.Critical || f.Subject != "m3" || r.State == v1alpha1.StateHealthy {
		t.Errorf("%s of %s; the cluster is %s", f.Severity, f.Subject, r.State)
	}
}

// TestSizesDiffer: one member holds what the others don't.
func TestSizesDiffer(t *testing.T) {
	t.Parallel()
	l := newLab(t, labOptions{Members: 3}).ready()
	fat := l.Members[1]
	fat.Stop()
	edit(t, fat, func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucket([]byte("padding"))
		for i := range 70 {
			err = errors.Join(err, b.Put([]byte(strconv.Itoa(i)), make([]byte, 1<<20)))
		}
		return err
	})
	fat.Start()
	l.ready()
	r := look(t, inspect.Options{Endpoints: l.URLs(l.Members[0])})
	f := finding(t, r, "sizes-differ")
	if f.Severity != inspect.Warning || !strings.HasPrefix(f.Evidence[0], "m2 ") {
		t.Errorf("%s %q", f.Severity, f.Evidence)
	}
}

// moveLeader has a member lead, which it must not do already.
func (l *lab) moveLeader(ctx context.Context, to *node) error {
	st, err := l.client(to).Status(ctx, to.Client)
	if err != nil {
		return err
	}
	next := st.Header.MemberId
	for _, n := range l.Members {
		if st, err = l.client(n).Status(ctx, n.Client); err == nil && st.Leader == st.Header.MemberId {
			_, err = l.client(n).MoveLeader(ctx, next)
			return err
		}
	}
	return errors.New("nobody leads")
}

// lead waits until a member leads.
func (l *lab) lead(n *node) {
	l.t.Helper()
	l.until(n.Name+" leads", func(ctx context.Context) error {
		st, err := l.client(n).Status(ctx, n.Client)
		if err != nil || st.Leader == st.Header.MemberId {
			return err
		}
		return errors.Join(l.moveLeader(ctx, n), errors.New("not yet"))
	})
}

// TestLeaderChanges: elections while it looks.
func TestLeaderChanges(t *testing.T) {
	t.Parallel()
	l := newLab(t, labOptions{Members: 3}).ready()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan int)
	go func() {
		moved := 0
		for ctx.Err() == nil {
			if l.moveLeader(ctx, l.Members[moved%3]) == nil {
				moved++
			}
		}
		done <- moved
	}()
	r := look(t, inspect.Options{Endpoints: l.URLs()})
	cancel()
	if moved := <-done; moved < 2 {
		t.Fatalf("the leader was moved %d times only", moved)
	}
	if f := finding(t, r, "leader-changed"); f.Severity != inspect.Warning {
		t.Errorf("%s: %s", f.Severity, f.Title)
	}
}

// TestCutOff: a member whose peers no longer take its certificate follows nobody,
// and still answers its clients.
func TestCutOff(t *testing.T) {
	t.Parallel()
	l := newLab(t, labOptions{Members: 3, Peers: etcdlab.NewAuthority(t)}).ready()
	apart := l.Members[2]
	l.lead(l.Members[1])
	etcdlab.NewAuthority(t).Write(t, apart.Home, "peer", pki.Peer, nil)
	// Connections are made anew where one end is: the two others find together.
	for _, n := range l.Members[:2] {
		n.Stop()
		n.Start()
		l.ready(n)
	}
	l.until("answering without a leader", func(ctx context.Context) error {
		st, err := l.client(apart).Status(ctx, apart.Client)
		if err == nil && st.Leader != 0 {
			return errors.New("it has a leader")
		}
		return err
	})
	r := look(t, inspect.Options{Endpoints: l.URLs()})
	f := finding(t, r, "leaders-differ")
	told := strings.Join(f.Evidence, "\n")
	if f.Severity != inspect.Critical || r.State != v1alpha1.StateDegraded || !strings.Contains(told, "no leader: followed by m3") {
		t.Errorf("%s %q; the cluster is %s", f.Severity, f.Evidence, r.State)
	}
}
