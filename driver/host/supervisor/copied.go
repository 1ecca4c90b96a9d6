package supervisor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/quorate/quorate/internal/process"
)

// ErrCopied says that a home is a copy of another, which is still there. Its files name
// the etcd and the directory of the other, which are not to be touched from here.
var ErrCopied = errors.New("the member's home is a copy")

// errElsewhere says that an order was written for a home in another place.
var errElsewhere = errors.New("the order is for another directory")

// CopyOf is ErrCopied where the home is a copy of one that is still there, by what its
// order and its state say; either may be nil. A home that was moved is none.
func (h Home) CopyOf(o *Order, s *State) error {
	const advice = "nothing is started or stopped from here. Start the agent on the directory of the original, and move this copy away; or, to go on with the copy, stop what runs on the original and rename it"
	if o != nil && !samePlace(o.DataDir, h.DataDir()) {
		if _, err := os.Lstat(o.DataDir); !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%w: %s is made for %s, which is still there: %s", ErrCopied, h, o.DataDir, advice)
		}
	}
	if s != nil && s.Process != nil && s.Process.ID.Alive() && !h.runs(s.Process.ID) {
		return fmt.Errorf("%w: the etcd that %s names (pid %d) runs on another directory: %s", ErrCopied, h.StateFile(), s.Process.ID.PID, advice)
	}
	return nil
}

// fits refuses an order that was written for a home in another place.
func (h Home) fits(o *Order) error {
	if samePlace(o.DataDir, h.DataDir()) {
		return nil
	}
	return fmt.Errorf("%w: it says %s, and this home was moved or copied to %s", errElsewhere, o.DataDir, h)
}

// runs reports whether a process that is alive is this home's etcd: by the directory in
// its arguments, or, where the home was moved under it, by the one it was started in.
func (h Home) runs(id process.ID) bool {
	args, err := commandLine(id.PID)
	if err != nil || len(args) == 0 {
		return true // it can't be told, or it is just ending
	}
	for dir := range dataDirs(args) {
		if samePlace(dir, h.DataDir()) {
			return true
		}
	}
	return sameFile("/proc/"+strconv.Itoa(id.PID)+"/cwd", string(h))
}

// samePlace reports whether two paths mean one directory.
func samePlace(a, b string) bool {
	return filepath.Clean(a) == filepath.Clean(b) || sameFile(a, b)
}

func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}
