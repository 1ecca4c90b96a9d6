package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/server"
	"github.com/quorate/quorate/server/servertest"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
)

// allowFaults reports what the host's agent would.
func allowFaults(t *testing.T, f *servertest.Fixture, name string, allowed bool) {
	t.Helper()
	h := servertest.Host(name)
	if err := f.Store.Create(t.Context(), h); err != nil && !errors.Is(err, store.ErrExists) {
		t.Fatalf("create the host: %v", err)
	}
	fine(t, "report", store.MutateStatus(t.Context(), f.Store, store.Key{Name: name}, h, func(h *v1alpha1.EtcdHost) (bool, error) {
		h.Status.FaultsAllowed = allowed
		return true, nil
	}))
}

func TestMemberMetrics(t *testing.T) {
	f, viewer, key := withMember(t)
	agent(t, f, func(_ context.Context, req remote.Request) (io.ReadCloser, error) {
		if req.Kind != remote.RequestMetrics || req.Member.Name != "m" || req.Member.UID == "" {
			return nil, fmt.Errorf("asked %+v", req)
		}
		return io.NopCloser(strings.NewReader("etcd_server_has_leader 1\n")), nil
	})
	r, err := viewer.MemberMetrics(t.Context(), key)
	fine(t, "MemberMetrics", err)
	text, err := io.ReadAll(r)
	if err != nil || string(text) != "etcd_server_has_leader 1\n" {
		t.Fatalf("read %q, %v", text, err)
	}
	fine(t, "Close", r.Close())
	if _, err := viewer.MemberMetrics(t.Context(), store.Key{Namespace: "prod", Name: "none"}); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("metrics of a member there is none of: %v", err)
	}
}

// TestKill: an admin kills where it may be, and the event says who it was.
func TestKill(t *testing.T) {
	f, viewer, key := withMember(t)
	plain, err := server.EnsureToken(t.Context(), f.Store, "ann", server.RoleAdmin, "")
	fine(t, "EnsureToken", err)
	ann := f.ClientAt(t, f.URL, plain, remote.Options{})
	session, err := ann.ExchangeToken(t.Context())
	fine(t, "ExchangeToken", err)
	ann = ann.WithToken(session.Token)
	asked := make(chan remote.Request, 1)
	var refuse error
	agent(t, f, func(_ context.Context, req remote.Request) (io.ReadCloser, error) {
		asked <- req
		if refuse != nil {
			return nil, refuse
		}
		return io.NopCloser(strings.NewReader(`{"pid":4711}`)), nil
	})

	allowFaults(t, f, "h1", false)
	if err = ann.KillMember(t.Context(), key); !errors.Is(err, store.ErrForbidden) || !strings.Contains(err.Error(), "--allow-faults") {
		t.Fatalf("where faults are not allowed: %v", err)
	}
	allowFaults(t, f, "h1", true)
	if err = viewer.KillMember(t.Context(), key); !errors.Is(err, store.ErrForbidden) {
		t.Fatalf("as a viewer: %v", err)
	}
	if err = ann.DryRun().KillMember(t.Context(), key); err == nil {
		t.Fatal("a kill was tried")
	}
	if len(asked) != 0 {
		t.Fatalf("the agent was asked %+v", <-asked)
	}
	fine(t, "KillMember", ann.KillMember(t.Context(), key))
	if req := <-asked; req.Kind != remote.RequestKill || req.Member.Name != "m" || req.Member.UID == "" {
		t.Fatalf("asked %+v", req)
	}
	events, err := f.Store.Events(t.Context(), store.EventOptions{Namespace: "prod", Cluster: "c"})
	if err != nil || len(events) != 1 || events[0].Reason != "MemberKilled" || events[0].Type != store.Warning ||
		events[0].Name != "m" || !strings.Contains(events[0].Message, "pid 4711") || !strings.Contains(events[0].Message, "as ann asked for") {
		t.Fatalf("the events are %+v, %v", events, err)
	}

	// What the agent says of itself counts, too.
	refuse = fmt.Errorf("%w: no faults here: start it with --allow-faults", store.ErrForbidden)
	if err = ann.KillMember(t.Context(), key); !errors.Is(err, store.ErrForbidden) || !strings.Contains(err.Error(), "no faults here") {
		t.Fatalf("an agent that refuses: %v", err)
	}
	<-asked
	if events, err = f.Store.Events(t.Context(), store.EventOptions{}); err != nil || len(events) != 1 {
		t.Fatalf("the events are %+v, %v", events, err)
	}
}

// TestLoad: an admin has a host's agent drive a load, hears what the worker writes,
// and an event says who it was.
func TestLoad(t *testing.T) {
	f, viewer, _ := withMember(t)
	f.Create(t, servertest.Host("h1"))
	admin := f.Client(t, server.RoleAdmin, "", remote.Options{})
	asked := make(chan remote.Request, 1)
	var refuse error
	agent(t, f, func(_ context.Context, req remote.Request) (io.ReadCloser, error) {
		asked <- req
		if refuse != nil {
			return nil, refuse
		}
		return io.NopCloser(strings.NewReader("one\ntwo\n")), nil
	})
	for name, tc := range map[string]struct {
		by   *remote.Client
		host string
		spec string
		want error
	}{
		"as a viewer":     {viewer, "h1", "{}", store.ErrForbidden},
		"of no host":      {admin, "none", "{}", store.ErrNotFound},
		"no JSON":         {admin, "h1", "{", store.ErrInvalid},
		"more than it is": {admin, "h1", `{"a":"` + strings.Repeat("a", 300<<10) + `"}`, store.ErrInvalid},
	} {
		if _, err := tc.by.Load(t.Context(), tc.host, []byte(tc.spec)); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
	if len(asked) != 0 {
		t.Fatalf("the agent was asked %+v", <-asked)
	}
	r, err := admin.Load(t.Context(), "h1", []byte(`{"rate":5}`))
	fine(t, "Load", err)
	text, err := io.ReadAll(r)
	if err != nil || string(text) != "one\ntwo\n" {
		t.Fatalf("read %q, %v", text, err)
	}
	fine(t, "Close", r.Close())
	if req := <-asked; req.Kind != remote.RequestLoad || string(req.Load) != `{"rate":5}` {
		t.Fatalf("asked %+v", req)
	}
	events, err := f.Store.Events(t.Context(), store.EventOptions{})
	if err != nil || len(events) != 1 || events[0].Reason != "LoadDriven" || events[0].Name != "h1" {
		t.Fatalf("the events are %+v, %v", events, err)
	}
	refuse = fmt.Errorf("%w: no load here: start it with --allow-load", store.ErrForbidden)
	if _, err = admin.Load(t.Context(), "h1", []byte("{}")); !errors.Is(err, store.ErrForbidden) || !strings.Contains(err.Error(), "--allow-load") {
		t.Fatalf("an agent that refuses: %v", err)
	}
}
