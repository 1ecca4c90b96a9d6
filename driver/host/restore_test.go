package host_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/datadir"
	"github.com/quorate/quorate/driver"
	"github.com/quorate/quorate/driver/drivertest"
	"github.com/quorate/quorate/driver/host"
	"github.com/quorate/quorate/driver/host/supervisor"
	"github.com/quorate/quorate/etcd"
	"github.com/quorate/quorate/test/etcdlab"
)

// toRestore is a prepared member without its data, and a snapshot for it.
func toRestore(t *testing.T, p *place) (m *v1alpha1.EtcdMember, raw []byte) {
	t.Helper()
	_, raw = drivertest.Snapshot(t, p.Harness, "source", "kept", "in a backup")
	m = newMember("restored")
	drivertest.PrepareRestored(t, p.driver, m)
	return m, raw
}

func restore(t *testing.T, p *place, m *v1alpha1.EtcdMember, raw []byte) {
	t.Helper()
	if err := p.driver.Data(m).Restore(t.Context(), driver.Snapshot{Reader: bytes.NewReader(raw)}); err != nil {
		t.Fatal(err)
	}
}

// notRead fails whoever reads it.
func notRead() driver.Snapshot {
	return driver.Snapshot{Reader: iotest.ErrReader(errors.New("the snapshot was read"))}
}

// runs starts m, and reads what the snapshot had.
func runs(t *testing.T, p *place, m *v1alpha1.EtcdMember) {
	t.Helper()
	drivertest.Start(t, p.Harness, m)
	c, err := etcd.Dial(etcd.Target{Endpoint: m.Status.ClientURL})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // the test is over
	r, err := c.Get(t.Context(), "kept")
	if err != nil || len(r.Kvs) != 1 || string(r.Kvs[0].Value) != "in a backup" {
		t.Errorf("read %v, %v", r, err)
	}
}

func restoredCondition(m *v1alpha1.EtcdMember) v1alpha1.Condition {
	if c := v1alpha1.FindCondition(m.Status.Conditions, v1alpha1.ConditionRestored); c != nil {
		return *c
	}
	return v1alpha1.Condition{}
}

// unnoted takes back that the restore is done, as a crash just before it would.
func unnoted(t *testing.T, p *place, m *v1alpha1.EtcdMember) {
	t.Helper()
	err := homeOf(p, m).ChangeIdentity(string(m.UID), m.Name, func(id *datadir.Identity) bool {
		id.Restore.DoneAt, id.Restore.Revision = time.Time{}, 0
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	p.reopen(t)
}

// TestRestoreIDs: what is noted before the directory is made is what etcd says of
// itself afterwards.
func TestRestoreIDs(t *testing.T) {
	t.Parallel()
	p := open(t)
	m, raw := toRestore(t, p)
	m.Spec.Bootstrap.BumpRevision = 1_000_000
	h := homeOf(p, m)
	broken := driver.Snapshot{Reader: iotest.ErrReader(os.ErrDeadlineExceeded)}
	if err := p.driver.Data(m).Restore(t.Context(), broken); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("a snapshot that can't be read: %v", err)
	}
	noted, err := h.LoadIdentity()
	if err != nil || noted.MemberID == "" || noted.Restore == nil || noted.Restore.Done() || noted.Restore.Name != "back" {
		t.Fatalf("noted before: %+v, %v", noted, err)
	}
	restore(t, p, m, raw)
	runs(t, p, m)
	pool := etcd.NewPool()
	defer pool.Close() //nolint:errcheck // the test is over
	s, err := pool.Status(t.Context(), etcd.Target{Endpoint: m.Status.ClientURL})
	if err != nil || s.MemberID.String() != noted.MemberID || s.ClusterID.String() != noted.ClusterID {
		t.Errorf("etcd is %s of %s (%v), noted was %s of %s", s.MemberID, s.ClusterID, err, noted.MemberID, noted.ClusterID)
	}
	done, err := h.LoadIdentity()
	if err != nil || !done.Restore.Done() || done.Restore.Revision < 1_000_000 || s.Revision < done.Restore.Revision {
		t.Errorf("noted after: %+v, %v; etcd is at revision %d", done.Restore, err, s.Revision)
	}
}

// TestRestoreKilled: a restore that was killed at any point is followed by one that
// ends it, or finds it ended.
func TestRestoreKilled(t *testing.T) {
	t.Parallel()
	t.Run("half-way", func(t *testing.T) {
		t.Parallel()
		p := open(t)
		m, raw := toRestore(t, p)
		partial := filepath.Join(string(homeOf(p, m)), "data.partial")
		for _, f := range []string{filepath.Join(partial, "lock"), filepath.Join(partial, "data", "member", "snap", "db")} {
			if err := errors.Join(os.MkdirAll(filepath.Dir(f), 0o700), os.WriteFile(f, raw[:len(raw)/3], 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		drivertest.Ensure(t, p.driver, m)
		if c := restoredCondition(m); c.Status != v1alpha1.False {
			t.Errorf("half a restore: %+v", c)
		}
		restore(t, p, m, raw)
		if _, err := os.Stat(partial); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", partial, err)
		}
		runs(t, p, m)
	})
	for name, again := range map[string]func(t *testing.T, p *place, m *v1alpha1.EtcdMember){
		"before it was noted and restored again": func(t *testing.T, p *place, m *v1alpha1.EtcdMember) {
			t.Helper()
			if err := p.driver.Data(m).Restore(t.Context(), notRead()); err != nil {
				t.Fatal(err)
			}
		},
		"before it was noted and looked after": func(*testing.T, *place, *v1alpha1.EtcdMember) {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := open(t)
			m, raw := toRestore(t, p)
			restore(t, p, m, raw)
			before, err := homeOf(p, m).LoadIdentity()
			if err != nil {
				t.Fatal(err)
			}
			unnoted(t, p, m)
			if s, failed := p.driver.Observe(t.Context(), m); failed != nil || v1alpha1.IsTrue(s.Conditions, v1alpha1.ConditionRestored) {
				t.Fatalf("observed as restored before that was noted: %v", failed)
			}
			again(t, p, m)
			drivertest.Ensure(t, p.driver, m)
			if c := restoredCondition(m); c.Status != v1alpha1.True {
				t.Fatalf("condition %+v", c)
			}
			after, err := homeOf(p, m).LoadIdentity()
			if err != nil || after.MemberID != before.MemberID || after.ClusterID != before.ClusterID || after.Restore.Revision != before.Restore.Revision {
				t.Errorf("noted %+v, %v; want %+v", after, err, before)
			}
			runs(t, p, m)
		})
	}
}

// restoreHalf is what an agent does that is killed half-way: it restores the member in
// the file, into the directory, and its snapshot never ends.
func restoreHalf(dir, file string) int {
	var m v1alpha1.EtcdMember
	raw, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(raw, &m)
	}
	var d *host.Driver
	if err == nil {
		d, err = host.New(host.Options{Dir: dir, Address: "127.0.0.1", Releases: binary("")})
	}
	if err == nil {
		endless, _ := io.Pipe()
		err = d.Data(&m).Restore(context.Background(), driver.Snapshot{Reader: endless})
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// TestRestoreProcessKilled: the same with a process that is really killed.
func TestRestoreProcessKilled(t *testing.T) {
	t.Parallel()
	p := open(t)
	m, raw := toRestore(t, p)
	file := filepath.Join(t.TempDir(), "member.json")
	object, err := json.Marshal(m)
	if err == nil {
		err = os.WriteFile(file, object, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	agent := exec.CommandContext(t.Context(), os.Args[0], "restore half", p.dir, file)
	agent.Stderr = t.Output()
	if err = agent.Start(); err != nil {
		t.Fatal(err)
	}
	partial := filepath.Join(string(homeOf(p, m)), "data.partial")
	drivertest.Eventually(t, func() (bool, string) {
		_, missing := os.Stat(filepath.Join(partial, "data", "member", "snap", "db"))
		return missing == nil, fmt.Sprint(missing)
	})
	if err = p.driver.Data(m).Restore(t.Context(), notRead()); !errors.Is(err, supervisor.ErrHeld) {
		t.Errorf("while another agent restores it: %v", err)
	}
	if err = agent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = agent.Wait()
	drivertest.Ensure(t, p.driver, m)
	if c := restoredCondition(m); c.Status != v1alpha1.False || c.Reason != host.ReasonRestoreUnfinished || m.Status.Phase != v1alpha1.MemberPrepared {
		t.Errorf("after the kill: phase %s, %+v", m.Status.Phase, c)
	}
	restore(t, p, m, raw)
	if _, err = os.Stat(partial); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left: %v", partial, err)
	}
	runs(t, p, m)
}

// TestRestoreRefused: what is there already is left alone.
func TestRestoreRefused(t *testing.T) {
	t.Parallel()
	p := open(t)
	_, raw := drivertest.Snapshot(t, p.Harness, "source", "kept", "in a backup")
	for name, c := range map[string]struct {
		edit func(t *testing.T, p *place, m *v1alpha1.EtcdMember)
		says string
	}{
		"files in its place": {func(t *testing.T, p *place, m *v1alpha1.EtcdMember) {
			t.Helper()
			file := filepath.Join(homeOf(p, m).DataDir(), "member", "mine")
			if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, nil, 0o600)); err != nil {
				t.Fatal(err)
			}
		}, "not an etcd data directory"},
		"the data of another restore": {func(t *testing.T, p *place, m *v1alpha1.EtcdMember) {
			t.Helper()
			restore(t, p, m, raw)
			m.Spec.Bootstrap.Token = "another"
		}, "holds the data of another restore (back)"},
		"another restore not noted": {func(t *testing.T, p *place, m *v1alpha1.EtcdMember) {
			t.Helper()
			restore(t, p, m, raw)
			unnoted(t, p, m)
			m.Spec.Bootstrap.Token = "another"
		}, "was made by another restore"},
		"another member's data": {func(t *testing.T, p *place, m *v1alpha1.EtcdMember) {
			t.Helper()
			other := newMember("other")
			drivertest.PrepareRestored(t, p.driver, other)
			restore(t, p, other, raw)
			copyDir(t, homeOf(p, other).DataDir(), homeOf(p, m).DataDir())
		}, "no etcd was ever started here"},
		"a member that has joined": {func(_ *testing.T, _ *place, m *v1alpha1.EtcdMember) { m.Spec.MemberID = "abc" }, "has joined its cluster as abc"},
		"another member's home": {func(t *testing.T, p *place, m *v1alpha1.EtcdMember) {
			t.Helper()
			err := homeOf(p, m).ChangeIdentity("someone", m.Name, func(id *datadir.Identity) bool { id.MemberUID = "someone"; return true })
			if err != nil {
				t.Fatal(err)
			}
		}, "UID someone"},
		"peers without it": {func(_ *testing.T, _ *place, m *v1alpha1.EtcdMember) {
			m.Spec.Bootstrap.InitialCluster[0].Name = "else"
		}, `no peer URL for member "restored"`},
	} {
		t.Run(name, func(t *testing.T) {
			p := open(t)
			m := newMember("restored")
			drivertest.PrepareRestored(t, p.driver, m)
			c.edit(t, p, m)
			err := p.driver.Data(m).Restore(t.Context(), notRead())
			if !errors.Is(err, driver.ErrNotRestorable) || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("got %v, want %q", err, c.says)
			}
		})
	}
}

// TestRestoreNeedsTheHome: neither a home that is not prepared nor one that a
// supervisor holds is restored into; both may change.
func TestRestoreNeedsTheHome(t *testing.T) {
	t.Parallel()
	p := open(t)
	m, raw := toRestore(t, p)
	early := newMember("early")
	early.Spec.Bootstrap = m.Spec.Bootstrap
	if err := p.driver.Data(early).Restore(t.Context(), notRead()); err == nil || errors.Is(err, driver.ErrNotRestorable) || !strings.Contains(err.Error(), "not prepared") {
		t.Errorf("before it is prepared: %v", err)
	}
	lock, err := homeOf(p, m).TryLock()
	if err != nil {
		t.Fatal(err)
	}
	if err = p.driver.Data(m).Restore(t.Context(), notRead()); !errors.Is(err, supervisor.ErrHeld) || errors.Is(err, driver.ErrNotRestorable) {
		t.Errorf("while a supervisor holds it: %v", err)
	}
	if err = lock.Release(); err != nil {
		t.Fatal(err)
	}
	restore(t, p, m, raw)
	held, err := homeOf(p, m).Held()
	if err != nil || held {
		t.Errorf("the lock is kept: %t, %v", held, err)
	}
}

// TestRestoreBegunIsNeverEmpty: from the note on, no etcd is started without the data,
// even by an order that should not be there, and even without the note.
func TestRestoreBegunIsNeverEmpty(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(t *testing.T, p *place, m *v1alpha1.EtcdMember, raw []byte){
		"begun": func(t *testing.T, p *place, m *v1alpha1.EtcdMember, _ []byte) {
			t.Helper()
			if err := p.driver.Data(m).Restore(t.Context(), notRead()); err == nil {
				t.Fatal("it was restored from nothing")
			}
			// As if it had been done.
			err := homeOf(p, m).ChangeIdentity(string(m.UID), m.Name, func(id *datadir.Identity) bool { id.Restore.DoneAt = time.Now(); return true })
			if err != nil {
				t.Fatal(err)
			}
		},
		"done and all of it lost": func(t *testing.T, p *place, m *v1alpha1.EtcdMember, raw []byte) {
			t.Helper()
			restore(t, p, m, raw)
			m.Spec.Run = v1alpha1.RunRunning
			drivertest.Ensure(t, p.driver, m) // the order to run stands
			stopNow(t, p, m)
			if err := errors.Join(os.RemoveAll(homeOf(p, m).DataDir()), os.Remove(homeOf(p, m).IdentityFile())); err != nil {
				t.Fatal(err)
			}
			o, err := homeOf(p, m).ReadOrder()
			if err != nil {
				t.Fatal(err)
			}
			o.Run = v1alpha1.RunRunning
			if _, err := homeOf(p, m).WriteOrder(o); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := open(t)
			m, raw := toRestore(t, p)
			lose(t, p, m, raw)
			t.Cleanup(func() { end(t, p, m) })
			m.Spec.Run = v1alpha1.RunRunning
			drivertest.Ensure(t, p.driver, m)
			drivertest.Until(t, p.driver, m, "refused", isPhase(v1alpha1.MemberRefused))
			if c := v1alpha1.FindCondition(m.Status.Conditions, v1alpha1.ConditionDataDirectory); c.Reason != string(datadir.ReasonEmpty) || m.Status.Process != nil {
				t.Errorf("condition %+v, process %v", c, m.Status.Process)
			}
		})
	}
}

// end stops m after the test's context has ended.
func end(t *testing.T, p *place, m *v1alpha1.EtcdMember) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), drivertest.Wait)
	defer cancel()
	if _, err := p.driver.Stop(ctx, m); err != nil {
		t.Error(err)
	}
}

// binary is an etcd of another release.
type binary string

func (b binary) Path(context.Context, v1alpha1.ReleaseRef) (string, error) { return string(b), nil }

// TestOlderEtcdRestored: etcds of each minor version begin on a restored
// directory with the flags that it gets.
func TestOlderEtcdRestored(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"3.5.35", "3.6.16"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			p := open(t)
			p.opts.Releases = binary(etcdlab.Older(t, version))
			p.reopen(t)
			p.Member = func(name string) *v1alpha1.EtcdMember {
				m := newMember(name)
				m.Spec.Release.Version = version
				return m
			}
			_, raw := drivertest.Snapshot(t, p.Harness, "source", "kept", "in a backup")
			m := p.Member("restored")
			drivertest.PrepareRestored(t, p.driver, m)
			restore(t, p, m, raw)
			runs(t, p, m)
			pool := etcd.NewPool()
			defer pool.Close() //nolint:errcheck // the test is over
			s, err := pool.Status(t.Context(), etcd.Target{Endpoint: m.Status.ClientURL})
			if err != nil || s.Version != version {
				t.Errorf("etcd %s answers, %v", s.Version, err)
			}
			o, err := homeOf(p, m).ReadOrder()
			if err != nil || !strings.Contains(strings.Join(o.Args, " "), "--initial-cluster-state=existing") {
				t.Errorf("started with %v, %v", o, err)
			}
		})
	}
}
