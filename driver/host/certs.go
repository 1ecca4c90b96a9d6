package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/driver/host/supervisor"
	"github.com/quorate/quorate/etcd"
	"github.com/quorate/quorate/internal/atomicfile"
	"github.com/quorate/quorate/pki"
)

// tlsDir is where the member's certificates lie; empty for plain text.
func tlsDir(m *v1alpha1.EtcdMember, h supervisor.Home) string {
	switch m.Spec.TLS.Mode {
	case v1alpha1.TLSDisabled:
		return ""
	case v1alpha1.TLSFiles:
		return m.Spec.TLS.FilesDir
	default:
		return h.TLSDir()
	}
}

func tlsPaths(dir string) *etcd.MemberTLS {
	return &etcd.MemberTLS{
		CA:         filepath.Join(dir, "ca.crt"),
		ServerCert: filepath.Join(dir, "server.crt"), ServerKey: filepath.Join(dir, "server.key"),
		PeerCert: filepath.Join(dir, "peer.crt"), PeerKey: filepath.Join(dir, "peer.key"),
	}
}

// leaf is one of a member's two certificates.
type leaf struct {
	usage     pki.Usage
	ca        string
	cert, key string
	// hosts it must name.
	hosts []string
}

func (d *Driver) leaves(m *v1alpha1.EtcdMember, t *etcd.MemberTLS) []leaf {
	server := slices.Concat([]string{d.opts.Address}, d.opts.Names, m.Spec.TLS.ExtraSANs)
	return []leaf{
		{pki.Server, t.CA, t.ServerCert, t.ServerKey, server},
		{pki.Peer, t.CA, t.PeerCert, t.PeerKey, []string{d.opts.Address}},
	}
}

// certificates makes, renews or checks the member's certificates. Renewal says why
// certificates that still serve could not be renewed. The error is a *problem.
func (d *Driver) certificates(ctx context.Context, m *v1alpha1.EtcdMember, h supervisor.Home) (t *etcd.MemberTLS, renewal string, err error) {
	dir := tlsDir(m, h)
	if dir == "" {
		return nil, "", nil
	}
	t = tlsPaths(dir)
	if m.Spec.TLS.Mode == v1alpha1.TLSFiles {
		for _, l := range d.leaves(m, t) {
			if err := l.verify(time.Now()); err != nil {
				return nil, "", problemf(ReasonCertificateInvalid, "%s: %v; put a right one into tls.filesDir on this host", l.cert, err)
			}
		}
		return t, "", nil
	}
	for _, l := range d.leaves(m, t) {
		failed, err := d.obtain(ctx, m, l)
		if err != nil {
			return nil, "", err
		}
		if failed != nil {
			renewal = fmt.Sprintf("%s certificate: %v", l.usage, failed)
		}
	}
	return t, renewal, nil
}

// verify checks the files of a certificate as etcd will use them.
func (l leaf) verify(now time.Time) error {
	cert, err := os.ReadFile(l.cert)
	if err != nil {
		return err
	}
	key, err := os.ReadFile(l.key)
	if err != nil {
		return err
	}
	ca, err := os.ReadFile(l.ca)
	if err != nil {
		return err
	}
	return pki.VerifyLeaf(pki.Bundle{Certificate: cert, CA: ca}, key, l.hosts, l.usage, now)
}

// obtain has a certificate signed where there is none that serves, or where it is
// time to renew it. A renewal that failed is not a problem while the old one serves.
func (d *Driver) obtain(ctx context.Context, m *v1alpha1.EtcdMember, l leaf) (renewalFailed, err error) {
	now := time.Now()
	unusable := l.verify(now)
	if unusable == nil {
		cert, readErr := os.ReadFile(l.cert)
		if readErr == nil && !pki.NeedsRenewal(cert, now) {
			return nil, nil
		}
	}
	err = d.sign(ctx, m, l)
	if err != nil && unusable == nil {
		d.log.WarnContext(ctx, "renew a certificate", slog.String("file", l.cert), slog.Any("error", err))
		return err, nil
	}
	return nil, err
}

func (d *Driver) sign(ctx context.Context, m *v1alpha1.EtcdMember, l leaf) error {
	if d.opts.Signer == nil {
		return problemf(ReasonSigningFailed, "no one signs certificates on this host; use tls.mode Files or Disabled")
	}
	key, err := ensureKey(l.key)
	if err != nil {
		return err
	}
	csr, err := pki.NewRequest(key, m.Name)
	if err != nil {
		return problemf(ReasonCertificateInvalid, "%s: %v; move the file away to have a new key made", l.key, err)
	}
	bundle, err := d.opts.Signer.Sign(ctx, m, l.usage, csr)
	if err != nil {
		return problemf(ReasonSigningFailed, "the %s certificate was not signed: %v; it is asked for again", l.usage, err)
	}
	if err := pki.VerifyLeaf(bundle, key, l.hosts, l.usage, time.Now()); err != nil {
		return problemf(ReasonCertificateInvalid, "the %s certificate that was signed can't be used: %v", l.usage, err)
	}
	// etcd reads the certificate at each handshake, so it is replaced in one go, after
	// the roots that it leads to.
	for _, f := range []struct {
		path string
		data []byte
	}{{l.ca, bundle.CA}, {l.cert, bundle.Certificate}} {
		if have, err := os.ReadFile(f.path); err == nil && bytes.Equal(have, f.data) {
			continue
		}
		if err := atomicfile.Write(f.path, f.data, 0o644); err != nil {
			return notWritable(filepath.Dir(f.path), err)
		}
	}
	d.log.InfoContext(ctx, "certificate signed", slog.String("file", l.cert))
	return nil
}

// ensureKey makes the key where it is missing. It never leaves this host.
func ensureKey(path string) ([]byte, error) {
	key, err := os.ReadFile(path) //nolint:gosec // a key of the home
	if err == nil {
		return key, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, notWritable(filepath.Dir(path), err)
	}
	if key, err = pki.NewKey(); err != nil {
		return nil, problemf(ReasonCertificateInvalid, "make a key: %v", err)
	}
	if err := atomicfile.Write(path, key, 0o600); err != nil {
		return nil, notWritable(filepath.Dir(path), err)
	}
	return key, nil
}

// certCheck remembers a certificate that was looked at, since observing is done
// often and certificates seldom change.
type certCheck struct {
	mtime time.Time
	size  int64
	until time.Time
	err   error
}

// expiry returns when the certificate at path ends.
func (d *Driver) expiry(path string) (time.Time, error) {
	info, err := os.Stat(path)
	if err != nil {
		return time.Time{}, err
	}
	d.mu.Lock()
	c, ok := d.certs[path]
	d.mu.Unlock()
	if ok && c.mtime.Equal(info.ModTime()) && c.size == info.Size() {
		return c.until, c.err
	}
	c = certCheck{mtime: info.ModTime(), size: info.Size()}
	raw, err := os.ReadFile(path) //nolint:gosec // a certificate of the member
	if err != nil {
		return time.Time{}, err
	}
	i, err := pki.Inspect(raw)
	c.until, c.err = i.NotAfter, err
	d.mu.Lock()
	d.certs[path] = c
	d.mu.Unlock()
	return c.until, c.err
}

// certificateCondition tells how the certificates stand, from the files.
func (d *Driver) certificateCondition(m *v1alpha1.EtcdMember, h supervisor.Home, note prepareNote, now time.Time) v1alpha1.Condition {
	c := v1alpha1.Condition{Type: v1alpha1.ConditionCertificates, Status: v1alpha1.True, Reason: "Valid"}
	dir := tlsDir(m, h)
	if dir == "" {
		c.Reason, c.Message = "Disabled", "the member serves plain text, as tls.mode Disabled says"
		return c
	}
	t := tlsPaths(dir)
	var first time.Time
	for _, path := range []string{t.ServerCert, t.PeerCert} {
		until, err := d.expiry(path)
		switch {
		case errors.Is(err, fs.ErrNotExist) && m.Spec.TLS.Mode != v1alpha1.TLSFiles:
			c.Status, c.Reason, c.Message = v1alpha1.Unknown, "NotSigned", "the member has no certificates yet"
			return c
		case err != nil:
			c.Status, c.Reason, c.Message = v1alpha1.False, ReasonCertificateInvalid, fmt.Sprintf("%s: %v", path, err)
			return c
		case !now.Before(until):
			c.Status, c.Reason = v1alpha1.False, "Expired"
			c.Message = fmt.Sprintf("%s expired on %s; see the condition Prepared for why it is not renewed", path, until.UTC().Format(time.RFC3339))
			return c
		}
		if first.IsZero() || until.Before(first) {
			first = until
		}
	}
	c.Message = "valid until " + first.UTC().Format(time.RFC3339)
	if note.renewal != "" {
		c.Reason, c.Message = ReasonRenewalFailed, c.Message+"; not renewed: "+note.renewal
	}
	if p := note.problem; p != nil && (p.reason == ReasonCertificateInvalid || p.reason == ReasonSigningFailed) {
		c.Status, c.Reason, c.Message = v1alpha1.False, p.reason, p.message
	}
	return c
}
