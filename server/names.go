package server

import (
	"net/http"
	"regexp"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
)

// Names as Kubernetes has them (RFC 1123). They become parts of keys and paths, so
// nothing else gets past here.
var (
	label     = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)
	subdomain = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)
)

func checkNamespace(ns string) error {
	if len(ns) > 63 || !label.MatchString(ns) {
		return badRequest("%q is not a namespace: use at most 63 lower-case letters, digits and '-', beginning and ending with a letter or digit", ns)
	}
	return nil
}

func checkName(name string) error {
	if len(name) > 253 || !subdomain.MatchString(name) {
		return badRequest("%q is not a name: use at most 253 lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit", name)
	}
	return nil
}

// pathKey reads the key of an object from a request's path.
func pathKey(r *http.Request, kind v1alpha1.Kind) (store.Key, error) {
	key := store.Key{Name: r.PathValue("name")}
	if err := checkName(key.Name); err != nil {
		return key, err
	}
	ns, err := pathNamespace(r, kind)
	key.Namespace = ns
	return key, err
}

// pathNamespace reads the namespace from a request's path; it is empty for kinds
// that have none, and for lists over all.
func pathNamespace(r *http.Request, kind v1alpha1.Kind) (string, error) {
	ns := r.PathValue("namespace")
	if !kind.Namespaced || ns == "" {
		return "", nil
	}
	return ns, checkNamespace(ns)
}
