package store

import (
	"fmt"
	"regexp"

	"github.com/quorate/quorate/api/v1alpha1"
)

// validName is what Kubernetes takes as a name (a DNS subdomain). It holds no
// slash, so that no name reaches into another's keys.
var validName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`)

const maxName = 253

// CheckKey says why a key can't be that of an object of a kind. The error is
// ErrInvalid.
func CheckKey(kind v1alpha1.Kind, key Key) error {
	switch {
	case kind.Plural == "":
		return fmt.Errorf("%w: this Go type is none of the store's kinds", ErrInvalid)
	case kind.Namespaced && key.Namespace == "":
		return fmt.Errorf("%w: metadata.namespace is required for %s", ErrInvalid, kind.Kind)
	case !kind.Namespaced && key.Namespace != "":
		return fmt.Errorf("%w: metadata.namespace must be empty: %s belongs to no namespace", ErrInvalid, kind.Kind)
	case kind.Namespaced:
		if err := checkName("metadata.namespace", key.Namespace); err != nil {
			return err
		}
	}
	return checkName("metadata.name", key.Name)
}

func checkName(field, name string) error {
	if len(name) > maxName || !validName.MatchString(name) {
		return fmt.Errorf("%w: %s %q must be lower-case letters, digits, '-' and '.', begin and end with a letter or digit, and have at most %d characters",
			ErrInvalid, field, name, maxName)
	}
	return nil
}
