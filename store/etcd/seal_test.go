package etcd

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
)

const (
	pemText  = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIOtestTESTtestTESTtestTESTtest\n-----END EC PRIVATE KEY-----\n"
	password = "correct-horse-battery-staple"
)

// readable looks for secrets in every file below dirs, as they are and in base64.
func readable(t *testing.T, dirs ...string) []string {
	t.Helper()
	needles := [][]byte{[]byte("PRIVATE KEY"), []byte(password), []byte("MHcCAQEEIOtest")}
	for _, secret := range []string{pemText, password} {
		// The three ways it can fall into base64's groups, less the ends that depend on
		// what is beside it.
		for skip := range 3 {
			enc := base64.StdEncoding.EncodeToString([]byte(secret[skip:]))
			needles = append(needles, []byte(strings.TrimRight(enc, "=")[:20]))
		}
	}
	var found []string
	files := 0
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			raw, err := os.ReadFile(path)
			files++
			for _, needle := range needles {
				if bytes.Contains(raw, needle) {
					found = append(found, path+": "+string(needle))
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if files == 0 {
		t.Fatalf("no files in %v", dirs)
	}
	return found
}

func TestNothingSecretInTheFiles(t *testing.T) {
	h := newHome(t)
	s := h.open(t)
	secret := newSecret("tls", map[string]string{"tls.key": pemText, "password": password})
	secret.Annotations = map[string]string{v1alpha1.AnnotationLastApplied: `{"stringData":{"password":"` + password + `"}}`}
	mustCreate(t, s, secret, newCluster("a"))
	secret.StringData = map[string]string{"more": pemText}
	if err := s.Update(t.Context(), secret); err != nil {
		t.Fatalf("Update: %v", err)
	}
	if _, err := s.RotateKey(t.Context()); err != nil {
		t.Fatalf("RotateKey: %v", err)
	}
	var archive bytes.Buffer
	if _, err := s.Snapshot(t.Context(), &archive); err != nil {
		t.Fatalf("Snapshot: %v", err)
	}
	at := filepath.Dir(h.dir)
	if err := os.WriteFile(filepath.Join(at, "backup.tar"), archive.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if found := readable(t, at); len(found) > 0 {
		t.Fatalf("readable while open: %v", found)
	}
	if value(t, s, "tls", "tls.key") != pemText || value(t, s, "tls", "more") != pemText {
		t.Fatalf("the secret did not survive")
	}
	closeStore(t, s)
	if found := readable(t, at); len(found) > 0 {
		t.Fatalf("readable when closed: %v", found)
	}
	keyring, err := os.ReadFile(h.keyring)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range mustDecodeKeyring(t, keyring) {
		if bytes.Contains(archive.Bytes(), k.Key) || bytes.Contains(archive.Bytes(), []byte(base64.StdEncoding.EncodeToString(k.Key))) {
			t.Fatalf("the backup holds the sealing key")
		}
	}
	// The search itself finds what is there.
	if err := os.WriteFile(filepath.Join(at, "clear"), []byte("x"+base64.StdEncoding.EncodeToString([]byte("ab"+password))), 0o600); err != nil {
		t.Fatal(err)
	}
	if len(readable(t, at)) == 0 {
		t.Fatalf("the search is blind")
	}
}

func mustDecodeKeyring(t *testing.T, raw []byte) []sealingKey {
	t.Helper()
	keys, err := decodeKeyring("test", raw)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func TestSealedRecordCannotMove(t *testing.T) {
	s := newHome(t).open(t)
	mustCreate(t, s, newSecret("a", map[string]string{"k": "of a"}), newSecret("b", map[string]string{"k": "of b"}))
	at := func(name string) string { return objectsPrefix + "secrets/prod/" + name }
	resp, err := s.client.Get(t.Context(), at("a"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err = s.client.Put(t.Context(), at("b"), string(resp.Kvs[0].Value)); err != nil {
		t.Fatal(err)
	}
	err = s.Get(t.Context(), store.Key{Namespace: "prod", Name: "b"}, &v1alpha1.Secret{})
	if !errors.Is(err, ErrSealBroken) {
		t.Fatalf("a's record under b's key: %v", err)
	}
}

func TestMissingKey(t *testing.T) {
	h := newHome(t)
	s := h.open(t)
	mustCreate(t, s, newSecret("a", map[string]string{"k": "v"}))
	lost := s.keyring.IDs()[0]
	closeStore(t, s)
	if err := os.Remove(h.keyring); err != nil {
		t.Fatal(err)
	}
	if _, err := CreateKeyring(h.keyring, time.Now()); err != nil {
		t.Fatal(err)
	}
	err := h.open(t).Get(t.Context(), store.Key{Namespace: "prod", Name: "a"}, &v1alpha1.Secret{})
	if !errors.Is(err, ErrNoKey) || !strings.Contains(err.Error(), lost) || !strings.Contains(err.Error(), h.keyring) {
		t.Fatalf("Get: %v, want one that names key %s and %s", err, lost, h.keyring)
	}
}

// TestRotateKeyIsResumed cuts a rotation off at each of its steps, as a crash would,
// and lets a new process finish it.
func TestRotateKeyIsResumed(t *testing.T) {
	const secrets = 5
	// Each step does what RotateKey does up to there.
	steps := []struct {
		name     string
		upTo     func(t *testing.T, s *Store)
		resealed int
	}{
		{"nothing done", func(*testing.T, *Store) {}, secrets},
		{"the key added", func(t *testing.T, s *Store) {
			t.Helper()
			if err := s.keyring.addPrimary(time.Now()); err != nil {
				t.Fatal(err)
			}
		}, secrets},
		{"two sealed anew", func(t *testing.T, s *Store) {
			t.Helper()
			if err := s.keyring.addPrimary(time.Now()); err != nil {
				t.Fatal(err)
			}
			for i := range 2 {
				if err := s.resealOne(t.Context(), store.Key{Namespace: "prod", Name: fmt.Sprint("s", i)}); err != nil {
					t.Fatal(err)
				}
			}
		}, secrets - 2},
		{"all sealed anew", func(t *testing.T, s *Store) {
			t.Helper()
			if err := s.keyring.addPrimary(time.Now()); err != nil {
				t.Fatal(err)
			}
			if n, err := s.reseal(t.Context()); err != nil || n != secrets {
				t.Fatalf("reseal: %d, %v", n, err)
			}
		}, 0},
	}
	for _, step := range steps {
		t.Run(step.name, func(t *testing.T) {
			h := newHome(t)
			s := h.open(t)
			for i := range secrets {
				mustCreate(t, s, newSecret(fmt.Sprint("s", i), map[string]string{"k": fmt.Sprint("v", i)}))
			}
			first := s.keyring.IDs()[0]
			step.upTo(t, s)
			begun := s.keyring.IDs()
			closeStore(t, s)

			s = h.open(t)
			n, err := s.RotateKey(t.Context())
			if err != nil || n != step.resealed {
				t.Fatalf("RotateKey: %d, %v, want %d", n, err, step.resealed)
			}
			ids := s.keyring.IDs()
			if len(ids) != 1 || ids[0] == first {
				t.Fatalf("keys after the rotation: %v, the first was %s", ids, first)
			}
			if len(begun) > 1 && ids[0] != begun[0] {
				t.Fatalf("finishing made another key: %v, begun with %v", ids, begun)
			}
			inUse, err := s.keysInUse(t.Context())
			if err != nil || len(inUse) != 1 || !inUse[ids[0]] {
				t.Fatalf("keys in use: %v, %v", inUse, err)
			}
			closeStore(t, s)
			s = h.open(t)
			for i := range secrets {
				if got := value(t, s, fmt.Sprint("s", i), "k"); got != fmt.Sprint("v", i) {
					t.Fatalf("secret %d is %q", i, got)
				}
			}
		})
	}
}

// TestRotateKeyUnderWrites writes Secrets while the key is rotated again and again:
// each can be opened by a process that knows only the file.
func TestRotateKeyUnderWrites(t *testing.T) {
	h := newHome(t)
	s := h.open(t)
	const writers = 4
	for i := range writers {
		mustCreate(t, s, newSecret(fmt.Sprint("w", i), map[string]string{"n": "0"}))
	}
	var stop atomic.Bool
	var wg sync.WaitGroup
	last := make([]int, writers)
	for i := range writers {
		wg.Go(func() {
			for n := 1; !stop.Load(); n++ {
				err := store.Mutate(t.Context(), s, store.Key{Namespace: "prod", Name: fmt.Sprint("w", i)}, &v1alpha1.Secret{}, func(sec *v1alpha1.Secret) (bool, error) {
					sec.StringData = map[string]string{"n": strconv.Itoa(n)}
					return true, nil
				})
				if err != nil {
					t.Errorf("Mutate: %v", err)
					return
				}
				last[i] = n
			}
		})
	}
	for range 5 {
		if _, err := s.RotateKey(t.Context()); err != nil {
			t.Errorf("RotateKey: %v", err)
		}
	}
	stop.Store(true)
	wg.Wait()
	closeStore(t, s)
	s = h.open(t)
	for i := range writers {
		if got := value(t, s, fmt.Sprint("w", i), "n"); got != strconv.Itoa(last[i]) {
			t.Fatalf("writer %d: stored %s, wrote %d", i, got, last[i])
		}
	}
}

// gate holds up the transactions that go through it.
type gate struct {
	clientv3.KV

	arrived, open chan struct{}
}

func (g *gate) Txn(ctx context.Context) clientv3.Txn {
	return &gatedTxn{Txn: g.KV.Txn(ctx), gate: g}
}

type gatedTxn struct {
	clientv3.Txn

	gate *gate
}

func (g *gatedTxn) If(cs ...clientv3.Cmp) clientv3.Txn   { g.Txn = g.Txn.If(cs...); return g }
func (g *gatedTxn) Then(ops ...clientv3.Op) clientv3.Txn { g.Txn = g.Txn.Then(ops...); return g }

func (g *gatedTxn) Commit() (*clientv3.TxnResponse, error) {
	select {
	case <-g.gate.open:
	default:
		close(g.gate.arrived)
		<-g.gate.open
	}
	return g.Txn.Commit()
}

// TestRotateKeyWaitsForWrites: a write that has sealed with the old key and is not yet
// stored holds the rotation up, which would not see it and drop its key.
func TestRotateKeyWaitsForWrites(t *testing.T) {
	h := newHome(t)
	s := h.open(t)
	g := &gate{KV: s.client.KV, arrived: make(chan struct{}), open: make(chan struct{})}
	s.client.KV = g
	written, rotated := make(chan error, 1), make(chan error, 1)
	go func() { written <- s.Create(t.Context(), newSecret("a", map[string]string{"k": "v"})) }()
	<-g.arrived
	go func() {
		_, err := s.RotateKey(t.Context())
		rotated <- err
	}()
	select {
	case err := <-rotated:
		t.Errorf("the rotation ended while a write was under way: %v", err)
		rotated <- err
	case <-time.After(200 * time.Millisecond):
	}
	close(g.open)
	must(t, errors.Join(<-written, <-rotated))
	closeStore(t, s)
	if got := value(t, h.open(t), "a", "k"); got != "v" {
		t.Fatalf("the secret is %q", got)
	}
}

// TestRotateKeyKeepsWhatItCannotOpen: a Secret whose key is lost stops the rotation,
// and no key is dropped.
func TestRotateKeyKeepsWhatItCannotOpen(t *testing.T) {
	s := newHome(t).open(t)
	mustCreate(t, s, newSecret("a", map[string]string{"k": "v"}))
	const key = objectsPrefix + "secrets/prod/lost"
	raw := `{"metadata":{"name":"lost","namespace":"prod","uid":"u"},"sealed":{"keyID":"gone","nonce":"AAAAAAAAAAAAAAAA","data":"AAAA"}}`
	if _, err := s.client.Put(t.Context(), key, raw); err != nil {
		t.Fatal(err)
	}
	before := s.keyring.IDs()
	if _, err := s.RotateKey(t.Context()); !errors.Is(err, ErrNoKey) {
		t.Fatalf("RotateKey: %v", err)
	}
	for _, id := range before {
		if !slices.Contains(s.keyring.IDs(), id) {
			t.Fatalf("key %s was dropped: %v", id, s.keyring.IDs())
		}
	}
	if _, err := s.client.Do(t.Context(), clientv3.OpDelete(key)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.RotateKey(t.Context()); err != nil || len(s.keyring.IDs()) != 1 || value(t, s, "a", "k") != "v" {
		t.Fatalf("RotateKey afterwards: %v, keys %v", err, s.keyring.IDs())
	}
}
