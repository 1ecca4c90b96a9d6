package datadir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestIdentityRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "identity.json")
	if _, err := LoadIdentity(path); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("no file: %v, want fs.ErrNotExist", err)
	}
	id := Identity{MemberUID: "u-1", Name: "db-0", ClusterID: "cdf818194e3a8c32", MemberID: "8e9e05c52164694d", Rest: &Rest{Term: 2, Vote: 1, LastIndex: 9}}
	id.Advance(2, 8)
	if err := id.Save(path); err != nil {
		t.Fatal(err)
	}
	got, err := LoadIdentity(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(id, got); diff != "" {
		t.Fatalf("(-saved +loaded):\n%s", diff)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Fatalf("mode is %v", info.Mode())
	}
}

func TestLoadIdentityDoesNotGuess(t *testing.T) {
	for name, text := range map[string]string{
		"empty":        "",
		"cut short":    `{"memberUID":"u-1","na`,
		"no member":    `{"name":"db-0"}`,
		"bad ID":       `{"memberUID":"u-1","memberID":"xyz"}`,
		"ID too long":  `{"memberUID":"u-1","clusterID":"11111111111111111"}`,
		"another kind": `[1]`,
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "identity.json")
			write(t, path, text)
			if _, err := LoadIdentity(path); !errors.Is(err, ErrIdentity) {
				t.Fatalf("got %v, want ErrIdentity", err)
			}
		})
	}
}

func TestAdvanceKeepsTheMaximum(t *testing.T) {
	var id Identity
	for _, step := range []struct {
		term, index uint64
		moved       bool
		want        Mark
	}{
		{2, 10, true, Mark{2, 10}},
		{2, 10, false, Mark{2, 10}},
		{1, 5, false, Mark{2, 10}},
		{3, 9, true, Mark{3, 10}},
		{2, 11, true, Mark{3, 11}},
	} {
		if moved := id.Advance(step.term, step.index); moved != step.moved || id.Mark != step.want {
			t.Fatalf("Advance(%d, %d) = %v, mark %v; want %v, %v", step.term, step.index, moved, id.Mark, step.moved, step.want)
		}
	}
	if id.MarkedAt.IsZero() {
		t.Fatal("the time is not recorded")
	}
}

// TestIdentityRestoring: from before a directory is made from a backup, an empty one
// and that of anyone else are refused.
func TestIdentityRestoring(t *testing.T) {
	path := filepath.Join(t.TempDir(), "identity.json")
	id := Identity{MemberUID: "u-1", Name: "db-0"}
	if id.Restore.Done() {
		t.Fatal("a restore that was not begun is done")
	}
	if got := Judge(Tail{Empty: true}, id.Expectation()); got.State != Fresh {
		t.Fatalf("before: %+v", got)
	}
	begun := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	id.Restoring(RestoreNote{Name: "back", Token: "t", BegunAt: begun}, 0xc, 0xa)
	if err := id.Save(path); err != nil {
		t.Fatal(err)
	}
	got, err := LoadIdentity(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(id, got); diff != "" {
		t.Fatalf("(-saved +loaded):\n%s", diff)
	}
	for name, tc := range map[string]struct {
		tail Tail
		want State
	}{
		"empty":             {Tail{Empty: true}, Refused},
		"its own":           {Tail{ClusterID: 0xc, MemberID: 0xa}, OK},
		"another member":    {Tail{ClusterID: 0xc, MemberID: 0xb}, Refused},
		"another restore's": {Tail{ClusterID: 0xd, MemberID: 0xa}, Refused},
	} {
		if verdict := Judge(tc.tail, got.Expectation()); verdict.State != tc.want {
			t.Errorf("%s: %+v, want %s", name, verdict, tc.want)
		}
	}
	if got.Restore.Done() {
		t.Error("it is done")
	}
	got.Restore.DoneAt = begun.Add(time.Second)
	if !got.Restore.Done() {
		t.Error("it is not done")
	}
}
