package server_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"

	"github.com/quorate/quorate/server"
	"github.com/quorate/quorate/server/servertest"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote/wire"
)

// tell reads n events from a stream, and checks that each carries its ID.
func tell(t *testing.T, f *servertest.Fixture, path, lastID string, n int) (names []string, place string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, f.URL+path, nil)
	fine(t, "make the request", err)
	req.Header.Set("Authorization", "Bearer "+f.Token(t, server.RoleViewer, ""))
	if lastID != "" {
		req.Header.Set("Last-Event-ID", lastID)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	fine(t, "ask", err)
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", path, resp.Status)
	}
	for m, err := range wire.Messages(resp.Body) {
		fine(t, "read", err)
		if m.ID != "" {
			place = m.ID
		}
		if m.Event == wire.EventRecorded {
			var e store.Event
			fine(t, "decode", json.Unmarshal(m.Data, &e))
			if m.ID == "" || m.ID != e.ID {
				t.Fatalf("the event %s has the ID %q", e.Name, m.ID)
			}
			names = append(names, e.Name)
		}
		if len(names) == n && place != "" {
			break
		}
	}
	return names, place
}

// TestEventsResume: the path says where to begin, and a browser that comes back to
// the same path says how far it got.
func TestEventsResume(t *testing.T) {
	f := servertest.New(t, nil)
	admin := f.Token(t, server.RoleAdmin, "")
	record := func(names ...string) {
		for _, name := range names {
			f.Store.Record(t.Context(), store.Event{Kind: "EtcdCluster", Namespace: "prod", Name: name, Type: store.Normal, Reason: "R"})
		}
	}
	check := func(what string, got []string, want string) {
		t.Helper()
		if fmt.Sprint(got) != want {
			t.Fatalf("%s: told of %v, want %s", what, got, want)
		}
	}
	record("a")
	_, list, err := f.Store.EventsAt(t.Context(), store.EventOptions{})
	fine(t, "list", err)
	record("b", "c", "d")
	names, place := tell(t, f, "/events?watch=true&after="+list, "", 2)
	check("behind a list", names, "[b c]")
	names, _ = tell(t, f, "/events?watch=true&after="+place, "", 1)
	check("behind an event", names, "[d]")
	names, _ = tell(t, f, "/events?watch=true&after="+list, place, 1)
	check("a browser that comes back", names, "[d]")
	// The beginning has an ID, too: a stream that breaks before its first event.
	_, place = tell(t, f, "/events?watch=true", "", 0)
	record("e")
	names, _ = tell(t, f, "/events?watch=true&name=e", place, 1)
	check("behind a beginning", names, "[e]")

	for after, code := range map[string]int{"nonsense": http.StatusUnprocessableEntity, "0000000000000001-00000000-1-1": http.StatusGone} {
		resp, st := ask(t, f, admin, "GET", "/events?watch=true&after="+after, "")
		if resp.StatusCode != code || (code == http.StatusGone && st.Reason != wire.ReasonGone) {
			t.Errorf("after %s: %s %s", after, resp.Status, st.Message)
		}
	}
}
