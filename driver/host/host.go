// Package host runs members as processes of this host. Each has a home, a
// directory below Options.Dir, and a supervisor of its own (package supervisor)
// that outlives the driver. Driver and supervisor talk through the files of the
// home only; the driver keeps nothing in memory that it could not do without.
//
// Nothing here deletes data: the one way out of Options.Dir is package datadir's
// Retire.
package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/driver"
	"github.com/quorate/quorate/driver/host/cgroup"
	"github.com/quorate/quorate/driver/host/supervisor"
	"github.com/quorate/quorate/pki"
)

// Releases has etcd's executables.
type Releases interface {
	// Path returns the executable of the release, verified against its digest.
	Path(ctx context.Context, ref v1alpha1.ReleaseRef) (string, error)
}

// Signer signs the members' certificate requests. The names and the validity are
// its decision.
type Signer interface {
	Sign(ctx context.Context, m *v1alpha1.EtcdMember, usage pki.Usage, csrPEM []byte) (pki.Bundle, error)
}

// Options are what New takes.
type Options struct {
	// Dir holds members/, with the homes, and retired/.
	Dir string
	// Address is the IP address that members listen on and are reached at.
	Address string
	// Names are DNS names that the members' server certificates must name beside
	// Address.
	Names []string
	// Executable that acts as the supervisor. Default: /proc/self/exe.
	Executable string
	// Command goes between Executable and --home. Default: member.
	Command []string
	// FormationPatience is how long a member that has yet to become part of its cluster
	// may meet what can pass by itself, such as a discovery service that does not answer,
	// before its etcd is stopped. Default: 3m. Why: founding members start minutes apart.
	FormationPatience time.Duration
	// FirstPort is where the search for free ports begins, in steps of ten, before it
	// goes on and round. Default: 2379. Why another: places that share a machine and
	// begin apart don't take each other's ports while members are stopped.
	FirstPort int32
	// Groups keep the members apart by their service classes where each supervisor has a
	// session of its own; nil for none. The driver sweeps them, and closes nothing.
	Groups *cgroup.Groups
	// Systemd makes each supervisor a unit of this systemd; nil for sessions.
	Systemd *Systemd
	// UsageWindow is what CPU is averaged over, and how often reported usage may change.
	// Default: 1m. Why: a status that follows every burst is no use to whoever places
	// members.
	UsageWindow time.Duration
	// Releases and Signer are asked when a member is prepared. Signer may be nil where
	// no member has certificates of Quorate's making.
	Releases Releases
	Signer   Signer
	Logger   *slog.Logger
}

// Driver runs members on this host. It implements driver.Driver and
// driver.Lister.
type Driver struct {
	opts Options
	dir  string
	log  *slog.Logger

	ports sync.Mutex // one choice of ports at a time

	mu      sync.Mutex // guards the maps below
	members map[string]*sync.Mutex
	notes   map[string]prepareNote
	spawned map[string]*spawned
	marks   map[v1alpha1.UID]*pendingMark
	certs   map[string]certCheck
	// lookups of the SRV records that homes' members wait for.
	lookups map[string]*lookup
	// restores of homes, under way and over.
	restores map[string]*restoring
	// reserved ports, by the names that keep them.
	reserved map[int32]*net.UnixConn
	// apart is how members are kept apart, and usage what they use, by home.
	apart map[string]*apart
	usage map[string]*usage
	// counted says that apart holds the members that were there before this driver.
	counted bool

	launcher launcher
}

var (
	_ driver.Driver = (*Driver)(nil)
	_ driver.Lister = (*Driver)(nil)
)

// New makes a driver. The directory is made if need be.
func New(opts Options) (*Driver, error) {
	if net.ParseIP(opts.Address) == nil {
		return nil, fmt.Errorf("host driver: address %q is not an IP address: set the EtcdHost's spec.address to one of this host's", opts.Address)
	}
	if opts.Releases == nil {
		return nil, errors.New("host driver: it needs releases")
	}
	if opts.Executable == "" {
		opts.Executable = "/proc/self/exe"
	}
	if opts.Command == nil {
		opts.Command = []string{"member"}
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	dir, err := filepath.Abs(opts.Dir)
	if err != nil {
		return nil, fmt.Errorf("host driver: %w", err)
	}
	// The directory is not made here: where it can't be, each member says so.
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		// A process is found by the path in its arguments: there must be but one.
		dir = real
	}
	d := &Driver{
		opts: opts, dir: dir, log: opts.Logger,
		members: map[string]*sync.Mutex{}, notes: map[string]prepareNote{}, spawned: map[string]*spawned{},
		marks: map[v1alpha1.UID]*pendingMark{}, certs: map[string]certCheck{},
		restores: map[string]*restoring{}, lookups: map[string]*lookup{}, reserved: map[int32]*net.UnixConn{},
		apart: map[string]*apart{}, usage: map[string]*usage{},
	}
	d.launcher = &sessions{driver: d, groups: opts.Groups}
	if opts.Systemd != nil {
		d.launcher = &units{driver: d, systemd: opts.Systemd}
	}
	return d, nil
}

// Home is the directory of the member on this host.
func (d *Driver) Home(m *v1alpha1.EtcdMember) string { return string(d.home(m)) }

func (d *Driver) home(m *v1alpha1.EtcdMember) supervisor.Home {
	uid := string(m.UID)
	name := m.Namespace + "." + m.Name + "." + uid[:min(len(uid), 8)]
	return supervisor.Home(filepath.Join(d.membersDir(), name))
}

func (d *Driver) membersDir() string { return filepath.Join(d.dir, "members") }

func (d *Driver) retiredDir() string { return filepath.Join(d.dir, "retired") }

// lock keeps acts on one home apart, and returns the unlock.
func (d *Driver) lock(h supervisor.Home) func() {
	d.mu.Lock()
	l := d.members[string(h)]
	if l == nil {
		l = &sync.Mutex{}
		d.members[string(h)] = l
	}
	d.mu.Unlock()
	l.Lock()
	return l.Unlock
}

// named refuses objects that would share a home or lie outside of the directory.
func named(m *v1alpha1.EtcdMember) error {
	for what, v := range map[string]string{"namespace": m.Namespace, "name": m.Name, "uid": string(m.UID)} {
		if v == "" || v != filepath.Base(v) || v[0] == '.' {
			return fmt.Errorf("member %s/%s: its %s %q can't be part of a directory's name", m.Namespace, m.Name, what, v)
		}
	}
	return nil
}

func exists(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
