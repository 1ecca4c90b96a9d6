// Package v1alpha1 is Quorate's one model: the YAML a person writes, the JSON of
// the API, the records of the fleet store and the Kubernetes CRDs are these Go
// types. The package is pure: it holds shapes and small functions of them, and
// talks to nothing.
//
// Every defaulted field says what its default is and why; `quorate explain`
// prints that text.
//
// +kubebuilder:object:generate=true
// +groupName=quorate.io
package v1alpha1

// Group and Version name the API group of Quorate's own kinds.
const (
	Group   = "quorate.io"
	Version = "v1alpha1"
)
