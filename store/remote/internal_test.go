package remote

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote/dirty"
	"github.com/quorate/quorate/store/remote/wire"
)

// TestSilence: a stream that says nothing is opened again.
func TestSilence(t *testing.T) {
	var opened atomic.Int64
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		wire.SetPosition(w.Header(), store.Position{Epoch: 1, EpochID: "a", Revision: 1})
		w.WriteHeader(http.StatusOK)
		_ = wire.WriteMessage(w, wire.EventDirty, wire.Key{Namespace: "prod", Name: "a"})
		_ = http.NewResponseController(w).Flush()
		opened.Add(1)
		<-r.Context().Done()
	}))
	defer api.Close()
	c, err := New(Config{Server: api.URL, Token: "t"}, Options{})
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	c.silence = 100 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	keys := c.Watch(ctx, v1alpha1.KindCluster, "")
	for range 3 {
		select {
		case <-keys:
		case <-time.After(20 * time.Second):
			t.Fatalf("the stream was opened %d times", opened.Load())
		}
	}
	cancel()
	for range keys { // it closes
	}
}

// TestPrune: a watch forgets what is gone, and only that.
func TestPrune(t *testing.T) {
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		wire.SetPosition(w.Header(), store.Position{Epoch: 1, EpochID: "a", Revision: 1})
		switch r.URL.Path {
		case wire.KindPath(v1alpha1.KindCluster, ""):
			_, _ = w.Write([]byte(`{"items":[{"metadata":{"namespace":"prod","name":"listed"}}]}`))
		case wire.ObjectPath(v1alpha1.KindCluster, "prod", "new"): // the list was stale
			_, _ = w.Write([]byte(`{"metadata":{"namespace":"prod","name":"new"}}`))
		case wire.ObjectPath(v1alpha1.KindCluster, "prod", "unknown"):
			w.WriteHeader(http.StatusInternalServerError)
		default:
			w.WriteHeader(http.StatusNotFound)
			_, _ = w.Write([]byte(`{"reason":"NotFound","message":"not found"}`))
		}
	}))
	defer api.Close()
	c, err := New(Config{Server: api.URL, Token: "t"}, Options{})
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	w := &watch{client: c, kind: v1alpha1.KindCluster, changed: dirty.New[store.Key](), known: map[store.Key]struct{}{}}
	for _, name := range []string{"listed", "new", "unknown", "gone"} {
		w.known[store.Key{Namespace: "prod", Name: name}] = struct{}{}
	}
	w.prune(t.Context())
	if _, ok := w.known[store.Key{Namespace: "prod", Name: "gone"}]; ok || len(w.known) != 3 {
		t.Fatalf("known are %v", w.known)
	}
}
