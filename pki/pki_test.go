package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const year = 365 * 24 * time.Hour

// authority is a certificate with its key, made without any of the package's rules.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func (a authority) pem() []byte { return encodeCertificates(a.cert) }

func (a authority) keyPEM(tb testing.TB) []byte {
	tb.Helper()
	raw, err := encodeKey(a.key)
	if err != nil {
		tb.Fatal(err)
	}
	return raw
}

func ecKey(tb testing.TB) crypto.Signer {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func rsaKey(tb testing.TB, bits int) crypto.Signer {
	tb.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

// issueCA makes a CA below parent, or a root if that is nil, changed by edit.
func issueCA(tb testing.TB, name string, parent *authority, key crypto.Signer, edit func(*x509.Certificate)) authority {
	tb.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(10 * year),
		IsCA: true, BasicConstraintsValid: true, MaxPathLen: -1, KeyUsage: x509.KeyUsageCertSign,
	}
	if edit != nil {
		edit(template)
	}
	issuer, signer := template, key
	if parent != nil {
		issuer, signer = parent.cert, parent.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), signer)
	if err != nil {
		tb.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	return authority{cert, key}
}

func newCA(tb testing.TB) *CA {
	tb.Helper()
	cert, key, err := NewCA("test CA", year, time.Now())
	if err != nil {
		tb.Fatal(err)
	}
	ca, err := LoadCA(cert, key, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return ca
}

func request(tb testing.TB) (keyPEM, csrPEM []byte) {
	tb.Helper()
	keyPEM, err := NewKey()
	if err != nil {
		tb.Fatal(err)
	}
	csrPEM, err = NewRequest(keyPEM, "db-0")
	if err != nil {
		tb.Fatal(err)
	}
	return keyPEM, csrPEM
}

func join(parts ...[]byte) []byte {
	var out []byte
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

// TestCAsOfUsers loads each kind of CA, signs with it, and shakes hands.
func TestCAsOfUsers(t *testing.T) {
	root := issueCA(t, "root", nil, ecKey(t), nil)
	middle := issueCA(t, "middle", &root, ecKey(t), nil)
	low := issueCA(t, "low", &middle, ecKey(t), func(c *x509.Certificate) { c.MaxPathLen, c.MaxPathLenZero = 0, true })
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ed := issueCA(t, "ed", nil, edKey, nil)
	rsaCA := issueCA(t, "rsa", nil, rsaKey(t, 2048), nil)
	rsaPrivate, isRSA := rsaCA.key.(*rsa.PrivateKey)
	ecPrivate, isEC := root.key.(*ecdsa.PrivateKey)
	if !isRSA || !isEC {
		t.Fatalf("the keys are of kinds %T and %T", rsaCA.key, root.key)
	}
	pkcs1 := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(rsaPrivate)})
	sec1DER, err := x509.MarshalECPrivateKey(ecPrivate)
	if err != nil {
		t.Fatal(err)
	}
	sec1 := join(pem.EncodeToMemory(&pem.Block{Type: "EC PARAMETERS", Bytes: []byte{6}}),
		pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1DER}))
	for name, tc := range map[string]struct {
		cert, key, roots []byte
		// chain is how many certificates a bundle holds.
		chain int
	}{
		"root alone":              {root.pem(), root.keyPEM(t), nil, 1},
		"root, also in ca.crt":    {root.pem(), root.keyPEM(t), root.pem(), 1},
		"SEC1 with parameters":    {root.pem(), sec1, nil, 1},
		"intermediate":            {middle.pem(), middle.keyPEM(t), root.pem(), 2},
		"intermediate, root last": {join(middle.pem(), root.pem()), middle.keyPEM(t), nil, 2},
		"two intermediates":       {join(low.pem(), middle.pem()), low.keyPEM(t), root.pem(), 3},
		"two, root given twice":   {join(low.pem(), middle.pem(), root.pem()), low.keyPEM(t), root.pem(), 3},
		"Ed25519":                 {ed.pem(), ed.keyPEM(t), nil, 1},
		"RSA, PKCS#8":             {rsaCA.pem(), rsaCA.keyPEM(t), nil, 1},
		"RSA, PKCS#1":             {rsaCA.pem(), pkcs1, nil, 1},
	} {
		t.Run(name, func(t *testing.T) {
			ca, err := LoadCA(tc.cert, tc.key, tc.roots)
			if err != nil {
				t.Fatal(err)
			}
			key, csr := request(t)
			bundle, err := ca.Sign(csr, Request{Usage: Server, CommonName: "db-0", Hosts: []string{"127.0.0.1"}, Validity: year, Now: time.Now()})
			if err != nil {
				t.Fatal(err)
			}
			certs, err := parseCertificates("bundle", bundle.Certificate)
			if err != nil || len(certs) != tc.chain {
				t.Fatalf("the bundle holds %d certificates (%v), want %d", len(certs), err, tc.chain)
			}
			if err := VerifyLeaf(bundle, key, []string{"127.0.0.1"}, Server, time.Now()); err != nil {
				t.Fatal(err)
			}
			shakeHands(t, ca, bundle, key)
		})
	}
}

// shakeHands connects a client with a certificate of its own to a server that
// demands one, over TCP.
func shakeHands(t *testing.T, ca *CA, server Bundle, serverKey []byte) {
	t.Helper()
	clientKey, csr := request(t)
	client, err := ca.Sign(csr, Request{Usage: Client, CommonName: "root", Validity: time.Hour, Now: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	clientCfg, err := ClientTLS(client.Certificate, clientKey, client.CA)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(server.Certificate, serverKey)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert,
		ClientCAs: clientCfg.RootCAs, MinVersion: tls.VersionTLS12,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	seen := make(chan string, 1)
	go func() {
		conn, aerr := l.Accept()
		if aerr != nil {
			seen <- aerr.Error()
			return
		}
		defer func() { _ = conn.Close() }()
		tc, ok := conn.(*tls.Conn)
		if !ok {
			seen <- "not a TLS connection"
			return
		}
		if herr := tc.HandshakeContext(t.Context()); herr != nil {
			seen <- herr.Error()
			return
		}
		seen <- tc.ConnectionState().PeerCertificates[0].Subject.CommonName
	}()
	conn, err := (&tls.Dialer{Config: clientCfg}).DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if got := <-seen; got != "root" {
		t.Fatalf("the server saw %q, want the client's common name", got)
	}
}

func TestLoadCASaysWhatIsWrong(t *testing.T) {
	root := issueCA(t, "root", nil, ecKey(t), nil)
	other := issueCA(t, "other", nil, ecKey(t), nil)
	middle := issueCA(t, "middle", &root, ecKey(t), nil)
	short := issueCA(t, "short", nil, ecKey(t), func(c *x509.Certificate) { c.MaxPathLen, c.MaxPathLenZero = 0, true })
	below := issueCA(t, "below", &short, ecKey(t), nil)
	old := issueCA(t, "old", nil, ecKey(t), func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	young := issueCA(t, "young", nil, ecKey(t), func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) })
	belowOld := issueCA(t, "belowOld", &old, ecKey(t), nil)
	noSign := issueCA(t, "noSign", nil, ecKey(t), func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature })
	leaf := issueCA(t, "leaf", &root, ecKey(t), func(c *x509.Certificate) { c.IsCA = false; c.MaxPathLen = 0 })
	servers := issueCA(t, "servers", &root, ecKey(t), func(c *x509.Certificate) {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	})
	weak := issueCA(t, "weak", nil, rsaKey(t, 1024), nil)
	encrypted := pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte{1}})
	for name, tc := range map[string]struct {
		cert, key, roots []byte
		want             error
		says             string
	}{
		"no certificate":           {nil, root.keyPEM(t), nil, ErrPEM, "tls.crt"},
		"no key":                   {root.pem(), nil, nil, ErrPEM, "tls.key"},
		"certificate for key":      {root.pem(), root.pem(), nil, ErrPEM, "no PEM block with a private key"},
		"encrypted key":            {root.pem(), encrypted, nil, ErrPEM, "passphrase"},
		"roots not PEM":            {root.pem(), root.keyPEM(t), []byte("x"), ErrPEM, "ca.crt"},
		"another key":              {root.pem(), other.keyPEM(t), nil, ErrCA, "tls.key is not the key"},
		"chain in the wrong order": {join(root.pem(), middle.pem()), middle.keyPEM(t), nil, ErrCA, "signing CA first"},
		"a leaf":                   {leaf.pem(), leaf.keyPEM(t), root.pem(), ErrCA, "not a CA"},
		"may not sign":             {noSign.pem(), noSign.keyPEM(t), nil, ErrCA, "keyCertSign"},
		"expired":                  {old.pem(), old.keyPEM(t), nil, ErrCA, "expired on"},
		"root expired":             {belowOld.pem(), belowOld.keyPEM(t), old.pem(), ErrCA, "expired"},
		"not yet valid":            {young.pem(), young.keyPEM(t), nil, ErrCA, "not valid before"},
		"no root":                  {middle.pem(), middle.keyPEM(t), nil, ErrCA, "put the roots to trust into ca.crt"},
		"another root":             {middle.pem(), middle.keyPEM(t), other.pem(), ErrCA, "doesn't lead to the roots"},
		"root not among the roots": {root.pem(), root.keyPEM(t), other.pem(), ErrCA, "doesn't lead to the roots"},
		"path too long":            {below.pem(), below.keyPEM(t), short.pem(), ErrCA, "path length of short"},
		"for servers only":         {servers.pem(), servers.keyPEM(t), root.pem(), ErrCA, "clientAuth"},
		"weak key":                 {weak.pem(), weak.keyPEM(t), nil, ErrCA, "RSA of 1024 bits"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := LoadCA(tc.cert, tc.key, tc.roots)
			if !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.says) {
				t.Fatalf("got %v, want %v with %q", err, tc.want, tc.says)
			}
		})
	}
}

func TestSignDecidesItself(t *testing.T) {
	ca := newCA(t)
	key, err := parseKey(mustKey(t))
	if err != nil {
		t.Fatal(err)
	}
	// A request that asks for more than it is due.
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject:  pkix.Name{CommonName: "root", Organization: []string{"system:masters"}},
		DNSNames: []string{"bank.example"}, IPAddresses: []net.IP{net.IPv4(8, 8, 8, 8)},
		EmailAddresses: []string{"a@b.example"},
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().Truncate(time.Second).UTC()
	bundle, err := ca.Sign(pem.EncodeToMemory(&pem.Block{Type: typeRequest, Bytes: der}), Request{
		Usage: Peer, CommonName: "db-0", Organization: "quorate",
		Hosts:    []string{"10.0.0.1", "DB-0.example.", "[::1]", "10.0.0.1", "::ffff:10.0.0.1", "db-0.example", "*.db.example"},
		Validity: 10 * year, Now: now,
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := Inspect(bundle.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	want := Info{
		Subject: "CN=db-0,O=quorate", Issuer: "CN=test CA", CommonName: "db-0",
		NotBefore: now.Add(-backdate), NotAfter: ca.Info().NotAfter,
		DNSNames: []string{"db-0.example", "*.db.example"}, IPs: []string{"10.0.0.1", "::1"},
		Usages: []string{"serverAuth", "clientAuth"}, Serial: got.Serial, Fingerprint: got.Fingerprint,
	}
	// The CA was made a moment before, at a time that was not rounded.
	if want.NotBefore.Before(ca.Info().NotBefore) {
		want.NotBefore = ca.Info().NotBefore
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("(-want +got):\n%s", diff)
	}
	certs, err := parseCertificates("", bundle.Certificate)
	if err != nil || len(certs[0].EmailAddresses) != 0 || certs[0].IsCA {
		t.Fatalf("the leaf holds %v, CA %v, %v", certs[0].EmailAddresses, certs[0].IsCA, err)
	}
	if !samePublicKey(certs[0].PublicKey, key.Public()) {
		t.Fatal("the certificate is of another key")
	}
	if len(got.Serial) < 16 {
		t.Fatalf("the serial %s can be guessed", got.Serial)
	}
}

func mustKey(tb testing.TB) []byte {
	tb.Helper()
	key, err := NewKey()
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func TestSignRefuses(t *testing.T) {
	ca := newCA(t)
	_, csr := request(t)
	block, _ := pem.Decode(csr)
	forged := append([]byte(nil), block.Bytes...)
	forged[len(forged)-1] ^= 1
	weakDER, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, rsaKey(t, 1024))
	if err != nil {
		t.Fatal(err)
	}
	root := issueCA(t, "limited", nil, ecKey(t), func(c *x509.Certificate) {
		c.PermittedDNSDomainsCritical, c.PermittedDNSDomains = true, []string{"corp.example"}
	})
	limited, err := LoadCA(root.pem(), root.keyPEM(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	good := Request{Usage: Server, CommonName: "db-0", Hosts: []string{"db-0.example"}, Validity: time.Hour, Now: time.Now()}
	edit := func(f func(*Request)) Request {
		r := good
		f(&r)
		return r
	}
	for name, tc := range map[string]struct {
		ca   *CA
		csr  []byte
		req  Request
		want error
		says string
	}{
		"not PEM":           {ca, []byte("x"), good, ErrRequest, "CERTIFICATE REQUEST"},
		"a certificate":     {ca, ca.Roots(), good, ErrRequest, "CERTIFICATE REQUEST"},
		"garbage":           {ca, pem.EncodeToMemory(&pem.Block{Type: typeRequest, Bytes: []byte{1, 2}}), good, ErrRequest, "can't be read"},
		"without the key":   {ca, pem.EncodeToMemory(&pem.Block{Type: typeRequest, Bytes: forged}), good, ErrRequest, "not signed with its own key"},
		"weak key":          {ca, pem.EncodeToMemory(&pem.Block{Type: typeRequest, Bytes: weakDER}), good, ErrRequest, "RSA of 1024 bits"},
		"unknown usage":     {ca, csr, edit(func(r *Request) { r.Usage = "CA" }), ErrRequest, `usage "CA"`},
		"no name":           {ca, csr, edit(func(r *Request) { r.CommonName = "" }), ErrRequest, "common name"},
		"long name":         {ca, csr, edit(func(r *Request) { r.CommonName = strings.Repeat("x", 65) }), ErrRequest, "64 bytes"},
		"no host":           {ca, csr, edit(func(r *Request) { r.Hosts = nil }), ErrRequest, "names no host"},
		"a URL":             {ca, csr, edit(func(r *Request) { r.Hosts = []string{"https://db-0"} }), ErrRequest, "without scheme and port"},
		"a port":            {ca, csr, edit(func(r *Request) { r.Hosts = []string{"10.0.0.1:2379"} }), ErrRequest, "without scheme and port"},
		"a mistyped IP":     {ca, csr, edit(func(r *Request) { r.Hosts = []string{"10.0.0.300"} }), ErrRequest, "neither an IP address nor a DNS name"},
		"an IP with a zone": {ca, csr, edit(func(r *Request) { r.Hosts = []string{"fe80::1%eth0"} }), ErrRequest, "zone"},
		"an empty host":     {ca, csr, edit(func(r *Request) { r.Hosts = []string{""} }), ErrRequest, "neither"},
		"no validity":       {ca, csr, edit(func(r *Request) { r.Validity = 0 }), ErrRequest, "positive"},
		"CA expired":        {ca, csr, edit(func(r *Request) { r.Now = time.Now().Add(2 * year) }), ErrCA, "expired on"},
		"outside the CA":    {limited, csr, good, ErrRequest, "CA limited may not sign it"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := tc.ca.Sign(tc.csr, tc.req)
			if !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.says) {
				t.Fatalf("got %v, want %v with %q", err, tc.want, tc.says)
			}
		})
	}
}

func TestVerifyLeafSaysWhatIsWrong(t *testing.T) {
	ca, other := newCA(t), newCA(t)
	now := time.Now()
	key, csr := request(t)
	sign := func(usage Usage) Bundle {
		b, err := ca.Sign(csr, Request{Usage: usage, CommonName: "db-0", Hosts: []string{"10.0.0.2", "db-0.example"}, Validity: time.Hour, Now: now})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	server, client := sign(Server), sign(Client)
	for name, tc := range map[string]struct {
		bundle Bundle
		key    []byte
		hosts  []string
		usage  Usage
		now    time.Time
		want   error
		says   string
	}{
		"good":            {server, key, []string{"10.0.0.2", "DB-0.example"}, Peer, now, nil, ""},
		"client":          {client, key, nil, Client, now, nil, ""},
		"host missing":    {server, key, []string{"10.0.0.2", "10.0.0.1"}, Server, now, ErrLeaf, "does not name 10.0.0.1, but db-0.example, 10.0.0.2"},
		"expired":         {server, key, nil, Server, now.Add(2 * time.Hour), ErrLeaf, "expired on " + date(now.Add(time.Hour))},
		"too early":       {server, key, nil, Server, now.Add(-time.Hour), ErrLeaf, "not valid before"},
		"another CA":      {Bundle{server.Certificate, other.Roots()}, key, nil, Server, now, ErrLeaf, "signed by another CA"},
		"another key":     {server, mustKey(t), nil, Server, now, ErrLeaf, "private key"},
		"no serverAuth":   {client, key, nil, Server, now, ErrLeaf, "lacks serverAuth"},
		"unknown usage":   {client, key, nil, "", now, ErrLeaf, "unknown"},
		"no certificate":  {Bundle{nil, server.CA}, key, nil, Server, now, ErrPEM, "certificate"},
		"no roots":        {Bundle{server.Certificate, nil}, key, nil, Server, now, ErrPEM, "ca.crt"},
		"half-written":    {Bundle{server.Certificate[:len(server.Certificate)/2], server.CA}, key, nil, Server, now, ErrPEM, "no PEM block"},
		"key not written": {server, nil, nil, Server, now, ErrPEM, "private key"},
	} {
		t.Run(name, func(t *testing.T) {
			err := VerifyLeaf(tc.bundle, tc.key, tc.hosts, tc.usage, tc.now)
			if !errors.Is(err, tc.want) || (err != nil && !strings.Contains(err.Error(), tc.says)) {
				t.Fatalf("got %v, want %v with %q", err, tc.want, tc.says)
			}
		})
	}
	t.Run("lacks clientAuth", func(t *testing.T) {
		root := issueCA(t, "root", nil, ecKey(t), nil)
		leaf := issueCA(t, "leaf", &root, ecKey(t), func(c *x509.Certificate) {
			c.IsCA, c.MaxPathLen = false, 0
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		})
		err := VerifyLeaf(Bundle{leaf.pem(), root.pem()}, leaf.keyPEM(t), nil, Peer, now)
		if !errors.Is(err, ErrLeaf) || !strings.Contains(err.Error(), "lacks clientAuth") {
			t.Fatalf("got %v", err)
		}
	})
}

func TestNeedsRenewal(t *testing.T) {
	ca := newCA(t)
	_, csr := request(t)
	now := time.Now().Truncate(time.Second)
	bundle, err := ca.Sign(csr, Request{Usage: Client, CommonName: "c", Validity: 300 * time.Hour, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	for after, want := range map[time.Duration]bool{0: false, 199 * time.Hour: false, 201 * time.Hour: true, 400 * time.Hour: true} {
		if got := NeedsRenewal(bundle.Certificate, now.Add(after)); got != want {
			t.Errorf("after %s of 300h: %v, want %v", after, got, want)
		}
	}
	if !NeedsRenewal([]byte("x"), now) || !NeedsRenewal(nil, now) {
		t.Error("what can't be read needs renewal")
	}
}

func TestNewCARefuses(t *testing.T) {
	for _, tc := range []struct {
		name     string
		validity time.Duration
	}{{"", year}, {strings.Repeat("x", 65), year}, {"ca", 0}, {"ca", -year}} {
		if _, _, err := NewCA(tc.name, tc.validity, time.Now()); !errors.Is(err, ErrCA) {
			t.Errorf("NewCA(%q, %s) = %v, want ErrCA", tc.name, tc.validity, err)
		}
	}
}

func TestClientTLS(t *testing.T) {
	ca := newCA(t)
	if _, err := ClientTLS(nil, nil, nil); !errors.Is(err, ErrPEM) {
		t.Errorf("without roots: %v, want ErrPEM: the system's roots must not be trusted instead", err)
	}
	if _, err := ClientTLS(ca.Roots(), mustKey(t), ca.Roots()); !errors.Is(err, ErrPEM) {
		t.Errorf("another key: %v, want ErrPEM", err)
	}
	if _, err := ClientTLS(ca.Roots(), nil, ca.Roots()); !errors.Is(err, ErrPEM) {
		t.Errorf("no key: %v, want ErrPEM", err)
	}
	cfg, err := ClientTLS(nil, nil, ca.Roots())
	if err != nil || len(cfg.Certificates) != 0 || cfg.MinVersion != tls.VersionTLS12 || cfg.RootCAs == nil {
		t.Errorf("got %+v, %v", cfg, err)
	}
}
