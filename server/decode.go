package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
)

// readBody reads a request's body within its limits, and lifts the read deadline
// that was for it.
func readBody(w *response, r *http.Request) ([]byte, error) {
	data, err := io.ReadAll(r.Body)
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return nil, err
		}
		return nil, badRequest("the request's body could not be read: %v", err)
	}
	w.endless()
	return data, nil
}

// readJSON reads a body that is no object.
func readJSON(w *response, r *http.Request, into any) error {
	data, err := readBody(w, r)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return badRequest("the request's body is not as expected: %v", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return badRequest("the request's body goes on behind its JSON value")
	}
	return nil
}

// readObject reads an object of the kind, and holds it against the path: what the
// path says and the body leaves out is filled in, and what differs is refused.
func (s *Server) readObject(w *response, r *http.Request, kind v1alpha1.Kind) (v1alpha1.Object, error) {
	data, err := readBody(w, r)
	if err != nil {
		return nil, err
	}
	read := s.opts.Validator.Decode
	if c, ok := r.Context().Value(callerKey{}).(caller); ok && c.role == RoleAgent {
		read = s.opts.Validator.Read
	}
	obj, err := read(kind, data)
	if err != nil {
		return nil, err
	}
	v1alpha1.SetType(obj, kind.Kind, kind.APIVersion)
	ns, err := pathNamespace(r, kind)
	if err != nil {
		return nil, err
	}
	if obj.GetNamespace() == "" {
		obj.SetNamespace(ns)
	}
	if obj.GetNamespace() != ns {
		return nil, badRequest("metadata.namespace is %q and the path says %q: they must agree", obj.GetNamespace(), ns)
	}
	name := r.PathValue("name")
	if obj.GetName() == "" {
		obj.SetName(name)
	}
	if name != "" && obj.GetName() != name {
		return nil, badRequest("metadata.name is %q and the path says %q: they must agree", obj.GetName(), name)
	}
	return obj, checkName(obj.GetName())
}

// dryRun reports whether a request is to be tried only.
func dryRun(r *http.Request) (bool, error) {
	switch v := r.URL.Query().Get("dryRun"); v {
	case "":
		return false, nil
	case "All":
		return true, nil
	default:
		return false, badRequest("dryRun is %q: leave it out, or say All", v)
	}
}

// readPreconditions reads what guards a deletion from the body or the query.
func readPreconditions(w *response, r *http.Request) (store.Preconditions, error) {
	var body struct {
		UID             v1alpha1.UID `json:"uid"`
		ResourceVersion string       `json:"resourceVersion"`
	}
	if r.ContentLength != 0 {
		if err := readJSON(w, r, &body); err != nil {
			return store.Preconditions{}, err
		}
	}
	q := r.URL.Query()
	pre := store.Preconditions{UID: body.UID, ResourceVersion: body.ResourceVersion}
	if uid := q.Get("uid"); uid != "" {
		pre.UID = v1alpha1.UID(uid)
	}
	if rv := q.Get("resourceVersion"); rv != "" {
		pre.ResourceVersion = rv
	}
	if pre.UID == "" {
		return pre, badRequest("a deletion must name the uid of the object that is meant")
	}
	return pre, nil
}
