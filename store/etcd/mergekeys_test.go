package etcd

import (
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// TestMergeKeyring: a keyring opens what it opened and what the other does, and
// goes on sealing with its own key.
func TestMergeKeyring(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	into, from := filepath.Join(dir, "into"), filepath.Join(dir, "from")
	other, err := CreateKeyring(from, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err = MergeKeyring(into, from); err != nil {
		t.Fatal(err)
	}
	made, err := OpenKeyring(into)
	if err != nil || !slices.Equal(made.IDs(), other.IDs()) {
		t.Fatalf("made anew: %v, %v", made, err)
	}
	if err = made.addPrimary(time.Now()); err != nil {
		t.Fatal(err)
	}
	third, err := CreateKeyring(filepath.Join(dir, "third"), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err = MergeKeyring(into, third.Path()); err != nil {
			t.Fatal(err)
		}
	}
	merged, err := OpenKeyring(into)
	if err != nil {
		t.Fatal(err)
	}
	if want := append(made.IDs(), third.IDs()...); !slices.Equal(merged.IDs(), want) {
		t.Fatalf("merged to %v, want %v", merged.IDs(), want)
	}
	s, err := other.seal([]byte("x"), []byte("a"))
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := merged.open(s, []byte("a")); err != nil || string(plain) != "x" {
		t.Fatalf("what the other sealed: %q, %v", plain, err)
	}
}
