package schema

import (
	"reflect"
	"strings"

	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Formats that the walker checks itself.
const (
	formatBytes = "byte"
	formatTime  = "date-time"
)

// structuralOf makes the schema of a type that Kubernetes has built in, from its
// JSON tags and its own documentation, so that Secrets and metadata are read as
// strictly, and explained as well, as what a CRD describes.
func structuralOf[T any]() *schema.Structural {
	s := structuralOfType(reflect.TypeFor[T]())
	return &s
}

func structuralOfType(t reflect.Type) schema.Structural {
	var s schema.Structural
	switch t {
	case reflect.TypeFor[metav1.Time](), reflect.TypeFor[metav1.MicroTime]():
		s.Type = "string"
		s.ValueValidation = &schema.ValueValidation{Format: formatTime}
		return s
	case reflect.TypeFor[metav1.FieldsV1]():
		s.Type, s.XPreserveUnknownFields = "object", true
		return s
	}
	switch t.Kind() {
	case reflect.Pointer:
		return structuralOfType(t.Elem())
	case reflect.Struct:
		s.Type = "object"
		s.Properties = make(map[string]schema.Structural)
		addFields(&s, t)
	case reflect.Map:
		elem := structuralOfType(t.Elem())
		s.Type = "object"
		s.AdditionalProperties = &schema.StructuralOrBool{Structural: &elem, Bool: true}
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			s.Type = "string"
			s.ValueValidation = &schema.ValueValidation{Format: formatBytes}
			break
		}
		elem := structuralOfType(t.Elem())
		s.Type, s.Items = "array", &elem
	case reflect.Bool:
		s.Type = "boolean"
	case reflect.Int, reflect.Int32, reflect.Int64:
		s.Type = "integer"
	default:
		s.Type = "string"
	}
	return s
}

func addFields(s *schema.Structural, t reflect.Type) {
	var docs map[string]string
	if d, ok := reflect.TypeAssert[interface{ SwaggerDoc() map[string]string }](reflect.New(t)); ok {
		docs = d.SwaggerDoc()
	}
	if s.Description == "" {
		s.Description = docs[""]
	}
	for f := range t.Fields() {
		name, opts, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && (name == "" || strings.Contains(opts, "inline")) {
			addFields(s, f.Type)
			continue
		}
		if name == "" || name == "-" {
			continue
		}
		child := structuralOfType(f.Type)
		if docs[name] != "" {
			child.Description = docs[name]
		}
		s.Properties[name] = child
	}
}
