package server_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/pki"
	"github.com/quorate/quorate/server"
	"github.com/quorate/quorate/server/servertest"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
)

// harmlessToAgents are the routes that an agent may call whatever it asks for: what they
// answer is nobody's in particular, or its own. All others must refuse an agent that
// asks for what is another host's.
var harmlessToAgents = []string{
	"GET /apis/quorate.io/v1alpha1/namespaces/{namespace}/etcdmembers", // lists leave out what is another's
	"GET /apis/quorate.io/v1alpha1/etcdmembers",
	"GET /apis/quorate.io/v1alpha1/etcdhosts",
	"GET /releases", "GET /version", "GET /openapi.json", "GET /docs", "GET /docs/{file}", "GET /releases/{digest}",
	"GET /sessions/current",
}

// TestAgentsSeeNothingOfOtherHosts walks all routes there are with the certificate of
// one host, and asks for the objects of another.
func TestAgentsSeeNothingOfOtherHosts(t *testing.T) {
	w := newJoinWorld(t)
	key, csr := newKey(t)
	got, err := remote.Join(t.Context(), remote.Config{Server: w.url}, remote.Options{}, "h1", w.token(t, "h1", 0), csr)
	fine(t, "join", err)
	w.Create(t, servertest.Host("h1"), servertest.Host("h2"), servertest.Member("prod", "mine", "h1"), servertest.Member("prod", "secret-of-h2", "h2"), servertest.Cluster("prod", "secret-of-h2"))
	h := shower(t, w, key, got.Certificate)
	tried := 0
	for _, route := range server.Routes() {
		code, text := h.ask(t, route, bodyFor(t, route))
		switch {
		case strings.HasSuffix(route, "/join"), route == "POST /sessions":
			// Strangers' routes: they want a token or a code, and a certificate is none.
			if code != http.StatusUnauthorized {
				t.Errorf("%s: %d %s", route, code, text)
			}
		case slices.Contains(harmlessToAgents, route):
			if code >= http.StatusInternalServerError || strings.Contains(text, `"h2"`) || strings.Contains(text, "secret-of-h2") {
				t.Errorf("%s: %d %s", route, code, text)
			}
		default:
			tried++
			if code != http.StatusForbidden || !strings.Contains(text, `the certificate of host \"h1\"`) {
				t.Errorf("%s: %d %s", route, code, text)
			}
		}
		if strings.Contains(text, `"uid"`) && strings.Contains(text, "secret-of-h2") {
			t.Errorf("%s tells of another host's objects: %s", route, text)
		}
	}
	if tried < 60 {
		t.Fatalf("only %d routes were tried", tried)
	}
	if len(w.audited(t, "EtcdHost", "h1", "AgentOfAnotherHost")) == 0 || len(w.audited(t, "EtcdHost", "h1", "AgentNotAllowed")) == 0 {
		t.Error("nothing of it was recorded")
	}
	for _, obj := range []v1alpha1.Object{servertest.Host("h2"), servertest.Member("prod", "secret-of-h2", "h2"), servertest.Cluster("prod", "secret-of-h2")} {
		fine(t, "what the agent tried to delete", w.Store.Get(t.Context(), store.KeyOf(obj), obj))
	}
}

// TestAgentWatchesItsOwn: nor is an agent told that something of another host changed.
func TestAgentWatchesItsOwn(t *testing.T) {
	w := newJoinWorld(t)
	agent := w.joined(t, "h1")
	w.Create(t, servertest.Host("h2"), servertest.Member("prod", "other", "h2"), servertest.Member("prod", "mine", "h1"))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for _, kind := range []v1alpha1.Kind{v1alpha1.KindMember, v1alpha1.KindHost} {
		keys := agent.Watch(ctx, kind, "")
		want := map[string]string{v1alpha1.KindMember.Kind: "mine", v1alpha1.KindHost.Kind: "h1"}[kind.Kind]
		if first := <-keys; first.Name != want {
			t.Fatalf("%s: told of %s", kind.Plural, first)
		}
		// What is changed first would be told first.
		for _, name := range []string{"h2", "h1"} {
			change(t, w, kind, name)
		}
		if next := <-keys; next.Name != want {
			t.Fatalf("%s: told of %s", kind.Plural, next)
		}
	}
}

// change changes the object of the kind that is on a host.
func change(t *testing.T, w *joinWorld, kind v1alpha1.Kind, host string) {
	t.Helper()
	key := store.Key{Name: host}
	if kind.Kind == v1alpha1.KindMember.Kind {
		key = store.Key{Namespace: "prod", Name: map[string]string{"h1": "mine", "h2": "other"}[host]}
	}
	fine(t, "change "+key.String(), store.Mutate(t.Context(), w.Store, key, kind.New(), func(obj v1alpha1.Object) (bool, error) {
		obj.SetLabels(map[string]string{"changed": "yes"})
		return true, nil
	}))
}

// bare asks with a certificate, and with no more.
type bare struct {
	url    string
	client *http.Client
}

func shower(t *testing.T, w *joinWorld, key []byte, cert string) bare {
	t.Helper()
	pair, err := tls.X509KeyPair([]byte(cert), key)
	fine(t, "load the pair", err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(w.caPEM))
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}}
	t.Cleanup(tr.CloseIdleConnections)
	return bare{w.url, &http.Client{Transport: tr, Timeout: 20 * time.Second}}
}

func (b bare) ask(t *testing.T, route string, body []byte) (code int, text string) {
	t.Helper()
	method, path, _ := strings.Cut(route, " ")
	name := "secret-of-h2"
	if strings.Contains(path, "/etcdhosts/") {
		name = "h2"
	}
	path = strings.NewReplacer("{namespace}", "prod", "{name}", name, "{host}", "h2", "{id}", "x", "{digest}", url.PathEscape(servertest.Digest), "{file}", "docs.css").Replace(path)
	if method == http.MethodDelete {
		path += "?uid=x"
	}
	req, err := http.NewRequestWithContext(t.Context(), method, b.url+path, bytes.NewReader(body))
	fine(t, "make the request", err)
	resp, err := b.client.Do(req)
	fine(t, route, err)
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	fine(t, "read "+route, err)
	return resp.StatusCode, string(raw)
}

// bodyFor is a body that the route would take from an admin.
func bodyFor(t *testing.T, route string) []byte {
	t.Helper()
	method, path, _ := strings.Cut(route, " ")
	if method != http.MethodPost && method != http.MethodPut {
		return nil
	}
	var obj v1alpha1.Object
	switch {
	case strings.HasSuffix(path, "/events"):
		return mustJSON(t, store.Event{Type: store.Normal, Kind: "EtcdMember", Namespace: "prod", Name: "secret-of-h2", Reason: "Made", Message: "up"})
	case strings.HasSuffix(path, "/certificate") && strings.Contains(path, "etcdmembers"):
		return mustJSON(t, map[string]string{"usage": string(pki.Server), "csr": "csr"})
	case strings.HasSuffix(path, "/etcdhosts"), strings.HasSuffix(path, "/etcdhosts/{name}"), strings.HasSuffix(path, "/etcdhosts/{name}/status"):
		obj = servertest.Host("h2")
	case strings.Contains(path, "/etcdmembers") && (strings.HasSuffix(path, "{name}") || strings.HasSuffix(path, "/status")):
		obj = servertest.Member("prod", "secret-of-h2", "h2")
	default:
		return nil
	}
	kind := v1alpha1.KindOf(obj)
	v1alpha1.SetType(obj, kind.Kind, kind.APIVersion)
	raw, err := json.Marshal(obj)
	fine(t, "encode", err)
	return raw
}
