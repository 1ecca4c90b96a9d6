package chaos

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/internal/process"
)

// Record is what the ledger has of one disturbance: what it is, who holds it, and all
// that is needed to undo it.
type Record struct {
	// ID names it: its kind, and eight hexadecimal digits.
	ID          string      `json:"id"`
	Disturbance Disturbance `json:"disturbance"`
	// Holder and, for some kinds, Guard are the processes that will undo it.
	Holder process.ID `json:"holder"`
	Guard  process.ID `json:"guard,omitzero"`
	// Began and Deadline are wall clock; the holder itself goes by a clock that nobody
	// sets.
	Began    time.Time `json:"began"`
	Deadline time.Time `json:"deadline"`
	// Target is the process that it is done to, if it is one.
	Target process.ID `json:"target,omitzero"`
	// Launch says how the target is started again.
	Launch *Launch `json:"launch,omitempty"`
	// Table is the nftables table of a partition.
	Table string `json:"table,omitempty"`
}

const (
	ledgerSuffix = ".json"
	lockSuffix   = ".lock"
	draftSuffix  = ".tmp"
)

// DefaultDir is where the ledger is kept: below /run for root, else in the user's own
// runtime directory.
func DefaultDir() string {
	if os.Geteuid() == 0 {
		return "/run/quorate/chaos"
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		return filepath.Join(dir, "quorate", "chaos")
	}
	return filepath.Join(os.TempDir(), "quorate-chaos-"+strconv.Itoa(os.Geteuid()))
}

func newID(kind string) string {
	raw := make([]byte, 4)
	_, _ = rand.Read(raw) // it never fails
	return kind + "-" + hex.EncodeToString(raw)
}

func recordFile(dir, id string) string { return filepath.Join(dir, id+ledgerSuffix) }

// save writes a record for its owner's eyes only: environments may hold secrets.
func (r *Record) save(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the ledger of disturbances: %w", err)
	}
	if err := trusted(dir); err != nil {
		return err
	}
	raw, err := json.Marshal(r)
	if err != nil {
		return err
	}
	// Its name tells a sweep whose it is. Nothing here is to outlast the machine's
	// restart: it need not be on disk.
	draft := filepath.Join(dir, fmt.Sprintf("%s.%d-%d%s", r.ID, r.Holder.PID, r.Holder.StartTicks, draftSuffix))
	if err = os.WriteFile(draft, raw, 0o600); err != nil {
		return errors.Join(err, os.Remove(draft))
	}
	return os.Rename(draft, recordFile(dir, r.ID))
}

// trusted refuses a ledger that somebody else may write: a record says which program is
// started, and which process is ended.
func trusted(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("the ledger %s belongs to user %d, who may have written anything there: give another directory", dir, st.Uid)
	}
	const writable = 0o022
	if info.Mode().Perm()&writable != 0 {
		return fmt.Errorf("the ledger %s may be written by others, and says which programs are started: `chmod go-w %s`, or give another directory", dir, dir)
	}
	return nil
}

// List returns the disturbances in the ledger of a directory ("": DefaultDir), oldest
// first: those that are running, and those that were left, see Alive. With an error come
// the records that can be read.
func List(dir string) ([]Record, error) {
	if dir == "" {
		dir = DefaultDir()
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the ledger of disturbances: %w", err)
	}
	if err = trusted(dir); err != nil {
		return nil, err
	}
	var records []Record
	var unread error
	for _, entry := range entries {
		id, ok := strings.CutSuffix(entry.Name(), ledgerSuffix)
		if !ok || strings.HasPrefix(id, ".") {
			continue
		}
		r, err := load(dir, id)
		if errors.Is(err, os.ErrNotExist) {
			continue // it has just ended
		}
		if err != nil {
			unread = errors.Join(unread, err)
			continue
		}
		records = append(records, *r)
	}
	slices.SortFunc(records, func(a, b Record) int { return a.Began.Compare(b.Began) })
	return records, unread
}

func load(dir, id string) (*Record, error) {
	file := recordFile(dir, id)
	raw, err := read(file)
	if err != nil {
		return nil, err
	}
	r := &Record{}
	if err = json.Unmarshal(raw, r); err != nil {
		return nil, fmt.Errorf("%s is no record of a disturbance: %w: remove it", file, err)
	}
	if r.ID != id {
		return nil, fmt.Errorf("%s is the record of %q: remove it", file, r.ID)
	}
	return r, nil
}

// Alive says whether somebody is there who will undo it.
func (r *Record) Alive() bool { return r.Holder.Alive() || r.Guard.Alive() }

// Overdue says whether it should have been undone by now.
func (r *Record) Overdue() bool {
	return time.Now().After(r.Deadline.Add(graceOf(r.Disturbance)))
}

// Sweep undoes what was left by processes that were killed, and kills holders that are
// overdue. It returns the records that it dealt with. What is running in good order stays.
func Sweep(ctx context.Context, dir string) ([]Record, error) {
	if dir == "" {
		dir = DefaultDir()
	}
	records, unread := List(dir)
	if unread != nil && len(records) == 0 {
		return nil, unread
	}
	var swept []Record
	errs := errors.Join(unread, sweepLocks(dir), sweepDrafts(dir), sweepTurns(dir))
	var err error
	for _, r := range records {
		if r.Alive() {
			if !r.Overdue() {
				continue
			}
			if err = r.kill(ctx); err != nil {
				errs = errors.Join(errs, err)
				continue
			}
		}
		if err = settle(ctx, dir, r.ID); err != nil {
			errs = errors.Join(errs, fmt.Errorf("undo %s: %w", r.ID, err))
			continue
		}
		swept = append(swept, r)
	}
	return swept, errs
}

// sweepLocks removes the locks of records that are gone: whoever had them was killed
// between the two.
func sweepLocks(dir string) error {
	locks, err := filepath.Glob(lockFile(dir, "*"))
	if err != nil {
		return err
	}
	var errs error
	for _, file := range locks {
		id := strings.TrimSuffix(filepath.Base(file), lockSuffix)
		if _, err = os.Stat(recordFile(dir, id)); errors.Is(err, os.ErrNotExist) {
			errs = errors.Join(errs, strike(dir, id))
		}
	}
	return errs
}

// sweepDrafts removes records that were never finished: nothing was done by then.
func sweepDrafts(dir string) error {
	drafts, err := filepath.Glob(filepath.Join(dir, "*"+draftSuffix))
	if err != nil {
		return err
	}
	boot, err := process.BootID()
	if err != nil {
		return err
	}
	var errs error
	for _, file := range drafts {
		_, who, _ := strings.Cut(filepath.Base(file), ".")
		writer := process.ID{BootID: boot}
		if _, err = fmt.Sscanf(who, "%d-%d"+draftSuffix, &writer.PID, &writer.StartTicks); err != nil || !writer.Alive() {
			errs = errors.Join(errs, os.Remove(file))
		}
	}
	return errs
}

// End tells the holder of a disturbance in the ledger to undo it now, and waits for that.
func End(ctx context.Context, dir, id string) error {
	if dir == "" {
		dir = DefaultDir()
	}
	if id != filepath.Base(id) {
		return fmt.Errorf("%q is no ID of a disturbance", id)
	}
	if err := trusted(dir); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	}
	r, err := load(dir, id)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err = r.Holder.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, process.ErrGone) {
		return fmt.Errorf("tell the holder of %s to end: %w", id, err)
	}
	for _, who := range []process.ID{r.Holder, r.Guard} {
		if err = who.Wait(ctx); err != nil {
			return err
		}
	}
	return settle(ctx, dir, id)
}

// kill ends the processes of a disturbance.
func (r *Record) kill(ctx context.Context) error {
	for _, who := range []process.ID{r.Guard, r.Holder} {
		if err := who.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, process.ErrGone) {
			return fmt.Errorf("kill process %d of %s: %w", who.PID, r.ID, err)
		}
		if err := who.Wait(ctx); err != nil {
			return err
		}
	}
	return nil
}

// settle undoes a disturbance whose holder is dead, and strikes it off. One at a time
// does it: the guard, whoever waits, or a sweep; to the others it is done already.
func settle(ctx context.Context, dir, id string, files ...*os.File) (err error) {
	if _, err = os.Stat(recordFile(dir, id)); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	unlock, err := lock(dir, id)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	r, err := load(dir, id)
	if errors.Is(err, os.ErrNotExist) {
		return strike(dir, id) // the lock that was just made
	}
	if err != nil {
		return err
	}
	kind := kindOf(r.Disturbance.Kind)
	if kind == nil {
		return fmt.Errorf("the ledger has a disturbance %q that this version does not know: use the one that made it", r.Disturbance.Kind)
	}
	boot, err := process.BootID()
	if err != nil {
		return err
	}
	// Nothing that is held outlives the machine's restart.
	if r.Holder.BootID == boot {
		if err = kind.undo(ctx, &hold{Record: r, files: files}); err != nil {
			return err
		}
	}
	return strike(dir, id)
}

// strike removes a record, and its lock, which the caller has: to who waits for that the
// record is gone.
func strike(dir, id string) error {
	for _, file := range []string{recordFile(dir, id), lockFile(dir, id)} {
		if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("strike %s off the ledger: %w", id, err)
		}
	}
	return nil
}

func lockFile(dir, id string) string { return filepath.Join(dir, id+lockSuffix) }

// lock takes a record for one process, and with its death leaves it.
func lock(dir, id string) (unlock func() error, err error) {
	f, err := os.OpenFile(lockFile(dir, id), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s in the ledger: %w", id, err)
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s in the ledger: %w", id, err), f.Close())
	}
	return f.Close, nil
}
