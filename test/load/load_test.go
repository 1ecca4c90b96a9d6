package load

import (
	"context"
	"errors"
	"net/url"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
)

// startEtcd runs an etcd in this process and returns its endpoint.
func startEtcd(t *testing.T) string {
	t.Helper()
	cfg := embed.NewConfig()
	cfg.Dir, cfg.LogLevel, cfg.UnsafeNoFsync = t.TempDir(), "fatal", true
	local := []url.URL{{Scheme: "http", Host: "127.0.0.1:0"}}
	cfg.ListenClientUrls, cfg.ListenPeerUrls = local, local
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	<-e.Server.ReadyNotify()
	return "http://" + e.Clients[0].Addr().String()
}

// dead is an endpoint where no one listens.
const dead = "http://127.0.0.1:1"

// run starts a writer and stops it after n writes.
func run(t *testing.T, cfg Config, n int) *Writer {
	t.Helper()
	w, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	for deadline := time.Now().Add(20 * time.Second); len(w.Records()) < n; {
		if time.Now().After(deadline) {
			t.Fatalf("only %d writes ended", len(w.Records()))
		}
		<-time.After(10 * time.Millisecond)
	}
	w.Stop()
	return w
}

func TestWriter(t *testing.T) {
	endpoint := startEtcd(t)
	ctx := t.Context()
	w := run(t, Config{Endpoints: []string{endpoint}, Rate: 400, Run: "a"}, 400)
	records := w.Records()
	if s := Summarize(records); s.Failed > 0 || s.Rate < 300 || s.Rate > 500 {
		t.Errorf("%+v: want none failed, about 400 a second", s)
	}
	seen := map[string]bool{}
	for _, r := range records {
		if seen[r.Key] || seen[r.Value] {
			t.Fatalf("%s = %s was written twice", r.Key, r.Value)
		}
		seen[r.Key], seen[r.Value] = true, true
	}
	lost, err := w.Lost(ctx, []string{dead, endpoint})
	if err != nil || len(lost) > 0 {
		t.Fatalf("%d are lost, %v: want none", len(lost), err)
	}

	// What is taken away must be missed.
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // it is of no more use
	if _, err = c.Delete(ctx, records[7].Key); err != nil {
		t.Fatal(err)
	}
	if _, err = c.Put(ctx, records[8].Key, "else"); err != nil {
		t.Fatal(err)
	}
	lost, err = w.Lost(ctx, []string{endpoint})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(records[7:9], lost, cmpopts.EquateErrors()); diff != "" {
		t.Errorf("lost -want +got:\n%s", diff)
	}
}

func TestWriterWithoutACluster(t *testing.T) {
	w := run(t, Config{Endpoints: []string{dead}, Rate: 200, Run: "b", Timeout: 100 * time.Millisecond, InFlight: 4}, 60)
	busy, failed := 0, 0
	for _, r := range w.Records() {
		switch {
		case r.Err == nil || !r.Acked.IsZero():
			t.Fatalf("%+v was acknowledged by no one", r)
		case errors.Is(r.Err, ErrBusy):
			busy++
		default:
			failed++
		}
	}
	if busy == 0 || failed == 0 {
		t.Errorf("%d were left out and %d failed: want some of both, since four may be out", busy, failed)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := w.Lost(ctx, []string{dead}); err == nil {
		t.Error("what can't be read back is not known to be there")
	}
}

func TestStartNeedsARateAndAPlace(t *testing.T) {
	for _, cfg := range []Config{{Rate: 1, Run: "c"}, {Endpoints: []string{dead}, Run: "c"}, {Endpoints: []string{dead}, Rate: 1}} {
		if _, err := Start(t.Context(), cfg); err == nil {
			t.Errorf("%+v was taken", cfg)
		}
	}
}
