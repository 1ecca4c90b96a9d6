package preflight

import (
	"context"
	"net/netip"
	"time"
)

// Probe measures a machine. Machine is the one this process runs on; tests put others
// in its place.
type Probe interface {
	// Append writes pieces to a new file in dir, one behind the other, and syncs each
	// (fdatasync); it returns how long each took, and removes the file. It ends early
	// once the load's time is over or ctx ends; what was measured until then counts,
	// and is none only with an error.
	Append(ctx context.Context, dir string, l Load) ([]time.Duration, error)
	// Filesystem describes that of dir.
	Filesystem(ctx context.Context, dir string) (Filesystem, error)
	// ReadFile reads a file below /proc or /sys.
	ReadFile(name string) ([]byte, error)
	// Clock is how well the kernel keeps time.
	Clock() (Clock, error)
	// OpenFiles is how many files a process may have open at most, if it asks for it,
	// as etcd does.
	OpenFiles() (uint64, error)
	// CPUs that this process may use.
	CPUs() int
	// Addresses of the machine.
	Addresses() ([]netip.Addr, error)
	// Listeners are what listens where a member is to; an address that is not the
	// machine's is left out.
	Listeners(at []netip.AddrPort) ([]Listener, error)
	// Etcds are the etcds that run, whoever started them.
	Etcds() ([]Etcd, error)
	// Connect returns how long a connection took to be made, or to be refused: both are
	// one round trip.
	Connect(ctx context.Context, address string) (time.Duration, error)
}

// Load is what Append writes.
type Load struct {
	// Count pieces of Size bytes.
	Count, Size int
	// For bounds the time it takes, after Least pieces.
	For   time.Duration
	Least int
	// Pause after each sync, for the others that use the disk.
	Pause time.Duration
}

// Filesystem is where a directory lies.
type Filesystem struct {
	// Dir is the directory that was looked at: that which was asked for, or the nearest
	// above it.
	Dir string
	// Kind, such as ext4 or tmpfs, and Source, such as /dev/sda1, as the kernel has
	// them; empty where it does not say.
	Kind, Source string
	// Free and Size in bytes, as far as others than root may use them.
	Free, Size int64
	// FreeInodes of Inodes; both are 0 where inodes are made as needed.
	FreeInodes, Inodes uint64
	// Device is the disk's number, and Root that of the root filesystem's.
	Device, Root uint64
	// Rotational: the kernel takes the disk for one that turns. Virtual disks, of which
	// it can't know, are none.
	Rotational bool
}

// Clock is how well the kernel keeps time.
type Clock struct {
	// Synchronised: something keeps it right.
	Synchronised bool
	// MaxError is how wrong it may be.
	MaxError time.Duration
}

// Listener is a socket that listens.
type Listener struct {
	Port uint16
	// PID and Name of its process; 0 where it can't be told.
	PID  int
	Name string
}

// Etcd is one that runs.
type Etcd struct {
	PID int
	// DataDir is absolute; empty where it can't be told.
	DataDir string
	// Device is the number of the disk that DataDir lies on; 0 where it can't be told.
	Device uint64
}
