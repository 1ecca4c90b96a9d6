package etcd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
)

// Etcd's database: the bucket "key" holds revisions, eight bytes main, '_', eight
// bytes sub, and a 't' behind those that delete.
const (
	keyBucket    = "key"
	revisionSize = 17
	boltTimeout  = time.Second
)

func parent(dir string) string { return filepath.Dir(filepath.Clean(dir)) }

// preflight says whether etcd can be started on dir: on nothing where no store is
// known, or on all the files of one.
func preflight(dir string, known bool) error {
	db := filepath.Join(dir, "member", "snap", "db")
	haveDB := exists(db)
	wals, err := filepath.Glob(filepath.Join(dir, "member", "wal", "*.wal"))
	if err != nil {
		return fmt.Errorf("look into %s: %w", dir, err)
	}
	haveWAL := len(wals) > 0
	if !haveDB && !haveWAL {
		return preflightEmpty(dir, known)
	}
	if !haveDB {
		return fmt.Errorf("%w: %s is missing: %s", ErrCorrupt, db, restoreHint)
	}
	keys, err := scan(db)
	if err != nil {
		return err
	}
	if !haveWAL && (known || keys > 0) {
		return fmt.Errorf("%w: %s holds no write-ahead log: %s", ErrCorrupt, filepath.Join(dir, "member", "wal"), restoreHint)
	}
	return nil
}

func preflightEmpty(dir string, known bool) error {
	if known {
		return fmt.Errorf("%w: %s holds no store, and there was one: %s", ErrStoreLost, dir, restoreHint)
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("the data directory: %w", err)
	}
	foreign := slices.DeleteFunc(entries, func(e fs.DirEntry) bool {
		return e.Name() == "member" || e.Name() == "lost+found" || strings.HasPrefix(e.Name(), ".")
	})
	if len(foreign) > 0 {
		return fmt.Errorf("the data directory %s holds something else (%s): give an empty or a new directory", dir, foreign[0].Name())
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// scan reads every page of a database that is not open, and counts the revisions
// in it: damage shows here as an error rather than later as a crash.
func scan(path string) (keys int, err error) {
	err = viewDB(path, func(tx *bolt.Tx) error {
		var sum int
		return tx.ForEach(func(name []byte, b *bolt.Bucket) error {
			return b.ForEach(func(_, v []byte) error {
				sum += len(bytes.TrimLeft(v, "\x00"))
				if string(name) == keyBucket {
					keys++
				}
				return nil
			})
		})
	})
	return keys, err
}

// viewDB opens a database file to read it. ErrCorrupt, or ErrInUse.
func viewDB(path string, fn func(tx *bolt.Tx) error) (err error) {
	// Pages that the file doesn't have are read as a fault of memory.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %s: %v: %s", ErrCorrupt, path, p, restoreHint)
		}
	}()
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true, Timeout: boltTimeout})
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return inUse(path, "")
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("open the store's database: %w", err)
	case err != nil:
		return fmt.Errorf("%w: %s: %w: %s", ErrCorrupt, path, err, restoreHint)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return db.View(fn)
}

// contents is what a database holds.
type contents struct {
	revision int64
	epoch    Epoch
	// objects counts the live objects by plural.
	objects map[string]int
}

// inspect reads the newest revision of each key in a database file, newest first.
func inspect(path string) (contents, error) {
	c := contents{objects: map[string]int{}}
	seen := map[string]bool{}
	err := viewDB(path, func(tx *bolt.Tx) error {
		bucket := tx.Bucket([]byte(keyBucket))
		if bucket == nil {
			return fmt.Errorf("%w: %s is no database of etcd", ErrCorrupt, path)
		}
		cursor := bucket.Cursor()
		for k, v := cursor.Last(); k != nil; k, v = cursor.Prev() {
			if err := c.add(seen, k, v); err != nil {
				return fmt.Errorf("%w: %s: %w", ErrCorrupt, path, err)
			}
		}
		return nil
	})
	if err == nil && c.epoch.Number == 0 {
		err = fmt.Errorf("%s holds no store of quorate", path)
	}
	return c, err
}

func (c *contents) add(seen map[string]bool, k, v []byte) error {
	if len(k) < revisionSize {
		return fmt.Errorf("a revision of %d bytes", len(k))
	}
	c.revision = max(c.revision, int64(binary.BigEndian.Uint64(k))) //nolint:gosec // revisions are positive
	var kv mvccpb.KeyValue
	if err := proto.Unmarshal(v, &kv); err != nil {
		return err
	}
	key := string(kv.GetKey())
	// A bumped revision leaves an empty record behind.
	if key == "" || seen[key] {
		return nil
	}
	seen[key] = true
	if len(k) > revisionSize {
		return nil
	}
	if key == epochKey {
		var err error
		c.epoch, err = decodeEpoch(kv.GetValue())
		return err
	}
	if rest, ok := strings.CutPrefix(key, objectsPrefix); ok {
		plural, _, _ := strings.Cut(rest, "/")
		c.objects[plural]++
	}
	return nil
}
