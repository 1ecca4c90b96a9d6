package schema

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"

	"github.com/quorate/quorate/api/v1alpha1"
)

// Document is one object of a file.
type Document struct {
	// Object with its defaults.
	Object v1alpha1.Object
	// Raw is what the file says and nothing else: no defaults, no status, and nothing
	// that is the fleet's to set. ThreeWay merges it.
	Raw map[string]any
	// Index of the document in the file, from 1. The items of a List share one.
	Index int
	// Generation of the spec that the file was made from; 0 when it does not say.
	Generation int64
	// Line of the file, from 1, at which the object begins; 0 when not known.
	Line int
}

// Decode reads a person's file: one or several YAML or JSON documents, Lists
// included, and checks them as on creation. All that is wrong comes in one *Error.
//
// What `get -o yaml` prints can be decoded as it is: status, managedFields,
// finalizers, ownerReferences and what the store sets are dropped silently. Uid and
// resourceVersion stay, as preconditions. The namespace may be missing.
func Decode(ctx context.Context, data []byte) ([]Document, error) {
	var docs []Document
	var causes []Cause
	for _, src := range split(data) {
		value, problems := src.read()
		d := &decoder{src: src, causes: problems}
		if value != nil {
			d.document(ctx, value)
		}
		for i := range d.causes {
			d.causes[i].Document = src.index
		}
		docs = append(docs, d.docs...)
		causes = append(causes, d.causes...)
	}
	if len(causes) > 0 {
		return nil, asError(causes)
	}
	return docs, nil
}

// decoder reads one document.
type decoder struct {
	src    *source
	docs   []Document
	causes []Cause
}

func (d *decoder) document(ctx context.Context, value any) {
	m, ok := value.(map[string]any)
	if !ok {
		d.causes = append(d.causes, Cause{
			Line: d.src.line(nil), Message: fmt.Sprintf("is %s, expected an object", typeName(value)),
			Suggestion: "begin with apiVersion: " + v1alpha1.KindCluster.APIVersion + " and kind: " + v1alpha1.KindCluster.Kind,
		})
		return
	}
	if !isList(m) {
		d.object(ctx, m, nil)
		return
	}
	items, ok := m["items"].([]any)
	if !ok && m["items"] != nil {
		d.causes = append(d.causes, Cause{
			Line: d.src.line(path{"items"}), Field: "items",
			Message: fmt.Sprintf("got %s, expected a list", typeName(m["items"])),
		})
	}
	for i, item := range items {
		at := path{"items"}.item(i)
		object, ok := item.(map[string]any)
		if !ok {
			d.causes = append(d.causes, Cause{
				Line: d.src.line(at), Field: at.String(),
				Message: fmt.Sprintf("got %s, expected an object", typeName(item)),
			})
			continue
		}
		d.object(ctx, object, at)
	}
}

// isList recognizes v1 List and the list kinds, such as EtcdClusterList.
func isList(m map[string]any) bool {
	kind, _ := m["kind"].(string)
	base, ok := strings.CutSuffix(kind, "List")
	if !ok {
		return false
	}
	if base == "" {
		return m["apiVersion"] == "v1"
	}
	k, known := registry()[base]
	return known && m["apiVersion"] == k.kind.APIVersion
}

// object reads one object that stands at a path of the document.
func (d *decoder) object(ctx context.Context, m map[string]any, at path) {
	k, problem := kindOfMap(m)
	if problem != nil {
		problem.Line = d.src.line(append(slices.Clip(at), parsePath(problem.Field)...))
		d.causes = append(d.causes, *problem)
		return
	}
	doc := Document{Index: d.src.index, Line: d.src.line(at)}
	causes, err := k.decode(ctx, m, &doc)
	if err != nil {
		causes = append(causes, Cause{Message: err.Error()})
	}
	name := nameOf(k.kind, m)
	for i := range causes {
		causes[i].Object = name
		causes[i].Line = d.src.line(append(slices.Clip(at), parsePath(causes[i].Field)...))
	}
	d.causes = append(d.causes, causes...)
	d.docs = append(d.docs, doc)
}

func nameOf(kind v1alpha1.Kind, m map[string]any) string {
	meta, _ := m["metadata"].(map[string]any)
	namespace, _ := meta["namespace"].(string)
	name, _ := meta["name"].(string)
	return objectName(kind.Kind, namespace, name)
}

// decode checks m, which it takes over, and fills in doc.
func (k *kindSchema) decode(ctx context.Context, m map[string]any, doc *Document) ([]Cause, error) {
	s, err := k.shape()
	if err != nil {
		return nil, err
	}
	doc.Generation = generationOf(m)
	dropServed(m)
	w := &walker{quiet: s.crd == nil}
	w.walk(m, s.full, nil)
	if s.crd == nil {
		foldStringData(m)
	}
	doc.Raw = runtime.DeepCopyJSON(m)
	if err = k.applyDefaults(m); err != nil {
		return nil, err
	}
	meta := dropMistyped(w.causes, m)
	causes := slices.Concat(w.causes, checkMetaMap(k.kind, meta))
	more, err := k.check(ctx, m, nil, len(causes) > 0)
	if err != nil {
		return nil, err
	}
	for _, c := range more {
		if !slices.ContainsFunc(w.causes, func(known Cause) bool { return within(c.Field, known.Field) }) {
			causes = append(causes, c)
		}
	}
	if len(w.causes) > 0 {
		return causes, nil
	}
	obj, err := fromMap(k.kind, m)
	if err != nil {
		if len(causes) > 0 {
			// It says the same again, with Go's paths.
			return causes, nil
		}
		return nil, err
	}
	if secret, ok := obj.(*v1alpha1.Secret); ok {
		causes = append(causes, checkSecret(secret, nil)...)
	}
	doc.Object = obj
	return causes, nil
}

// within reports whether field is parent or lies in it.
func within(field, parent string) bool {
	rest, ok := strings.CutPrefix(field, parent)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

// dropMistyped returns the metadata of m, or nil where the walker found fault with
// it: then it cannot be converted.
func dropMistyped(causes []Cause, m map[string]any) map[string]any {
	if slices.ContainsFunc(causes, func(c Cause) bool { return within(c.Field, "metadata") }) {
		return nil
	}
	meta, ok := m["metadata"].(map[string]any)
	if !ok {
		meta = map[string]any{}
	}
	return meta
}

func checkMetaMap(kind v1alpha1.Kind, m map[string]any) []Cause {
	if m == nil {
		return nil
	}
	obj := kind.New()
	var meta v1alpha1.ObjectMeta
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(m, &meta); err != nil {
		return []Cause{{Field: "metadata", Message: err.Error()}}
	}
	obj.SetName(meta.Name)
	obj.SetNamespace(meta.Namespace)
	obj.SetLabels(meta.Labels)
	obj.SetAnnotations(meta.Annotations)
	return checkMeta(kind, obj, nil, true)
}

func generationOf(m map[string]any) int64 {
	meta, _ := m["metadata"].(map[string]any)
	generation, _ := meta["generation"].(int64)
	return generation
}

// served are the fields of metadata that are the fleet's and the store's to set.
var served = []string{
	"creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp", "finalizers",
	"generateName", "generation", "managedFields", "ownerReferences", "selfLink",
}

// dropServed takes out of a file what is not a person's to say.
func dropServed(m map[string]any) {
	delete(m, "status")
	meta, ok := m["metadata"].(map[string]any)
	if !ok {
		return
	}
	for _, name := range served {
		delete(meta, name)
	}
	if annotations, ok := meta["annotations"].(map[string]any); ok {
		delete(annotations, v1alpha1.AnnotationLastApplied)
		delete(annotations, v1alpha1.AnnotationAppliedFrom)
		if len(annotations) == 0 {
			delete(meta, "annotations")
		}
	}
}

// kindOfMap finds the kind that m says it is.
func kindOfMap(m map[string]any) (*kindSchema, *Cause) {
	kind, _ := m["kind"].(string)
	apiVersion, _ := m["apiVersion"].(string)
	k, ok := registry()[kind]
	names := make([]string, 0, len(registry()))
	for _, known := range v1alpha1.Kinds() {
		names = append(names, known.Kind)
	}
	switch {
	case kind == "":
		return nil, &Cause{
			Field: "kind", Message: "is required", kind: ErrUnknownKind,
			Suggestion: "one of " + strings.Join(names, ", "),
		}
	case !ok:
		return nil, &Cause{
			Field: "kind", Message: fmt.Sprintf("got %s, which is unknown", show(kind)), kind: ErrUnknownKind,
			Suggestion: didYouMean(kind, names),
		}
	case apiVersion == "":
		return nil, &Cause{
			Field: "apiVersion", Message: "is required", kind: ErrUnknownKind,
			Suggestion: "write apiVersion: " + k.kind.APIVersion,
		}
	case apiVersion != k.kind.APIVersion:
		return nil, &Cause{
			Field: "apiVersion", Message: fmt.Sprintf("got %s, which %s does not have", show(apiVersion), kind),
			kind: ErrUnknownKind, Suggestion: "write apiVersion: " + k.kind.APIVersion,
		}
	}
	return k, nil
}

// Unmarshal reads one object as it goes over the wire: JSON or YAML, with status
// and everything else that is set. Unknown and mistyped fields are errors; nothing
// is defaulted, dropped or checked further. Errors: *Error.
func Unmarshal(data []byte) (v1alpha1.Object, error) {
	src := &source{index: 1, text: data}
	value, causes := src.read()
	m, ok := value.(map[string]any)
	if len(causes) == 0 && !ok {
		causes = []Cause{{Message: fmt.Sprintf("is %s, expected an object", typeName(value))}}
	}
	if len(causes) > 0 {
		return nil, asError(causes)
	}
	k, problem := kindOfMap(m)
	if problem != nil {
		return nil, asError([]Cause{*problem})
	}
	s, err := k.shape()
	if err != nil {
		return nil, err
	}
	w := &walker{quiet: s.crd == nil}
	w.walk(m, s.full, nil)
	if len(w.causes) > 0 {
		name := nameOf(k.kind, m)
		for i := range w.causes {
			w.causes[i].Object = name
		}
		return nil, asError(w.causes)
	}
	if s.crd == nil {
		foldStringData(m)
	}
	obj, err := fromMap(k.kind, m)
	if err != nil {
		return nil, asError([]Cause{{Object: nameOf(k.kind, m), Message: err.Error()}})
	}
	return obj, nil
}
