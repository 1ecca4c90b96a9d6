package render

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/quorate/quorate/pki"
)

// caValidity of a CA that is made here: it outlives the machines.
const caValidity = 10 * 365 * 24 * time.Hour

// Where the tree keeps the cluster's CA, and the client certificate of who looks after it.
const (
	pkiDir  = "pki"
	caCert  = "pki/ca.crt"
	caKey   = "pki/ca.key"
	keyMode = 0o600
)

// Leaf is a certificate with its key. Paths are in the tree.
type Leaf struct {
	Usage        pki.Usage
	CommonName   string
	Organization string
	Hosts        []string
	Cert, Key    string
	// CA is a copy of the roots beside it.
	CA string
}

// leaves lists the certificates of a member.
func (r *Rendering) leaves(m *Member) {
	in := func(name string) string { return path.Join(m.Dir, m.PKIDir, name) }
	server := append([]string{m.Addr.String(), "127.0.0.1", "localhost", m.Host}, r.cluster.Spec.TLS.ExtraSANs...)
	r.Leaves = append(r.Leaves,
		Leaf{Usage: pki.Server, CommonName: m.Name, Hosts: server, Cert: in("server.crt"), Key: in("server.key"), CA: in("ca.crt")},
		Leaf{Usage: pki.Peer, CommonName: m.Name, Hosts: []string{m.Addr.String(), m.Host}, Cert: in("peer.crt"), Key: in("peer.key"), CA: in("ca.crt")},
	)
	if r.Form != StaticPod {
		return
	}
	above := path.Join(m.Dir, path.Dir(m.PKIDir))
	r.Leaves = append(r.Leaves,
		Leaf{Usage: pki.Client, CommonName: "kube-etcd-healthcheck-client", Cert: in("healthcheck-client.crt"), Key: in("healthcheck-client.key"), CA: in("ca.crt")},
		Leaf{Usage: pki.Client, CommonName: "kube-apiserver-etcd-client", Cert: path.Join(above, "apiserver-etcd-client.crt"), Key: path.Join(above, "apiserver-etcd-client.key"), CA: in("ca.crt")},
	)
}

// Signing is what certificates are made with.
type Signing struct {
	// CA that signs; nil makes one, or takes the one that the tree has.
	CA *pki.CA
	// Read returns what the tree holds at a path; fs.ErrNotExist where it holds nothing.
	Read func(path string) ([]byte, error)
	// Validity of each certificate.
	Validity time.Duration
	Now      time.Time
}

// Certificates are the files of the cluster's certificates. A key that the tree has is
// kept in any case; a certificate is kept while it fits its key, its hosts and the CA, and
// less than two thirds of its life are over. ErrRender where what the tree has can't be
// used.
func (r *Rendering) Certificates(s Signing) ([]File, error) {
	if !r.OwnCerts {
		return nil, nil
	}
	var files []File
	if s.CA == nil {
		made, err := s.ownCA(r.Name)
		if err != nil {
			return nil, err
		}
		files = made
	} else {
		if err := s.sameTrust(); err != nil {
			return nil, err
		}
		files = []File{{caCert, 0o644, s.CA.Roots()}}
	}
	leaves := append([]Leaf{{
		Usage: pki.Client, CommonName: "root", Cert: pkiDir + "/client.crt", Key: pkiDir + "/client.key", CA: caCert,
	}}, r.Leaves...)
	for _, l := range leaves {
		made, err := s.leaf(l)
		if err != nil {
			return nil, err
		}
		files = append(files, made...)
	}
	seen := map[string]bool{}
	unique := files[:0]
	for _, f := range files {
		if !seen[f.Path] {
			unique = append(unique, f)
		}
		seen[f.Path] = true
	}
	return unique, nil
}

// read is Read, with nothing for what is not there.
func (s *Signing) read(name string) ([]byte, error) {
	data, err := s.Read(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// LoadCA reads a CA of one's own: the certificate that signs comes first, and every root
// beside it is trusted too, such as one that is being replaced.
func LoadCA(file, key []byte) (*pki.CA, error) {
	var roots []byte
	n := 0
	for rest := file; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err == nil && bytes.Equal(c.RawIssuer, c.RawSubject) {
			roots = append(roots, pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes})...)
			n++
		}
	}
	if n < 2 { // the usual case
		roots = nil
	}
	return pki.LoadCA(file, key, roots)
}

// sameTrust refuses a CA in the place of another: etcd never reads its CA again, so members
// that are restarted one by one would trust each other no more. While both are trusted
// they do.
func (s *Signing) sameTrust() error {
	have, err := s.read(caCert)
	if err != nil || have == nil {
		return err
	}
	trusted := s.CA.Roots()
	for rest := have; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil
		}
		if !bytes.Contains(trusted, pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes})) {
			return fmt.Errorf("%w: the members trust the CA of %s, and the one that is given is another: members that trust only the one or the other don't talk to each other; append %s to the file of --ca, so that both are trusted, or name another directory for a new cluster", ErrRender, caCert, caCert)
		}
	}
}

// ownCA takes the CA of the tree, or makes one.
func (s *Signing) ownCA(cluster string) ([]File, error) {
	cert, err := s.read(caCert)
	if err != nil {
		return nil, err
	}
	key, err := s.read(caKey)
	if err != nil {
		return nil, err
	}
	switch {
	case cert == nil && key == nil:
		const most = 60 // a common name has 64 bytes
		name := "etcd " + cluster
		if cert, key, err = pki.NewCA(name[:min(len(name), most)], caValidity, s.Now); err != nil {
			return nil, err
		}
	case key == nil:
		return nil, fmt.Errorf("%w: %s is there, and its key %s is not: put the key back, or give both with --ca and --ca-key", ErrRender, caCert, caKey)
	case cert == nil:
		return nil, fmt.Errorf("%w: %s is there, and its certificate %s is not: put the certificate back", ErrRender, caKey, caCert)
	}
	if s.CA, err = pki.LoadCA(cert, key, nil); err != nil {
		return nil, fmt.Errorf("%s: %w", caCert, err)
	}
	return []File{{caCert, 0o644, cert}, {caKey, keyMode, key}}, nil
}

// leaf keeps or makes one certificate.
func (s *Signing) leaf(l Leaf) ([]File, error) {
	key, err := s.read(l.Key)
	if err != nil {
		return nil, err
	}
	cert, err := s.read(l.Cert)
	if err != nil {
		return nil, err
	}
	files := func() []File {
		return []File{{l.CA, 0o644, s.CA.Roots()}, {l.Cert, 0o644, cert}, {l.Key, keyMode, key}}
	}
	if key == nil {
		if key, err = pki.NewKey(); err != nil {
			return nil, err
		}
	} else if cert != nil && !pki.NeedsRenewal(cert, s.Now) &&
		pki.VerifyLeaf(pki.Bundle{Certificate: cert, CA: s.CA.Roots()}, key, l.Hosts, l.Usage, s.Now) == nil {
		return files(), nil
	}
	request, err := pki.NewRequest(key, l.CommonName)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w; move it away to have a new key made", ErrRender, l.Key, err)
	}
	hosts := l.Hosts
	if l.Usage == pki.Client {
		hosts = nil
	}
	bundle, err := s.CA.Sign(request, pki.Request{
		Usage: l.Usage, CommonName: l.CommonName, Organization: l.Organization,
		Hosts: hosts, Validity: s.Validity, Now: s.Now,
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", strings.TrimPrefix(l.Cert, "/"), err)
	}
	cert = bundle.Certificate
	return files(), nil
}
