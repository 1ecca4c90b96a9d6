package inspect_test

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/inspect"
	"github.com/quorate/quorate/pki"
	"github.com/quorate/quorate/test/etcdlab"
	"github.com/quorate/quorate/test/freeport"
)

// between stands in front of a member, as a load balancer does. Each piece of what
// the member answers goes through change.
func between(t *testing.T, member string, change func([]byte) []byte) string {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			front, err := ln.Accept()
			if err != nil {
				return
			}
			back, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", member)
			if err != nil {
				_ = front.Close()
				continue
			}
			go func() {
				_, _ = io.Copy(back, front) // either side ends it
				_ = back.Close()
			}()
			go func() {
				defer func() { _ = front.Close() }()
				piece := make([]byte, 64<<10)
				for {
					n, err := back.Read(piece)
					if n > 0 {
						if _, broken := front.Write(change(piece[:n])); broken != nil {
							return
						}
					}
					if err != nil {
						return
					}
				}
			}()
		}
	}()
	return "http://" + ln.Addr().String()
}

// advertisedThrough is a member that is reached, and advertised, by what stands in
// front of it.
func advertisedThrough(t *testing.T, change func([]byte) []byte) (endpoint string) {
	t.Helper()
	address := freeport.Address(t)
	endpoint = between(t, address, change)
	newLab(t, labOptions{Members: 1, Edit: behind(address, endpoint)}).ready()
	return endpoint
}

// TestClock: a host whose clock is ten minutes late, as its answers say.
func TestClock(t *testing.T) {
	t.Parallel()
	date := regexp.MustCompile(`Date: [^\r\n]+`)
	endpoint := advertisedThrough(t, func(b []byte) []byte {
		return date.ReplaceAllFunc(b, func(line []byte) []byte {
			at, err := http.ParseTime(string(bytes.TrimPrefix(line, []byte("Date: "))))
			if err != nil {
				return line
			}
			return []byte("Date: " + at.Add(-10*time.Minute).Format(http.TimeFormat))
		})
	})
	r := look(t, inspect.Options{Endpoints: []string{endpoint}})
	f := finding(t, r, "clock")
	if f.Severity != inspect.Warning || !strings.Contains(f.Title, "s behind this machine's") || !strings.Contains(f.Evidence[0], "offset -") {
		t.Errorf("%s: %s %q", f.Severity, f.Title, f.Evidence)
	}
	if c := r.Observation.Members[0].Clock; c == nil || c.OffsetSeconds > -595 || c.OffsetSeconds < -605 {
		t.Errorf("the offset is %+v, want about -600 s", c)
	}
}

// TestSlowReads: a way to the member that takes its time.
func TestSlowReads(t *testing.T) {
	t.Parallel()
	const late = 150 * time.Millisecond
	endpoint := advertisedThrough(t, func(b []byte) []byte {
		<-time.After(late)
		return b
	})
	r := look(t, inspect.Options{Endpoints: []string{endpoint}})
	f := finding(t, r, "slow-reads")
	if f.Severity != inspect.Warning || !strings.Contains(f.Title, "half of the linearizable reads take more than") {
		t.Errorf("%s: %s", f.Severity, f.Title)
	}
}

// TestEmptyBalancer: a load balancer whose member is gone takes connections and
// closes them.
func TestEmptyBalancer(t *testing.T) {
	t.Parallel()
	address := freeport.Address(t)
	l := newLab(t, labOptions{Members: 3, Edit: behind(address, between(t, address, func(b []byte) []byte { return b }))}).ready()
	l.Members[2].Kill()
	l.ready(l.Members[:2]...)
	r := look(t, inspect.Options{Endpoints: l.URLs(l.Members[0])})
	f := finding(t, r, "member-failed")
	if f.Severity != inspect.Critical || !strings.Contains(f.Title, "m3") || r.State != v1alpha1.StateDegraded {
		t.Errorf("%s: %s; the cluster is %s", f.Severity, f.Title, r.State)
	}
}

// TestNotEtcd: the URL that members use among themselves is no client URL.
func TestNotEtcd(t *testing.T) {
	t.Parallel()
	l := newLab(t, labOptions{Members: 1}).ready()
	r := look(t, inspect.Options{Endpoints: []string{l.Members[0].Peer}})
	if f := finding(t, r, "not-etcd"); f.Severity != inspect.Critical || !strings.Contains(f.Fix, "not peer URLs") {
		t.Errorf("%s: %s", f.Severity, f.Fix)
	}
}

// TestPlain: a cluster without TLS and users says so, calmly while it can be reached
// from its own machine only.
func TestPlain(t *testing.T) {
	t.Parallel()
	l := newLab(t, labOptions{Members: 1}).ready()
	r := look(t, inspect.Options{Endpoints: l.URLs(), User: "root", Password: "secret"})
	if f := finding(t, r, "plain-clients"); f.Severity != inspect.Info || !strings.Contains(strings.Join(f.Evidence, "\n"), l.Members[0].Client) {
		t.Errorf("%s %q", f.Severity, f.Evidence)
	}
	if f := finding(t, r, "plain-peers"); f.Severity != inspect.Info || !strings.Contains(strings.Join(f.Evidence, "\n"), l.Members[0].Peer) {
		t.Errorf("%s %q", f.Severity, f.Evidence)
	}
	if f := finding(t, r, "login-needless"); f.Severity != inspect.Info || f.Subject != "user root" {
		t.Errorf("%s of %s", f.Severity, f.Subject)
	}
}

// TestOpenToAll: TLS that asks nobody who he is.
func TestOpenToAll(t *testing.T) {
	t.Parallel()
	ca := etcdlab.NewAuthority(t)
	l := newLab(t, labOptions{Members: 1, CA: ca}).ready()
	r := look(t, inspect.Options{Endpoints: l.URLs(), CA: ca.Roots()})
	if f := finding(t, r, "open-to-all"); f.Severity != inspect.Info || !strings.Contains(f.Fix, "--client-cert-auth") {
		t.Errorf("%s: %s", f.Severity, f.Fix)
	}
}

// TestAuthorityEnds: the CA ends before anything that it has signed is looked at.
func TestAuthorityEnds(t *testing.T) {
	t.Parallel()
	ca := etcdlab.NewAuthorityFor(t, 300*24*time.Hour, time.Now().Add(-280*24*time.Hour))
	l := newLab(t, labOptions{Members: 1, CA: ca}).ready()
	r := look(t, inspect.Options{Endpoints: l.URLs(), CA: ca.Roots()})
	f := finding(t, r, "ca-expiry")
	if f.Severity != inspect.Warning || !strings.Contains(f.Title, "ends in 19 days") && !strings.Contains(f.Title, "ends in 20 days") {
		t.Errorf("%s: %s", f.Severity, f.Title)
	}
	if r.State != v1alpha1.StateHealthy {
		t.Errorf("it is %s", r.State)
	}
}

// TestClientsCertificateServes: a certificate that is for clients only does not make
// a server.
func TestClientsCertificateServes(t *testing.T) {
	t.Parallel()
	ca := etcdlab.NewAuthority(t)
	l := newLab(t, labOptions{Members: 1, CA: ca, Server: func(r *pki.Request) { r.Usage = pki.Client }})
	l.listening(l.Members[0])
	r := look(t, inspect.Options{Endpoints: l.URLs(), CA: ca.Roots()})
	if f := finding(t, r, "tls-certificate"); f.Severity != inspect.Critical || !strings.Contains(f.Fix, "serverAuth") || r.State != v1alpha1.StateUnknown {
		t.Errorf("%s: %s; the cluster is %s", f.Severity, f.Fix, r.State)
	}
}
