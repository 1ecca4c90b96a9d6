package server_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/server"
	"github.com/quorate/quorate/server/servertest"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote/wire"
)

// answer is the head of a response.
type answer struct {
	Status     string
	StatusCode int
}

// ask sends a request and returns its answer and what it says of a failure.
func ask(t *testing.T, f *servertest.Fixture, token, method, path, body string) (answer, wire.Status) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, f.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatalf("make the request: %v", err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: read the answer: %v", method, path, err)
	}
	_ = resp.Body.Close()
	var st wire.Status
	if resp.StatusCode >= 400 {
		if err := json.Unmarshal(raw, &st); err != nil || st.Kind != "Status" || st.Code != resp.StatusCode || st.Status != "Failure" || st.Message == "" {
			t.Fatalf("%s %s: %s is no Status: %s", method, path, resp.Status, raw)
		}
	}
	if p, err := wire.GetPosition(resp.Header); err != nil || p.Epoch != 1 || p.Revision < 1 {
		t.Fatalf("%s %s: the answer carries no position: %v, %v", method, path, p, err)
	}
	return answer{resp.Status, resp.StatusCode}, st
}

const (
	namespaced = "/apis/quorate.io/v1alpha1/namespaces/prod/"
	hosts      = "/apis/quorate.io/v1alpha1/etcdhosts"
)

func TestAuthentication(t *testing.T) {
	f := servertest.New(t, nil)
	admin := f.Token(t, server.RoleAdmin, "")
	for name, header := range map[string]string{
		"none":          "",
		"empty":         "Bearer ",
		"no scheme":     admin,
		"other scheme":  "Basic " + admin,
		"garbage":       "Bearer garbage",
		"unknown":       "Bearer quorate_nobody_" + strings.Repeat("0", 64),
		"wrong secret":  "Bearer quorate_admin-1_" + strings.Repeat("0", 64),
		"cut short":     "Bearer " + admin[:len(admin)-1],
		"longer":        "Bearer " + admin + "0",
		"other's name":  "Bearer " + strings.Replace(admin, "admin-1", "admin-2", 1),
		"no such shape": "Bearer quorate_../x_y",
	} {
		for _, path := range []string{"/version", "/", "/nowhere", hosts, namespaced + "etcdclusters/a"} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, f.URL+path, nil)
			if err != nil {
				t.Fatalf("make the request: %v", err)
			}
			if header != "" {
				req.Header.Set("Authorization", header)
			}
			resp, err := http.DefaultTransport.RoundTrip(req)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusUnauthorized || resp.Header.Get("WWW-Authenticate") == "" {
				t.Errorf("%s at %s: %s", name, path, resp.Status)
			}
		}
	}
	if resp, _ := ask(t, f, admin, "GET", "/version", ""); resp.StatusCode != http.StatusOK {
		t.Fatalf("the right token: %s", resp.Status)
	}
}

// TestRevocation: what the cache has learned it forgets with the Secret.
func TestRevocation(t *testing.T) {
	f := servertest.New(t, nil)
	token := f.Token(t, server.RoleViewer, "")
	for range 3 {
		if resp, _ := ask(t, f, token, "GET", "/version", ""); resp.StatusCode != http.StatusOK {
			t.Fatalf("before: %s", resp.Status)
		}
	}
	key := store.Key{Namespace: server.TokenNamespace, Name: "viewer-1"}
	var s v1alpha1.Secret
	if err := f.Store.Get(t.Context(), key, &s); err != nil {
		t.Fatalf("Get: %v", err)
	}
	if bytes.Contains(mustJSON(t, s), []byte(token)) {
		t.Fatal("the store holds the token itself")
	}
	if err := f.Store.Delete(t.Context(), v1alpha1.KindSecret, key, store.Preconditions{UID: s.UID}); err != nil {
		t.Fatalf("Delete: %v", err)
	}
	eventually(t, "the token is refused", func() bool {
		resp, _ := ask(t, f, token, "GET", "/version", "")
		return resp.StatusCode == http.StatusUnauthorized
	})
}

func TestEnsureToken(t *testing.T) {
	f := servertest.New(t, nil)
	ctx := t.Context()
	first, err := server.EnsureToken(ctx, f.Store, "laptop", server.RoleAdmin, "")
	if err != nil || first == "" {
		t.Fatalf("EnsureToken: %q, %v", first, err)
	}
	again, err := server.EnsureToken(ctx, f.Store, "laptop", server.RoleAdmin, "")
	if err != nil || again != "" {
		t.Fatalf("EnsureToken again: %q, %v", again, err)
	}
	if _, err = server.EnsureToken(ctx, f.Store, "laptop", server.RoleAgent, "h"); err == nil {
		t.Fatal("a token changed its role")
	}
	for _, bad := range []struct {
		name string
		role server.Role
		host string
	}{{"a b", server.RoleAdmin, ""}, {"a", "root", ""}, {"a", server.RoleAgent, ""}, {"a", server.RoleViewer, "h"}, {"a", server.RoleAgent, "../h"}} {
		if _, err = server.EnsureToken(ctx, f.Store, bad.name, bad.role, bad.host); err == nil {
			t.Errorf("EnsureToken(%+v) passed", bad)
		}
	}
	second, err := server.ResetToken(ctx, f.Store, "laptop", server.RoleAdmin, "")
	if err != nil || second == "" || second == first {
		t.Fatalf("ResetToken: %v", err)
	}
	eventually(t, "the first token is void", func() bool {
		resp, _ := ask(t, f, first, "GET", "/version", "")
		return resp.StatusCode == http.StatusUnauthorized
	})
	if resp, _ := ask(t, f, second, "GET", "/version", ""); resp.StatusCode != http.StatusOK {
		t.Fatalf("the second token: %s", resp.Status)
	}
}

// TestTraversal: no name reaches another key or route.
func TestTraversal(t *testing.T) {
	f := servertest.New(t, nil)
	admin := f.Token(t, server.RoleAdmin, "")
	for _, path := range []string{
		namespaced + "etcdclusters/..%2fa", namespaced + "etcdclusters/a%2f..%2fb", namespaced + "etcdclusters/%00",
		namespaced + "etcdclusters/A", namespaced + "etcdclusters/a%0a",
		"/apis/quorate.io/v1alpha1/namespaces/..%2fx/etcdclusters/a", "/apis/quorate.io/v1alpha1/namespaces/a.b/etcdclusters",
		"/releases/..%2f..%2fetc%2fpasswd", "/agents/..%2fh/requests", hosts + "/a%2fstatus",
	} {
		resp, st := ask(t, f, admin, "GET", path, "")
		if resp.StatusCode != http.StatusBadRequest || st.Reason != wire.ReasonBadRequest {
			t.Errorf("GET %s: %s %s", path, resp.Status, st.Message)
		}
	}
	for _, path := range []string{namespaced + "etcdclusters/..", namespaced + "../x", "//version", namespaced + "etcdclusters/%2e%2e"} {
		resp, _ := ask(t, f, admin, "GET", path, "")
		if resp.StatusCode < 300 {
			t.Errorf("GET %s: %s", path, resp.Status)
		}
	}
	if resp, st := ask(t, f, admin, "PATCH", "/version", ""); resp.StatusCode != http.StatusNotFound || st.Reason != wire.ReasonNotFound {
		t.Errorf("an unknown route: %s %s", resp.Status, st.Message)
	}
}

func TestBodies(t *testing.T) {
	f := servertest.New(t, nil)
	admin := f.Token(t, server.RoleAdmin, "")
	const head = `{"apiVersion":"quorate.io/v1alpha1","kind":"EtcdCluster",`
	for _, tt := range []struct {
		name, path, body string
		code             int
		text             string
	}{
		{"unknown field", "etcdclusters", head + `"metadata":{"name":"a"},"spec":{"version":"3.7.3","replicsa":3}}`, 422, "spec.replicsa"},
		{"mistyped", "etcdclusters", head + `"metadata":{"name":"a"},"spec":{"version":"3.7.3","replicas":"three"}}`, 422, "spec.replicas"},
		{"invalid", "etcdclusters", head + `"metadata":{"name":"a"},"spec":{"version":"3.7.3","replicas":-1}}`, 422, "spec.replicas"},
		{"not JSON", "etcdclusters", `{`, 422, ""},
		{"empty", "etcdclusters", ``, 422, ""},
		{"other kind", "etcdtasks", head + `"metadata":{"name":"a"},"spec":{"version":"3.7.3"}}`, 400, "EtcdCluster"},
		{"other namespace", "etcdclusters", head + `"metadata":{"name":"a","namespace":"dev"},"spec":{"version":"3.7.3"}}`, 400, "metadata.namespace"},
		{"no name", "etcdclusters", head + `"metadata":{},"spec":{"version":"3.7.3"}}`, 400, "is not a name"},
		{"bad name", "etcdclusters", head + `"metadata":{"name":"../a"},"spec":{"version":"3.7.3"}}`, 400, "is not a name"},
		{"too large", "etcdclusters", head + `"metadata":{"name":"` + strings.Repeat("a", 5<<20) + `"}}`, 413, "larger than"},
		{"bad dryRun", "etcdclusters?dryRun=yes", head + `"metadata":{"name":"a"},"spec":{"version":"3.7.3"}}`, 400, "dryRun"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp, st := ask(t, f, admin, "POST", namespaced+tt.path, tt.body)
			if resp.StatusCode != tt.code || !strings.Contains(st.Message, tt.text) {
				t.Fatalf("%s %s %q", resp.Status, st.Reason, st.Message)
			}
			if strings.HasPrefix(tt.text, "spec.") && (len(st.Causes()) == 0 || st.Causes()[0].Field != tt.text) {
				t.Fatalf("the causes are %+v", st.Causes())
			}
		})
	}
	if list, err := f.Store.List(t.Context(), v1alpha1.KindCluster, store.ListOptions{}); err != nil || len(list) != 0 {
		t.Fatalf("%d clusters were made, %v", len(list), err)
	}
	for _, selector := range []string{"a", "a!=b", "=b"} {
		if resp, _ := ask(t, f, admin, "GET", namespaced+"etcdclusters?labelSelector="+selector, ""); resp.StatusCode != http.StatusBadRequest {
			t.Errorf("labelSelector %s: %s", selector, resp.Status)
		}
	}
	if resp, _ := ask(t, f, admin, "POST", namespaced+"etcdclusters/a/accept", `{"token":"x","force":true}`); resp.StatusCode != http.StatusBadRequest {
		t.Errorf("an unknown field of an action: %s", resp.Status)
	}
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatalf("encode: %v", err)
	}
	return raw
}
