package server

import (
	"context"
	"net/http"

	"github.com/quorate/quorate/api/v1alpha1"
)

// Restores knows what a restore would do.
type Restores interface {
	// Preview returns the restore with the status that it would begin with.
	Preview(ctx context.Context, r *v1alpha1.EtcdRestore) (*v1alpha1.EtcdRestore, error)
}

// previewRestore says what a restore would do, after the checks that creating it would
// make. A snapshot that is in no catalog is fetched for it, which may take long.
func (s *Server) previewRestore(w *response, r *http.Request, _ caller) error {
	if _, err := pathKey(r, v1alpha1.KindRestore); err != nil {
		return err
	}
	obj, err := s.readObject(w, r, v1alpha1.KindRestore)
	if err != nil {
		return err
	}
	restore, ok := obj.(*v1alpha1.EtcdRestore)
	if !ok {
		return badRequest("the body is not an EtcdRestore")
	}
	if err = s.check(r.Context(), restore, nil); err != nil {
		return err
	}
	if s.opts.Restores == nil {
		return unavailable("this server restores nothing")
	}
	w.endless()
	seen, err := s.opts.Restores.Preview(r.Context(), restore)
	if err != nil {
		return err
	}
	v1alpha1.SetType(seen, v1alpha1.KindRestore.Kind, v1alpha1.KindRestore.APIVersion)
	return w.json(http.StatusOK, seen)
}
