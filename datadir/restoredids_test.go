package datadir

import (
	"errors"
	"testing"
)

// TestRestoreIDs: the IDs are known before a restore, and are those that it makes.
func TestRestoreIDs(t *testing.T) {
	t.Parallel()
	o := restoreOptions(t.TempDir())
	write(t, o.Path, string(sealed(t, synthetic(t, 10, 10))))
	if _, _, err := o.IDs(); !errors.Is(err, ErrRestore) {
		t.Errorf("without a token: %v", err)
	}
	o.Token = "t"
	cluster, member, err := o.IDs()
	if err != nil {
		t.Fatal(err)
	}
	done, err := Restore(t.Context(), o)
	if err != nil || done.ClusterID != cluster || done.MemberID != member {
		t.Errorf("made %x of %x (%v), foretold were %x of %x", done.MemberID, done.ClusterID, err, member, cluster)
	}
	o.Token = "u"
	if other, _, err := o.IDs(); err != nil || other == cluster {
		t.Errorf("another token makes the same cluster %x: %v", other, err)
	}
	o.Name = "nobody"
	if _, _, err := o.IDs(); !errors.Is(err, ErrRestore) {
		t.Errorf("no member: %v", err)
	}
}
