package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/driver"
	"github.com/quorate/quorate/fleet"
	"github.com/quorate/quorate/store"
)

// bench is a host whose driver restores as a test says, and its controller. It lives in
// a bubble of synctest: waits take no time.
type bench struct {
	driver.Driver
	t       *testing.T
	store   *memStore
	control *fleet.MemberController
	// end ends the controller, and returns when Run has.
	end func()
	// attempt is what a restore does; snapshot what it reads.
	attempt  func(ctx context.Context, m *v1alpha1.EtcdMember, from driver.Snapshot) error
	snapshot func(ctx context.Context) (io.ReadCloser, int64, error)
	// unprepared members can't be started.
	unprepared bool

	mu       sync.Mutex
	restored map[v1alpha1.UID]bool
	active   map[v1alpha1.UID]int
	most     int
	attempts []time.Time
	acts     []string
	events   []store.Event
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, store: newMemStore(), restored: map[v1alpha1.UID]bool{}, active: map[v1alpha1.UID]int{}}
	b.attempt = func(_ context.Context, _ *v1alpha1.EtcdMember, from driver.Snapshot) error { return readAll(from) }
	b.snapshot = func(context.Context) (io.ReadCloser, int64, error) {
		return io.NopCloser(strings.NewReader("data")), 4, nil
	}
	b.control = fleet.NewMemberController(fleet.MemberOptions{
		Store: b.store, Driver: b, Recorder: b, Source: "agent/h", Host: "h",
		Snapshots: func(ctx context.Context, _ *v1alpha1.EtcdMember) (io.ReadCloser, int64, error) {
			b.mu.Lock()
			snapshot := b.snapshot
			b.mu.Unlock()
			return snapshot(ctx)
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() { b.control.Run(ctx) })
	b.end = func() { cancel(); run.Wait() }
	synctest.Wait()
	return b
}

func readAll(from driver.Snapshot) error {
	buf, done := make([]byte, 10<<20), int64(0)
	for {
		n, err := from.Reader.Read(buf)
		done += int64(n)
		if n > 0 {
			from.Progress(done)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// member stores one that is to be restored.
func (b *bench) member(name string) *v1alpha1.EtcdMember {
	m := &v1alpha1.EtcdMember{}
	m.Namespace, m.Name, m.Finalizers = "default", name, []string{v1alpha1.FinalizerMember}
	m.Spec.ClusterName, m.Spec.Host, m.Spec.Run, m.Spec.RestoreName = "c", "h", v1alpha1.RunPrepared, "back"
	m.Spec.Bootstrap = &v1alpha1.Bootstrap{State: v1alpha1.BootstrapRestored, Token: "t", InitialCluster: []v1alpha1.Peer{{Name: name, URL: "http://127.0.0.1:1"}}}
	if err := b.store.Create(b.t.Context(), m); err != nil {
		b.t.Fatal(err)
	}
	return m
}

// look reconciles the member and returns what stands in its object then.
func (b *bench) look(m *v1alpha1.EtcdMember) (*v1alpha1.EtcdMember, error) {
	b.t.Helper()
	synctest.Wait()
	_, err := b.control.Reconcile(b.t.Context(), store.KeyOf(m))
	synctest.Wait()
	got := &v1alpha1.EtcdMember{}
	if getErr := b.store.get(store.KeyOf(m), got); getErr != nil && !errors.Is(getErr, store.ErrNotFound) {
		b.t.Fatal(getErr)
	}
	return got, err
}

// status is look's, where that must succeed.
func (b *bench) status(m *v1alpha1.EtcdMember) v1alpha1.EtcdMemberStatus {
	b.t.Helper()
	got, err := b.look(m)
	if err != nil {
		b.t.Fatal(err)
	}
	return got.Status
}

func (b *bench) edit(m *v1alpha1.EtcdMember, change func(*v1alpha1.EtcdMember)) {
	b.t.Helper()
	err := store.Mutate(b.t.Context(), b.store, store.KeyOf(m), &v1alpha1.EtcdMember{}, func(o *v1alpha1.EtcdMember) (bool, error) {
		change(o)
		return true, nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

// reads changes what restores read from now on.
func (b *bench) reads(snapshot func(ctx context.Context) (io.ReadCloser, int64, error)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.snapshot = snapshot
}

// restores changes what they do from now on.
func (b *bench) restores(attempt func(ctx context.Context, m *v1alpha1.EtcdMember, from driver.Snapshot) error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.attempt = attempt
}

// tried are the times of the attempts.
func (b *bench) tried() []time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.attempts)
}

// done are the acts.
func (b *bench) done() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.acts)
}

func (b *bench) act(what string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.acts = append(b.acts, what)
}

func (b *bench) Record(_ context.Context, e store.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.events = append(b.events, e)
}

// told are the events with that reason.
func (b *bench) told(reason string) (messages []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.events {
		if e.Reason == reason {
			messages = append(messages, e.Message)
		}
	}
	return messages
}

func (b *bench) Observe(_ context.Context, m *v1alpha1.EtcdMember) (v1alpha1.EtcdMemberStatus, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := v1alpha1.EtcdMemberStatus{Phase: v1alpha1.MemberPrepared, Conditions: slices.Clone(m.Status.Conditions)}
	say := func(kind string, yes bool) {
		c := v1alpha1.Condition{Type: kind, Status: v1alpha1.False, Reason: "No"}
		if yes {
			c.Status, c.Reason = v1alpha1.True, "Yes"
		}
		v1alpha1.SetCondition(&s.Conditions, c)
	}
	say(v1alpha1.ConditionPrepared, !b.unprepared)
	say(v1alpha1.ConditionRestored, b.restored[m.UID])
	return s, nil
}

func (b *bench) Ensure(ctx context.Context, m *v1alpha1.EtcdMember) (v1alpha1.EtcdMemberStatus, error) {
	return b.Observe(ctx, m)
}

// Stop must not be called while the member is restored.
func (b *bench) Stop(_ context.Context, m *v1alpha1.EtcdMember) (v1alpha1.StopProof, error) {
	b.act("stop " + m.Name)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.active[m.UID] > 0 {
		b.t.Errorf("%s is stopped while it is restored", m.Name)
	}
	return v1alpha1.StopProof{Evidence: "never started"}, nil
}

func (b *bench) Data(m *v1alpha1.EtcdMember) driver.Data { return benchData{b, m} }

type benchData struct {
	*bench
	member *v1alpha1.EtcdMember
}

func (d benchData) Retire(context.Context) (string, error) {
	d.act("retire " + d.member.Name)
	return "", nil
}

func (d benchData) Restore(ctx context.Context, from driver.Snapshot) error {
	uid := d.member.UID
	d.mu.Lock()
	d.attempts = append(d.attempts, time.Now())
	d.active[uid]++
	sum := 0
	for _, n := range d.active {
		sum += n
	}
	d.most = max(d.most, sum)
	if d.active[uid] > 1 {
		d.t.Errorf("%s is restored twice at once", d.member.Name)
	}
	attempt := d.attempt
	d.mu.Unlock()
	err := attempt(ctx, d.member, from)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.active[uid]--
	d.restored[uid] = err == nil
	return err
}

func restoredOf(s v1alpha1.EtcdMemberStatus) v1alpha1.Condition {
	if c := v1alpha1.FindCondition(s.Conditions, v1alpha1.ConditionRestored); c != nil {
		return *c
	}
	return v1alpha1.Condition{}
}

// TestMemberRestored: the restore goes on beside the reconciliations, which tell how far
// it is, and not too often.
func TestMemberRestored(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.end()
		out, in := io.Pipe()
		const size = 100 << 20
		b.reads(func(context.Context) (io.ReadCloser, int64, error) { return out, size, nil })
		m := b.member("a")
		b.status(m)
		if s := b.status(m); s.Phase != v1alpha1.MemberRestoring || s.Message != "restored 0 % of 100 MiB" || restoredOf(s).Reason != fleet.ReasonRestoring {
			t.Fatalf("at first: %+v", s)
		}
		piece := make([]byte, 1<<20)
		for done := range 100 {
			version := b.store.rv
			if _, err := in.Write(piece); err != nil {
				t.Fatal(err)
			}
			s := b.status(m)
			b.status(m)
			if b.store.rv > version+1 {
				t.Errorf("after %d MiB: %d writes of the status", done+1, b.store.rv-version)
			}
			if done < 15 && s.Message != "restored 0 % of 100 MiB" {
				t.Errorf("told before 2 s had passed: %q", s.Message)
			}
			time.Sleep(130 * time.Millisecond)
		}
		s := b.status(m)
		if !strings.HasPrefix(s.Message, "restored ") || s.Message == "restored 0 % of 100 MiB" || b.store.rv > 15 {
			t.Errorf("at last %q, after %d writes", s.Message, b.store.rv)
		}
		if err := in.Close(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if s = b.status(m); restoredOf(s).Status != v1alpha1.True || s.Phase != v1alpha1.MemberPrepared || s.Message != "" {
			t.Errorf("done: %+v", s)
		}
		b.status(m)
		if started, done := b.told("RestoreStarted"), b.told("RestoreCompleted"); len(started) != 1 || len(done) != 1 || len(b.tried()) != 1 ||
			started[0] != "its data is being made from EtcdRestore back (100 MiB)" ||
			done[0] != "its data was made from EtcdRestore back: 100 MiB in 13s (7.7 MiB/s)" {
			t.Errorf("%d attempts; told %q and %q", len(b.tried()), started, done)
		}
	})
}

// TestMemberRestoreEndsBetweenLooks: one that ended just after the member was observed
// is not begun anew.
func TestMemberRestoreEndsBetweenLooks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.end()
		m := b.member("a")
		b.status(m)
		b.mu.Lock()
		b.restored[m.UID] = false // as it was observed
		b.mu.Unlock()
		if s := b.status(m); s.Phase != v1alpha1.MemberRestoring {
			t.Errorf("looked at: %+v", s)
		}
		b.mu.Lock()
		b.restored[m.UID] = true
		b.mu.Unlock()
		if s := b.status(m); restoredOf(s).Status != v1alpha1.True || len(b.tried()) != 1 {
			t.Errorf("%d attempts; %+v", len(b.tried()), s)
		}
	})
}

// TestMemberRestoreFails: the cause is told, and once as an event; it is tried again
// after 2 s to a minute.
func TestMemberRestoreFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.end()
		tries := 0
		b.restores(func(_ context.Context, _ *v1alpha1.EtcdMember, from driver.Snapshot) error {
			tries++
			switch n := tries; {
			case n < 4:
				return fmt.Errorf("it broke off after %d bytes", n*1000)
			case n < 9:
				return errors.New("the disk is full: make room on it")
			}
			return readAll(from)
		})
		m := b.member("a")
		begun := time.Now()
		b.status(m)
		s := b.status(m)
		want := "it broke off after 1000 bytes; it is tried again at " + begun.Add(2*time.Second).UTC().Format(time.RFC3339)
		if c := restoredOf(s); c.Status != v1alpha1.False || c.Reason != fleet.ReasonRestoreFailed || c.Message != want || s.Message != want || s.Phase != v1alpha1.MemberRestoring {
			t.Errorf("failed: %+v", s)
		}
		for restoredOf(b.status(m)).Status != v1alpha1.True {
			time.Sleep(100 * time.Millisecond)
		}
		var waits []time.Duration
		tried := b.tried()
		for i := range tried[1:] {
			waits = append(waits, tried[i+1].Sub(tried[i])/time.Second)
		}
		if fmt.Sprint(waits) != fmt.Sprint([]time.Duration{2, 4, 8, 16, 32, 60, 60, 60}) {
			t.Errorf("tried again after %v s", waits)
		}
		failed := b.told("RestoreFailed")
		if len(failed) != 2 || !strings.Contains(failed[0], "1000 bytes") || !strings.Contains(failed[1], "disk is full") || len(b.told("RestoreStarted")) != 1 {
			t.Errorf("told %q", failed)
		}
	})
}

// TestMemberRestoreCantBeRead: what the server refuses is the cause.
func TestMemberRestoreCantBeRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.end()
		b.reads(func(context.Context) (io.ReadCloser, int64, error) {
			return nil, 0, fmt.Errorf("the store is away: %w", store.ErrUnavailable)
		})
		m := b.member("a")
		b.status(m)
		if c := restoredOf(b.status(m)); c.Reason != fleet.ReasonRestoreFailed || !strings.HasPrefix(c.Message, "EtcdRestore back can't be read: the store is away") {
			t.Errorf("%+v", c)
		}
		b.reads(func(ctx context.Context) (io.ReadCloser, int64, error) { return silent(ctx), 4, nil })
		time.Sleep(2 * time.Second)
		synctest.Wait()
		begun := time.Now()
		for !strings.Contains(restoredOf(b.status(m)).Message, "gave no byte") {
			if time.Since(begun) > 3*time.Minute {
				t.Fatalf("a silent snapshot: %+v", restoredOf(b.status(m)))
			}
			time.Sleep(time.Second)
		}
	})
}

// silent is a body that gives nothing until ctx ends.
func silent(ctx context.Context) io.ReadCloser {
	out, in := io.Pipe()
	context.AfterFunc(ctx, func() { _ = in.CloseWithError(ctx.Err()) })
	return out
}

// TestMemberRestoreTurns: two at once, and the others when one of them has ended.
func TestMemberRestoreTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.end()
		goOn := make(chan struct{})
		b.restores(func(context.Context, *v1alpha1.EtcdMember, driver.Snapshot) error { <-goOn; return nil })
		var all []*v1alpha1.EtcdMember
		for i := range 5 {
			all = append(all, b.member(fmt.Sprintf("m-%d", i)))
			b.status(all[i])
		}
		waiting := 0
		for _, m := range all {
			if s := b.status(m); strings.Contains(s.Message, "waits for its turn") && s.Phase == v1alpha1.MemberRestoring {
				waiting++
			}
		}
		if waiting != 3 || len(b.tried()) != 2 {
			t.Errorf("%d wait, %d attempts", waiting, len(b.tried()))
		}
		close(goOn)
		for _, m := range all {
			if s := b.status(m); restoredOf(s).Status != v1alpha1.True {
				t.Errorf("%s: %+v", m.Name, s)
			}
		}
		if b.most != 2 {
			t.Errorf("%d at once", b.most)
		}
	})
}

// TestMemberRestoreIsCancelled: nothing else is done to a member before its restore has
// ended.
func TestMemberRestoreIsCancelled(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(b *bench, m *v1alpha1.EtcdMember)
		acts   []string
		again  bool
	}{
		"stopped": {func(b *bench, m *v1alpha1.EtcdMember) {
			b.edit(m, func(m *v1alpha1.EtcdMember) { m.Spec.Run = v1alpha1.RunStopped })
		}, []string{"stop a"}, false},
		"deleted": {func(b *bench, m *v1alpha1.EtcdMember) {
			if err := b.store.Delete(b.t.Context(), v1alpha1.KindMember, store.KeyOf(m), store.Preconditions{UID: m.UID}); err != nil {
				b.t.Fatal(err)
			}
		}, []string{"stop a", "retire a"}, false},
		"gone": {func(b *bench, m *v1alpha1.EtcdMember) {
			delete(b.store.objects, id(v1alpha1.KindMember, store.KeyOf(m)))
		}, nil, false},
		"held": {func(b *bench, m *v1alpha1.EtcdMember) {
			b.edit(m, func(m *v1alpha1.EtcdMember) { m.Annotations = map[string]string{v1alpha1.AnnotationRestored: "2"} })
		}, nil, false},
		"another token": {func(b *bench, m *v1alpha1.EtcdMember) {
			b.edit(m, func(m *v1alpha1.EtcdMember) { m.Spec.Bootstrap.Token = "u" })
		}, nil, true},
		"another member of that name": {func(b *bench, m *v1alpha1.EtcdMember) {
			delete(b.store.objects, id(v1alpha1.KindMember, store.KeyOf(m)))
			b.member(m.Name)
		}, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				defer b.end()
				b.restores(func(ctx context.Context, _ *v1alpha1.EtcdMember, _ driver.Snapshot) error {
					<-ctx.Done()
					time.Sleep(time.Second) // what is left is removed
					b.act("restore ended")
					return ctx.Err()
				})
				m := b.member("a")
				b.status(m)
				c.change(b, m)
				if _, err := b.look(m); err != nil {
					t.Fatal(err)
				}
				if want := append([]string{"restore ended"}, c.acts...); !slices.Equal(b.done(), want) {
					t.Errorf("done: %q, want %q", b.done(), want)
				}
				if again := len(b.tried()) == 2; again != c.again {
					t.Errorf("%d attempts", len(b.tried()))
				}
				if failed := b.told("RestoreFailed"); len(failed) > 0 {
					t.Errorf("told %q", failed)
				}
			})
		})
	}
}

// TestMemberRestoreEndsSlowly: a worker does not wait for long, and nothing is done to
// the member meanwhile.
func TestMemberRestoreEndsSlowly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.end()
		b.restores(func(ctx context.Context, _ *v1alpha1.EtcdMember, _ driver.Snapshot) error {
			<-ctx.Done()
			time.Sleep(30 * time.Second)
			return ctx.Err()
		})
		m := b.member("a")
		b.status(m)
		b.edit(m, func(m *v1alpha1.EtcdMember) { m.Spec.Run = v1alpha1.RunStopped })
		begun := time.Now()
		if _, err := b.look(m); !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) > 10*time.Second || len(b.done()) > 0 {
			t.Errorf("after %s: %v; done: %q", time.Since(begun), err, b.done())
		}
		time.Sleep(30 * time.Second)
		b.status(m)
		if !slices.Equal(b.done(), []string{"stop a"}) {
			t.Errorf("done: %q", b.done())
		}
	})
}

// TestMemberRestoreEndsWithRun: Run returns once the last restore has ended.
func TestMemberRestoreEndsWithRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.restores(func(ctx context.Context, _ *v1alpha1.EtcdMember, _ driver.Snapshot) error {
			<-ctx.Done()
			time.Sleep(time.Second)
			b.act("restore ended")
			return ctx.Err()
		})
		m := b.member("a")
		b.status(m)
		b.end()
		if !slices.Equal(b.done(), []string{"restore ended"}) {
			t.Errorf("when Run has returned: %q", b.done())
		}
		if s := b.status(m); len(b.tried()) != 1 || restoredOf(s).Status != v1alpha1.False {
			t.Errorf("%d attempts; %+v", len(b.tried()), s)
		}
	})
}

// TestMemberNotRestored: only members that are prepared, formed from a backup and not
// restored yet.
func TestMemberNotRestored(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(b *bench, m *v1alpha1.EtcdMember){
		"not prepared":   func(b *bench, _ *v1alpha1.EtcdMember) { b.unprepared = true },
		"restored":       func(b *bench, m *v1alpha1.EtcdMember) { b.restored[m.UID] = true },
		"a new cluster":  func(_ *bench, m *v1alpha1.EtcdMember) { m.Spec.Bootstrap.State = v1alpha1.BootstrapNew },
		"no bootstrap":   func(_ *bench, m *v1alpha1.EtcdMember) { m.Spec.Bootstrap = nil },
		"to run":         func(_ *bench, m *v1alpha1.EtcdMember) { m.Spec.Run = v1alpha1.RunRunning },
		"on other hosts": func(_ *bench, m *v1alpha1.EtcdMember) { m.Spec.Host = "else" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				defer b.end()
				m := b.member("a")
				b.edit(m, func(m *v1alpha1.EtcdMember) { change(b, m) })
				for range 3 {
					if s := b.status(m); s.Phase == v1alpha1.MemberRestoring {
						t.Errorf("%+v", s)
					}
				}
				if len(b.tried()) > 0 || len(b.told("RestoreStarted")) > 0 {
					t.Error("it was restored")
				}
			})
		})
	}
}
