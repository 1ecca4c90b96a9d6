package e2e_test

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/agent"
	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
)

// captured is a channel that gives the agent's answers to the test.
type captured chan agent.Answer

func (c captured) Serve(ctx context.Context, _ string, answer agent.Answer) error {
	c <- answer
	<-ctx.Done()
	return ctx.Err()
}

// TestAnswers: the agent reads the metrics of a real etcd, and kills it where that is
// allowed; its supervisor starts it again.
func TestAnswers(t *testing.T) {
	l := newLab(t)
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	channel := make(captured, 1)
	a := agent.New(agent.Options{
		Host: "h", Spec: v1alpha1.EtcdHostSpec{Address: "127.0.0.1"}, Store: l.store, Recorder: l.store, Driver: l.driver, Logger: l.log,
		Channel: channel, AllowFaults: true,
	})
	running, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(running) }()
	defer func() {
		stop()
		must(t, <-done)
	}()
	l.form(ctx)
	h := &v1alpha1.EtcdHost{}
	must(t, l.store.Get(ctx, store.Key{Name: "h"}, h))
	if !h.Status.FaultsAllowed {
		t.Error("the host does not say that faults are allowed")
	}
	answer := <-channel
	before := l.member(ctx, "lab-1")
	ask := func(action agent.Action) string {
		t.Helper()
		r, err := answer(ctx, agent.Request{Action: action, Member: store.KeyOf(before), UID: before.UID})
		must(t, err)
		text, err := io.ReadAll(r)
		must(t, err)
		must(t, r.Close())
		return string(text)
	}
	if text := ask(agent.ReadMetrics); !strings.Contains(text, "\netcd_server_has_leader 1\n") || !strings.Contains(text, "etcd_disk_wal_fsync_duration_seconds_bucket") {
		t.Fatalf("the metrics are %.300s", text)
	}
	ask(agent.Kill)
	eventually(ctx, t, func() (bool, string) {
		m := l.member(ctx, "lab-1")
		return m.Status.Process != nil && m.Status.Process.PID != before.Status.Process.PID && m.Status.Process.Crashes == before.Status.Process.Crashes+1,
			"not started again: " + m.Status.Message
	})
}
