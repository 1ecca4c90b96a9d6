package fleet_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/fleet"
	"github.com/quorate/quorate/store"
)

// TestHostMadeAnew: a host that is deleted and made again under its name is found ready at
// once, and not after what was written to the one before has grown old.
func TestHostMadeAnew(t *testing.T) {
	w := newWorld(1, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	now := time.Unix(1000, 0)
	c := &fleet.HostController{
		Store: w.store, Recorder: w, Logger: slog.New(slog.DiscardHandler),
		LastSeen: func(string) time.Time { return now }, Now: func() time.Time { return now },
	}
	changed := make(chan store.Key)
	defer close(changed)
	keys := c.Anew(func(context.Context) <-chan store.Key { return changed })(ctx)
	ready := func() bool {
		key := store.Key{Name: "again"}
		changed <- key
		if _, err := c.Reconcile(ctx, <-keys); err != nil {
			t.Fatal(err)
		}
		h := &v1alpha1.EtcdHost{}
		if err := w.store.get(key, h); err != nil {
			t.Fatal(err)
		}
		return v1alpha1.IsTrue(h.Status.Conditions, v1alpha1.ConditionReady)
	}
	for range 2 {
		h := &v1alpha1.EtcdHost{Spec: v1alpha1.EtcdHostSpec{Address: "10.0.0.1"}}
		h.Name, h.Status.Platform = "again", "linux/amd64"
		if err := w.store.Create(ctx, h); err != nil {
			t.Fatal(err)
		}
		if !ready() {
			t.Fatal("its agent reports, and it is not ready")
		}
		if err := w.store.Delete(ctx, v1alpha1.KindHost, store.KeyOf(h), store.Preconditions{UID: h.UID}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestServerRestartIsNoNewsOfHosts: a server that was just started waits for the agents
// before it says that they are silent, of those that were ready when it went down.
func TestServerRestartIsNoNewsOfHosts(t *testing.T) {
	w := newWorld(1, 1)
	now := time.Unix(1000, 0)
	seen := now
	start := func() *fleet.HostController {
		return &fleet.HostController{
			Store: w.store, Recorder: w, Logger: slog.New(slog.DiscardHandler),
			LastSeen: func(string) time.Time { return seen }, Now: func() time.Time { return now },
		}
	}
	h := &v1alpha1.EtcdHost{Spec: v1alpha1.EtcdHostSpec{Address: "10.0.0.1"}}
	h.Name, h.Status.Platform = "again", "linux/amd64"
	if err := w.store.Create(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	reason := func(c *fleet.HostController) string {
		t.Helper()
		key := store.Key{Name: "again"}
		if _, err := c.Reconcile(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		got := &v1alpha1.EtcdHost{}
		if err := w.store.get(key, got); err != nil {
			t.Fatal(err)
		}
		return v1alpha1.FindCondition(got.Status.Conditions, v1alpha1.ConditionReady).Reason
	}
	if got := reason(start()); got != "AgentReports" {
		t.Fatal(got)
	}
	seen = time.Time{}
	c := start()
	if got := reason(c); got != fleet.ReasonAgentAwaited {
		t.Fatalf("just after the start: %s", got)
	}
	now = now.Add(fleet.HostPatience + time.Second)
	if got := reason(c); got != "AgentSilent" {
		t.Fatalf("after its patience: %s", got)
	}
	if got := reason(start()); got != "AgentSilent" {
		t.Fatalf("one that was silent before the start: %s", got)
	}
}
