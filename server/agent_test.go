package server_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/pki"
	"github.com/quorate/quorate/server"
	"github.com/quorate/quorate/server/servertest"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
	"github.com/quorate/quorate/store/remote/wire"
)

// eventually polls until it holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(15 * time.Second)
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within 15 s: %s", what)
		}
	}
}

func refused(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, store.ErrForbidden) {
		t.Errorf("%s: %v", what, err)
	}
}

func fine(tb testing.TB, what string, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatalf("%s: %v", what, err)
	}
}

// TestAgentSeesItsOwn: an agent reads and reports what is bound to its host.
func TestAgentSeesItsOwn(t *testing.T) {
	f := servertest.New(t, nil)
	ctx := t.Context()
	mine, other := servertest.Member("prod", "mine", "h1"), servertest.Member("prod", "other", "h2")
	f.Create(t, mine, other, servertest.Host("h2"), servertest.Cluster("prod", "c"))
	agent := f.Client(t, server.RoleAgent, "h1", remote.Options{})

	fine(t, "create its host", agent.Create(ctx, servertest.Host("h1")))
	refused(t, "create another host", agent.Create(ctx, servertest.Host("h3")))
	refused(t, "get another host", agent.Get(ctx, store.Key{Name: "h2"}, &v1alpha1.EtcdHost{}))
	refused(t, "get a cluster", agent.Get(ctx, store.Key{Namespace: "prod", Name: "c"}, &v1alpha1.EtcdCluster{}))
	refused(t, "get a secret", agent.Get(ctx, store.Key{Namespace: "prod", Name: "s"}, &v1alpha1.Secret{}))
	refused(t, "get another's member", agent.Get(ctx, store.KeyOf(other), &v1alpha1.EtcdMember{}))
	if err := agent.Get(ctx, store.Key{Namespace: "prod", Name: "gone"}, &v1alpha1.EtcdMember{}); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("get a member that is gone: %v", err)
	}
	for _, kind := range []v1alpha1.Kind{v1alpha1.KindMember, v1alpha1.KindHost} {
		list, err := agent.List(ctx, kind, store.ListOptions{})
		if err != nil || len(list) != 1 {
			t.Fatalf("%s: %d listed, %v", kind.Plural, len(list), err)
		}
	}

	got := &v1alpha1.EtcdMember{}
	fine(t, "get its member", agent.Get(ctx, store.KeyOf(mine), got))
	got.Status.Phase = v1alpha1.MemberRunning
	fine(t, "write its member's status", agent.UpdateStatus(ctx, got))
	other.Status.Phase = v1alpha1.MemberRunning
	refused(t, "write another's status", agent.UpdateStatus(ctx, other))

	b, err := agent.SignMember(ctx, store.KeyOf(mine), pki.Peer, []byte("csr"))
	if err != nil || string(b.Certificate) != "Peer of mine at 127.0.0.1 for csr" || string(b.CA) != "ca" {
		t.Fatalf("SignMember: %s, %v", b.Certificate, err)
	}
	_, err = agent.SignMember(ctx, store.KeyOf(other), pki.Peer, []byte("csr"))
	refused(t, "sign for another's member", err)
	if _, err = agent.SignMember(ctx, store.KeyOf(mine), pki.Client, []byte("csr")); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("a member got a client certificate: %v", err)
	}
	_, _, err = agent.ClientCertificate(ctx, store.Key{Namespace: "prod", Name: "c"}, []byte("csr"), time.Hour)
	refused(t, "sign for a client", err)
}

// TestAgentReleasesMembers: an agent may take its finalizer off a member that is
// being deleted, and change nothing else.
func TestAgentReleasesMembers(t *testing.T) {
	f := servertest.New(t, nil)
	ctx := t.Context()
	m := servertest.Member("prod", "m", "h1")
	m.Finalizers = append(m.Finalizers, "example.com/other")
	f.Create(t, m)
	agent := f.Client(t, server.RoleAgent, "h1", remote.Options{})
	try := func(change func(*v1alpha1.EtcdMember)) error {
		got := &v1alpha1.EtcdMember{}
		fine(t, "get", agent.Get(ctx, store.KeyOf(m), got))
		change(got)
		return agent.Update(ctx, got)
	}
	fine(t, "an update that changes nothing", try(func(*v1alpha1.EtcdMember) {}))
	refused(t, "release a member that is wanted", try(func(m *v1alpha1.EtcdMember) { v1alpha1.RemoveFinalizer(m, v1alpha1.FinalizerMember) }))
	fine(t, "delete", f.Store.Delete(ctx, v1alpha1.KindMember, store.KeyOf(m), store.Preconditions{UID: m.UID}))
	for what, change := range map[string]func(*v1alpha1.EtcdMember){
		"change the spec":            func(m *v1alpha1.EtcdMember) { m.Spec.Run = v1alpha1.RunRunning },
		"change the host":            func(m *v1alpha1.EtcdMember) { m.Spec.Host = "h2" },
		"change a label":             func(m *v1alpha1.EtcdMember) { m.Labels = map[string]string{"a": "b"} },
		"remove another's finalizer": func(m *v1alpha1.EtcdMember) { v1alpha1.RemoveFinalizer(m, "example.com/other") },
		"remove all finalizers":      func(m *v1alpha1.EtcdMember) { m.Finalizers = nil },
		"add a finalizer":            func(m *v1alpha1.EtcdMember) { m.Finalizers = append(m.Finalizers, "x.io/y") },
	} {
		refused(t, what, try(change))
	}
	got := &v1alpha1.EtcdMember{}
	fine(t, "get", agent.Get(ctx, store.KeyOf(m), got))
	got.ResourceVersion = "1"
	if err := agent.Update(ctx, got); !errors.Is(err, store.ErrConflict) {
		t.Errorf("an update of an older state: %v", err)
	}
	// An older agent sends less than it was given: that it lets go is all that counts.
	fine(t, "release it", try(func(m *v1alpha1.EtcdMember) {
		v1alpha1.RemoveFinalizer(m, v1alpha1.FinalizerMember)
		m.Labels, m.Spec = map[string]string{"a": "b"}, v1alpha1.EtcdMemberSpec{}
	}))
	fine(t, "get", f.Store.Get(ctx, store.KeyOf(m), got))
	if len(got.Finalizers) != 1 || got.Finalizers[0] != "example.com/other" {
		t.Fatalf("the finalizers are %v", got.Finalizers)
	}
	if got.Labels["a"] != "" || got.Spec.Host != "h1" {
		t.Errorf("letting go of it changed it: %v, %+v", got.Labels, got.Spec)
	}
}

// TestNewerAgent: what an agent of a later version reports is taken, without what
// this server does not know; of a person it is a mistake.
func TestNewerAgent(t *testing.T) {
	f := servertest.New(t, nil)
	m := servertest.Member("prod", "m", "h1")
	f.Create(t, m)
	m.Status.Phase = v1alpha1.MemberRunning
	newer := strings.Replace(string(mustJSON(t, m)), `"phase"`, `"mood":"fine","phase"`, 1)
	path := wire.ObjectPath(v1alpha1.KindMember, "prod", "m", "status")
	if a, st := ask(t, f, f.Token(t, server.RoleAdmin, ""), http.MethodPut, path, newer); a.StatusCode < http.StatusBadRequest || !strings.Contains(st.Message, "mood") {
		t.Errorf("of an admin: %d %s", a.StatusCode, st.Message)
	}
	if a, st := ask(t, f, f.Token(t, server.RoleAgent, "h1"), http.MethodPut, path, newer); a.StatusCode != http.StatusOK {
		t.Errorf("of an agent: %d %s", a.StatusCode, st.Message)
	}
	got := &v1alpha1.EtcdMember{}
	fine(t, "get", f.Store.Get(t.Context(), store.KeyOf(m), got))
	if got.Status.Phase != v1alpha1.MemberRunning {
		t.Errorf("the phase is %q", got.Status.Phase)
	}
}

// TestAgentWatch: an agent is told of its members, also of those that vanish, and
// of no other.
func TestAgentWatch(t *testing.T) {
	f := servertest.New(t, nil)
	early, foreign := servertest.Member("prod", "early", "h1"), servertest.Member("prod", "foreign", "h2")
	f.Create(t, early, foreign)
	agent := f.Client(t, server.RoleAgent, "h1", remote.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	keys := agent.Watch(ctx, v1alpha1.KindMember, "")
	next := func(want string) {
		t.Helper()
		deadline := time.After(15 * time.Second)
		for {
			select {
			case k := <-keys:
				if k.Name == "foreign" || k.Name == "foreign-late" {
					t.Fatalf("told of %s", k)
				}
				if k.Name == want {
					return
				}
			case <-deadline:
				t.Fatalf("not told of %s", want)
			}
		}
	}
	next("early")
	late := servertest.Member("dev", "late", "h1")
	late.Finalizers = nil
	f.Create(t, servertest.Member("prod", "foreign-late", "h2"), late)
	next("late")
	fine(t, "delete", f.Store.Delete(ctx, v1alpha1.KindMember, store.KeyOf(late), store.Preconditions{UID: late.UID}))
	next("late")

	inDev := agent.Watch(ctx, v1alpha1.KindMember, "dev")
	f.Create(t, servertest.Member("prod", "in-prod", "h1"), servertest.Member("dev", "in-dev", "h1"))
	next("in-dev")
	if k := <-inDev; k.Namespace != "dev" {
		t.Fatalf("a watch of dev was told of %s", k)
	}

	own := agent.Watch(ctx, v1alpha1.KindHost, "")
	f.Create(t, servertest.Host("h0"), servertest.Host("h1"))
	if k := <-own; k.Name != "h1" {
		t.Fatalf("told of host %s", k)
	}
}

func TestAgentEvents(t *testing.T) {
	f := servertest.New(t, nil)
	ctx := t.Context()
	f.Create(t, servertest.Member("prod", "mine", "h1"), servertest.Member("prod", "other", "h2"))
	agent := f.Client(t, server.RoleAgent, "h1", remote.Options{})
	for _, e := range []store.Event{
		{Kind: "EtcdMember", Namespace: "prod", Name: "other", Reason: "Forged"},
		{Kind: "EtcdCluster", Namespace: "prod", Name: "c", Reason: "Forged"},
		{Kind: "EtcdHost", Name: "h2", Reason: "Forged"},
		{Kind: "EtcdMember", Namespace: "prod", Name: "mine", Reason: "MemberStarted", Source: "fleet", Cluster: "forged"},
		{Kind: "EtcdHost", Name: "h1", Reason: "AgentStarted"},
	} {
		e.Type, e.Message = store.Normal, "text"
		agent.Record(ctx, e)
	}
	viewer := f.Client(t, server.RoleViewer, "", remote.Options{})
	events, err := viewer.Events(ctx, store.EventOptions{})
	// What the server has recorded of its refusals is another test's.
	events = slices.DeleteFunc(events, func(e store.Event) bool { return e.Source == "server" })
	if err != nil || len(events) != 2 {
		t.Fatalf("%+v, %v", events, err)
	}
	for _, e := range events {
		if e.Source != "agent/h1" || (e.Kind == "EtcdMember" && e.Cluster != "c") || e.Time.IsZero() {
			t.Errorf("recorded %+v", e)
		}
	}
}

func TestViewer(t *testing.T) {
	f := servertest.New(t, nil)
	ctx := t.Context()
	c := servertest.Cluster("prod", "c")
	f.Create(t, c)
	viewer := f.Client(t, server.RoleViewer, "", remote.Options{})
	fine(t, "get", viewer.Get(ctx, store.KeyOf(c), &v1alpha1.EtcdCluster{}))
	_, err := viewer.Plan(ctx, store.KeyOf(c))
	fine(t, "plan", err)
	refused(t, "create", viewer.Create(ctx, servertest.Cluster("prod", "d")))
	refused(t, "create dry", viewer.DryRun().Create(ctx, servertest.Cluster("prod", "d")))
	refused(t, "delete", viewer.Delete(ctx, v1alpha1.KindCluster, store.KeyOf(c), store.Preconditions{UID: c.UID}))
	refused(t, "accept", viewer.Accept(ctx, store.KeyOf(c), servertest.PlanToken))
	_, err = viewer.List(ctx, v1alpha1.KindSecret, store.ListOptions{})
	refused(t, "list secrets", err)
	_, err = viewer.Backup(ctx)
	refused(t, "back up", err)
}
