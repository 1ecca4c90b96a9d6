package etcd

import (
	"errors"
	"fmt"
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
	if err := store.CheckKey(kind, key); err != nil {
		return "", err
	}
	namespace := noNamespace
	if kind.Namespaced {
		namespace = key.Namespace
	}
	return kindPrefix(kind) + namespace + "/" + key.Name, nil
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
