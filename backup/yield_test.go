package backup_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/quorate/quorate/backup"
	"github.com/quorate/quorate/backup/bucket"
	"github.com/quorate/quorate/backup/catalog"
	"github.com/quorate/quorate/test/etcdlab"
)

// TestCopyEach: what a store holds is its own, also where the stores and the spool are on
// one file system, and it outlives the spool.
func TestCopyEach(t *testing.T) {
	t.Parallel()
	l := etcdlab.New(t, etcdlab.Options{}).Ready()
	fill(t, l.Members[0].Dial(), 200)
	for _, n := range []int{1, 2} {
		o := options(t, l, nil)
		o.Destinations = nil
		var roots []string
		for range n {
			root := t.TempDir()
			b, err := bucket.Open(t.Context(), bucket.Config{Provider: bucket.File, Prefix: root}, bucket.Options{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = b.Close() })
			roots = append(roots, root)
			o.Destinations = append(o.Destinations, backup.Destination{Name: root, Bucket: b})
		}
		taken := take(t, o)
		if left, err := os.ReadDir(o.SpoolDir); err != nil || len(left) > 0 {
			t.Errorf("the spool holds %v, %v", left, err)
		}
		var stored []os.FileInfo
		for i, d := range o.Destinations {
			e := entries(t, d.Bucket)[0]
			stat, err := os.Stat(filepath.Join(roots[i], filepath.FromSlash(e.Dir), e.Point.Object))
			if err != nil || stat.Size() != taken.Written[i].Point.StoredSize {
				t.Fatalf("%v, %v", stat, err)
			}
			for _, other := range stored {
				if os.SameFile(other, stat) {
					t.Error("two stores hold one file")
				}
			}
			stored = append(stored, stat)
			if p := prove(t, d.Bucket, &e); p.Result != catalog.Verified {
				t.Errorf("proof: %+v", p)
			}
		}
	}
}
