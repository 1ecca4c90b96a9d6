package datadir

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
)

// lockWait bounds the wait for a database that a process has open.
const lockWait = 200 * time.Millisecond

// appliedIndex returns the raft index up to which etcd's database at path has
// applied a log: 0 for the one that etcd makes before its log, and for none.
func appliedIndex(path string) (index uint64, err error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return 0, nil
	case err != nil:
		return 0, err
	case info.Size() == 0:
		// Bbolt was stopped between making the file and writing its first pages.
		return 0, nil
	}
	// A damaged file makes bbolt panic, or fault where the file ends early.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("%s is damaged: %v", path, cause)
		}
	}()
	db, err := bbolt.Open(path, 0o400, &bbolt.Options{ReadOnly: true, Timeout: lockWait})
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	err = db.View(func(tx *bbolt.Tx) error {
		meta := tx.Bucket([]byte("meta"))
		if meta == nil {
			return nil
		}
		if raw := meta.Get([]byte("consistent_index")); len(raw) == 8 {
			index = binary.BigEndian.Uint64(raw)
		}
		return nil
	})
	return index, errors.Join(err, db.Close())
}
