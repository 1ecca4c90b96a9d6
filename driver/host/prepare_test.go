package host_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/driver/drivertest"
	"github.com/quorate/quorate/driver/host"
)

func listen(t *testing.T, port int32) net.Listener {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// unprepared expects one reason, and no more than the message promises.
func unprepared(t *testing.T, p *place, m *v1alpha1.EtcdMember, reason string, says ...string) {
	t.Helper()
	drivertest.Ensure(t, p.driver, m)
	c := v1alpha1.FindCondition(m.Status.Conditions, v1alpha1.ConditionPrepared)
	if c == nil || c.Status != v1alpha1.False || c.Reason != reason {
		t.Fatalf("condition %+v, want reason %s", c, reason)
	}
	for _, s := range says {
		if !strings.Contains(c.Message, s) {
			t.Errorf("message %q does not say %q", c.Message, s)
		}
	}
	if p := m.Status.Phase; p != v1alpha1.MemberPending && p != v1alpha1.MemberFailed || m.Status.Process != nil {
		t.Errorf("phase %s, process %v", m.Status.Phase, m.Status.Process)
	}
	if s, err := p.driver.Observe(t.Context(), m); err != nil || v1alpha1.FindCondition(s.Conditions, v1alpha1.ConditionPrepared).Reason != reason {
		t.Errorf("observing forgets the reason: %+v, %v", s.Conditions, err)
	}
}

func TestPrepareProblems(t *testing.T) {
	t.Parallel()
	t.Run("port in use", func(t *testing.T) {
		t.Parallel()
		p := open(t)
		l := listen(t, 0)
		addr, ok := l.Addr().(*net.TCPAddr)
		if !ok {
			t.Fatalf("listening on %v", l.Addr())
		}
		port := int32(addr.Port)
		m := newMember("port")
		m.Spec.Ports.Client = port
		unprepared(t, p, m, host.ReasonPortInUse, strconv.Itoa(int(port)), "spec.ports")
		if _, err := os.Stat(homeOf(p, m).PortsFile()); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("ports were chosen all the same: %v", err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		drivertest.Prepare(t, p.driver, m)
		if m.Status.Ports.Client != port || m.Status.Ports.Peer == 0 {
			t.Errorf("ports %+v", m.Status.Ports)
		}
		// Another member can't have it, though nothing listens on it now.
		other := newMember("other")
		other.Spec.Ports.Metrics = port
		unprepared(t, p, other, host.ReasonPortInUse, filepath.Base(string(homeOf(p, m))))
	})
	t.Run("port twice", func(t *testing.T) {
		t.Parallel()
		p := open(t)
		m := newMember("twice")
		m.Spec.Ports = v1alpha1.Ports{Client: 20001, Peer: 20001}
		unprepared(t, p, m, host.ReasonPortInUse, "twice")
	})
	t.Run("address of another host", func(t *testing.T) {
		t.Parallel()
		p := open(t)
		p.opts.Address = "192.0.2.1"
		p.reopen(t)
		unprepared(t, p, newMember("address"), host.ReasonAddressNotLocal, "192.0.2.1", "spec.address")
	})
	t.Run("release missing", func(t *testing.T) {
		t.Parallel()
		p := open(t)
		m := newMember("release")
		m.Spec.Release.Digest = "sha256:missing"
		unprepared(t, p, m, host.ReasonReleaseMissing, "quorate release add")
	})
	t.Run("not a directory", func(t *testing.T) {
		t.Parallel()
		p := open(t)
		if err := os.WriteFile(p.dir, []byte("a file"), 0o600); err != nil {
			t.Fatal(err)
		}
		unprepared(t, p, newMember("file"), host.ReasonDirectoryNotWritable, p.dir)
	})
	t.Run("log directory not writable", func(t *testing.T) {
		t.Parallel()
		p := open(t)
		m := newMember("logdir")
		m.Spec.Etcd.Logging.ErrorDir = "/proc/quorate"
		unprepared(t, p, m, host.ReasonDirectoryNotWritable, "/proc/quorate")
	})
	t.Run("disk full", func(t *testing.T) {
		t.Parallel()
		p := open(t)
		p.opts.Dir = tmpfs(t, "size=32m", 0)
		p.reopen(t)
		unprepared(t, p, newMember("full"), host.ReasonDiskFull, " MiB free", "64 MiB")
	})
	t.Run("read-only disk", func(t *testing.T) {
		t.Parallel()
		p := open(t)
		p.opts.Dir = tmpfs(t, "size=128m", syscall.MS_RDONLY)
		p.reopen(t)
		unprepared(t, p, newMember("readonly"), host.ReasonDirectoryNotWritable, p.opts.Dir, "read-only")
	})
	t.Run("ports file spoilt", func(t *testing.T) {
		t.Parallel()
		p := open(t)
		m := newMember("spoilt")
		drivertest.Prepare(t, p.driver, m)
		if err := os.WriteFile(homeOf(p, m).PortsFile(), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		drivertest.Ensure(t, p.driver, m)
		if c := v1alpha1.FindCondition(m.Status.Conditions, v1alpha1.ConditionPrepared); c.Reason != host.ReasonHomeCorrupt {
			t.Errorf("%+v", c)
		}
	})
}

func tmpfs(t *testing.T, options string, flags uintptr) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", flags, options); err != nil {
		t.Skipf("mounting a file system needs rights: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

func TestBadOptions(t *testing.T) {
	t.Parallel()
	if _, err := host.New(host.Options{Dir: t.TempDir(), Address: "host-1", Releases: releases{}}); err == nil || !strings.Contains(err.Error(), "spec.address") {
		t.Errorf("a name as address: %v", err)
	}
	p := open(t)
	for _, name := range []string{"", "../escape", ".", "a/b"} {
		m := newMember(name)
		if _, err := p.driver.Ensure(t.Context(), m); err == nil {
			t.Errorf("member %q was taken", name)
		}
	}
}

func TestCertificatesAreRenewed(t *testing.T) {
	t.Parallel()
	p, s := openTLS(t)
	m := p.Member("renew")
	// Two thirds of the certificate's life end while the member runs.
	s.validity = 6 * time.Second
	drivertest.Start(t, p.Harness, m)
	pid := m.Status.Process.PID
	crt := filepath.Join(homeOf(p, m).TLSDir(), "server.crt")
	first, err := os.ReadFile(crt)
	if err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(filepath.Join(homeOf(p, m).TLSDir(), "server.key"))
	if err != nil {
		t.Fatal(err)
	}
	s.validity = time.Hour
	// Not even a release that is gone keeps them from being renewed.
	release := m.Spec.Release
	m.Spec.Release.Digest = "sha256:missing"
	drivertest.Eventually(t, func() (bool, string) {
		drivertest.Ensure(t, p.driver, m)
		now, err := os.ReadFile(crt)
		return err == nil && string(now) != string(first), "not renewed"
	})
	m.Spec.Release = release
	drivertest.Running(t, p.Harness, m) // it answers with the renewed one
	if m.Status.Process.PID != pid {
		t.Error("renewing restarted etcd")
	}
	if again, err := os.ReadFile(filepath.Join(homeOf(p, m).TLSDir(), "server.key")); err != nil || string(again) != string(key) {
		t.Errorf("renewing made another key (%v)", err)
	}
	for _, f := range []string{"server.key", "peer.key"} {
		if info, err := os.Stat(filepath.Join(homeOf(p, m).TLSDir(), f)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", f, info.Mode(), err)
		}
	}
}

func TestSignerFails(t *testing.T) {
	t.Parallel()
	p, s := openTLS(t)
	m := p.Member("unsigned")
	s.err = errors.New("no CA for this cluster")
	unprepared(t, p, m, host.ReasonSigningFailed, "no CA for this cluster")
	s.err = nil
	drivertest.Start(t, p.Harness, m)
	// What runs goes on running while no one signs, whatever is asked for.
	s.err = errors.New("server away")
	m.Spec.TLS.ExtraSANs = []string{"etcd.example.com"}
	drivertest.Ensure(t, p.driver, m)
	if m.Status.Phase != v1alpha1.MemberRunning || v1alpha1.IsTrue(m.Status.Conditions, v1alpha1.ConditionPrepared) {
		t.Errorf("phase %s, %+v", m.Status.Phase, m.Status.Conditions)
	}
	kill(t, m.Status.Process.SupervisorPID)
	drivertest.Ensure(t, p.driver, m)
	drivertest.Until(t, p.driver, m, "adopted in spite of the signer", func(st v1alpha1.EtcdMemberStatus) bool {
		return st.Process != nil && st.Process.SupervisorPID != 0
	})
	s.err = nil
	signed := s.signed
	drivertest.Ensure(t, p.driver, m)
	if s.signed != signed+1 || !v1alpha1.IsTrue(m.Status.Conditions, v1alpha1.ConditionPrepared) {
		t.Errorf("signed %d, then %d: %+v", signed, s.signed, m.Status.Conditions)
	}
}

func TestCertificatesFromFiles(t *testing.T) {
	t.Parallel()
	p, s := openTLS(t)
	// Someone else's tools made these.
	maker := p.Member("maker")
	drivertest.Prepare(t, p.driver, maker)
	dir := homeOf(p, maker).TLSDir()
	m := newMember("files")
	m.Spec.TLS = v1alpha1.TLSSpec{Mode: v1alpha1.TLSFiles, FilesDir: filepath.Join(dir, "nowhere")}
	unprepared(t, p, m, host.ReasonCertificateInvalid, "server.crt", "tls.filesDir")
	m.Spec.TLS.FilesDir = dir
	signed := s.signed
	drivertest.Start(t, p.Harness, m)
	if s.signed != signed {
		t.Error("something was signed")
	}
	if left, _ := filepath.Glob(filepath.Join(homeOf(p, m).TLSDir(), "*")); len(left) != 0 {
		t.Errorf("files were made: %v", left)
	}
}

func TestLogsRotateAtTheirLimit(t *testing.T) {
	t.Parallel()
	p := open(t)
	m := newMember("rotate")
	logs := filepath.Join(t.TempDir(), "logs")
	m.Spec.Etcd.Logging = v1alpha1.Logging{Dir: logs, Level: "debug", MaxSize: 1, MaxBackups: 2}
	drivertest.Start(t, p.Harness, m)
	if m.Status.LogFile != filepath.Join(logs, "rotate.log") {
		t.Errorf("log file %s", m.Status.LogFile)
	}
	drivertest.Eventually(t, func() (bool, string) {
		writeKeys(t, m, 200)
		files, err := filepath.Glob(filepath.Join(logs, "rotate-*.log"))
		return err == nil && len(files) == 2, fmt.Sprintf("backups %v, %v", files, err)
	})
	files, err := filepath.Glob(filepath.Join(logs, "rotate*.log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if info, err := os.Stat(f); err == nil && info.Size() > 1<<20 {
			t.Errorf("%s has %d bytes", f, info.Size())
		}
	}
}

func BenchmarkObserve(b *testing.B) {
	d, err := host.New(host.Options{Dir: b.TempDir(), Address: "127.0.0.1", Releases: releases{dir: b.TempDir()}})
	if err != nil {
		b.Fatal(err)
	}
	m := newMember("bench")
	m.Spec.Run = v1alpha1.RunPrepared
	if m.Status, err = d.Ensure(b.Context(), m); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := d.Observe(b.Context(), m); err != nil {
			b.Fatal(err)
		}
	}
}
