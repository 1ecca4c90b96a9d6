package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote/wire"
)

// handler answers one route.
type handler = func(w *response, r *http.Request, c caller) error

func (s *Server) get(kind v1alpha1.Kind) handler {
	return func(w *response, r *http.Request, c caller) error {
		key, err := pathKey(r, kind)
		if err != nil {
			return err
		}
		obj := kind.New()
		if err := s.opts.Store.Get(r.Context(), key, obj); err != nil {
			return err
		}
		if err := ownsObject(c, kind, obj); err != nil {
			return err
		}
		return w.json(http.StatusOK, obj)
	}
}

func (s *Server) list(kind v1alpha1.Kind) handler {
	return func(w *response, r *http.Request, c caller) error {
		ns, err := pathNamespace(r, kind)
		if err != nil {
			return err
		}
		if watching(r) {
			return s.watch(w, r, c, kind, ns)
		}
		labels, err := labelSelector(r.URL.Query().Get("labelSelector"))
		if err != nil {
			return err
		}
		objs, err := s.opts.Store.List(r.Context(), kind, store.ListOptions{Namespace: ns, Labels: labels})
		if err != nil {
			return err
		}
		return writeList(w, c, kind, objs)
	}
}

// writeList writes what the caller may see, object by object: a list of ten
// thousand is not built in memory a second time.
func writeList(w *response, c caller, kind v1alpha1.Kind, objs []v1alpha1.Object) error {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	head := `{"kind":"` + kind.Kind + `List","apiVersion":"` + kind.APIVersion + `","items":[`
	if _, err := w.Write([]byte(head)); err != nil {
		return err
	}
	first := true
	for _, obj := range objs {
		if ownsObject(c, kind, obj) != nil {
			continue
		}
		v1alpha1.SetType(obj, kind.Kind, kind.APIVersion)
		data, err := json.Marshal(obj)
		if err != nil {
			return err
		}
		if !first {
			data = append([]byte(","), data...)
		}
		first = false
		if _, err := w.Write(data); err != nil {
			return err
		}
	}
	_, err := w.Write([]byte("]}\n"))
	return err
}

// labelSelector reads "a=b,c=d".
func labelSelector(text string) (map[string]string, error) {
	if text == "" {
		return nil, nil
	}
	labels := map[string]string{}
	for part := range strings.SplitSeq(text, ",") {
		key, value, ok := strings.Cut(part, "=")
		value = strings.TrimPrefix(value, "=")
		if key = strings.TrimSpace(key); !ok || key == "" || strings.HasSuffix(key, "!") {
			return nil, badRequest("labelSelector has %q: only equality is known, as in a=b,c=d", part)
		}
		labels[key] = strings.TrimSpace(value)
	}
	return labels, nil
}

func (s *Server) create(kind v1alpha1.Kind) handler {
	return func(w *response, r *http.Request, c caller) error {
		dry, err := dryRun(r)
		if err != nil {
			return err
		}
		obj, err := s.readObject(w, r, kind)
		if err != nil {
			return err
		}
		if err = ownsObject(c, kind, obj); err != nil {
			return err
		}
		if err = bareHost(c, obj); err != nil {
			return err
		}
		if err = s.check(r.Context(), obj, nil); err != nil {
			return err
		}
		if !dry {
			err = s.opts.Store.Create(r.Context(), obj)
		} else if err = s.opts.Store.Get(r.Context(), store.KeyOf(obj), kind.New()); err == nil {
			err = store.Error("create", kind, store.KeyOf(obj), store.ErrExists)
		} else if errors.Is(err, store.ErrNotFound) {
			err = nil
		}
		if err != nil {
			return err
		}
		return w.json(http.StatusCreated, obj)
	}
}

// check defaults, validates and admits obj.
func (s *Server) check(ctx context.Context, obj, old v1alpha1.Object) error {
	if err := s.opts.Validator.Default(obj); err != nil {
		return err
	}
	if err := s.opts.Validator.Validate(ctx, obj, old); err != nil {
		return err
	}
	if s.opts.Admit == nil {
		return nil
	}
	return s.opts.Admit(ctx, obj, old)
}

// readUpdate reads the object of a PUT and what it replaces, which the caller must
// own and must have read in its present state.
func (s *Server) readUpdate(w *response, r *http.Request, c caller, kind v1alpha1.Kind) (obj, old v1alpha1.Object, err error) {
	key, err := pathKey(r, kind)
	if err != nil {
		return nil, nil, err
	}
	if obj, err = s.readObject(w, r, kind); err != nil {
		return nil, nil, err
	}
	old = kind.New()
	if err = s.opts.Store.Get(r.Context(), key, old); err != nil {
		return nil, nil, err
	}
	if err = ownsObject(c, kind, old); err != nil {
		return nil, nil, err
	}
	if obj.GetUID() != old.GetUID() || obj.GetResourceVersion() != old.GetResourceVersion() {
		return nil, nil, store.Error("update", kind, key, store.ErrConflict)
	}
	return obj, old, nil
}

func (s *Server) update(kind v1alpha1.Kind) handler {
	return func(w *response, r *http.Request, c caller) error {
		dry, err := dryRun(r)
		if err != nil {
			return err
		}
		obj, old, err := s.readUpdate(w, r, c, kind)
		if err != nil {
			return err
		}
		if c.scope == own && kind.Kind == v1alpha1.KindMember.Kind && releasing(obj, old) {
			obj = withFinalizersOf(old, obj)
		}
		copyStatus(obj, old)
		released := onlyFinalizers(obj, old)
		if c.scope == own && kind.Kind == v1alpha1.KindMember.Kind && (!released || !releasesMember(obj, old)) {
			return forbidden("%s may change %s only by removing the finalizer %s once it is being deleted: that needs a token with the role admin",
				c.who(), store.KeyOf(obj), v1alpha1.FinalizerMember)
		}
		// What is on its way out needs to satisfy no one any more.
		if !released || old.GetDeletionTimestamp() == nil {
			if err = s.check(r.Context(), obj, old); err != nil {
				return err
			}
		}
		if !dry {
			err = s.opts.Store.Update(r.Context(), obj)
		}
		if err != nil {
			return err
		}
		return w.json(http.StatusOK, obj)
	}
}

func (s *Server) updateStatus(kind v1alpha1.Kind) handler {
	return func(w *response, r *http.Request, c caller) error {
		dry, err := dryRun(r)
		if err != nil {
			return err
		}
		obj, old, err := s.readUpdate(w, r, c, kind)
		if err != nil {
			return err
		}
		next, ok := old.DeepCopyObject().(v1alpha1.Object)
		if !ok {
			return errors.New("a copy of an object is not an object")
		}
		copyStatus(next, obj)
		if err = statusErrors(s.opts.Validator.Validate(r.Context(), next, old)); err != nil {
			return err
		}
		if !dry {
			err = s.opts.Store.UpdateStatus(r.Context(), next)
		}
		if err != nil {
			return err
		}
		return w.json(http.StatusOK, next)
	}
}

// statusErrors keeps of a failed validation what concerns the status: a spec that
// newer rules would refuse must not keep its state from being reported.
func statusErrors(err error) error {
	causes := causesOf(err)
	if len(causes) == 0 {
		return err
	}
	var ofStatus []wire.Cause
	var texts []string
	for _, c := range causes {
		if c.Field == "status" || strings.HasPrefix(c.Field, "status.") || strings.HasPrefix(c.Field, "status[") {
			ofStatus = append(ofStatus, c)
			texts = append(texts, c.Field+": "+c.Message)
		}
	}
	if len(ofStatus) == 0 {
		return nil
	}
	return wire.Failure(http.StatusUnprocessableEntity, wire.ReasonInvalid, strings.Join(texts, "\n"), ofStatus...)
}

func (s *Server) remove(kind v1alpha1.Kind) handler {
	return func(w *response, r *http.Request, _ caller) error {
		dry, err := dryRun(r)
		if err != nil {
			return err
		}
		key, err := pathKey(r, kind)
		if err != nil {
			return err
		}
		pre, err := readPreconditions(w, r)
		if err != nil {
			return err
		}
		err = s.mayDelete(r.Context(), kind, key, pre)
		if err == nil && !dry && kind.Kind == v1alpha1.KindHost.Kind {
			// First: a host that is still listed can be removed again, and an agent that was
			// not shut out would make it anew.
			err = s.identities.void(r.Context(), key.Name)
		}
		if err == nil && !dry {
			err = s.opts.Store.Delete(r.Context(), kind, key, pre)
		}
		if err != nil {
			return err
		}
		return w.json(http.StatusOK, wire.Status{Kind: "Status", APIVersion: "v1", Status: "Success", Code: http.StatusOK})
	}
}

// mayDelete checks the preconditions and asks Admit.
func (s *Server) mayDelete(ctx context.Context, kind v1alpha1.Kind, key store.Key, pre store.Preconditions) error {
	obj := kind.New()
	if err := s.opts.Store.Get(ctx, key, obj); err != nil {
		return err
	}
	if obj.GetUID() != pre.UID || (pre.ResourceVersion != "" && pre.ResourceVersion != obj.GetResourceVersion()) {
		return store.Error("delete", kind, key, store.ErrConflict)
	}
	if s.opts.Admit == nil {
		return nil
	}
	return s.opts.Admit(ctx, nil, obj)
}
