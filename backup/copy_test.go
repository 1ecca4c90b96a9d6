package backup_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"testing"

	"filippo.io/age"

	"github.com/quorate/quorate/backup"
	"github.com/quorate/quorate/backup/catalog"
	"github.com/quorate/quorate/test/etcdlab"
)

// TestCopy copies an encrypted backup with its proof to another store, where it can be
// proven again by who has the identity, and by nobody else.
func TestCopy(t *testing.T) {
	t.Parallel()
	l := etcdlab.New(t, etcdlab.Options{}).Ready()
	fill(t, l.Members[0].Dial(), 100)
	mine, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	here, there := directory(t), directory(t)
	o := options(t, l, here)
	if o.Recipients, err = backup.ParseRecipients([]string{mine.Recipient().String()}); err != nil {
		t.Fatal(err)
	}
	take(t, o)
	e := entries(t, here)[0]
	proving := backup.ProveOptions{Bucket: here, ScratchDir: t.TempDir(), ScratchFloor: 1, Etcd: itself(t)}
	if _, err = backup.Prove(t.Context(), &e, proving); err == nil {
		t.Error("it was proven without an identity")
	}
	proving.Identities = []age.Identity{mine}
	if p, err := backup.Prove(t.Context(), &e, proving); err != nil || p.Result != catalog.Verified {
		t.Fatalf("proof: %+v, %v", p, err)
	}
	e = entries(t, here)[0]
	for i, want := range []bool{true, false} {
		copied, err := backup.Copy(t.Context(), here, &e, backup.Destination{Name: "there", Bucket: there}, nil)
		if err != nil || copied != want {
			t.Fatalf("copy %d: %v, %v", i+1, copied, err)
		}
	}
	e = entries(t, there)[0]
	if e.Verdict() != catalog.Proven {
		t.Errorf("the copy is %s", e.Verdict())
	}
	proving.Bucket = there
	if p, err := backup.Prove(t.Context(), &e, proving); err != nil || p.Result != catalog.Verified {
		t.Errorf("proof of the copy: %+v, %v", p, err)
	}
}

// TestFiles restores what etcdctl saves, and what others pack with gzip.
func TestFiles(t *testing.T) {
	t.Parallel()
	l := etcdlab.New(t, etcdlab.Options{}).Ready()
	c := l.Members[0].Dial()
	fill(t, c, 100)
	want := dump(t, c)
	r, err := c.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	if _, err = w.Write(raw); err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"saved.db": raw, "Full-00000000-00000200-1700000000.gz": zipped.Bytes()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), name)
			if err := os.WriteFile(file, content, 0o600); err != nil {
				t.Fatal(err)
			}
			if got := dump(t, restore(t, backup.Origin{File: file})); got != want {
				t.Errorf("restored:\n%s\nwant\n%s", head(got), head(want))
			}
		})
	}
}
