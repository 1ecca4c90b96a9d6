package server

import (
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"sigs.k8s.io/yaml"

	"github.com/quorate/quorate/api/schema"
	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store/remote/wire"
)

//go:embed apidocs
var apidocs embed.FS

const schemaPrefix = "#/components/schemas/"

func (s *Server) openAPI(w *response, _ *http.Request, _ caller) error {
	doc, err := s.document()
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "private, no-cache")
	_, err = w.Write(doc)
	return err
}

// docs serves the page that shows the document to people. All it needs stands beside
// it, so that it works without a network and under a strict policy.
func (s *Server) docs(w *response, r *http.Request, _ caller) error {
	types := map[string]string{"index.html": "text/html; charset=utf-8", "docs.css": "text/css; charset=utf-8", "docs.js": "text/javascript; charset=utf-8"}
	name := r.PathValue("file")
	if name == "" {
		name = "index.html"
	}
	content, ok := types[name]
	if !ok {
		return wire.Failure(http.StatusNotFound, wire.ReasonNotFound, fmt.Sprintf("the documentation has no file %q: begin at %s", name, wire.PathDocs))
	}
	text, err := apidocs.ReadFile(path.Join("apidocs", name))
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", content)
	h.Set("Content-Security-Policy", "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
	h.Set("Referrer-Policy", "no-referrer")
	_, err = w.Write(text)
	return err
}

// buildDocument describes the routes as OpenAPI 3.1: bodies of actions from their Go
// types, objects from their CRDs.
func buildDocument(routes []route) ([]byte, error) {
	types := huma.NewMapRegistry(schemaPrefix, schemaName)
	for _, t := range []reflect.Type{reflect.TypeFor[v1alpha1.Time](), reflect.TypeFor[v1alpha1.MicroTime]()} {
		types.RegisterTypeAlias(t, reflect.TypeFor[time.Time]())
	}
	// Amounts are written as texts, such as 500m or 2Gi.
	types.RegisterTypeAlias(reflect.TypeOf(v1alpha1.Resources{}.CPU), reflect.TypeFor[string]())
	doc := &huma.OpenAPI{
		OpenAPI: "3.1.0",
		Info: &huma.Info{
			Title: "Quorate", Version: "v1alpha1", License: &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"},
			Description: "Runs, watches, protects and tests fleets of etcd clusters. Objects are those of `kubectl apply`; every request needs a token of the server, and every failure is a Status.",
		},
		Components: &huma.Components{
			Schemas: types,
			SecuritySchemes: map[string]*huma.SecurityScheme{
				"token": {
					Type: "http", Scheme: "bearer",
					Description: "A token, as `quorate server token` makes it, or a session's.",
				},
				"certificate": {
					Type: "mutualTLS", Description: "The certificate of an agent that has joined, in place of a token wherever the role agent may call.",
				},
			},
		},
		Security: []map[string][]string{{"token": {}}},
	}
	failure := types.Schema(reflect.TypeFor[wire.Status](), true, "")
	for _, rt := range routes {
		doc.AddOperation(operation(rt, types, failure))
	}
	raw, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("describe the API: %w", err)
	}
	return withObjects(raw)
}

// schemaName names the schema of a type: List[store.Event] becomes EventList, as
// Kubernetes has it.
func schemaName(t reflect.Type, hint string) string {
	name := huma.DefaultSchemaNamer(t, hint)
	if of, ok := strings.CutPrefix(name, "List"); ok && of != "" {
		return of + "List"
	}
	return name
}

var pathParameter = regexp.MustCompile(`\{([a-z]+)\}`)

// parameterTexts are those of the parts of paths.
var parameterTexts = map[string]string{
	"namespace": "namespace of the object", "name": "name of the object", "host": "name of the EtcdHost",
	"id": "ID of the request that is answered", "digest": "sha256: and 64 hex digits", "file": "name of the file",
}

func operation(rt route, types huma.Registry, failure *huma.Schema) *huma.Operation {
	d := describe(rt)
	code := d.code
	if code == 0 {
		code = http.StatusOK
	}
	op := &huma.Operation{
		Method: rt.method, Path: rt.path, OperationID: d.id, Summary: d.summary, Tags: []string{rt.resource},
		Description: strings.TrimSpace(d.text + "\n\nRoles: " + strings.Join(rolesOf(rt), ", ") + "."),
		Responses: map[string]*huma.Response{
			strconv.Itoa(code): {Description: http.StatusText(code), Headers: positionHeaders(), Content: contentOf(d.out, d.content, types)},
			"default":          {Description: "What went wrong", Headers: positionHeaders(), Content: map[string]*huma.MediaType{"application/json": {Schema: failure}}},
		},
	}
	switch {
	case rt.stranger:
		op.Security = []map[string][]string{{}}
	case rt.verb == verbRenew:
		op.Security = []map[string][]string{{"certificate": {}}}
	case rt.method == http.MethodPost && rt.path == wire.PathSessions:
		op.Security = []map[string][]string{{"token": {}}, {}}
	}
	for _, found := range pathParameter.FindAllStringSubmatch(rt.path, -1) {
		op.Parameters = append(op.Parameters, &huma.Param{
			Name: found[1], In: "path", Required: true, Description: parameterTexts[found[1]], Schema: &huma.Schema{Type: "string"},
		})
	}
	for _, p := range d.query {
		in := p.in
		if in == "" {
			in = "query"
		}
		op.Parameters = append(op.Parameters, &huma.Param{Name: p.name, In: in, Description: p.text, Schema: &huma.Schema{Type: p.form}})
		if p.name == watchParameter.name {
			op.Responses[strconv.Itoa(code)].Content[wire.ContentTypeStream] = &huma.MediaType{Schema: &huma.Schema{Type: "string"}}
		}
	}
	if d.in != nil || d.sent != "" {
		op.RequestBody = &huma.RequestBody{Required: rt.resource != "sessions" && rt.resource != "loginlinks" && rt.resource != "jointokens", Content: contentOf(d.in, d.sent, types)}
	}
	return op
}

// rolesOf are the roles that may call a route, and how much of it they reach.
func rolesOf(rt route) []string {
	if rt.stranger {
		return []string{string(RoleAdmin), string(RoleViewer), string(RoleAgent), "whoever has a join token"}
	}
	roles := []string{string(RoleAdmin)}
	for _, role := range []Role{RoleViewer, RoleAgent} {
		switch reach(role, rt.verb, rt.resource) {
		case all:
			roles = append(roles, string(role))
		case own:
			roles = append(roles, string(role)+" (its own)")
		case none:
		}
	}
	return roles
}

func positionHeaders() map[string]*huma.Param {
	return map[string]*huma.Param{
		wire.HeaderEpoch:    {Description: "epoch of the fleet's store, as <number>/<id>", Schema: &huma.Schema{Type: "string"}},
		wire.HeaderRevision: {Description: "revision of the fleet's store", Schema: &huma.Schema{Type: "integer"}},
	}
}

// contentOf describes a body: of a type of JSON, of an object, or of another kind.
func contentOf(body any, other string, types huma.Registry) map[string]*huma.MediaType {
	if other != "" {
		return map[string]*huma.MediaType{other: {Schema: &huma.Schema{Type: "string"}}}
	}
	switch b := body.(type) {
	case nil:
		return nil
	case string:
		return map[string]*huma.MediaType{"application/json": {Schema: &huma.Schema{Ref: schemaPrefix + b}}}
	default:
		return map[string]*huma.MediaType{"application/json": {Schema: types.Schema(reflect.TypeOf(b), true, "")}}
	}
}

// withObjects adds the schemas of the kinds to a document.
func withObjects(raw []byte) ([]byte, error) {
	var doc map[string]any
	if err := json.Unmarshal(raw, &doc); err != nil {
		return nil, fmt.Errorf("describe the API: %w", err)
	}
	components, _ := doc["components"].(map[string]any)
	schemas, ok := components["schemas"].(map[string]any)
	if !ok {
		return nil, errors.New("describe the API: it has no schemas")
	}
	schemas["ObjectMeta"] = metadataSchema()
	for _, kind := range v1alpha1.Kinds() {
		object, err := objectSchema(kind)
		if err != nil {
			return nil, err
		}
		schemas[kind.Kind] = object
		schemas[kind.Kind+"List"] = map[string]any{
			"type": "object", "required": []string{"kind", "apiVersion", "items"},
			"properties": map[string]any{
				"kind": constant(kind.Kind + "List"), "apiVersion": constant(kind.APIVersion),
				"items": map[string]any{"type": "array", "items": reference(kind.Kind)},
			},
		}
	}
	return json.Marshal(doc)
}

// objectSchema is that of the kind's CRD; a Secret, which has none, is Kubernetes'.
func objectSchema(kind v1alpha1.Kind) (map[string]any, error) {
	object := map[string]any{
		"type": "object", "description": "Secret is Kubernetes' own. Its values are sealed in the store.",
		"properties": map[string]any{
			"type":       text("what it holds; Opaque by default"),
			"immutable":  map[string]any{"type": "boolean"},
			"data":       map[string]any{"type": "object", "additionalProperties": map[string]any{"type": "string", "contentEncoding": "base64"}},
			"stringData": map[string]any{"type": "object", "additionalProperties": map[string]any{"type": "string"}, "writeOnly": true},
		},
	}
	if kind.Kind != v1alpha1.KindSecret.Kind {
		raw, err := schema.CRD(kind)
		if err != nil {
			return nil, err
		}
		var crd struct {
			Spec struct {
				Versions []struct {
					Schema struct {
						OpenAPIV3Schema map[string]any `json:"openAPIV3Schema"`
					} `json:"schema"`
				} `json:"versions"`
			} `json:"spec"`
		}
		if err := yaml.Unmarshal(raw, &crd); err != nil || len(crd.Spec.Versions) == 0 {
			return nil, fmt.Errorf("describe %s: its CRD has no schema: %w", kind.Kind, err)
		}
		object = crd.Spec.Versions[0].Schema.OpenAPIV3Schema
	}
	properties, ok := object["properties"].(map[string]any)
	if !ok {
		return nil, fmt.Errorf("describe %s: its CRD has no properties", kind.Kind)
	}
	properties["kind"], properties["apiVersion"], properties["metadata"] = constant(kind.Kind), constant(kind.APIVersion), reference("ObjectMeta")
	return object, nil
}

func reference(name string) map[string]any { return map[string]any{"$ref": schemaPrefix + name} }

func constant(value string) map[string]any { return map[string]any{"type": "string", "const": value} }

func text(about string) map[string]any { return map[string]any{"type": "string", "description": about} }

func metadataSchema() map[string]any {
	texts := map[string]any{"type": "object", "additionalProperties": map[string]any{"type": "string"}}
	served := func(about, form string) map[string]any {
		return map[string]any{"type": form, "description": about, "readOnly": true}
	}
	return map[string]any{
		"type": "object", "description": "ObjectMeta is Kubernetes' own; these are the fields that matter here.",
		"properties": map[string]any{
			"name": text("unique among the kind's objects in the namespace"), "namespace": text("for kinds that live in one"),
			"labels": texts, "annotations": texts,
			"finalizers":        map[string]any{"type": "array", "items": map[string]any{"type": "string"}},
			"uid":               served("of this very object, among all of that name", "string"),
			"resourceVersion":   served("compared for equality only: send it back with an update", "string"),
			"generation":        served("grows with each change of the spec", "integer"),
			"creationTimestamp": served("when it was made", "string"),
			"deletionTimestamp": served("set while it is on its way out", "string"),
		},
	}
}
