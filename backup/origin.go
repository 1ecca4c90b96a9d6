package backup

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"github.com/quorate/quorate/backup/bucket"
	"github.com/quorate/quorate/backup/catalog"
	"github.com/quorate/quorate/datadir"
)

// Origin is what is restored or read: a backup in a store, or a file. A file may be
// what etcdctl saves, a full snapshot of etcd-backup-restore, or an object of a store,
// packed or not: how it is packed is told by its first bytes.
type Origin struct {
	Bucket bucket.Bucket
	Entry  *catalog.Entry
	// File is read where Bucket is nil.
	File string
	// Identities open what is encrypted.
	Identities []age.Identity
}

// String names the origin in messages.
func (o Origin) String() string {
	if o.Bucket == nil {
		return o.File
	}
	return o.Entry.Ref.ID() + " in " + o.Bucket.String()
}

// open reads the database; size is in bytes, or 0 where it is not known before.
func (o Origin) open(ctx context.Context) (db io.ReadCloser, size int64, err error) {
	if o.Bucket == nil {
		return openFile(o.File, o.Identities)
	}
	if o.Entry.Point == nil {
		return nil, 0, fmt.Errorf("%s: it has no manifest that can be read: %w", o, o.Entry.Err)
	}
	db, stored, err := open(ctx, o.Bucket, o.Entry, o.Identities)
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", o, err)
	}
	return &verified{ReadCloser: db, stored: stored, want: o.Entry.Point.StoredSHA256}, o.Entry.Point.DBSize, nil
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

// How files begin.
var (
	beginsGzip = []byte{0x1f, 0x8b}
	beginsZlib = []byte{0x78}
	beginsZstd = []byte{0x28, 0xb5, 0x2f, 0xfd}
	beginsAge  = []byte("age-encryption.org/v1\n")
)

// openFile unpacks a file as its first bytes say.
func openFile(path string, identities []age.Identity) (_ io.ReadCloser, size int64, err error) {
	f, err := os.Open(path) //nolint:gosec // the file that a person named
	if err != nil {
		return nil, 0, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	from := &source{Reader: f}
	r := bufio.NewReaderSize(from, 1<<20)
	head, _ := r.Peek(len(beginsAge)) // a shorter file begins with none of them
	if bytes.Equal(head, beginsAge) {
		opened, openErr := age.Decrypt(r, identities...)
		if openErr != nil {
			return nil, 0, fmt.Errorf("%s: %w: %w: give the identity file of one of its recipients", path, ErrNoIdentity, openErr)
		}
		r = bufio.NewReaderSize(opened, 1<<20)
		head, _ = r.Peek(len(beginsZstd))
	}
	switch {
	case bytes.HasPrefix(head, beginsGzip):
		unzipped, zipErr := gzip.NewReader(r)
		if zipErr != nil {
			return nil, 0, fmt.Errorf("%s: %w: %w", path, ErrPacked, zipErr)
		}
		return &unpacked{Reader: unzipped, stored: from, close: f.Close}, 0, nil
	case bytes.HasPrefix(head, beginsZlib):
		unzipped, zipErr := zlib.NewReader(r)
		if zipErr != nil {
			return nil, 0, fmt.Errorf("%s: %w: %w", path, ErrPacked, zipErr)
		}
		return &unpacked{Reader: unzipped, stored: from, close: f.Close}, 0, nil
	case bytes.HasPrefix(head, beginsZstd):
		dec, zipErr := zstd.NewReader(r, zstd.WithDecoderConcurrency(2), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
		if zipErr != nil {
			return nil, 0, fmt.Errorf("%s: %w: %w", path, ErrPacked, zipErr)
		}
		return &unpacked{Reader: dec, stored: from, close: func() error {
			dec.Close()
			return f.Close()
		}}, 0, nil
	}
	return &unpacked{Reader: r, stored: from, close: f.Close}, info.Size(), nil
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
