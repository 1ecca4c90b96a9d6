package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/api/schema"
	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
)

// subject is the cluster that a question is about: as it is stored, or as a file would
// have it.
type subject struct {
	key store.Key
	// doc is what the file says; nil for what is stored.
	doc *schema.Document
}

// subject finds what NAME and -f say. A file is judged before a server is asked for.
func (e *env) subject(cmd *cobra.Command, args []string, file string) (subject, error) {
	var s subject
	if len(args) > 0 {
		s.key = e.cluster(args[0])
	}
	if file == "" {
		return s, nil
	}
	doc, err := e.proposed(cmd, file, s.key)
	s.doc = &doc
	return s, err
}

// ofSubject asks for what is stored by its key, and for what a file says with the cluster
// as applying it would leave it.
func ofSubject[T any](
	ctx context.Context, c *remote.Client, s subject,
	stored func(context.Context, store.Key) (T, error), proposed func(context.Context, *v1alpha1.EtcdCluster) (T, error),
) (T, error) {
	ctx, cancel := call(ctx)
	defer cancel()
	if s.doc == nil {
		answer, err := stored(ctx, s.key)
		if err != nil {
			err = named(target{v1alpha1.KindCluster, s.key}, err)
		}
		return answer, err
	}
	cluster, err := merged(ctx, c, *s.doc)
	if err != nil {
		var none T
		return none, err
	}
	return proposed(ctx, cluster)
}

// proposed finds the cluster in a file: the one that was named, or the only one.
func (e *env) proposed(cmd *cobra.Command, file string, key store.Key) (schema.Document, error) {
	sources, err := e.readSources(cmd, []string{file})
	if err != nil {
		return schema.Document{}, err
	}
	var found []schema.Document
	for _, s := range sources {
		if _, ok := s.doc.Object.(*v1alpha1.EtcdCluster); ok && (key.Name == "" || store.KeyOf(s.doc.Object) == key) {
			found = append(found, s.doc)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case key.Name != "":
		return schema.Document{}, fmt.Errorf("%s holds no cluster %s: %w", file, key, store.ErrInvalid)
	default:
		return schema.Document{}, fmt.Errorf("%s holds %d clusters, name one: %w", file, len(found), store.ErrInvalid)
	}
}

// merged is the cluster as applying the document would leave it.
func merged(ctx context.Context, c *remote.Client, doc schema.Document) (*v1alpha1.EtcdCluster, error) {
	var live v1alpha1.Object
	stored := &v1alpha1.EtcdCluster{}
	err := c.Get(ctx, store.KeyOf(doc.Object), stored)
	switch {
	case err == nil:
		live = stored
	case !errors.Is(err, store.ErrNotFound):
		return nil, err
	}
	obj, _, err := schema.ThreeWay(live, doc)
	if err != nil {
		return nil, err
	}
	cluster, ok := obj.(*v1alpha1.EtcdCluster)
	if !ok {
		return nil, fmt.Errorf("%w: it is no EtcdCluster", store.ErrInvalid)
	}
	return cluster, nil
}
