package etcd

import (
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/quorate/quorate/store/storetest"
)

func TestEmbeddedConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Harness {
		t.Helper()
		s := newHome(t).open(t)
		b := &breakable{Watcher: s.watches}
		s.watches = b
		return storetest.Harness{Store: s, Compact: func() { s.compact(t) }, Disconnect: b.disconnect}
	})
}

// TestExternalConformance reaches an etcd over TCP, through a line that is really cut.
func TestExternalConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Harness {
		t.Helper()
		address := remote(t)
		cut := newLine(t, address)
		k, err := CreateKeyring(filepath.Join(t.TempDir(), "keyring.json"), time.Now())
		if err != nil {
			t.Fatalf("CreateKeyring: %v", err)
		}
		opts := Options{Keyring: k, Logger: slog.New(slog.DiscardHandler)}
		through, direct := opts, opts
		through.Endpoints = []string{"http://" + cut.Addr().String()}
		direct.Endpoints = []string{"http://" + address}
		other := open(t, direct)
		return storetest.Harness{
			Store: open(t, through), Other: other,
			Compact: func() { other.compact(t) }, Disconnect: cut.disconnect,
		}
	})
}
