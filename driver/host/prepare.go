package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/driver/host/supervisor"
	"github.com/quorate/quorate/etcd"
)

// Reasons of the conditions Prepared and Certificates.
const (
	ReasonPrepared             = "Prepared"
	ReasonNotPrepared          = "NotPrepared"
	ReasonPortInUse            = "PortInUse"
	ReasonAddressNotLocal      = "AddressNotLocal"
	ReasonReleaseMissing       = "ReleaseMissing"
	ReasonDirectoryNotWritable = "DirectoryNotWritable"
	ReasonDiskFull             = "DiskFull"
	ReasonCertificateInvalid   = "CertificateInvalid"
	ReasonSigningFailed        = "SigningFailed"
	ReasonRenewalFailed        = "RenewalFailed"
	ReasonHomeCorrupt          = "HomeCorrupt"
	ReasonConfigurationInvalid = "ConfigurationInvalid"
)

// minFree is the space that a member needs to begin with: etcd preallocates a
// write-ahead log of 64 MB.
const minFree = 64 << 20

// problem is what keeps a member from being prepared.
type problem struct {
	reason  string
	message string
}

func (p *problem) Error() string { return p.message }

func problemf(reason, format string, args ...any) error {
	return &problem{reason: reason, message: fmt.Sprintf(format, args...)}
}

func notWritable(dir string, err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return problemf(ReasonDiskFull, "the disk of %s is full: %v; make room on it", dir, err)
	}
	return problemf(ReasonDirectoryNotWritable, "%s can't be written: %v; make it writable, or choose another data directory", dir, err)
}

// prepareNote is how the latest preparation of a home went.
type prepareNote struct {
	problem *problem
	// formation is what keeps a prepared member from being started for the first time.
	formation *problem
	// renewal is why certificates that still serve could not be renewed.
	renewal string
}

// prepared is all that an order is made of.
type prepared struct {
	ports      v1alpha1.Ports
	executable string
	tls        *etcd.MemberTLS
	logs       supervisor.Logs
}

// prepare makes the home, and all in it that the member needs before it is
// started. Each part is made once and found again, so a failed preparation is
// finished by the next. The error is a *problem.
func (d *Driver) prepare(ctx context.Context, m *v1alpha1.EtcdMember, h supervisor.Home) (p prepared, note prepareNote, err error) {
	if err = makeHome(h); err != nil {
		return p, note, err
	}
	// Certificates come first: what keeps a member from being started anew, such as a
	// disk that is nearly full, must not let those of a running one expire.
	if p.tls, note.renewal, err = d.certificates(ctx, m, h); err != nil {
		return p, note, err
	}
	p.logs = h.LogsFor(m.Name, m.Spec.Etcd.Logging)
	for _, dir := range []string{string(h), filepath.Dir(p.logs.Etcd), filepath.Dir(p.logs.Error)} {
		if err = checkDir(dir); err != nil {
			return p, note, err
		}
	}
	if p.executable, err = d.release(ctx, m); err != nil {
		return p, note, err
	}
	if p.ports, err = d.choosePorts(ctx, m, h); err != nil {
		return p, note, err
	}
	return p, note, d.firstOrder(m, h, p.logs)
}

// firstOrder notes whose home it is, before anything is to be run in it.
func (d *Driver) firstOrder(m *v1alpha1.EtcdMember, h supervisor.Home, logs supervisor.Logs) error {
	_, err := h.ReadOrder()
	if !errors.Is(err, fs.ErrNotExist) {
		return nil // there is one; if it is unreadable, whoever needs it says so
	}
	if _, err := h.WriteOrder(idleOrder(m, h, v1alpha1.RunPrepared, logs)); err != nil {
		return notWritable(string(h), err)
	}
	return nil
}

// idleOrder is an order under which no etcd runs.
func idleOrder(m *v1alpha1.EtcdMember, h supervisor.Home, run v1alpha1.RunPolicy, logs supervisor.Logs) *supervisor.Order {
	return &supervisor.Order{
		Namespace: m.Namespace, Name: m.Name, UID: m.UID,
		Run: run, DataDir: h.DataDir(), Logs: logs,
		Joined: m.Spec.MemberID != "", ClusterID: m.Spec.ClusterID, MemberID: m.Spec.MemberID,
	}
}

func makeHome(h supervisor.Home) error {
	// The data directory itself is left to etcd: that it is missing means something.
	for _, dir := range []string{string(h), h.TLSDir(), h.LogDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return notWritable(string(h), err)
		}
	}
	return nil
}

// checkDir makes a directory if need be, and checks that it takes files and has
// room.
func checkDir(dir string) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return notWritable(dir, err)
	}
	f, err := os.CreateTemp(dir, ".quorate-write-test-*")
	if err != nil {
		return notWritable(dir, err)
	}
	if err := errors.Join(f.Close(), os.Remove(f.Name())); err != nil {
		return notWritable(dir, err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return notWritable(dir, err)
	}
	if free := st.Bavail * uint64(st.Bsize); free < minFree { //nolint:gosec // a block's size is positive
		return problemf(ReasonDiskFull, "%s has %d MiB free, and a member needs %d MiB to begin with; make room on its disk", dir, free>>20, minFree>>20)
	}
	return nil
}

func (d *Driver) release(ctx context.Context, m *v1alpha1.EtcdMember) (string, error) {
	path, err := d.opts.Releases.Path(ctx, m.Spec.Release)
	if err == nil {
		// A running etcd is known by the path that /proc shows, which has no links.
		path, err = filepath.EvalSymlinks(path)
	}
	if err != nil {
		return "", problemf(ReasonReleaseMissing, "etcd %s (%s) can't be had on this host: %v", m.Spec.Release.Version, m.Spec.Release.Digest, err)
	}
	return path, nil
}
