package app

import (
	"crypto/tls"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/pki"
)

func selfMade(t *testing.T, dir, listen string, names ...string) *front {
	t.Helper()
	f, err := openFront(ServerOptions{Listen: listen, TLSSelfMade: true, TLSNames: names, Logger: slog.New(slog.DiscardHandler)}, dir)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func leafOf(t *testing.T, f *front) *tls.Certificate {
	t.Helper()
	c, err := f.certificate()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestSelfMadeCertificate: the CA stays, and the certificate below it is made anew for
// other names and in time.
func TestSelfMadeCertificate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tls")
	first := selfMade(t, dir, "192.0.2.7:7379", "q.example.com", "*.q.example.com")
	leaf := leafOf(t, first).Leaf
	for _, name := range []string{"192.0.2.7", "127.0.0.1", "localhost", "q.example.com", "a.q.example.com"} {
		if err := leaf.VerifyHostname(name); err != nil {
			t.Error(err)
		}
	}
	known := first.known()
	ca, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil || string(known.CA) != string(ca) {
		t.Fatalf("agents are told to trust %q, %v", known.CA, err)
	}
	for _, secret := range []string{"ca.key", "server.pem"} {
		if info, err := os.Stat(filepath.Join(dir, secret)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", secret, info.Mode(), err)
		}
	}
	again := selfMade(t, dir, "192.0.2.7:7379", "q.example.com", "*.q.example.com")
	if !leafOf(t, again).Leaf.Equal(leaf) {
		t.Error("a restart made another certificate")
	}
	moved := selfMade(t, dir, "192.0.2.8:7379")
	if leafOf(t, moved).Leaf.Equal(leaf) || leafOf(t, moved).Leaf.VerifyHostname("192.0.2.8") != nil || moved.known().Pin != known.Pin {
		t.Error("another address: the certificate or the pin is wrong")
	}
	before := leafOf(t, moved).Leaf
	moved.now = func() time.Time { return time.Now().Add(frontValidity*2/3 + time.Hour) }
	after := leafOf(t, moved).Leaf
	if after.Equal(before) || !after.NotAfter.After(before.NotAfter) || moved.known().Pin != known.Pin {
		t.Error("the certificate was not renewed in time, or the pin is another")
	}
	if err := os.Remove(filepath.Join(dir, "ca.key")); err != nil {
		t.Fatal(err)
	}
	if _, err := openFront(ServerOptions{Listen: "192.0.2.9:7379", TLSSelfMade: true}, dir); err == nil || !strings.Contains(err.Error(), "ca.key") {
		t.Errorf("without the CA's key: %v", err)
	}
}

// TestCertificateFilesAreTakenUp: files that a person replaces are served from then on,
// and damaged ones are not.
func TestCertificateFilesAreTakenUp(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, age time.Duration) {
		t.Helper()
		own := selfMade(t, filepath.Join(t.TempDir(), "tls"), "127.0.0.1:0", name)
		raw, err := os.ReadFile(filepath.Join(own.dir, "server.pem"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range []string{"server.crt", "server.key"} {
			path := filepath.Join(dir, file)
			if err := os.WriteFile(path, raw, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(path, time.Now(), time.Now().Add(-age)); err != nil {
				t.Fatal(err)
			}
		}
	}
	write("one.example.com", time.Hour)
	f, err := openFront(ServerOptions{
		Listen: "127.0.0.1:0", TLSCertFile: filepath.Join(dir, "server.crt"), TLSKeyFile: filepath.Join(dir, "server.key"), Logger: slog.New(slog.DiscardHandler),
	}, "")
	if err != nil {
		t.Fatal(err)
	}
	one := f.known()
	if certs, err := pki.Certificates(one.CA); err != nil || pki.PublicKeyHash(certs[0]) != one.Pin {
		t.Fatalf("known by %s and %s: %v", one.Pin, one.CA, err)
	}
	late := time.Duration(0)
	f.now = func() time.Time { return time.Now().Add(late) }
	pass := func() { late += frontLook + time.Second }
	write("two.example.com", time.Minute)
	pass()
	if err := leafOf(t, f).Leaf.VerifyHostname("two.example.com"); err != nil || f.known().Pin == one.Pin {
		t.Errorf("the new files were not taken up: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "server.crt"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	pass()
	if err := leafOf(t, f).Leaf.VerifyHostname("two.example.com"); err != nil {
		t.Errorf("a damaged file was taken up: %v", err)
	}
}
