package schema

import (
	"embed"
	"errors"
	"fmt"
	"sync"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	extv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"sigs.k8s.io/yaml"

	"github.com/quorate/quorate/api/v1alpha1"
)

//go:embed crds/*.yaml
var crdFiles embed.FS

// ErrUnknownKind says that the object is of no kind that Quorate has.
var ErrUnknownKind = errors.New("unknown kind")

// kindSchema is what is known of one kind, each part made when first asked for.
type kindSchema struct {
	kind   v1alpha1.Kind
	shape  func() (*shape, error)
	checks func() (*checks, error)
}

// shape is a kind's fields: enough to decode, default and explain.
type shape struct {
	// crd is nil for Secret, which Kubernetes has built in.
	crd *extv1.CustomResourceDefinition
	// properties is the CRD's schema as apiextensions works with it.
	properties *apiextensions.JSONSchemaProps
	// structural is the CRD's schema as the API server defaults and checks by it.
	structural *schema.Structural
	// full is structural with the fields of metadata, which CRDs leave out.
	full *schema.Structural
}

// checks are a kind's compiled rules: the costly part.
type checks struct {
	schema validation.SchemaValidator
	cel    *cel.Validator
}

var registry = sync.OnceValue(func() map[string]*kindSchema {
	all := make(map[string]*kindSchema)
	for _, kind := range v1alpha1.Kinds() {
		k := &kindSchema{kind: kind}
		k.shape = sync.OnceValues(func() (*shape, error) { return loadShape(kind) })
		k.checks = sync.OnceValues(func() (*checks, error) { return compile(k) })
		all[kind.Kind] = k
	}
	return all
})

func schemaOf(kind v1alpha1.Kind) (*kindSchema, error) {
	k, ok := registry()[kind.Kind]
	if !ok {
		return nil, fmt.Errorf("%w %q", ErrUnknownKind, kind.Kind)
	}
	return k, nil
}

// CRD returns the CustomResourceDefinition of a kind as YAML, for kubectl apply.
// Secret has none: ErrUnknownKind.
func CRD(kind v1alpha1.Kind) ([]byte, error) {
	raw, err := crdFiles.ReadFile("crds/" + v1alpha1.Group + "_" + kind.Plural + ".yaml")
	if err != nil {
		return nil, fmt.Errorf("%w: %s has no CustomResourceDefinition", ErrUnknownKind, kind.Kind)
	}
	return raw, nil
}

func loadShape(kind v1alpha1.Kind) (*shape, error) {
	if kind.Kind == v1alpha1.KindSecret.Kind {
		s := structuralOf[v1alpha1.Secret]()
		return &shape{structural: s, full: s}, nil
	}
	raw, err := CRD(kind)
	if err != nil {
		return nil, err
	}
	crd := &extv1.CustomResourceDefinition{}
	if err = yaml.UnmarshalStrict(raw, crd); err != nil {
		return nil, fmt.Errorf("read the CRD of %s: %w", kind.Kind, err)
	}
	props := &apiextensions.JSONSchemaProps{}
	v1props := crd.Spec.Versions[0].Schema.OpenAPIV3Schema
	if err = extv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(v1props, props, nil); err != nil {
		return nil, fmt.Errorf("convert the CRD of %s: %w", kind.Kind, err)
	}
	structural, err := schema.NewStructural(props)
	if err != nil {
		return nil, fmt.Errorf("the CRD of %s is not structural: %w", kind.Kind, err)
	}
	full := structural.DeepCopy()
	full.Properties["metadata"] = *structuralOf[v1alpha1.ObjectMeta]()
	return &shape{crd: crd, properties: props, structural: structural, full: full}, nil
}

func compile(k *kindSchema) (*checks, error) {
	s, err := k.shape()
	if err != nil || s.crd == nil {
		return &checks{}, err
	}
	validator, _, err := validation.NewSchemaValidator(s.properties)
	if err != nil {
		return nil, fmt.Errorf("compile the schema of %s: %w", k.kind.Kind, err)
	}
	return &checks{
		schema: validator,
		cel:    cel.NewValidator(s.structural, true, celconfig.PerCallLimit),
	}, nil
}
