package remote_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/server"
	"github.com/quorate/quorate/server/servertest"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
)

func admin(t *testing.T) (*servertest.Fixture, *remote.Client) {
	t.Helper()
	f := servertest.New(t, nil)
	return f, f.Client(t, server.RoleAdmin, "", remote.Options{})
}

// TestDryRun: everything is checked, and nothing done.
func TestDryRun(t *testing.T) {
	f, client := admin(t)
	dry := client.DryRun()
	ctx := t.Context()
	c := servertest.Cluster("prod", "c")
	if err := dry.Create(ctx, c); err != nil || c.Spec.Replicas != 3 {
		t.Fatalf("Create: %v, %d replicas", err, c.Spec.Replicas)
	}
	if err := client.Get(ctx, store.KeyOf(c), &v1alpha1.EtcdCluster{}); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("after a dry Create: %v", err)
	}
	stored := servertest.Cluster("prod", "c")
	f.Create(t, stored)
	if err := dry.Create(ctx, servertest.Cluster("prod", "c")); !errors.Is(err, store.ErrExists) {
		t.Errorf("Create again: %v", err)
	}
	if err := dry.Create(ctx, &v1alpha1.EtcdCluster{ObjectMeta: v1alpha1.ObjectMeta{Namespace: "prod", Name: "d"}}); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("Create of nonsense: %v", err)
	}
	changed := stored.DeepCopy()
	changed.Spec.Suspended = true
	if err := dry.Update(ctx, changed); err != nil || !changed.Spec.Suspended {
		t.Errorf("Update: %v", err)
	}
	immutable := stored.DeepCopy()
	immutable.Spec.Replicas = 5
	if err := dry.Update(ctx, immutable); !errors.Is(err, store.ErrInvalid) || !strings.Contains(err.Error(), "replicas") {
		t.Errorf("Update of what can't change: %v", err)
	}
	conflict := stored.DeepCopy()
	conflict.ResourceVersion = "1"
	if err := dry.Update(ctx, conflict); !errors.Is(err, store.ErrConflict) {
		t.Errorf("Update of an older state: %v", err)
	}
	running := stored.DeepCopy()
	running.Status.Ready = "3/3"
	if err := dry.UpdateStatus(ctx, running); err != nil {
		t.Errorf("UpdateStatus: %v", err)
	}
	if err := dry.Delete(ctx, v1alpha1.KindCluster, store.KeyOf(stored), store.Preconditions{UID: "other"}); !errors.Is(err, store.ErrConflict) {
		t.Errorf("Delete of another: %v", err)
	}
	if err := dry.Delete(ctx, v1alpha1.KindCluster, store.KeyOf(stored), store.Preconditions{UID: stored.UID}); err != nil {
		t.Errorf("Delete: %v", err)
	}
	dry.Record(ctx, store.Event{Kind: "EtcdCluster", Namespace: "prod", Name: "c", Type: store.Normal, Reason: "Tried"})
	if err := dry.Accept(ctx, store.KeyOf(stored), servertest.PlanToken); err == nil || len(f.Fleet.Accepted()) > 0 {
		t.Errorf("Accept: %v", err)
	}
	if _, err := dry.UploadRelease(ctx, strings.NewReader("x"), "", ""); err == nil {
		t.Error("UploadRelease was tried")
	}
	got := &v1alpha1.EtcdCluster{}
	if err := client.Get(ctx, store.KeyOf(stored), got); err != nil || !v1alpha1.Equal(got, stored) {
		t.Fatalf("the stored object changed: %+v, %v", got, err)
	}
	if events, err := client.Events(ctx, store.EventOptions{}); err != nil || len(events) > 0 {
		t.Fatalf("%d events, %v", len(events), err)
	}
}

func TestActions(t *testing.T) {
	f, client := admin(t)
	ctx := t.Context()
	c := servertest.Cluster("prod", "c")
	f.Create(t, c)
	key := store.KeyOf(c)
	if p, err := client.Plan(ctx, key); err != nil || p.Cluster != "c" || len(p.Steps) != 0 || p.Token != servertest.PlanToken {
		t.Errorf("Plan: %+v, %v", p, err)
	}
	proposed := servertest.Cluster("prod", "new")
	if p, err := client.PlanFor(ctx, proposed); err != nil || len(p.Steps) != 1 || p.Steps[0].Member != "new-0" || proposed.Kind != "" {
		t.Errorf("PlanFor: %+v, %v", p, err)
	}
	proposed.Spec.Version = "nonsense"
	if _, err := client.PlanFor(ctx, proposed); !errors.Is(err, store.ErrInvalid) || !strings.Contains(err.Error(), "spec.version") {
		t.Errorf("PlanFor nonsense: %v", err)
	}
	if err := client.Accept(ctx, key, "other"); !errors.Is(err, store.ErrConflict) || !strings.Contains(err.Error(), "read it again") {
		t.Errorf("Accept of another plan: %v", err)
	}
	if err := client.Accept(ctx, key, servertest.PlanToken); err != nil || len(f.Fleet.Accepted()) != 1 {
		t.Errorf("Accept: %v, %v", err, f.Fleet.Accepted())
	}
	b, endpoints, err := client.ClientCertificate(ctx, key, []byte("csr"), 90*time.Minute)
	if err != nil || string(b.Certificate) != "client of c for csr, 1h30m0s" || string(b.CA) != "ca" || len(endpoints) != 1 {
		t.Errorf("ClientCertificate: %s, %v, %v", b.Certificate, endpoints, err)
	}
	if _, _, err = client.ClientCertificate(ctx, key, []byte("csr"), 9000*time.Hour); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("ClientCertificate for too long: %v", err)
	}
	if _, _, err = client.ClientCertificate(ctx, store.Key{Namespace: "prod", Name: "none"}, []byte("csr"), 0); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("ClientCertificate of nothing: %v", err)
	}
	list, err := client.Releases(ctx)
	if err != nil || len(list) != 1 || list[0].Digest != servertest.Digest {
		t.Errorf("Releases: %+v, %v", list, err)
	}
	r, err := client.OpenRelease(ctx, servertest.Digest)
	if err != nil {
		t.Fatalf("OpenRelease: %v", err)
	}
	text, err := io.ReadAll(r)
	if err != nil || string(text) != "an executable" {
		t.Errorf("read %q, %v", text, err)
	}
	_ = r.Close()
	if _, err = client.OpenRelease(ctx, "sha256:"+strings.Repeat("f", 64)); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("OpenRelease of nothing: %v", err)
	}
	// More than any other body may have.
	added, err := client.UploadRelease(ctx, io.LimitReader(zeros{}, 6<<20), "3.7.3", strings.Repeat("0", 64))
	if err != nil || added.Source != fmt.Sprintf("%d bytes", 6<<20) || added.Version != "3.7.3" {
		t.Errorf("UploadRelease: %+v, %v", added, err)
	}
	if _, err := client.UploadRelease(ctx, strings.NewReader("x"), "", "short"); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("UploadRelease with a bad hash: %v", err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// TestStrangeKeys: a key that can't be an object's reaches no other path.
func TestStrangeKeys(t *testing.T) {
	f, client := admin(t)
	f.Create(t, servertest.Cluster("prod", "c"))
	for _, key := range []store.Key{
		{Namespace: "prod"},
		{Namespace: "prod", Name: ".."},
		{Namespace: "..", Name: "c"},
		{Name: "c"},
		{Namespace: "prod", Name: "c/status"},
		{Namespace: "prod", Name: "../etcdclusters/c"},
		{Namespace: "prod", Name: "c?watch=true"},
		{Namespace: "prod", Name: "c#x"},
		{Namespace: "prod", Name: "%63"},
		{Namespace: "prod/etcdclusters", Name: "c"},
	} {
		obj := &v1alpha1.EtcdCluster{}
		if err := client.Get(t.Context(), key, obj); !errors.Is(err, store.ErrInvalid) || obj.Name != "" {
			t.Errorf("Get %+v: %q, %v", key, obj.Name, err)
		}
	}
}

// TestWatchEvents: what was recorded before is not told, and nothing is lost or
// told twice when the stream breaks.
func TestWatchEvents(t *testing.T) {
	f := servertest.New(t, nil)
	cut := newLine(t, strings.TrimPrefix(f.URL, "http://"))
	client := f.ClientAt(t, "http://"+cut.Addr().String(), f.Token(t, server.RoleAdmin, ""), remote.Options{})
	record := func(name string) {
		f.Store.Record(t.Context(), store.Event{Kind: "EtcdCluster", Namespace: "prod", Name: name, Type: store.Normal, Reason: "R", Time: time.Now()})
	}
	record("before")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	events := client.WatchEvents(ctx, store.EventOptions{Namespace: "prod"})
	// The stream stands once it tells something.
	var first string
	n := 0
	eventually(t, "the stream stands", func() bool {
		n++
		record(fmt.Sprintf("probe-%d", n))
		select {
		case e := <-events:
			first = e.Name
			return true
		case <-time.After(50 * time.Millisecond):
			return false
		}
	})
	if !strings.HasPrefix(first, "probe-") {
		t.Fatalf("told of %s first", first)
	}
	reconnect := cut.disconnect()
	record("gap-1")
	record("gap-2")
	reconnect()
	record("after")
	told := map[string]int{}
	for told["after"] == 0 || told["gap-1"] == 0 || told["gap-2"] == 0 {
		select {
		case e := <-events:
			told[e.Name]++
		case <-time.After(20 * time.Second):
			t.Fatalf("told of %v only", told)
		}
	}
	record("last")
	for told["last"] == 0 {
		e := <-events
		told[e.Name]++
	}
	for name, n := range told {
		if n > 1 {
			t.Errorf("told of %s %d times", name, n)
		}
	}
	cancel()
	eventually(t, "the channel closes", func() bool {
		_, ok := <-events
		return !ok
	})
}

// TestWatchEventsResumes: whatever breaks, whenever, each event comes once and in
// order.
func TestWatchEventsResumes(t *testing.T) {
	f := servertest.New(t, nil)
	cut := newLine(t, strings.TrimPrefix(f.URL, "http://"))
	client := f.ClientAt(t, "http://"+cut.Addr().String(), f.Token(t, server.RoleAdmin, ""), remote.Options{})
	record := func(n int) {
		f.Store.Record(t.Context(), store.Event{Kind: "EtcdCluster", Namespace: "prod", Name: strconv.Itoa(n), Type: store.Normal, Reason: "R"})
	}
	record(0)
	_, after, err := client.EventsAt(t.Context(), store.EventOptions{})
	if err != nil {
		t.Fatalf("EventsAt: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	events := client.WatchEventsAfter(ctx, store.EventOptions{}, after)
	const rounds, each = 4, 25
	want := 1
	for range rounds {
		done := make(chan struct{})
		first := want
		go func() {
			defer close(done)
			for i := range each {
				if i == each/2 {
					cut.disconnect()()
				}
				record(first + i)
			}
		}()
		for range each {
			select {
			case e := <-events:
				if e.Name != strconv.Itoa(want) {
					t.Fatalf("told of %s, want %d", e.Name, want)
				}
				want++
			case <-time.After(20 * time.Second):
				t.Fatalf("not told of %d", want)
			}
		}
		<-done
	}
}

// TestWatchEventsGone: a place that the server no longer keeps costs what is no
// longer there, and nothing else.
func TestWatchEventsGone(t *testing.T) {
	f, client := admin(t)
	for n := range 3 {
		f.Store.Record(t.Context(), store.Event{Kind: "EtcdCluster", Namespace: "prod", Name: strconv.Itoa(n), Type: store.Normal, Reason: "R"})
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	events := client.WatchEventsAfter(ctx, store.EventOptions{}, "0000000000000001-00000000-1-1")
	for n := range 3 {
		if e := <-events; e.Name != strconv.Itoa(n) {
			t.Fatalf("told of %s, want %d", e.Name, n)
		}
	}
	f.Store.Record(t.Context(), store.Event{Kind: "EtcdCluster", Namespace: "prod", Name: "3", Type: store.Normal, Reason: "R"})
	if e := <-events; e.Name != "3" {
		t.Fatalf("told of %s", e.Name)
	}
}

// TestNotAServer: what is no Quorate server is told from one.
func TestNotAServer(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"another":  func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"version":"v9"}`) },
		"gateway":  func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) },
		"redirect": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) },
		"broken":   func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Quorate-Store-Epoch", "x") },
	} {
		t.Run(name, func(t *testing.T) {
			other := httptest.NewServer(h)
			defer other.Close()
			c, err := remote.New(remote.Config{Server: other.URL, Token: "t"}, remote.Options{})
			if err != nil {
				t.Fatalf("New: %v", err)
			}
			if v, err := c.Version(t.Context()); !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "not a Quorate server") {
				t.Fatalf("Version: %q, %v", v, err)
			}
		})
	}
}
