package backup_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/quorate/quorate/backup"
	"github.com/quorate/quorate/backup/bucket"
	"github.com/quorate/quorate/backup/catalog"
	"github.com/quorate/quorate/test/etcdlab"
	"github.com/quorate/quorate/test/s3lab"
)

// TestCopy copies an encrypted backup to another store, without an identity. There it is
// proven only by a proof of its own, by who has the identity and by nobody else.
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
	if got := copyAll(t, here, backup.Destination{Name: "there", Bucket: there}); !slices.Equal(got, []bool{true}) {
		t.Fatalf("copied: %v", got)
	}
	if got := copyAll(t, here, backup.Destination{Name: "there", Bucket: there}); !slices.Equal(got, []bool{false}) {
		t.Fatalf("copied again: %v", got)
	}
	if e = entries(t, there)[0]; e.Verdict() != catalog.Unproven || len(e.Proofs) > 0 {
		t.Errorf("the copy is %s by the proofs of another store", e.Verdict())
	}
	proving.Bucket = there
	if p, err := backup.Prove(t.Context(), &e, proving); err != nil || p.Result != catalog.Verified {
		t.Errorf("proof of the copy: %+v, %v", p, err)
	}
}

// copyAll copies all that a store has, and says what was copied.
func copyAll(t *testing.T, from bucket.Bucket, to backup.Destination) []bool {
	t.Helper()
	all := entries(t, from)
	c := backup.NewCopier(from, all, to)
	var copied []bool
	for i := range all {
		done, err := c.Copy(t.Context(), &all[i], nil)
		if err != nil {
			t.Fatal(err)
		}
		copied = append(copied, done)
	}
	return copied
}

// TestCopyMissed has one of two destinations down for some backups, and brings them there.
func TestCopyMissed(t *testing.T) {
	t.Parallel()
	l := etcdlab.New(t, etcdlab.Options{}).Ready()
	c := l.Members[0].Dial()
	here, there := directory(t), directory(t)
	o := options(t, l, here)
	o.Destinations = append(o.Destinations, backup.Destination{Name: "far", Bucket: there})
	var dumps []string
	for i := range 4 {
		fill(t, c, 20)
		dumps = append(dumps, dump(t, c))
		if down := i == 1 || i == 2; !down {
			take(t, o)
			continue
		}
		broken := o
		broken.Destinations = slices.Clone(o.Destinations)
		broken.Destinations[1].Bucket = failing{Bucket: there, put: func(string) error { return bucket.ErrUnavailable }}
		if taken, err := backup.Take(t.Context(), broken); !errors.Is(err, backup.ErrDestinations) || taken.Written[0].Err != nil {
			t.Fatalf("backup %d: %v", i, err)
		}
	}
	if n := len(complete(entries(t, there))); n != 2 {
		t.Fatalf("the other has %d before", n)
	}
	e := entries(t, there)[0]
	prove(t, there, &e)
	if got := copyAll(t, here, backup.Destination{Name: "far", Bucket: there}); !slices.Equal(got, []bool{false, true, true, false}) {
		t.Errorf("copied: %v", got)
	}
	all := complete(entries(t, there))
	if len(all) != 4 || all[0].Verdict() != catalog.Proven || all[1].Verdict() != catalog.Unproven {
		t.Fatalf("the other has %+v", all)
	}
	for i := range all {
		if all[i].Ref.Compare(entries(t, here)[i].Ref) != 0 {
			t.Errorf("backup %d is %s there", i, all[i].Ref)
		}
		if p := prove(t, there, &all[i]); p.Result != catalog.Verified {
			t.Errorf("backup %d: %s", i, p.Reason)
		}
	}
	if got := dump(t, restore(t, backup.Origin{Bucket: there, Entry: &all[2]})); got != dumps[2] {
		t.Errorf("restored:\n%s\nwant\n%s", head(got), head(dumps[2]))
	}
}

// complete are those that count.
func complete(all []catalog.Entry) []catalog.Entry {
	return slices.DeleteFunc(all, func(e catalog.Entry) bool { return e.State != catalog.Complete })
}

// failing is a store that refuses some objects, and counts what it is given.
type failing struct {
	bucket.Bucket
	put func(name string) error
}

func (f failing) Put(ctx context.Context, name string, body io.Reader, o bucket.PutOptions) (bucket.Info, error) {
	if err := f.put(name); err != nil {
		return bucket.Info{}, err
	}
	return f.Bucket.Put(ctx, name, body, o)
}

// stored is a point whose data is no database: a copy does not look into it.
func stored(t *testing.T, b bucket.Bucket, epoch uint32, revision int64, at time.Time) catalog.Ref {
	t.Helper()
	data := []byte(fmt.Sprint("data of revision ", revision, strings.Repeat(".", 1000)))
	sum := sha256.Sum256(data)
	p := catalog.Point{
		Namespace: "default", Name: "prod", ClusterID: 1, Epoch: epoch, EpochReason: "told here", Nonce: fmt.Sprintf("%08x", revision),
		Revision: revision, Started: at, Ended: at.Add(time.Second), Object: "snapshot.db.zst", DBSize: 1, StoredSize: int64(len(data)),
		DBSHA256: strings.Repeat("0", 64), StoredSHA256: hex.EncodeToString(sum[:]), Compression: catalog.CompressionZstd,
	}
	name, err := catalog.Layout{}.File(p.Ref(), p.Object)
	if err != nil {
		t.Fatal(err)
	}
	put(t, b, name, data)
	manifest, err := catalog.EncodePoint(p)
	if err != nil {
		t.Fatal(err)
	}
	if name, err = (catalog.Layout{}).Manifest(p.Ref()); err != nil {
		t.Fatal(err)
	}
	put(t, b, name, manifest)
	return p.Ref()
}

func put(t *testing.T, b bucket.Bucket, name string, data []byte) {
	t.Helper()
	if _, err := b.Put(t.Context(), name, bytes.NewReader(data), bucket.PutOptions{}); err != nil {
		t.Fatal(err)
	}
}

// TestCopyBrokenOff goes on with what a copy has left, and writes over nothing else.
func TestCopyBrokenOff(t *testing.T) {
	t.Parallel()
	here, dir := directory(t), t.TempDir()
	there := open(t, bucket.Config{Provider: bucket.File, Prefix: dir}, bucket.Credentials{})
	stored(t, here, 1, 100, time.Now().Add(-40*24*time.Hour))
	all := entries(t, here)
	e := &all[0]
	data := e.Dir + e.Point.Object
	var puts []string
	refuse := "point.json"
	to := backup.Destination{Name: "there", Bucket: failing{Bucket: there, put: func(name string) error {
		puts = append(puts, filepath.Base(name))
		if filepath.Base(name) == refuse {
			return bucket.ErrUnavailable
		}
		return nil
	}}}
	again := func(what string, want error, wantPuts ...string) {
		t.Helper()
		puts = nil
		copied, err := backup.NewCopier(here, all, to).Copy(t.Context(), e, nil)
		if !errors.Is(err, want) || copied != (err == nil) || !slices.Equal(puts, wantPuts) {
			t.Errorf("%s: %v, %v, puts %q", what, copied, err, puts)
		}
		if err != nil && len(complete(entries(t, there))) > 0 {
			t.Errorf("%s: it counts", what)
		}
	}
	again("broken off", bucket.ErrUnavailable, "snapshot.db.zst", "point.json")
	again("broken off again", bucket.ErrUnavailable, "point.json")
	old := time.Now().Add(-7 * time.Hour)
	if err := os.Chtimes(filepath.Join(dir, data), old, old); err != nil {
		t.Fatal(err)
	}
	again("about to be a leftover", bucket.ErrUnavailable, "snapshot.db.zst", "point.json")

	whole, err := os.ReadFile(filepath.Join(dir, data))
	if err != nil {
		t.Fatal(err)
	}
	altered := bytes.Clone(whole)
	altered[7] ^= 1
	for what, content := range map[string][]byte{"altered": altered, "short": whole[:10]} {
		if err = os.WriteFile(filepath.Join(dir, data), content, 0o600); err != nil {
			t.Fatal(err)
		}
		again(what, backup.ErrInTheWay)
		if got, readErr := os.ReadFile(filepath.Join(dir, data)); readErr != nil || !bytes.Equal(got, content) {
			t.Errorf("%s: it was written over: %v", what, readErr)
		}
	}
	if err = os.WriteFile(filepath.Join(dir, data), whole, 0o600); err != nil {
		t.Fatal(err)
	}
	refuse = ""
	again("gone on with", nil, "point.json")

	// A damaged backup there is for a person to look at.
	if err = os.Remove(filepath.Join(dir, data)); err != nil {
		t.Fatal(err)
	}
	again("damaged there", backup.ErrInTheWay)
	if _, err = os.Stat(filepath.Join(dir, data)); err == nil {
		t.Error("a damaged backup was touched")
	}
}

// TestCopyDamage: what is not as it was is not stored, and what was not stored as it is
// does not count.
func TestCopyDamage(t *testing.T) {
	t.Parallel()
	from, dir := t.TempDir(), t.TempDir()
	here := open(t, bucket.Config{Provider: bucket.File, Prefix: from}, bucket.Credentials{})
	there := open(t, bucket.Config{Provider: bucket.File, Prefix: dir}, bucket.Credentials{})
	stored(t, here, 1, 100, time.Now())
	all := entries(t, here)
	name := all[0].Dir + all[0].Point.Object
	whole, err := os.ReadFile(filepath.Join(from, name))
	if err != nil {
		t.Fatal(err)
	}
	altered := bytes.Clone(whole)
	altered[7] ^= 1
	write := func(dir string, content []byte) {
		if failed := os.WriteFile(filepath.Join(dir, name), content, 0o600); failed != nil {
			t.Error(failed)
		}
	}
	write(from, altered)
	if _, err = backup.NewCopier(here, all, backup.Destination{Bucket: there}).Copy(t.Context(), &all[0], nil); !errors.Is(err, backup.ErrPacked) {
		t.Errorf("damaged here: %v", err)
	}
	if got := entries(t, there); len(got) > 0 {
		t.Errorf("the other has %v", got)
	}
	write(from, whole)
	// A disk that keeps something else than it was given.
	rotting := altering{Bucket: there, after: func() { write(dir, altered) }}
	if _, err = backup.NewCopier(here, all, backup.Destination{Bucket: rotting}).Copy(t.Context(), &all[0], nil); !errors.Is(err, bucket.ErrCorrupt) {
		t.Errorf("damaged there: %v", err)
	}
	if got := complete(entries(t, there)); len(got) > 0 {
		t.Errorf("the other has %v", got)
	}
	partial := all[0]
	partial.State, partial.Point = catalog.Partial, nil
	if _, err = backup.NewCopier(here, all, backup.Destination{Bucket: there}).Copy(t.Context(), &partial, nil); !errors.Is(err, backup.ErrOptions) {
		t.Errorf("without a manifest: %v", err)
	}
}

type altering struct {
	bucket.Bucket
	after func()
}

func (a altering) Put(ctx context.Context, name string, body io.Reader, o bucket.PutOptions) (bucket.Info, error) {
	info, err := a.Bucket.Put(ctx, name, body, o)
	a.after()
	return info, err
}

// TestCopyEpochs: stores that have not seen the same resets count epochs otherwise.
func TestCopyEpochs(t *testing.T) {
	t.Parallel()
	here, there := directory(t), directory(t)
	now := time.Now().Truncate(time.Second)
	at := func(hours int) time.Time { return now.Add(time.Duration(hours-100) * time.Hour) }
	// Here it was reset after revision 900; there the first backup came later.
	stored(t, here, 1, 900, at(1))
	for i, r := range []int64{50, 60, 70} {
		stored(t, here, 2, r, at(2+i))
	}
	stored(t, there, 1, 50, at(2))
	stored(t, there, 1, 70, at(4))
	sameTime := stored(t, here, 2, 61, at(3)) // of another process, at the same second

	all := entries(t, here)
	c := backup.NewCopier(here, all, backup.Destination{Name: "there", Bucket: there})
	var got []string
	for i := range all {
		copied, err := c.Copy(t.Context(), &all[i], nil)
		got = append(got, fmt.Sprint(all[i].Ref.Revision, copied, errors.Is(err, catalog.ErrEpoch), err == nil))
	}
	if want := []string{"900 false true false", "50 false false true", "60 true false true", "61 true false true", "70 false false true"}; !slices.Equal(got, want) {
		t.Errorf("copied:\n%q, want\n%q", got, want)
	}
	var have []string
	for _, e := range entries(t, there) {
		have = append(have, fmt.Sprint(e.Ref.Epoch, " ", e.Ref.Revision, e.State, e.Point.EpochReason))
	}
	if want := []string{"1 50Completetold here", "1 60Complete", "1 61Complete", "1 70Completetold here"}; !slices.Equal(have, want) {
		t.Errorf("there are:\n%q, want\n%q", have, want)
	}
	if newest := catalog.Newest(entries(t, there)); newest.Ref.Revision != 70 {
		t.Errorf("the newest is %s", newest.Ref)
	}
	if !slices.ContainsFunc(entries(t, there), func(e catalog.Entry) bool { return e.Ref.SameBackup(sameTime) }) {
		t.Error("of two at the same second, one is not there")
	}
}

// TestCopyLocked copies a backup that is older than the lock it gets: the lock is the
// copy's.
func TestCopyLocked(t *testing.T) {
	t.Parallel()
	lab := s3lab.New(t, s3lab.Options{})
	lab.MakeLocking("kept")
	there := open(t, lab.Config("kept"), s3lab.Credentials())
	here := directory(t)
	stored(t, here, 1, 100, time.Now().Add(-40*24*time.Hour))
	all := entries(t, here)
	name := all[0].Dir + all[0].Point.Object
	// An earlier copy without a lock was broken off.
	whole, err := here.Get(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(whole)
	if err = errors.Join(err, whole.Close()); err != nil {
		t.Fatal(err)
	}
	put(t, there, name, data)
	to := backup.Destination{Name: "there", Bucket: there, LockFor: time.Hour}
	if got := copyAll(t, here, to); !slices.Equal(got, []bool{true}) {
		t.Fatalf("copied: %v", got)
	}
	for _, object := range []string{name, all[0].Dir + "point.json"} {
		info, err := there.Stat(t.Context(), object)
		if left := time.Until(info.RetainUntil); err != nil || left < 55*time.Minute || left > time.Hour {
			t.Errorf("%s is locked for %s, %v", object, left, err)
		}
	}
	e := entries(t, there)[0]
	if e.Point.LockedUntil == nil || time.Until(*e.Point.LockedUntil) < 55*time.Minute {
		t.Errorf("its manifest says %v", e.Point.LockedUntil)
	}
	if got := copyAll(t, here, to); !slices.Equal(got, []bool{false}) {
		t.Errorf("copied again: %v", got)
	}
}
