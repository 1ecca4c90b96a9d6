package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"filippo.io/age"

	"github.com/quorate/quorate/backup/bucket"
	"github.com/quorate/quorate/backup/catalog"
	"github.com/quorate/quorate/datadir"
)

// Origin is what is restored or read: a backup in a store, an object that others stored,
// or a file. The latter two may be what etcdctl saves, a full snapshot of
// etcd-backup-restore, or the data of a backup: with what it is packed, or whether at
// all, is told by its first bytes. That it is whole is told by how it is packed and by
// the SHA-256 behind the database.
type Origin struct {
	Bucket bucket.Bucket
	// Entry of the bucket's catalog.
	Entry *catalog.Entry
	// Object is the name of what others stored in the bucket, where Entry is nil.
	Object string
	// File is read where Bucket is nil.
	File string
	// Identities open what is encrypted.
	Identities []age.Identity
}

// String names the origin in messages.
func (o Origin) String() string {
	switch {
	case o.Bucket == nil:
		return o.File
	case o.Entry == nil:
		return o.Object + " in " + o.Bucket.String()
	}
	return o.Entry.Ref.ID() + " in " + o.Bucket.String()
}

// open reads the database; size is in bytes, or 0 where it is not known before. Errors
// are ErrPacked, ErrNoIdentity, ErrDelta and those of the bucket or the file.
func (o Origin) open(ctx context.Context) (db io.ReadCloser, size int64, err error) {
	switch {
	case o.Bucket == nil:
		return o.openFile()
	case o.Entry == nil:
		return o.openObject(ctx)
	case o.Entry.Point == nil:
		return nil, 0, fmt.Errorf("%s: it has no manifest that can be read: %w", o, o.Entry.Err)
	}
	db, stored, err := open(ctx, o.Bucket, o.Entry, o.Identities)
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", o, err)
	}
	return &verified{ReadCloser: db, stored: stored, want: o.Entry.Point.StoredSHA256}, o.Entry.Point.DBSize, nil
}

// openFile reads a file of this machine.
func (o Origin) openFile() (io.ReadCloser, int64, error) {
	f, err := os.Open(o.File)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return o.unpack(f, info.Size())
}

// openObject reads what others stored.
func (o Origin) openObject(ctx context.Context) (io.ReadCloser, int64, error) {
	info, err := o.Bucket.Stat(ctx, o.Object)
	if err != nil {
		return nil, 0, err
	}
	r, err := o.Bucket.Get(ctx, o.Object)
	if err != nil {
		return nil, 0, err
	}
	return o.unpack(r, info.Size)
}

// unpack reads what others stored as the database it holds; it closes stored.
func (o Origin) unpack(stored io.ReadCloser, size int64) (io.ReadCloser, int64, error) {
	if IsDelta(o.File + o.Object) {
		return nil, 0, errors.Join(fmt.Errorf("%s: %w", o, ErrDelta), stored.Close())
	}
	f, packed, err := openForeign(stored, o.Identities)
	switch {
	case err != nil:
		return nil, 0, fmt.Errorf("%s: %w", o, err)
	case packed:
		size = 0
	}
	return f, size, nil
}

// verified compares what came from a store with the manifest, at its end.
type verified struct {
	io.ReadCloser
	stored *meter
	want   string
}

func (v *verified) Read(p []byte) (int, error) {
	n, err := v.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		if drainErr := v.stored.drain(); drainErr != nil {
			return n, drainErr
		}
		if sum := v.stored.sum(); sum != v.want {
			return n, fmt.Errorf("%w: the stored object has SHA-256 %s, and the manifest says %s", ErrPacked, sum, v.want)
		}
	}
	return n, err
}

// Local is a backup on this machine's disk, to be read. Close it.
type Local struct {
	*datadir.DB
	// Checked is what the check of it found.
	Checked datadir.SnapshotInfo
	spool   *Spool
}

// Close removes what was fetched.
func (l *Local) Close() error {
	err := l.DB.Close()
	if l.spool != nil {
		err = errors.Join(err, l.spool.Close())
	}
	return err
}

// Fetch brings a backup to this machine, checks it, and opens it. It needs room for
// the database below spoolDir, of whose disk floor bytes stay free.
func Fetch(ctx context.Context, o Origin, spoolDir string, floor int64) (_ *Local, err error) {
	db, size, err := o.open(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if floor == 0 {
		floor = spoolFloor
	}
	spool, err := NewSpool(spoolDir, floor, size)
	if err != nil {
		return nil, err
	}
	l := &Local{spool: spool}
	defer func() {
		if err != nil {
			err = errors.Join(err, spool.Close())
		}
	}()
	if _, err = io.Copy(spool, db); err != nil {
		return nil, fmt.Errorf("fetch %s: %w", o, err)
	}
	if l.Checked, err = datadir.CheckSnapshot(ctx, spool.Path(), datadir.CheckOptions{AllowNoHash: true}); err != nil {
		return nil, fmt.Errorf("fetch %s: %w", o, err)
	}
	l.DB, err = datadir.OpenDB(ctx, spool.Path())
	return l, err
}
