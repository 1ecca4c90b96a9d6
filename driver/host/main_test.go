package host_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/etcdmain"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/driver/drivertest"
	"github.com/quorate/quorate/driver/host"
	"github.com/quorate/quorate/driver/host/supervisor"
	"github.com/quorate/quorate/internal/process"
	"github.com/quorate/quorate/pki"
)

// TestMain makes the test binary act as etcd and as the supervisor too.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "etcd" {
		etcdmain.Main(os.Args)
		os.Exit(0)
	}
	if len(os.Args) == 4 && os.Args[1] == "member" {
		os.Exit(superviseMain(os.Args[3]))
	}
	if len(os.Args) == 4 && os.Args[1] == "restore half" {
		os.Exit(restoreHalf(os.Args[2], os.Args[3]))
	}
	if len(os.Args) == 3 && os.Args[1] == "saturate" {
		saturateMain(os.Args[2])
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func superviseMain(home string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	if err := supervisor.Run(ctx, home, log); err != nil {
		log.Error("supervisor", slog.Any("error", err))
		return 1
	}
	return 0
}

// place is a driver with all it needs.
type place struct {
	drivertest.Harness
	driver *host.Driver
	dir    string
	opts   host.Options
}

// releases links this test binary as etcd.
type releases struct{ dir string }

func (r releases) Path(_ context.Context, ref v1alpha1.ReleaseRef) (string, error) {
	path := filepath.Join(r.dir, strings.ReplaceAll(ref.Digest, ":", "-"), "etcd")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if strings.HasSuffix(ref.Digest, "missing") {
		return "", fmt.Errorf("no release %s: add it with `quorate release add`", ref.Version)
	}
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	if err = os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	if os.Link(self, path) == nil {
		return path, nil
	}
	raw, err := os.ReadFile(self)
	if err != nil {
		return "", err
	}
	return path, os.WriteFile(path, raw, 0o755)
}

// signer signs as the server would.
type signer struct {
	ca       *pki.CA
	validity time.Duration
	signed   int
	// ahead is the clock of the signer before that of the host.
	ahead time.Duration
	err   error
}

func (s *signer) Sign(_ context.Context, m *v1alpha1.EtcdMember, usage pki.Usage, csr []byte) (pki.Bundle, error) {
	if s.err != nil {
		return pki.Bundle{}, s.err
	}
	s.signed++
	hosts := append([]string{"127.0.0.1"}, m.Spec.TLS.ExtraSANs...)
	return s.ca.Sign(csr, pki.Request{Usage: usage, CommonName: m.Name, Hosts: hosts, Validity: s.validity, Now: time.Now().Add(s.ahead)})
}

func newSigner(t *testing.T) *signer {
	t.Helper()
	cert, key, err := pki.NewCA("test", time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	ca, err := pki.LoadCA(cert, key, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &signer{ca: ca, validity: time.Hour}
}

// open makes a place for plain-text members.
func open(t *testing.T) *place {
	t.Helper()
	p := &place{dir: filepath.Join(t.TempDir(), "agent")}
	p.opts = host.Options{
		Dir: p.dir, Address: "127.0.0.1",
		Releases: releases{dir: t.TempDir()},
		Logger:   slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	p.reopen(t)
	p.Member = newMember
	p.Kill = kill
	t.Cleanup(func() {
		if t.Failed() {
			p.dump(t)
		}
	})
	return p
}

// reopen makes a new driver, as an agent that was restarted would.
func (p *place) reopen(t *testing.T) {
	t.Helper()
	d, err := host.New(p.opts)
	if err != nil {
		t.Fatal(err)
	}
	p.driver, p.Driver = d, d
}

func (p *place) dump(t *testing.T) {
	t.Helper()
	for _, pattern := range []string{"members/*/state.json", "members/*/member.json", "members/*/identity.json", "members/*/supervisor.log", "members/*/log/*.stderr.log"} {
		files, _ := filepath.Glob(filepath.Join(p.dir, pattern))
		for _, f := range files {
			raw, _ := os.ReadFile(f)
			t.Logf("%s:\n%s", f, raw[max(0, len(raw)-4000):])
		}
	}
}

// openTLS makes a place whose members have certificates.
func openTLS(t *testing.T) (*place, *signer) {
	t.Helper()
	p, s := open(t), newSigner(t)
	p.opts.Signer = s
	p.reopen(t)
	p.Member = func(name string) *v1alpha1.EtcdMember {
		m := newMember(name)
		m.Spec.TLS.Mode = v1alpha1.TLSGenerated
		return m
	}
	p.TLS = func(*v1alpha1.EtcdMember) *tls.Config {
		key, err := pki.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		csr, err := pki.NewRequest(key, "root")
		if err != nil {
			t.Fatal(err)
		}
		b, err := s.ca.Sign(csr, pki.Request{Usage: pki.Client, CommonName: "root", Validity: time.Hour, Now: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		cfg, err := pki.ClientTLS(b.Certificate, key, b.CA)
		if err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	return p, s
}

func newMember(name string) *v1alpha1.EtcdMember {
	m := &v1alpha1.EtcdMember{}
	m.Namespace, m.Name = "test", name
	m.UID = v1alpha1.UID(fmt.Sprintf("%08x-%s", time.Now().UnixNano()&0xffffffff, name))
	m.Spec.Release = v1alpha1.ReleaseRef{Version: "3.7.3", Digest: "sha256:" + strings.Repeat("a", 64)}
	m.Spec.TLS.Mode = v1alpha1.TLSDisabled
	m.Spec.Etcd = v1alpha1.EtcdConfig{
		HeartbeatInterval: "20ms", ElectionTimeout: "200ms",
		Logging: v1alpha1.Logging{Level: "info", MaxSize: 4, MaxBackups: 2},
	}
	return m
}

func kill(t *testing.T, pid int64) {
	t.Helper()
	id, err := process.Identify(int(pid))
	if err != nil {
		t.Fatalf("kill %d: %v", pid, err)
	}
	if err := id.Signal(syscall.SIGKILL); err != nil {
		t.Fatalf("kill %d: %v", pid, err)
	}
	if err := id.Wait(t.Context()); err != nil {
		t.Fatalf("kill %d: %v", pid, err)
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	drivertest.Run(t, func(t *testing.T) drivertest.Harness {
		t.Helper()
		return open(t).Harness
	})
}

func TestConformanceWithTLS(t *testing.T) {
	t.Parallel()
	drivertest.Run(t, func(t *testing.T) drivertest.Harness {
		t.Helper()
		p, _ := openTLS(t)
		return p.Harness
	})
}
