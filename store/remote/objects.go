package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote/wire"
)

// Get implements store.Store.
func (c *Client) Get(ctx context.Context, key store.Key, obj v1alpha1.Object) error {
	kind := v1alpha1.KindOf(obj)
	if err := checkKey("get", kind, key); err != nil {
		return err
	}
	fresh := kind.New()
	if err := c.call(ctx, http.MethodGet, wire.ObjectPath(kind, key.Namespace, key.Name), nil, nil, fresh); err != nil {
		return err
	}
	return replace(obj, fresh)
}

// List implements store.Store.
func (c *Client) List(ctx context.Context, kind v1alpha1.Kind, opts store.ListOptions) ([]v1alpha1.Object, error) {
	query := url.Values{}
	if len(opts.Labels) > 0 {
		var terms []string
		for _, k := range slices.Sorted(maps.Keys(opts.Labels)) {
			terms = append(terms, k+"="+opts.Labels[k])
		}
		query.Set("labelSelector", strings.Join(terms, ","))
	}
	var list wire.List[json.RawMessage]
	if err := c.call(ctx, http.MethodGet, wire.KindPath(kind, opts.Namespace), query, nil, &list); err != nil {
		return nil, err
	}
	all, err := decodeAll(kind, list.Items)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", kind.Plural, err)
	}
	objs := make([]v1alpha1.Object, 0, len(all))
	for _, obj := range all {
		if strings.HasPrefix(obj.GetName(), opts.NamePrefix) {
			objs = append(objs, obj)
		}
	}
	return objs, nil
}

// decodeAll decodes objects on all processors: of a long list it is what takes the
// time.
func decodeAll(kind v1alpha1.Kind, items []json.RawMessage) ([]v1alpha1.Object, error) {
	objs := make([]v1alpha1.Object, len(items))
	workers := min(runtime.GOMAXPROCS(0), len(items)/64+1)
	failed := make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < len(items) && failed[w] == nil; i += workers {
				objs[i] = kind.New()
				failed[w] = json.Unmarshal(items[i], objs[i])
			}
		})
	}
	wg.Wait()
	return objs, errors.Join(failed...)
}

// Create implements store.Store.
func (c *Client) Create(ctx context.Context, obj v1alpha1.Object) error {
	return c.write(ctx, "create", http.MethodPost, obj)
}

// Update implements store.Store.
func (c *Client) Update(ctx context.Context, obj v1alpha1.Object) error {
	return c.write(ctx, "update", http.MethodPut, obj)
}

// UpdateStatus implements store.Store.
func (c *Client) UpdateStatus(ctx context.Context, obj v1alpha1.Object) error {
	return c.write(ctx, "update the status of", http.MethodPut, obj, "status")
}

func (c *Client) write(ctx context.Context, op, method string, obj v1alpha1.Object, more ...string) error {
	kind, key := v1alpha1.KindOf(obj), store.KeyOf(obj)
	if err := checkKey(op, kind, key); err != nil {
		return err
	}
	path := wire.ObjectPath(kind, key.Namespace, key.Name, more...)
	if method == http.MethodPost {
		path = wire.KindPath(kind, key.Namespace)
	}
	sent, ok := obj.DeepCopyObject().(v1alpha1.Object)
	if !ok {
		return errors.New("a copy of an object is not an object")
	}
	v1alpha1.SetType(sent, kind.Kind, kind.APIVersion)
	fresh := kind.New()
	if err := c.call(ctx, method, path, c.changes(), sent, fresh); err != nil {
		return err
	}
	return replace(obj, fresh)
}

// Delete implements store.Store.
func (c *Client) Delete(ctx context.Context, kind v1alpha1.Kind, key store.Key, pre store.Preconditions) error {
	if err := checkKey("delete", kind, key); err != nil {
		return err
	}
	query := c.changes()
	query.Set("uid", string(pre.UID))
	if pre.ResourceVersion != "" {
		query.Set("resourceVersion", pre.ResourceVersion)
	}
	return c.call(ctx, http.MethodDelete, wire.ObjectPath(kind, key.Namespace, key.Name), query, nil, nil)
}

// changes is the query of what changes something.
func (c *Client) changes() url.Values {
	query := url.Values{}
	if c.dryRun {
		query.Set("dryRun", "All")
	}
	return query
}

// checkKey refuses a key whose path would be another's.
func checkKey(op string, kind v1alpha1.Kind, key store.Key) error {
	switch {
	case kind.Plural == "":
		return fmt.Errorf("%s %s: %w: the kind is unknown", op, key, store.ErrInvalid)
	case key.Name == "" || key.Name == "." || key.Name == ".." || key.Namespace == "." || key.Namespace == "..":
		return store.Error(op, kind, key, fmt.Errorf("%w: it has no proper name", store.ErrInvalid))
	case kind.Namespaced != (key.Namespace != ""):
		return store.Error(op, kind, key, fmt.Errorf("%w: a namespace must be given for kinds that live in one, and only for those", store.ErrInvalid))
	}
	return nil
}

// replace makes obj what fresh, of the same type, is.
func replace(obj, fresh v1alpha1.Object) error {
	dst, src := reflect.ValueOf(obj), reflect.ValueOf(fresh)
	if dst.Kind() != reflect.Pointer || dst.IsNil() || dst.Type() != src.Type() {
		return fmt.Errorf("%w: can't read a %T into a %T", store.ErrInvalid, fresh, obj)
	}
	dst.Elem().Set(src.Elem())
	return nil
}
