package server

import (
	"context"
	"encoding/json"

	"github.com/quorate/quorate/api/schema"
	"github.com/quorate/quorate/api/v1alpha1"
)

// Schema is the Validator of the generated CRDs.
type Schema struct{}

var _ Validator = Schema{}

// Decode implements Validator.
func (Schema) Decode(kind v1alpha1.Kind, data []byte) (v1alpha1.Object, error) {
	obj, err := schema.Unmarshal(data)
	if err != nil {
		return nil, err
	}
	if got := v1alpha1.KindOf(obj); got.Kind != kind.Kind {
		return nil, badRequest("the body is a %s and the path is for %s: send it to the path of its own kind", got.Kind, kind.Plural)
	}
	return obj, nil
}

// Read implements Validator.
func (Schema) Read(kind v1alpha1.Kind, data []byte) (v1alpha1.Object, error) {
	obj := kind.New()
	if err := json.Unmarshal(data, obj); err != nil {
		return nil, badRequest("the body is no %s: %v", kind.Kind, err)
	}
	if got := obj.GetObjectKind().GroupVersionKind().Kind; got != kind.Kind {
		return nil, badRequest("the body is a %s and the path is for %s: send it to the path of its own kind", got, kind.Plural)
	}
	return obj, nil
}

// Default implements Validator.
func (Schema) Default(obj v1alpha1.Object) error { return schema.Default(obj) }

// Validate implements Validator.
func (Schema) Validate(ctx context.Context, obj, old v1alpha1.Object) error {
	return schema.Validate(ctx, obj, old)
}
