package schema

import (
	"fmt"
	"reflect"

	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/quorate/quorate/api/v1alpha1"
)

// Map returns an object as its JSON reads: maps, lists, strings, bools, int64 and
// float64. Its kind and apiVersion are set whether or not the object carries them.
func Map(obj v1alpha1.Object) (map[string]any, error) {
	kind := v1alpha1.KindOf(obj)
	if kind.Kind == "" {
		return nil, fmt.Errorf("%w: %T", ErrUnknownKind, obj)
	}
	if reflect.ValueOf(obj).IsNil() {
		return nil, fmt.Errorf("a nil %s: %w", kind.Kind, ErrInvalid)
	}
	m, err := runtime.DefaultUnstructuredConverter.ToUnstructured(obj)
	if err != nil {
		return nil, fmt.Errorf("convert %s %s: %w", kind.Kind, obj.GetName(), err)
	}
	m["kind"], m["apiVersion"] = kind.Kind, kind.APIVersion
	return m, nil
}

// fromMap makes the typed object of m. The paths in its error are Go's, not YAML's:
// check m first.
func fromMap(kind v1alpha1.Kind, m map[string]any) (v1alpha1.Object, error) {
	obj := kind.New()
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(m, obj); err != nil {
		return nil, fmt.Errorf("convert %s: %w", kind.Kind, err)
	}
	return obj, nil
}

// Default fills in the defaults of obj, in place. What is set stays as it is.
func Default(obj v1alpha1.Object) error {
	k, err := schemaOf(v1alpha1.KindOf(obj))
	if err != nil {
		return err
	}
	m, err := Map(obj)
	if err != nil {
		return err
	}
	if err := k.applyDefaults(m); err != nil {
		return err
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(m, obj); err != nil {
		return fmt.Errorf("default %s %s: %w", k.kind.Kind, obj.GetName(), err)
	}
	return nil
}

// applyDefaults does to m what the API server does on decoding: nulls that mean
// nothing go, then defaults come.
func (k *kindSchema) applyDefaults(m map[string]any) error {
	s, err := k.shape()
	if err != nil {
		return err
	}
	if s.crd == nil {
		if t, ok := m["type"].(string); !ok || t == "" {
			m["type"] = "Opaque"
		}
		return nil
	}
	defaulting.PruneNonNullableNullsWithoutDefaults(m, s.structural)
	defaulting.Default(m, s.structural)
	return nil
}
