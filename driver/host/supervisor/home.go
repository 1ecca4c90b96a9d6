package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/internal/atomicfile"
	"github.com/quorate/quorate/internal/backoff"
)

// Home is the directory of one member. Its files are the only way in which a
// driver and a supervisor talk, so that either may be killed and replaced.
type Home string

// The files of a home.
func (h Home) file(elem ...string) string {
	return filepath.Join(append([]string{string(h)}, elem...)...)
}

// OrderFile says what the supervisor must do; the driver writes it.
func (h Home) OrderFile() string { return h.file("member.json") }

// StateFile says what the supervisor did; only the supervisor writes it.
func (h Home) StateFile() string { return h.file("state.json") }

// IdentityFile is the member's datadir.Identity; written under its own lock.
func (h Home) IdentityFile() string { return h.file("identity.json") }

// PortsFile holds the ports chosen for the member.
func (h Home) PortsFile() string { return h.file("ports.json") }

// LockFile is held by the supervisor for as long as it lives.
func (h Home) LockFile() string { return h.file("lock") }

// TLSDir holds keys and certificates made here.
func (h Home) TLSDir() string { return h.file("tls") }

// DataDir is etcd's.
func (h Home) DataDir() string { return h.file("data") }

// LogDir is where logs go unless the member says otherwise.
func (h Home) LogDir() string { return h.file("log") }

// SupervisorLog is where the supervisor's own log goes.
func (h Home) SupervisorLog() string { return h.file("supervisor.log") }

// ErrHeld says that a supervisor of the home lives.
var ErrHeld = errors.New("the member has a supervisor already")

// ErrCorrupt says that a file of the home can't be read as what it should be.
var ErrCorrupt = errors.New("corrupt file")

// Lock is the right to act on a home.
type Lock struct{ file *os.File }

// TryLock takes the home's lock, or fails with ErrHeld at once.
func (h Home) TryLock() (*Lock, error) {
	f, err := os.OpenFile(h.LockFile(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the home of the member: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		err = fmt.Errorf("lock %s: %w", h.LockFile(), err)
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = fmt.Errorf("%w: %s is locked", ErrHeld, h.LockFile())
		}
		return nil, errors.Join(err, f.Close())
	}
	return &Lock{file: f}, nil
}

// Holds reports whether the lock is still that of the home: another directory may
// have been put in its place, by a mount or a rename.
func (l *Lock) Holds(h Home) bool {
	mine, err := l.file.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(h.LockFile())
	return err == nil && os.SameFile(mine, there)
}

// Release gives the lock back.
func (l *Lock) Release() error { return l.file.Close() }

// lock tries for a moment, since others look at the lock by taking it.
func (h Home) lock(ctx context.Context) (*Lock, error) {
	deadline := time.Now().Add(2 * time.Second)
	for {
		l, err := h.TryLock()
		if err == nil || !errors.Is(err, ErrHeld) || time.Now().After(deadline) {
			return l, err
		}
		if err := backoff.Sleep(ctx, 20*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// Held reports whether a supervisor of the home lives. Looking does not keep a
// supervisor from starting.
func (h Home) Held() (bool, error) {
	f, err := os.Open(h.LockFile())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for a supervisor: %w", err)
	}
	defer f.Close() //nolint:errcheck // opened for reading
	err = unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for a supervisor: %w", err)
	}
	return false, nil
}

// withIdentityLock runs fn while no one else changes the identity file.
func (h Home) withIdentityLock(fn func() error) (err error) {
	f, err := os.OpenFile(h.file("identity.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("lock the identity of the member: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock the identity of the member: %w", err)
	}
	return fn()
}

func readJSON(path string, into any) error {
	raw, err := os.ReadFile(path) //nolint:gosec // a file of the home
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrCorrupt, path, err)
	}
	return nil
}

func encode(v any) ([]byte, error) {
	raw, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return nil, err
	}
	return append(raw, '\n'), nil
}

func writeJSON(path string, v any) error {
	raw, err := encode(v)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return atomicfile.Write(path, raw, 0o600)
}
