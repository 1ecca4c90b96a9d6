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
)

// edit changes the database of a member that is stopped.
func (n *node) edit(t *testing.T, change func(*bbolt.Tx) error) {
	t.Helper()
	db, err := bbolt.Open(filepath.Join(n.dir, "member", "snap", "db"), 0o600, &bbolt.Options{Timeout: time.Second})
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
	l := newLab(t, labOptions{members: 3, flags: []string{"--feature-gates=CompactHashCheck=true", "--compact-hash-check-time=1s"}}).ready()
	c := l.client(l.members[0])
	l.must("write", func(ctx context.Context) error {
		_, err := c.Put(ctx, "key", "the-right-value")
		return err
	})
	sick := l.members[2]
	l.ready(sick)
	sick.end(t)
	sick.edit(t, func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte("key"))
		for k, v := b.Cursor().First(); k != nil; k, v = b.Cursor().Seek(append(k, 0)) {
			if bytes.Contains(v, []byte("the-right-value")) {
				return b.Put(slices.Clone(k), bytes.Replace(v, []byte("right"), []byte("wrong"), 1))
			}
		}
		return errors.New("the value is not in the file")
	})
	l.start(sick)
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
	r := look(t, inspect.Options{Endpoints: l.urls(l.members[0])})
	f := finding(t, r, "alarm-corrupt")
	if f.Severity != inspect.Critical || f.Subject != "m3" || r.State == v1alpha1.StateHealthy {
		t.Errorf("%s of %s; the cluster is %s", f.Severity, f.Subject, r.State)
	}
}

// TestSizesDiffer: one member holds what the others don't.
func TestSizesDiffer(t *testing.T) {
	t.Parallel()
	l := newLab(t, labOptions{members: 3}).ready()
	fat := l.members[1]
	fat.end(t)
	fat.edit(t, func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucket([]byte("padding"))
		for i := range 70 {
			err = errors.Join(err, b.Put([]byte(strconv.Itoa(i)), make([]byte, 1<<20)))
		}
		return err
	})
	l.start(fat)
	l.ready()
	r := look(t, inspect.Options{Endpoints: l.urls(l.members[0])})
	f := finding(t, r, "sizes-differ")
	if f.Severity != inspect.Warning || !strings.HasPrefix(f.Evidence[0], "m2 ") {
		t.Errorf("%s %q", f.Severity, f.Evidence)
	}
}

// moveLeader has a member lead, which it must not do already.
func (l *lab) moveLeader(ctx context.Context, to *node) error {
	st, err := l.client(to).Status(ctx, to.client)
	if err != nil {
		return err
	}
	next := st.Header.MemberId
	for _, n := range l.members {
		if st, err = l.client(n).Status(ctx, n.client); err == nil && st.Leader == st.Header.MemberId {
			_, err = l.client(n).MoveLeader(ctx, next)
			return err
		}
	}
	return errors.New("nobody leads")
}

// lead waits until a member leads.
func (l *lab) lead(n *node) {
	l.t.Helper()
	l.until(n.name+" leads", func(ctx context.Context) error {
		st, err := l.client(n).Status(ctx, n.client)
		if err != nil || st.Leader == st.Header.MemberId {
			return err
		}
		return errors.Join(l.moveLeader(ctx, n), errors.New("not yet"))
	})
}

// TestLeaderChanges: elections while it looks.
func TestLeaderChanges(t *testing.T) {
	t.Parallel()
	l := newLab(t, labOptions{members: 3}).ready()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan int)
	go func() {
		moved := 0
		for ctx.Err() == nil {
			if l.moveLeader(ctx, l.members[moved%3]) == nil {
				moved++
			}
		}
		done <- moved
	}()
	r := look(t, inspect.Options{Endpoints: l.urls()})
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
	l := newLab(t, labOptions{members: 3, peers: newAuthority(t)}).ready()
	apart := l.members[2]
	l.lead(l.members[1])
	l.certify(apart, newAuthority(t))
	// Connections are made anew where one end is: the two others find together.
	for _, n := range l.members[:2] {
		n.end(t)
		l.start(n)
		l.ready(n)
	}
	l.until("answering without a leader", func(ctx context.Context) error {
		st, err := l.client(apart).Status(ctx, apart.client)
		if err == nil && st.Leader != 0 {
			return errors.New("it has a leader")
		}
		return err
	})
	r := look(t, inspect.Options{Endpoints: l.urls()})
	f := finding(t, r, "leaders-differ")
	told := strings.Join(f.Evidence, "\n")
	if f.Severity != inspect.Critical || r.State != v1alpha1.StateDegraded || !strings.Contains(told, "no leader: followed by m3") {
		t.Errorf("%s %q; the cluster is %s", f.Severity, f.Evidence, r.State)
	}
}
