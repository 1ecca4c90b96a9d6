package server_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/pki"
	"github.com/quorate/quorate/server"
	"github.com/quorate/quorate/server/servertest"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
)

// joinWorld is an API over TLS, with a clock that can be moved.
type joinWorld struct {
	*servertest.Fixture

	url   string
	caPEM string
	admin *remote.Client

	mu    sync.Mutex
	ahead time.Duration
}

func (w *joinWorld) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Now().Add(w.ahead)
}

func (w *joinWorld) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ahead += d
}

func newJoinWorld(t *testing.T) *joinWorld {
	t.Helper()
	caPEM, config := certificate(t)
	config.ClientAuth = tls.RequestClientCert
	certs, err := pki.Certificates(caPEM)
	fine(t, "read the CA", err)
	// The chain shows the CA, as that of a server with its own CA does.
	config.Certificates[0].Certificate = append(config.Certificates[0].Certificate, certs[0].Raw)
	w := &joinWorld{caPEM: string(caPEM)}
	w.Fixture = servertest.New(t, func(o *server.Options) {
		o.Front = func() server.Front { return server.Front{Pin: pki.PublicKeyHash(certs[0]), CA: caPEM} }
	})
	w.Server.SetNow(w.now)
	w.Server.SetWrongTime(time.Millisecond)
	ln, err := server.Listen(t.Context(), "127.0.0.1:0", config)
	fine(t, "listen", err)
	serve(t, w.Fixture, ln)
	w.url = "https://" + ln.Addr().String()
	w.admin = w.Client(t, server.RoleAdmin, "", remote.Options{})
	return w
}

func (w *joinWorld) token(t *testing.T, host string, ttl time.Duration) string {
	t.Helper()
	token, expires, err := w.admin.CreateJoinToken(t.Context(), host, ttl)
	fine(t, "make a join token", err)
	if left := expires.Sub(w.now()); left <= 0 || left > max(ttl, time.Hour) {
		t.Fatalf("the token expires in %s", left)
	}
	return token
}

func newKey(t *testing.T) (key, csr []byte) {
	t.Helper()
	key, err := pki.NewKey()
	fine(t, "make a key", err)
	csr, err = pki.NewRequest(key, "")
	fine(t, "make a request", err)
	return key, csr
}

// as is a client that shows a certificate.
func (w *joinWorld) as(t *testing.T, key []byte, cert string) *remote.Client {
	t.Helper()
	pair, err := tls.X509KeyPair([]byte(cert), key)
	fine(t, "load the pair", err)
	c, err := remote.New(remote.Config{Server: w.url, CA: w.caPEM}, remote.Options{
		Certificate: func() (*tls.Certificate, error) { return &pair, nil },
	})
	fine(t, "make a client", err)
	t.Cleanup(c.Close)
	return c
}

// joined is an agent that has joined as a host, which exists.
func (w *joinWorld) joined(t *testing.T, host string) *remote.Client {
	t.Helper()
	key, csr := newKey(t)
	got, err := remote.Join(t.Context(), remote.Config{Server: w.url}, remote.Options{}, host, w.token(t, host, 0), csr)
	fine(t, "join", err)
	c := w.as(t, key, got.Certificate)
	if err = c.Create(t.Context(), servertest.Host(host)); err != nil && !errors.Is(err, store.ErrExists) {
		t.Fatalf("make the host: %v", err)
	}
	return c
}

// audited returns the messages of the warnings with that reason.
func (w *joinWorld) audited(t *testing.T, kind, name, reason string) []string {
	t.Helper()
	events, err := w.Store.Events(t.Context(), store.EventOptions{Kind: kind, Name: name})
	fine(t, "read the events", err)
	var found []string
	for _, e := range events {
		if e.Reason == reason && e.Type == store.Warning && e.Source == "server" {
			found = append(found, e.Message)
		}
	}
	return found
}

func wantAudit(t *testing.T, found []string, parts ...string) {
	t.Helper()
	if len(found) == 0 {
		t.Fatal("nothing was recorded")
	}
	for _, part := range append(parts, "refused from 127.0.0.1: ") {
		if !strings.Contains(found[len(found)-1], part) {
			t.Errorf("recorded %q, without %q", found[len(found)-1], part)
		}
	}
}

// TestJoin: an agent with a token and no CA gets a certificate, and is its host by it.
func TestJoin(t *testing.T) {
	w := newJoinWorld(t)
	ctx := t.Context()
	token := w.token(t, "h1", 10*time.Minute)
	key, csr := newKey(t)
	got, err := remote.Join(ctx, remote.Config{Server: w.url}, remote.Options{}, "h1", token, csr)
	fine(t, "join", err)
	if got.Host != "h1" || got.ServerCA != w.caPEM || time.Until(got.NotAfter) < 89*24*time.Hour {
		t.Fatalf("joined as %s until %s", got.Host, got.NotAfter)
	}
	agent := w.as(t, key, got.Certificate)
	fine(t, "make its host", agent.Create(ctx, servertest.Host("h1")))
	refused(t, "make another host", agent.Create(ctx, servertest.Host("h2")))
	who, err := agent.WhoAmI(ctx)
	if err != nil || who.Name != "host/h1" || who.Role != "agent" {
		t.Fatalf("WhoAmI: %+v, %v", who, err)
	}
	// The answer was lost: the same token and key are taken again.
	again, err := remote.Join(ctx, remote.Config{Server: w.url}, remote.Options{}, "h1", token, csr)
	fine(t, "join again", err)
	fine(t, "use the second certificate", w.as(t, key, again.Certificate).Get(ctx, store.Key{Name: "h1"}, &v1alpha1.EtcdHost{}))
	fine(t, "use the first certificate", agent.Get(ctx, store.Key{Name: "h1"}, &v1alpha1.EtcdHost{}))
	secrets, err := w.Store.List(ctx, v1alpha1.KindSecret, store.ListOptions{Namespace: server.TokenNamespace})
	fine(t, "list the Secrets", err)
	for _, obj := range secrets {
		if s, ok := obj.(*v1alpha1.Secret); ok {
			for field, value := range s.Data {
				if strings.Contains(string(value), strings.Split(token, "_")[2]) {
					t.Errorf("the store holds the token's secret in %s of %s", field, s.Name)
				}
			}
		}
	}
	// It is a certificate of no other use.
	if _, err = remote.Join(ctx, remote.Config{Server: w.URL}, remote.Options{}, "h1", token, csr); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("join in the clear: %v", err)
	}
}

// TestJoinKnowsTheServer: a token tells an agent which server it is for.
func TestJoinKnowsTheServer(t *testing.T) {
	w, other := newJoinWorld(t), newJoinWorld(t)
	_, csr := newKey(t)
	token := w.token(t, "h1", 0)
	_, err := remote.Join(t.Context(), remote.Config{Server: other.url}, remote.Options{}, "h1", token, csr)
	if !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "is not the one that the join token names") {
		t.Fatalf("another server: %v", err)
	}
	if _, err = remote.Join(t.Context(), remote.Config{Server: strings.Replace(w.url, "127.0.0.1", "localhost", 1)}, remote.Options{}, "h1", token, csr); !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "localhost") {
		t.Fatalf("a name that the certificate does not have: %v", err)
	}
	if _, err = remote.Join(t.Context(), remote.Config{Server: w.url, CA: other.caPEM}, remote.Options{}, "h1", token, csr); !errors.Is(err, store.ErrUnavailable) {
		t.Fatalf("another CA was given: %v", err)
	}
	_, err = remote.Join(t.Context(), remote.Config{Server: w.url, CA: w.caPEM}, remote.Options{}, "h1", token, csr)
	fine(t, "join with a CA", err)
}

// TestJoinNeedsTLS: without TLS no certificate could be shown.
func TestJoinNeedsTLS(t *testing.T) {
	f := servertest.New(t, nil)
	_, _, err := f.Client(t, server.RoleAdmin, "", remote.Options{}).CreateJoinToken(t.Context(), "h1", 0)
	if !errors.Is(err, store.ErrConflict) || !strings.Contains(err.Error(), "--tls-self-made") {
		t.Fatalf("CreateJoinToken: %v", err)
	}
}

// TestJoinRefused: each wrong token is refused for its own reason, and recorded.
func TestJoinRefused(t *testing.T) {
	for _, tt := range []struct {
		name string
		// spoil returns what is sent instead of a good token for h1.
		spoil          func(t *testing.T, w *joinWorld) string
		want, reason   string
		kind, eventOf  string
		withoutSuccess bool
	}{
		{
			name: "stolen", want: "was used on", reason: "JoinTokenReused", kind: "EtcdHost", eventOf: "h1",
			spoil: func(t *testing.T, w *joinWorld) string {
				t.Helper()
				token := w.token(t, "h1", 0)
				_, csr := newKey(t)
				_, err := remote.Join(t.Context(), remote.Config{Server: w.url}, remote.Options{}, "h1", token, csr)
				fine(t, "join", err)
				return token
			},
		},
		{
			name: "expired", want: "expired on", reason: "JoinTokenExpired", kind: "EtcdHost", eventOf: "h1",
			spoil: func(t *testing.T, w *joinWorld) string {
				t.Helper()
				token := w.token(t, "h1", time.Minute)
				w.pass(time.Minute + time.Second)
				return token
			},
		},
		{
			name: "expired after use", want: "expired on", reason: "JoinTokenExpired", kind: "EtcdHost", eventOf: "h1",
			spoil: func(t *testing.T, w *joinWorld) string {
				t.Helper()
				token := w.token(t, "h1", time.Minute)
				_, csr := newKey(t)
				_, err := remote.Join(t.Context(), remote.Config{Server: w.url}, remote.Options{}, "h1", token, csr)
				fine(t, "join", err)
				w.pass(time.Minute + time.Second)
				return token
			},
		},
		{
			name: "another host's", want: `was made for host "h2", and was used to join as host "h1"`, reason: "JoinTokenOfAnotherHost", kind: "EtcdHost", eventOf: "h2",
			spoil: func(t *testing.T, w *joinWorld) string { t.Helper(); return w.token(t, "h2", 0) },
		},
		{
			name: "wrong secret", want: "is not known here", reason: "JoinTokenUnknown", kind: "Namespace", eventOf: "quorate-system",
			spoil: func(t *testing.T, w *joinWorld) string {
				t.Helper()
				parts := strings.Split(w.token(t, "h1", 0), "_")
				parts[2] = strings.Repeat("0", 64)
				return strings.Join(parts, "_")
			},
		},
		{
			name: "revoked with its host", want: "is not known here", reason: "JoinTokenUnknown", kind: "Namespace", eventOf: "quorate-system",
			spoil: func(t *testing.T, w *joinWorld) string {
				t.Helper()
				token := w.token(t, "h1", 0)
				h := &v1alpha1.EtcdHost{}
				fine(t, "read the host", w.Store.Get(t.Context(), store.Key{Name: "h1"}, h))
				fine(t, "remove the host", w.admin.Delete(t.Context(), v1alpha1.KindHost, store.Key{Name: "h1"}, store.Preconditions{UID: h.UID}))
				return token
			},
		},
		{
			name: "no host yet", want: "expired on", reason: "JoinTokenExpired", kind: "Namespace", eventOf: "quorate-system",
			spoil: func(t *testing.T, w *joinWorld) string {
				t.Helper()
				h := &v1alpha1.EtcdHost{}
				fine(t, "read the host", w.Store.Get(t.Context(), store.Key{Name: "h1"}, h))
				fine(t, "delete it", w.Store.Delete(t.Context(), v1alpha1.KindHost, store.KeyOf(h), store.Preconditions{UID: h.UID}))
				token := w.token(t, "h1", time.Minute)
				w.pass(2 * time.Minute)
				return token
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newJoinWorld(t)
			w.Create(t, servertest.Host("h1"), servertest.Host("h2"))
			token := tt.spoil(t, w)
			_, csr := newKey(t)
			_, err := remote.Join(t.Context(), remote.Config{Server: w.url, CA: w.caPEM}, remote.Options{}, "h1", token, csr)
			refused(t, "join", err)
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "quorate host token h") {
				t.Errorf("refused with %v", err)
			}
			wantAudit(t, w.audited(t, tt.kind, tt.eventOf, tt.reason), tt.want)
		})
	}
}

// TestJoinRace: of many who use a token at once, each with a key of its own, one wins.
func TestJoinRace(t *testing.T) {
	w := newJoinWorld(t)
	w.Create(t, servertest.Host("h1"))
	token := w.token(t, "h1", 0)
	const racers = 12
	type result struct {
		key []byte
		got remote.AgentCertificate
		err error
	}
	results := make([]result, racers)
	var wg sync.WaitGroup
	for i := range results {
		key, csr := newKey(t)
		wg.Go(func() {
			got, err := remote.Join(t.Context(), remote.Config{Server: w.url}, remote.Options{}, "h1", token, csr)
			results[i] = result{key, got, err}
		})
	}
	wg.Wait()
	won := 0
	for _, r := range results {
		if r.err != nil {
			refused(t, "a loser", r.err)
			continue
		}
		won++
		fine(t, "the winner's certificate", w.as(t, r.key, r.got.Certificate).Get(t.Context(), store.Key{Name: "h1"}, &v1alpha1.EtcdHost{}))
	}
	if won != 1 {
		t.Fatalf("%d of %d joined with one token", won, racers)
	}
}

// TestCertificatesRefused: a certificate counts only while it is the host's own.
func TestCertificatesRefused(t *testing.T) {
	get := func(c *remote.Client) error {
		return c.Get(context.Background(), store.Key{Name: "h1"}, &v1alpha1.EtcdHost{})
	}
	t.Run("removed host", func(t *testing.T) {
		w := newJoinWorld(t)
		agent := w.joined(t, "h1")
		fine(t, "before", get(agent))
		h := &v1alpha1.EtcdHost{}
		fine(t, "read", w.admin.Get(t.Context(), store.Key{Name: "h1"}, h))
		fine(t, "remove", w.admin.Delete(t.Context(), v1alpha1.KindHost, store.KeyOf(h), store.Preconditions{UID: h.UID}))
		eventually(t, "the certificate is void", func() bool { return errors.Is(get(agent), store.ErrForbidden) })
		err := get(agent)
		if !strings.Contains(err.Error(), `the certificate of host "h1" is void: the host was removed`) {
			t.Errorf("refused with %v", err)
		}
		refused(t, "make the host again", agent.Create(t.Context(), servertest.Host("h1")))
		wantAudit(t, w.audited(t, "Namespace", "quorate-system", "AgentCertificateRevoked"), "the host was removed")
	})
	t.Run("joined anew", func(t *testing.T) {
		w := newJoinWorld(t)
		first := w.joined(t, "h1")
		fine(t, "before", get(first))
		second := w.joined(t, "h1")
		eventually(t, "the first certificate is void", func() bool { return errors.Is(get(first), store.ErrForbidden) })
		fine(t, "the second", get(second))
		wantAudit(t, w.audited(t, "EtcdHost", "h1", "AgentCertificateRevoked"), "has joined anew")
	})
	t.Run("expired", func(t *testing.T) {
		w := newJoinWorld(t)
		agent := w.joined(t, "h1")
		w.pass(server.AgentValidity + time.Second)
		refused(t, "expired", get(agent))
		wantAudit(t, w.audited(t, "EtcdHost", "h1", "AgentCertificateExpired"), "expired on")
	})
	t.Run("foreign CA", func(t *testing.T) {
		w, other := newJoinWorld(t), newJoinWorld(t)
		w.joined(t, "h1")
		key, csr := newKey(t)
		got, err := remote.Join(t.Context(), remote.Config{Server: other.url}, remote.Options{}, "h1", other.token(t, "h1", 0), csr)
		fine(t, "join the other server", err)
		err = get(w.as(t, key, got.Certificate))
		refused(t, "the other server's certificate", err)
		if err == nil || !strings.Contains(err.Error(), "was not signed by this server's CA for agents") {
			t.Errorf("refused with %v", err)
		}
		wantAudit(t, w.audited(t, "Namespace", "quorate-system", "AgentCertificateForeign"), "Quorate agents")
	})
	t.Run("another host's", func(t *testing.T) {
		w := newJoinWorld(t)
		w.joined(t, "h1")
		thief := w.joined(t, "h2")
		refused(t, "read the host", get(thief))
		wantAudit(t, w.audited(t, "EtcdHost", "h2", "AgentOfAnotherHost"), `the certificate of host "h2" was shown, and EtcdHost h1 is bound to host "h1"`)
		_, csr := newKey(t)
		_, err := thief.RenewAgent(t.Context(), "h1", csr)
		refused(t, "renew for another host", err)
		refused(t, "list Secrets", thief.Get(t.Context(), store.Key{Namespace: server.TokenNamespace, Name: "agents-ca"}, &v1alpha1.Secret{}))
		wantAudit(t, w.audited(t, "EtcdHost", "h2", "AgentNotAllowed"), "may not get secrets")
	})
	t.Run("a member's", func(t *testing.T) {
		w := newJoinWorld(t)
		w.joined(t, "h1")
		key, csr := newKey(t)
		caPEM, caKey, err := pki.NewCA("Quorate agents", time.Hour, time.Now())
		fine(t, "make a CA of the same name", err)
		ca, err := pki.LoadCA(caPEM, caKey, nil)
		fine(t, "load it", err)
		b, err := ca.Sign(csr, pki.Request{Usage: pki.Client, CommonName: "agent of h1", Validity: time.Hour, Now: time.Now()})
		fine(t, "sign", err)
		refused(t, "a CA of the same name", get(w.as(t, key, string(b.Certificate))))
	})
}

// TestRenewal: the next certificate has another key; the one before goes on until the
// next is used, and ends soon after.
func TestRenewal(t *testing.T) {
	w := newJoinWorld(t)
	ctx := t.Context()
	agent := w.joined(t, "h1")
	get := func(c *remote.Client) error { return c.Get(ctx, store.Key{Name: "h1"}, &v1alpha1.EtcdHost{}) }
	_, lostCSR := newKey(t)
	_, err := agent.RenewAgent(ctx, "h1", lostCSR)
	fine(t, "renew, and lose the answer", err)
	key, csr := newKey(t)
	got, err := agent.RenewAgent(ctx, "h1", csr)
	fine(t, "renew again", err)
	fine(t, "the one before, until the next is used", get(agent))
	next := w.as(t, key, got.Certificate)
	fine(t, "the next", get(next))
	fine(t, "the one before, a moment later", get(agent))
	w.pass(6 * time.Minute)
	refused(t, "the one before, later", get(agent))
	fine(t, "the next, later", get(next))
	_, csr = newKey(t)
	token := w.Client(t, server.RoleAgent, "h1", remote.Options{})
	_, err = token.RenewAgent(ctx, "h1", csr)
	refused(t, "renew with a token", err)
}

// TestVoidStreamsEnd: what an agent has open ends with its certificate.
func TestVoidStreamsEnd(t *testing.T) {
	w := newJoinWorld(t)
	agent := w.joined(t, "h1")
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan struct{})
	go func() {
		defer close(served)
		agent.Serve(ctx, "h1", nil)
	}()
	t.Cleanup(func() { cancel(); <-served })
	eventually(t, "the channel stands", func() bool { return w.Hosts.Connected("h1") })
	h := &v1alpha1.EtcdHost{}
	fine(t, "read", w.admin.Get(t.Context(), store.Key{Name: "h1"}, h))
	fine(t, "remove", w.admin.Delete(t.Context(), v1alpha1.KindHost, store.KeyOf(h), store.Preconditions{UID: h.UID}))
	eventually(t, "the channel is closed", func() bool { return !w.Hosts.Connected("h1") })
}

// TestSecondAgent: of two agents with one identity, as where a machine was copied, the
// one that is connected stands for the host. The other is refused, and it is told.
func TestSecondAgent(t *testing.T) {
	w := newJoinWorld(t)
	key, csr := newKey(t)
	got, err := remote.Join(t.Context(), remote.Config{Server: w.url}, remote.Options{}, "h1", w.token(t, "h1", 0), csr)
	fine(t, "join", err)
	w.Create(t, servertest.Host("h1"))
	first, second := w.as(t, key, got.Certificate), w.as(t, key, got.Certificate)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan struct{})
	go func() {
		defer close(served)
		first.Serve(ctx, "h1", nil)
	}()
	t.Cleanup(func() { cancel(); <-served })
	eventually(t, "the channel stands", func() bool { return w.Hosts.Connected("h1") })
	host := &v1alpha1.EtcdHost{}
	read := func(c *remote.Client) error { return c.Get(t.Context(), store.Key{Name: "h1"}, host) }
	if err = read(second); !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "the one at 127.0.0.1 is connected") {
		t.Errorf("the second agent: %v", err)
	}
	fine(t, "the first agent", read(first))
	wantAudit(t, w.audited(t, "EtcdHost", "h1", "AgentTwice"), "a second agent")
	cancel()
	eventually(t, "the second is taken once the first is gone", func() bool { return read(second) == nil })
}

// TestAuditIsBounded: whoever tries in a loop fills neither store nor log.
func TestAuditIsBounded(t *testing.T) {
	w := newJoinWorld(t)
	w.Create(t, servertest.Host("h1"))
	token := w.token(t, "h1", time.Minute)
	w.pass(2 * time.Minute)
	_, csr := newKey(t)
	for range 20 {
		_, err := remote.Join(t.Context(), remote.Config{Server: w.url}, remote.Options{}, "h1", token, csr)
		refused(t, "join", err)
	}
	if n := len(w.audited(t, "EtcdHost", "h1", "JoinTokenExpired")); n != 1 {
		t.Errorf("%d events of 20 refusals in a moment", n)
	}
	for i := range 60 {
		host := fmt.Sprintf("made-up-%d", i)
		_, err := remote.Join(t.Context(), remote.Config{Server: w.url}, remote.Options{}, host, token, csr)
		refused(t, "join as "+host, err)
	}
	events, err := w.Store.Events(t.Context(), store.EventOptions{})
	fine(t, "read the events", err)
	if len(events) > 35 {
		t.Errorf("%d events of 80 refusals in a moment", len(events))
	}
}

// TestAgentCannotChangeItsHost: an agent makes its host, and then only reports.
func TestAgentCannotChangeItsHost(t *testing.T) {
	w := newJoinWorld(t)
	agent := w.joined(t, "h1")
	for what, change := range map[string]func(*v1alpha1.EtcdHost){
		"zone":        func(h *v1alpha1.EtcdHost) { h.Spec.Zone = "b" },
		"pool":        func(h *v1alpha1.EtcdHost) { h.Spec.Pool = "gold" },
		"drain":       func(h *v1alpha1.EtcdHost) { h.Spec.Drain = true },
		"address":     func(h *v1alpha1.EtcdHost) { h.Spec.Address = "10.0.0.9" },
		"overcommit":  func(h *v1alpha1.EtcdHost) { h.Spec.OvercommitPercent = 2000 },
		"label":       func(h *v1alpha1.EtcdHost) { h.Labels = map[string]string{"a": "b"} },
		"finalizer":   func(h *v1alpha1.EtcdHost) { h.Finalizers = []string{"example.com/stay"} },
		"nothing":     func(*v1alpha1.EtcdHost) {},
		"schedulable": func(h *v1alpha1.EtcdHost) { h.Spec.Unschedulable = true },
	} {
		h := &v1alpha1.EtcdHost{}
		fine(t, "read", agent.Get(t.Context(), store.Key{Name: "h1"}, h))
		change(h)
		refused(t, "change "+what, agent.Update(t.Context(), h))
	}
	h := &v1alpha1.EtcdHost{}
	fine(t, "read", agent.Get(t.Context(), store.Key{Name: "h1"}, h))
	h.Status.Platform = "linux/amd64"
	fine(t, "report", agent.UpdateStatus(t.Context(), h))
	refused(t, "delete", agent.Delete(t.Context(), v1alpha1.KindHost, store.KeyOf(h), store.Preconditions{UID: h.UID}))

	key, csr := newKey(t)
	got, err := remote.Join(t.Context(), remote.Config{Server: w.url}, remote.Options{}, "h3", w.token(t, "h3", 0), csr)
	fine(t, "join", err)
	third := w.as(t, key, got.Certificate)
	for what, spoil := range map[string]func(*v1alpha1.EtcdHost){
		"finalizer":    func(h *v1alpha1.EtcdHost) { h.Finalizers = []string{"example.com/stay"} },
		"annotation":   func(h *v1alpha1.EtcdHost) { h.Annotations = map[string]string{"a": "b"} },
		"own label":    func(h *v1alpha1.EtcdHost) { h.Labels = map[string]string{v1alpha1.Group + "/x": "b"} },
		"another name": func(h *v1alpha1.EtcdHost) { h.Name = "h4" },
	} {
		h := servertest.Host("h3")
		spoil(h)
		refused(t, "make a host with "+what, third.Create(t.Context(), h))
	}
	fine(t, "make its host", third.Create(t.Context(), servertest.Host("h3")))
}
