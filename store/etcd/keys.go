package etcd

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
)

// Where things stand in etcd.
const (
	root          = "/quorate/"
	objectsPrefix = root + "objects/"
	eventsPrefix  = root + "events/"
	epochKey      = root + "epoch"
	// noNamespace stands for the namespace of kinds that have none. It is no valid
	// namespace, so nothing else can be there.
	noNamespace = "_"
)

// validName is what Kubernetes takes as a name (a DNS subdomain). It holds no
// slash, so that no name reaches into another's keys.
var validName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`)

const maxName = 253

func kindPrefix(kind v1alpha1.Kind) string {
	return objectsPrefix + kind.Plural + "/"
}

// prefixOf covers the objects of a kind in one namespace, or in all when it is empty.
func prefixOf(kind v1alpha1.Kind, namespace string) string {
	if !kind.Namespaced || namespace == "" {
		return kindPrefix(kind)
	}
	return kindPrefix(kind) + namespace + "/"
}

// storageKey is where an object stands. ErrInvalid if its key can't be one.
func storageKey(kind v1alpha1.Kind, key store.Key) (string, error) {
	if kind.Plural == "" {
		return "", fmt.Errorf("%w: this Go type is none of the store's kinds", store.ErrInvalid)
	}
	namespace := noNamespace
	switch {
	case kind.Namespaced && key.Namespace == "":
		return "", fmt.Errorf("%w: metadata.namespace is required for %s", store.ErrInvalid, kind.Kind)
	case !kind.Namespaced && key.Namespace != "":
		return "", fmt.Errorf("%w: metadata.namespace must be empty: %s belongs to no namespace", store.ErrInvalid, kind.Kind)
	case kind.Namespaced:
		if err := checkName("metadata.namespace", key.Namespace); err != nil {
			return "", err
		}
		namespace = key.Namespace
	}
	if err := checkName("metadata.name", key.Name); err != nil {
		return "", err
	}
	return kindPrefix(kind) + namespace + "/" + key.Name, nil
}

func checkName(field, name string) error {
	if len(name) > maxName || !validName.MatchString(name) {
		return fmt.Errorf("%w: %s %q must be lower-case letters, digits, '-' and '.', begin and end with a letter or digit, and have at most %d characters",
			store.ErrInvalid, field, name, maxName)
	}
	return nil
}

var errForeignKey = errors.New("not the key of an object")

// keyFrom is the inverse of storageKey.
func keyFrom(kind v1alpha1.Kind, raw string) (store.Key, error) {
	rest, ok := strings.CutPrefix(raw, kindPrefix(kind))
	namespace, name, found := strings.Cut(rest, "/")
	if !ok || !found || name == "" {
		return store.Key{}, fmt.Errorf("%q: %w", raw, errForeignKey)
	}
	if !kind.Namespaced {
		namespace = ""
	}
	return store.Key{Namespace: namespace, Name: name}, nil
}
