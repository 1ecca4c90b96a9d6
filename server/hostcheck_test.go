package server_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/server"
	"github.com/quorate/quorate/server/servertest"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
)

// TestCheckHost: the agent of the host is asked, with the peers that were given, and
// its answer comes back.
func TestCheckHost(t *testing.T) {
	f := servertest.New(t, nil)
	f.Create(t, servertest.Host("h1"))
	ctx := t.Context()
	admin := f.Client(t, server.RoleAdmin, "", remote.Options{})
	if _, err := admin.CheckHost(ctx, "h1", nil); !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "no agent is connected") {
		t.Errorf("without an agent: %v", err)
	}
	if _, err := admin.CheckHost(ctx, "h2", nil); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("no such host: %v", err)
	}
	answer := `{"at":"2026-11-22T01:00:00Z","checks":[{"name":"fsync-latency","verdict":"Fail","value":"p99 210 ms"}]}`
	got := make(chan remote.Request, 1)
	agent(t, f, func(_ context.Context, req remote.Request) (io.ReadCloser, error) {
		got <- req
		return io.NopCloser(strings.NewReader(answer)), nil
	})
	found, err := admin.CheckHost(ctx, "h1", []string{"10.0.0.8", "[fd00::8]:22"})
	if err != nil || len(found.Checks) != 1 || found.Checks[0].Verdict != v1alpha1.VerdictFail || found.At.IsZero() {
		t.Errorf("found %+v, %v", found, err)
	}
	if req := <-got; req.Kind != remote.RequestCheck || strings.Join(req.Peers, " ") != "10.0.0.8 [fd00::8]:22" {
		t.Errorf("the agent was asked %+v", req)
	}
	for _, peers := range [][]string{{"10.0.0.8:x"}, {""}, make([]string, 17)} {
		if _, err = admin.CheckHost(ctx, "h1", peers); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("%q: %v", peers, err)
		}
	}
	for role, host := range map[server.Role]string{server.RoleViewer: "", server.RoleAgent: "h1"} {
		_, err = f.Client(t, role, host, remote.Options{}).CheckHost(ctx, "h1", nil)
		refused(t, "as "+string(role), err)
	}
	answer = "no checks"
	if _, err = admin.CheckHost(ctx, "h1", nil); err == nil {
		t.Error("what is no answer is taken for one")
	}
	<-got
	if _, err = admin.DryRun().CheckHost(ctx, "h1", nil); err == nil {
		t.Error("a dry run checks")
	}
}

// TestClockOffset: what is learned of the server's clock is within its own bound.
func TestClockOffset(t *testing.T) {
	f := servertest.New(t, nil)
	off, within, err := f.Client(t, server.RoleAgent, "h1", remote.Options{}).ClockOffset(t.Context())
	if err != nil || off.Abs() > within || within <= 0 || within > 5*time.Second {
		t.Errorf("%s within %s, %v", off, within, err)
	}
}
