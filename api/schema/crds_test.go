package schema

import (
	"strings"
	"testing"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	extv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	structural "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"

	"github.com/quorate/quorate/api/v1alpha1"
)

// crdKinds are the kinds that have a CRD.
func crdKinds() []v1alpha1.Kind {
	var kinds []v1alpha1.Kind
	for _, k := range v1alpha1.Kinds() {
		if k.APIVersion != "v1" {
			kinds = append(kinds, k)
		}
	}
	return kinds
}

func mustShape(t *testing.T, kind v1alpha1.Kind) *shape {
	t.Helper()
	k, err := schemaOf(kind)
	if err != nil {
		t.Fatal(err)
	}
	s, err := k.shape()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestAPIServerAcceptsCRDs runs what an API server runs when a CRD is created,
// CEL compilation and cost limits included.
func TestAPIServerAcceptsCRDs(t *testing.T) {
	for _, kind := range crdKinds() {
		t.Run(kind.Kind, func(t *testing.T) {
			crd := mustShape(t, kind).crd.DeepCopy()
			extv1.SetDefaults_CustomResourceDefinition(crd)
			extv1.SetDefaults_CustomResourceDefinitionSpec(&crd.Spec)
			internal := &apiextensions.CustomResourceDefinition{}
			if err := extv1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(crd, internal, nil); err != nil {
				t.Fatal(err)
			}
			internal.Status.StoredVersions = []string{v1alpha1.Version}
			for _, e := range validation.ValidateCustomResourceDefinition(t.Context(), internal) {
				t.Error(e)
			}
		})
	}
}

func TestCRDsNameTheKindsAsTheModelDoes(t *testing.T) {
	for _, kind := range crdKinds() {
		crd := mustShape(t, kind).crd
		names := crd.Spec.Names
		if names.Kind != kind.Kind || names.Plural != kind.Plural || names.ShortNames[0] != kind.ShortNames[0] {
			t.Errorf("the CRD has %+v, the model %+v", names, kind)
		}
		if (crd.Spec.Scope == extv1.NamespaceScoped) != kind.Namespaced {
			t.Errorf("%s: scope is %s, and namespaced is %t", kind.Kind, crd.Spec.Scope, kind.Namespaced)
		}
		if got := crd.Spec.Group + "/" + crd.Spec.Versions[0].Name; got != kind.APIVersion {
			t.Errorf("%s: apiVersion is %s, want %s", kind.Kind, got, kind.APIVersion)
		}
	}
	if _, err := CRD(v1alpha1.KindSecret); err == nil {
		t.Error("Secret has a CRD, though Kubernetes has it built in")
	}
}

// TestEveryDefaultIsExplained: a person can ask of each default what and why.
func TestEveryDefaultIsExplained(t *testing.T) {
	seen := 0
	for _, kind := range crdKinds() {
		walkFields(kind.Kind, mustShape(t, kind).structural, func(at string, s structural.Structural) {
			if s.Default.Object == nil {
				return
			}
			if _, block := s.Default.Object.(map[string]any); block {
				return
			}
			seen++
			d := parseDescription(s.Description)
			if d.defaultsTo == "" || d.why == "" {
				t.Errorf("%s: its description lacks \"Default:\" or \"Why:\": %q", at, s.Description)
			}
			if want := defaultOf(&s, documented{}); d.defaultsTo != want {
				t.Errorf("%s: its description says the default is %q, and it is %q", at, d.defaultsTo, want)
			}
		})
	}
	if seen < 20 {
		t.Fatalf("saw %d defaults only: the walk is broken", seen)
	}
}

// TestEveryFieldOfSpecIsDescribed keeps explain from having nothing to say.
func TestEveryFieldOfSpecIsDescribed(t *testing.T) {
	for _, kind := range crdKinds() {
		spec := mustShape(t, kind).structural.Properties["spec"]
		walkFields(kind.Kind+".spec", &spec, func(at string, s structural.Structural) {
			if strings.TrimSpace(s.Description) == "" && !strings.HasSuffix(at, "[]") {
				t.Errorf("%s has no description", at)
			}
		})
	}
}

func walkFields(at string, s *structural.Structural, visit func(string, structural.Structural)) {
	for name, prop := range s.Properties {
		here := at + "." + name
		visit(here, prop)
		walkFields(here, &prop, visit)
	}
	if s.Items != nil {
		visit(at+"[]", *s.Items)
		walkFields(at+"[]", s.Items, visit)
	}
}
