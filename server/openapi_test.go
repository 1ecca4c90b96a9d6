package server_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/quorate/quorate/server"
	"github.com/quorate/quorate/server/servertest"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
)

// parsed is the document as a JSON Schema validator wants it.
func parsed(t *testing.T) map[string]any {
	t.Helper()
	raw, err := server.Document()
	fine(t, "Document", err)
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	fine(t, "parse", err)
	doc, ok := v.(map[string]any)
	if !ok {
		t.Fatalf("the document is a %T", v)
	}
	return doc
}

// TestOpenAPIIsValid holds the document against OpenAPI's own schema, and every
// schema in it against JSON Schema's.
func TestOpenAPIIsValid(t *testing.T) {
	doc := parsed(t)
	raw, err := os.ReadFile("testdata/openapi-3.1.schema.json")
	fine(t, "read the schema", err)
	schema, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	fine(t, "parse the schema", err)
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	fine(t, "add the schema", compiler.AddResource("oas.json", schema))
	oas, err := compiler.Compile("oas.json")
	fine(t, "compile the schema", err)
	if err = oas.Validate(doc); err != nil {
		t.Fatalf("the document is not OpenAPI 3.1: %v", err)
	}
	if oas.Validate(map[string]any{"openapi": "3.1.0"}) == nil {
		t.Fatal("an empty document was found valid")
	}
	fine(t, "add the document", compiler.AddResource("doc.json", doc))
	components, _ := doc["components"].(map[string]any)
	schemas, _ := components["schemas"].(map[string]any)
	if len(schemas) < 20 {
		t.Fatalf("it has %d schemas only", len(schemas))
	}
	for name := range schemas {
		if _, err := compiler.Compile("doc.json#/components/schemas/" + name); err != nil {
			t.Errorf("the schema %s: %v", name, err)
		}
	}
}

// TestOpenAPIIsComplete: every route stands in the document, with all it needs to be
// called, and the document has no other.
func TestOpenAPIIsComplete(t *testing.T) {
	paths, _ := parsed(t)["paths"].(map[string]any)
	found, ids := map[string]bool{}, map[string]string{}
	for path, item := range paths {
		methods, _ := item.(map[string]any)
		for method, op := range methods {
			route := strings.ToUpper(method) + " " + path
			found[route] = true
			o, _ := op.(map[string]any)
			id, _ := o["operationId"].(string)
			if id == "" || o["summary"] == nil || o["summary"] == "" || ids[id] != "" {
				t.Errorf("%s: operationId %q (also of %q), summary %q", route, id, ids[id], o["summary"])
			}
			ids[id] = route
			if text, _ := o["description"].(string); !strings.Contains(text, "Roles: admin") {
				t.Errorf("%s: nobody is told who may call it", route)
			}
			checkParameters(t, route, o)
		}
	}
	for _, route := range server.Routes() {
		if !found[route] {
			t.Errorf("%s is not in the document", route)
		}
		delete(found, route)
	}
	for route := range found {
		t.Errorf("the document has %s, and the server does not", route)
	}
}

func checkParameters(t *testing.T, route string, op map[string]any) {
	t.Helper()
	named := map[string]bool{}
	list, _ := op["parameters"].([]any)
	for _, p := range list {
		m, _ := p.(map[string]any)
		name, _ := m["name"].(string)
		if text, _ := m["description"].(string); text == "" {
			t.Errorf("%s: the parameter %s is not described", route, name)
		}
		if m["in"] == "path" {
			named[name] = true
		}
	}
	for _, m := range regexp.MustCompile(`\{(\w+)\}`).FindAllStringSubmatch(route, -1) {
		if !named[m[1]] {
			t.Errorf("%s: its parameter %s is missing", route, m[1])
		}
	}
}

// TestOpenAPITellsTheTruth: what the server answers is what the document says.
func TestOpenAPITellsTheTruth(t *testing.T) {
	f := servertest.New(t, nil)
	admin := f.Token(t, server.RoleAdmin, "")
	f.Create(t, servertest.Cluster("prod", "c"), servertest.Member("prod", "m", "h1"), servertest.Host("h1"))
	f.Store.Record(t.Context(), store.Event{Kind: "EtcdCluster", Namespace: "prod", Name: "c", Type: store.Normal, Reason: "R", Message: "m", Source: "test"})
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	fine(t, "add the document", compiler.AddResource("doc.json", parsed(t)))
	link, err := f.ClientAt(t, f.URL, admin, remote.Options{}).LoginLink(t.Context(), 0)
	fine(t, "LoginLink", err)
	item := strings.TrimSuffix(namespaced, "/")
	for _, tt := range []struct{ method, path, body, schema string }{
		{"GET", item + "/etcdclusters", "", "EtcdClusterList"},
		{"GET", item + "/etcdclusters/c", "", "EtcdCluster"},
		{"GET", item + "/etcdmembers/m", "", "EtcdMember"},
		{"GET", hosts, "", "EtcdHostList"},
		{"GET", "/api/v1/secrets", "", "SecretList"},
		{"GET", item + "/etcdclusters/c/plan", "", "Plan"},
		{"GET", item + "/etcdclusters/c/view", "", "ClusterView"},
		{"GET", item + "/etcdclusters/none", "", "Status"},
		{"POST", item + "/etcdclusters", "{}", "Status"},
		{"GET", "/events", "", "EventList"},
		{"GET", "/releases", "", "ReleaseList"},
		{"GET", "/version", "", "Version"},
		{"GET", "/sessions/current", "", "Session"},
		{"POST", "/sessions/links", "{}", "LoginLink"},
		{"POST", "/sessions", "", "Session"},
		{"POST", item + "/etcdclusters/c/clientcertificate", `{"csr":"x"}`, "Certificate"},
	} {
		code, body := send(t, f, tt.method+" "+tt.path, map[string]string{"Authorization": "Bearer " + admin}, strings.NewReader(tt.body))
		schema, failed := compiler.Compile("doc.json#/components/schemas/" + tt.schema)
		fine(t, tt.schema, failed)
		v, failed := jsonschema.UnmarshalJSON(strings.NewReader(body))
		fine(t, tt.path, failed)
		if err = schema.Validate(v); err != nil || (code >= 300) != (tt.schema == "Status") {
			t.Errorf("%s %s: %d %v\n%.300s", tt.method, tt.path, code, err, body)
		}
	}
	login, err := compiler.Compile("doc.json#/components/schemas/Login")
	fine(t, "Login", err)
	if err := login.Validate(map[string]any{"code": link.Code}); err != nil {
		t.Errorf("a log-in: %v", err)
	}
	if err := login.Validate(map[string]any{"password": "x"}); err == nil {
		t.Error("nonsense was found to be a log-in")
	}
}

// TestDocsPage: the page and what it needs are served to a token, and stand alone.
func TestDocsPage(t *testing.T) {
	f := servertest.New(t, nil)
	viewer := f.Token(t, server.RoleViewer, "")
	outside := regexp.MustCompile(`(?i)(src|href|url)\s*[=(]\s*["']?(https?:)?//`)
	for path, content := range map[string]string{
		"/docs": "text/html", "/docs/docs.js": "text/javascript", "/docs/docs.css": "text/css", "/openapi.json": "application/json",
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, f.URL+path, nil)
		fine(t, "make the request", err)
		req.Header.Set("Authorization", "Bearer "+viewer)
		resp, err := http.DefaultTransport.RoundTrip(req)
		fine(t, "ask", err)
		text, err := io.ReadAll(resp.Body)
		fine(t, "read", err)
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK || !strings.HasPrefix(resp.Header.Get("Content-Type"), content) || len(text) < 200 {
			t.Errorf("%s: %s, %s, %d bytes", path, resp.Status, resp.Header.Get("Content-Type"), len(text))
		}
		if path == "/openapi.json" {
			if !json.Valid(text) {
				t.Errorf("%s is not JSON", path)
			}
			continue
		}
		if !strings.HasPrefix(resp.Header.Get("Content-Security-Policy"), "default-src 'self'") {
			t.Errorf("%s has the policy %q", path, resp.Header.Get("Content-Security-Policy"))
		}
		if at := outside.Find(text); at != nil {
			t.Errorf("%s reaches outside: %s", path, at)
		}
		for _, inline := range []string{"<style", " style=", "onclick=", "onload=", "javascript:", "innerHTML", "<script>"} {
			if strings.Contains(string(text), inline) {
				t.Errorf("%s has %s, which its policy forbids", path, inline)
			}
		}
	}
	for _, name := range []string{"none.js", "..%2fopenapi.go", "..", "index.html%00"} {
		if resp, _ := ask(t, f, viewer, "GET", "/docs/"+name, ""); resp.StatusCode < 300 {
			t.Errorf("/docs/%s: %s", name, resp.Status)
		}
	}
}

// TestOpenAPIBodies: the fields that the document gives a request are those that its
// route reads, and there is no other.
func TestOpenAPIBodies(t *testing.T) {
	f := servertest.New(t, nil)
	f.Create(t, servertest.Cluster("x", "x"), servertest.Member("x", "x", "x"), servertest.Host("x"))
	header := map[string]string{"Authorization": "Bearer " + f.Token(t, server.RoleAdmin, "")}
	doc := parsed(t)
	at := func(v any, path ...string) any {
		for _, name := range path {
			m, _ := v.(map[string]any)
			v = m[name]
		}
		return v
	}
	tried := 0
	for _, route := range server.Routes() {
		method, path, _ := strings.Cut(route, " ")
		ref, _ := at(doc, "paths", path, strings.ToLower(method), "requestBody", "content", "application/json", "schema", "$ref").(string)
		name := strings.TrimPrefix(ref, "#/components/schemas/")
		properties, _ := at(doc, "components", "schemas", name, "properties").(map[string]any)
		if name == "" || properties["kind"] != nil && properties["metadata"] != nil {
			continue // none, or an object, which is read by its own schema
		}
		if len(properties) == 0 {
			t.Errorf("%s: its body has no field", route)
		}
		tried++
		body := map[string]any{}
		for field := range properties {
			body[field] = nil
		}
		const unknown = "unknown field"
		if _, text := send(t, f, route, header, bytes.NewReader(mustJSON(t, body))); strings.Contains(text, unknown) {
			t.Errorf("%s does not read what the document says: %s", route, text)
		}
		body["nobodyReadsThis"] = nil
		if code, text := send(t, f, route, header, bytes.NewReader(mustJSON(t, body))); code != http.StatusBadRequest || !strings.Contains(text, unknown) {
			t.Errorf("%s with a field that nobody reads: %d %s", route, code, text)
		}
	}
	if tried < 5 {
		t.Fatalf("only %d routes were tried", tried)
	}
}
