package etcd

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func newKeyring(t *testing.T) *Keyring {
	t.Helper()
	k, err := CreateKeyring(filepath.Join(t.TempDir(), "keyring.json"), time.Now())
	if err != nil {
		t.Fatalf("CreateKeyring: %v", err)
	}
	return k
}

func TestCreateKeyring(t *testing.T) {
	k := newKeyring(t)
	info, err := os.Stat(k.Path())
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the keyring's file: %v, %v", info.Mode(), err)
	}
	before, err := os.ReadFile(k.Path())
	if err != nil {
		t.Fatal(err)
	}
	if _, err = CreateKeyring(k.Path(), time.Now()); !errors.Is(err, fs.ErrExist) {
		t.Fatalf("CreateKeyring over a keyring: %v", err)
	}
	after, err := os.ReadFile(k.Path())
	if err != nil || !bytes.Equal(before, after) {
		t.Fatalf("CreateKeyring over a keyring changed it (%v)", err)
	}
	if entries, _ := os.ReadDir(filepath.Dir(k.Path())); len(entries) != 1 {
		t.Fatalf("CreateKeyring left files behind: %v", entries)
	}
	again, err := OpenKeyring(k.Path())
	if err != nil {
		t.Fatalf("OpenKeyring: %v", err)
	}
	if diff := cmp.Diff(k.IDs(), again.IDs()); diff != "" || len(k.IDs()) != 1 {
		t.Fatalf("the keys differ:\n%s", diff)
	}
}

func TestOpenKeyringRefuses(t *testing.T) {
	good, err := os.ReadFile(newKeyring(t).Path())
	if err != nil {
		t.Fatal(err)
	}
	short := strings.Replace(string(good), `"key": "`, `"key": "AAAA", "was": "`, 1)
	for name, tt := range map[string]struct {
		data string
		perm fs.FileMode
		want string
	}{
		"readable by the group": {string(good), 0o640, "chmod 600"},
		"readable by all":       {string(good), 0o604, "chmod 600"},
		"not JSON":              {"hello", 0o600, "not valid JSON"},
		"cut off":               {string(good[:len(good)/2]), 0o600, "not valid JSON"},
		"without keys":          {`{"format":1,"keys":[]}`, 0o600, "holds no key"},
		"of another format":     {`{"format":2,"keys":[]}`, 0o600, "format 2"},
		"with a short key":      {short, 0o600, "key number 1"},
		"with a key twice":      {twice(t, good), 0o600, "key number 2"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "keyring.json")
			if err := os.WriteFile(path, []byte(tt.data), tt.perm); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, tt.perm); err != nil {
				t.Fatal(err)
			}
			_, err := OpenKeyring(path)
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), path) {
				t.Fatalf("OpenKeyring: %v, want one that names %s and says %q", err, path, tt.want)
			}
		})
	}
	if _, err := OpenKeyring(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("OpenKeyring of nothing: %v", err)
	}
}

func twice(t *testing.T, raw []byte) string {
	t.Helper()
	var file keyringFile
	if err := json.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	out, err := encodeKeyring(append(file.Keys, file.Keys...))
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestSealOpen(t *testing.T) {
	k := newKeyring(t)
	box, err := k.seal([]byte("text"), []byte("here"))
	if err != nil {
		t.Fatal(err)
	}
	again, err := k.seal([]byte("text"), []byte("here"))
	if err != nil || bytes.Equal(box.Data, again.Data) {
		t.Fatalf("the same text was sealed to the same bytes (%v)", err)
	}
	got, err := k.open(box, []byte("here"))
	if err != nil || string(got) != "text" {
		t.Fatalf("open: %q, %v", got, err)
	}
	if _, err = k.open(box, []byte("there")); !errors.Is(err, ErrSealBroken) {
		t.Fatalf("open at another place: %v", err)
	}
	altered := box
	altered.Data = bytes.Clone(box.Data)
	altered.Data[0] ^= 1
	if _, err = k.open(altered, []byte("here")); !errors.Is(err, ErrSealBroken) {
		t.Fatalf("open of altered bytes: %v", err)
	}
	_, err = newKeyring(t).open(box, []byte("here"))
	if !errors.Is(err, ErrNoKey) || !strings.Contains(err.Error(), box.KeyID) {
		t.Fatalf("open without the key: %v", err)
	}
}

func TestKeyringReadsTheFileAgain(t *testing.T) {
	one := newKeyring(t)
	two, err := OpenKeyring(one.Path())
	if err != nil {
		t.Fatal(err)
	}
	if err = one.addPrimary(time.Now()); err != nil {
		t.Fatal(err)
	}
	box, err := one.seal([]byte("text"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := two.open(box, nil); err != nil || string(got) != "text" {
		t.Fatalf("another holder of the file: %q, %v", got, err)
	}
}

// FuzzOpen opens garbage: it never opens, and never panics.
func FuzzOpen(f *testing.F) {
	k, err := CreateKeyring(filepath.Join(f.TempDir(), "keyring.json"), time.Now())
	if err != nil {
		f.Fatal(err)
	}
	box, err := k.seal([]byte("text"), []byte("here"))
	if err != nil {
		f.Fatal(err)
	}
	good, err := json.Marshal(box)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{}`))
	f.Add([]byte(`{"keyID":"` + box.KeyID + `"}`))
	f.Add([]byte(`{"keyID":"` + box.KeyID + `","nonce":"AAAAAAAAAAAAAAAA","data":"AAAA"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var in sealed
		if json.Unmarshal(raw, &in) != nil {
			return
		}
		got, err := k.open(in, []byte("here"))
		if in.KeyID == box.KeyID && bytes.Equal(in.Nonce, box.Nonce) && bytes.Equal(in.Data, box.Data) {
			if err != nil || string(got) != "text" {
				t.Fatalf("what was sealed gave %q, %v", got, err)
			}
			return
		}
		if err == nil {
			t.Fatalf("garbage opened as %q", got)
		}
		if !errors.Is(err, ErrNoKey) && !errors.Is(err, ErrSealBroken) {
			t.Fatalf("garbage gave %v", err)
		}
	})
}

// FuzzDecodeSecret reads records that are no sealed secrets.
func FuzzDecodeSecret(f *testing.F) {
	k, err := CreateKeyring(filepath.Join(f.TempDir(), "keyring.json"), time.Now())
	if err != nil {
		f.Fatal(err)
	}
	s := newStore(f.Context(), Options{Keyring: k})
	const key = objectsPrefix + "secrets/prod/a"
	secret := newSecret("a", nil)
	secret.UID, secret.Data = "u", map[string][]byte{"k": []byte("v")}
	good, err := s.encode(key, secret)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"data":{"k":"dg=="}}`))
	f.Add([]byte(`{"sealed":{}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		got := newSecret("", nil)
		if s.decode(key, raw, 1, got) == nil && string(got.Data["k"]) != "v" {
			t.Fatalf("a forged record was taken: %v", got.Data)
		}
	})
}
