package app

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quorate/quorate/api/schema"
	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/backup"
	"github.com/quorate/quorate/internal/version"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/test/etcdlab"
)

// follower runs a policy of a file on a real etcd, by a clock of its own.
type follower struct {
	t   *testing.T
	dir string
	f   *BackupFile
	// stop ends Run, and returns its error.
	stop func() error

	mu     sync.Mutex
	ahead  time.Duration
	events []store.Event
}

func (f *follower) now() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return time.Now().Add(f.ahead)
}

// advance sets the clock, and has the policy looked at, as it is within a minute anyway.
func (f *follower) advance(d time.Duration) {
	f.t.Helper()
	f.mu.Lock()
	f.ahead += d
	f.mu.Unlock()
	err := store.Mutate(f.t.Context(), f.f.store, store.KeyOf(f.f.policies[0]), &v1alpha1.EtcdBackupPolicy{}, func(p *v1alpha1.EtcdBackupPolicy) (bool, error) {
		p.Labels = map[string]string{"ahead": strings.ToLower(f.ahead.String())}
		return true, nil
	})
	if err != nil {
		f.t.Fatal(err)
	}
}

// told counts the events with a reason.
func (f *follower) told(reason string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for i := range f.events {
		if f.events[i].Reason == reason {
			n++
		}
	}
	return n
}

func (f *follower) await(what string, ok func() bool) {
	f.t.Helper()
	for deadline := time.Now().Add(etcdlab.Patience); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.t.Fatalf("never: %s; there was %+v", what, f.events)
		}
	}
}

func (f *follower) policy() *v1alpha1.EtcdBackupPolicy {
	f.t.Helper()
	p := &v1alpha1.EtcdBackupPolicy{}
	if err := f.f.store.Get(f.t.Context(), store.KeyOf(f.f.policies[0]), p); err != nil {
		f.t.Fatal(err)
	}
	return p
}

const hourlyPolicy = `
apiVersion: quorate.io/v1alpha1
kind: EtcdBackupPolicy
metadata: {name: hourly, namespace: default}
spec:
  clusterName: prod
  schedule: {interval: 1h}
  destinations: [{name: near, url: "file://DIR"}]
  retention: {keepLast: 2}
---
apiVersion: quorate.io/v1alpha1
kind: EtcdCluster
metadata: {name: prod, namespace: default}
spec:
  management: Observe
  replicas: 1
  import: {endpoints: ["URL"], maintain: [Backup]}
`

// open reads the objects as the command does.
func (f *follower) open(text string) *BackupFile {
	f.t.Helper()
	docs, err := schema.Decode(f.t.Context(), []byte(text))
	if err != nil {
		f.t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		f.t.Fatal(err)
	}
	o := BackupFileOptions{
		SpoolDir: f.dir, Etcds: []backup.EtcdCommand{{Path: self, Version: version.Etcd()}}, Logger: slog.New(slog.DiscardHandler), Now: f.now,
		Event: func(e store.Event) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.events = append(f.events, e)
		},
	}
	for _, d := range docs {
		o.Objects = append(o.Objects, d.Object)
	}
	opened, err := OpenBackupFile(f.t.Context(), o)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = opened.Close() })
	return opened
}

// start is a new process: what the one before knew is gone.
func (f *follower) start(text string) {
	f.t.Helper()
	f.f, f.events = f.open(text), nil
	if err := f.f.Lock(); err != nil {
		f.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(f.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.f.Run(ctx) }()
	f.stop = func() error {
		cancel()
		return errors.Join(<-ended, f.f.Close())
	}
}

// TestFollowBackupFile: backups are taken when they are due, and what the store holds is
// not taken again by the next process.
func TestFollowBackupFile(t *testing.T) {
	lab := etcdlab.New(t, etcdlab.Options{}).Ready()
	f := &follower{t: t, dir: t.TempDir()}
	text := strings.NewReplacer("DIR", t.TempDir(), "URL", lab.Members[0].Client).Replace(hourlyPolicy)

	f.start(text)
	f.await("the first backup", func() bool { return f.told("BackupVerified") == 1 && f.policy().Status.NextRunAt != nil })
	next := f.policy().Status.NextRunAt
	if in := next.Sub(f.now()); in <= 0 || in > 90*time.Minute {
		t.Errorf("the next one is due in %s", in)
	}
	if err := f.open(text).Lock(); !errors.Is(err, store.ErrForbidden) || !strings.Contains(err.Error(), "follows policy default/hourly for cluster default/prod already") {
		t.Errorf("a second process may follow it too: %v", err)
	}
	if err := f.stop(); err != nil {
		t.Error(err)
	}

	// The moments of a cluster are the same for every process.
	f.start(text)
	f.await("a look at the policy", func() bool { return f.policy().Status.NextRunAt != nil })
	if again := f.policy().Status.NextRunAt; !again.Equal(next) || f.told("BackupBegun") != 0 {
		t.Errorf("after a restart the next one is due at %s, and was at %s; %d were taken", again, next, f.told("BackupBegun"))
	}
	for n := 1; n <= 2; n++ {
		f.advance(2 * time.Hour)
		f.await("a backup that is due", func() bool { return f.told("BackupVerified") == n })
	}
	f.await("pruning", func() bool { return f.told("BackupsPruned") == 1 })
	if err := f.stop(); err != nil {
		t.Error(err)
	}
	outlook, err := f.open(text).Outlook(t.Context())
	if err != nil || len(outlook) != 1 || len(outlook[0].Clusters) != 1 {
		t.Fatalf("%+v, %v", outlook, err)
	}
	if d := outlook[0].Clusters[0].Destinations[0]; d.Holdings.Points != 2 || d.Holdings.Proven == nil || d.Problem != "" {
		t.Errorf("the store has %+v", d)
	}
}

// TestProofGoesOn: what was stored and not proven is proven by the next process, and not
// taken again.
func TestProofGoesOn(t *testing.T) {
	lab := etcdlab.New(t, etcdlab.Options{}).Ready()
	f := &follower{t: t, dir: t.TempDir()}
	text := strings.NewReplacer("DIR", t.TempDir(), "URL", lab.Members[0].Client).Replace(hourlyPolicy)

	f.start(strings.Replace(text, "  schedule:", "  proof: {mode: Never, reason: the test proves it later}\n  schedule:", 1))
	f.await("a backup", func() bool { return f.told("BackupTaken") == 1 })
	if err := f.stop(); err != nil {
		t.Error(err)
	}
	f.start(text)
	f.await("its proof", func() bool { return f.told("BackupVerified") == 1 && f.told("AllProven") == 1 })
	if n := f.told("BackupBegun"); n != 0 {
		t.Errorf("%d backups were taken", n)
	}
	if err := f.stop(); err != nil {
		t.Error(err)
	}
	f.start(text)
	f.await("a look at the policy", func() bool { return f.told("AllProven") == 1 })
	if n := f.told("BackupVerified") + f.told("BackupBegun"); n != 0 {
		t.Error("it was proven again")
	}
	if err := f.stop(); err != nil {
		t.Error(err)
	}
}
