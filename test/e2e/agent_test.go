package e2e_test

import (
	"context"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quorate/quorate/agent"
	"github.com/quorate/quorate/api/schema"
	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/internal/process"
	"github.com/quorate/quorate/internal/version"
	"github.com/quorate/quorate/store"
)

// runAgent runs the lab's host under a real agent until the test ends.
func (l *lab) runAgent() {
	ctx, stop := context.WithCancel(l.t.Context())
	a := agent.New(agent.Options{
		Host: "h", Spec: v1alpha1.EtcdHostSpec{Address: "127.0.0.1"}, Store: l.store, Recorder: l.store, Driver: l.driver, Logger: l.log,
	})
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	l.t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			l.t.Errorf("agent: %v", err)
		}
	})
}

func (l *lab) form(ctx context.Context) {
	l.t.Helper()
	check := false
	c := &v1alpha1.EtcdCluster{Spec: v1alpha1.EtcdClusterSpec{Version: version.Etcd(), Replicas: 3}}
	c.Namespace, c.Name = labKey.Namespace, labKey.Name
	c.Spec.Etcd.InitialCorruptCheck = &check
	v1alpha1.SetType(c, v1alpha1.KindCluster.Kind, v1alpha1.KindCluster.APIVersion)
	must(l.t, schema.Default(c))
	must(l.t, l.store.Create(ctx, c))
	const never = 1 << 40
	if l.runCluster(ctx, never, func() bool { return l.running(ctx) }); ctx.Err() != nil {
		l.t.Fatal("the cluster was not formed in time")
	}
}

func (l *lab) member(ctx context.Context, name string) *v1alpha1.EtcdMember {
	l.t.Helper()
	m := &v1alpha1.EtcdMember{}
	must(l.t, l.store.Get(ctx, store.Key{Namespace: labKey.Namespace, Name: name}, m))
	return m
}

// eventually asks until what holds, and fails the test with what it last said.
func eventually(ctx context.Context, t *testing.T, what func() (bool, string)) {
	t.Helper()
	for {
		ok, said := what()
		if ok {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatal(said)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// TestAgentHoldsRestartBack: a restart that was ordered while all were healthy is
// held back by the agent when another member has stopped answering since, and is
// carried out when it answers again.
func TestAgentHoldsRestartBack(t *testing.T) {
	l := newLab(t)
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	l.runAgent()
	l.form(ctx)

	frozen, err := process.Identify(int(l.member(ctx, "lab-2").Status.Process.PID))
	must(t, err)
	must(t, frozen.Signal(syscall.SIGSTOP))
	thaw := func() error { return frozen.Signal(syscall.SIGCONT) }
	defer func() { _ = thaw() }()

	before := l.member(ctx, "lab-1").Status.Process.PID
	must(t, store.Mutate(ctx, l.store, store.Key{Namespace: labKey.Namespace, Name: "lab-1"}, &v1alpha1.EtcdMember{}, func(m *v1alpha1.EtcdMember) (bool, error) {
		m.Spec.Etcd.SnapshotCount++
		return true, nil
	}))
	eventually(ctx, t, func() (bool, string) {
		m := l.member(ctx, "lab-1")
		if m.Status.Process == nil || m.Status.Process.PID != before {
			t.Fatalf("the restart was not held back: %+v", m.Status)
		}
		return strings.Contains(m.Status.Message, "held back"), "it does not say that the restart is held back: " + m.Status.Message
	})
	must(t, thaw())
	eventually(ctx, t, func() (bool, string) {
		m := l.member(ctx, "lab-1")
		p := m.Status.Process
		return p != nil && p.PID != before && p.ConfigHash == v1alpha1.MemberConfigHash(&m.Spec), "not restarted: " + m.Status.Message
	})
}

// TestUndeclaredMember: a member whose object is lost is reported, and never touched.
func TestUndeclaredMember(t *testing.T) {
	l := newLab(t)
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	l.runAgent()
	l.form(ctx)

	lost := l.member(ctx, "lab-3")
	id, err := process.Identify(int(lost.Status.Process.PID))
	must(t, err)
	// As a store would lose it that was restored from before it was made.
	must(t, store.Mutate(ctx, l.store, store.KeyOf(lost), &v1alpha1.EtcdMember{}, func(m *v1alpha1.EtcdMember) (bool, error) {
		return v1alpha1.RemoveFinalizer(m, v1alpha1.FinalizerMember), nil
	}))
	must(t, l.store.Delete(ctx, v1alpha1.KindMember, store.KeyOf(lost), store.Preconditions{UID: lost.UID}))
	eventually(ctx, t, func() (bool, string) {
		h := &v1alpha1.EtcdHost{}
		must(t, l.store.Get(ctx, store.Key{Name: "h"}, h))
		for _, u := range h.Status.Undeclared {
			if u.UID == string(lost.UID) && u.PID == int64(id.PID) && len(h.Status.Undeclared) == 1 {
				return true, ""
			}
		}
		return false, "the host does not report the member that lost its object"
	})
	if !id.Alive() {
		t.Error("the etcd of a member without an object was stopped")
	}
}
