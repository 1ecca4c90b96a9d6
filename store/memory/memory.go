// Package memory holds objects in the memory of a process, for what runs without a
// server: they are gone when it ends.
package memory

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote/dirty"
)

// Options of a Store.
type Options struct {
	// UID of a new object; empty makes a random one, which is the default. What is made
	// anew from the same file after a restart may so stay the same.
	UID func(kind v1alpha1.Kind, key store.Key) v1alpha1.UID
	// Now is the clock; time.Now by default.
	Now func() time.Time
}

// Store implements store.Store. It is safe for concurrent use.
type Store struct {
	opts Options

	mu      sync.Mutex
	objects map[place]v1alpha1.Object
	version int64
	watches map[*watch]struct{}
}

var _ store.Store = (*Store)(nil)

// place of an object: the plural of its kind, and its key.
type place struct {
	kind string
	key  store.Key
}

type watch struct {
	kind, namespace string
	changed         *dirty.Set[store.Key]
}

// New returns an empty store.
func New(o Options) *Store {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Store{opts: o, objects: map[place]v1alpha1.Object{}, watches: map[*watch]struct{}{}}
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, key store.Key, obj v1alpha1.Object) error {
	kind := v1alpha1.KindOf(obj)
	cur, err := s.read(ctx, kind, key)
	if err != nil {
		return store.Error("get", kind, key, err)
	}
	assign(obj, cur)
	return nil
}

// read returns a copy of what is there.
func (s *Store) read(ctx context.Context, kind v1alpha1.Kind, key store.Key) (v1alpha1.Object, error) {
	if err := usable(ctx, kind, key); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	cur, ok := s.objects[place{kind.Plural, key}]
	if !ok {
		return nil, store.ErrNotFound
	}
	return copyOf(cur), nil
}

func usable(ctx context.Context, kind v1alpha1.Kind, key store.Key) error {
	if err := alive(ctx); err != nil {
		return err
	}
	return store.CheckKey(kind, key)
}

func alive(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	}
	return nil
}

// List implements store.Store.
func (s *Store) List(ctx context.Context, kind v1alpha1.Kind, opts store.ListOptions) ([]v1alpha1.Object, error) {
	if err := alive(ctx); err != nil {
		return nil, fmt.Errorf("list %s: %w", kind.Plural, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []v1alpha1.Object
	for at, obj := range s.objects {
		if at.kind == kind.Plural && (opts.Namespace == "" || at.key.Namespace == opts.Namespace) &&
			strings.HasPrefix(at.key.Name, opts.NamePrefix) && carries(obj.GetLabels(), opts.Labels) {
			list = append(list, copyOf(obj))
		}
	}
	slices.SortFunc(list, func(a, b v1alpha1.Object) int {
		return cmp.Or(cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetName(), b.GetName()))
	})
	return list, nil
}

func carries(labels, wanted map[string]string) bool {
	for k, v := range wanted {
		if have, ok := labels[k]; !ok || have != v {
			return false
		}
	}
	return true
}

// Create implements store.Store.
func (s *Store) Create(ctx context.Context, obj v1alpha1.Object) error {
	kind, key := v1alpha1.KindOf(obj), store.KeyOf(obj)
	if err := s.create(ctx, kind, key, obj); err != nil {
		return store.Error("create", kind, key, err)
	}
	return nil
}

func (s *Store) create(ctx context.Context, kind v1alpha1.Kind, key store.Key, obj v1alpha1.Object) error {
	if err := usable(ctx, kind, key); err != nil {
		return err
	}
	next, err := plain(obj)
	if err != nil {
		return err
	}
	uid := v1alpha1.UID("")
	if s.opts.UID != nil {
		uid = s.opts.UID(kind, key)
	}
	if uid == "" {
		uid = v1alpha1.UID(uuid.NewString())
	}
	next.SetUID(uid)
	next.SetCreationTimestamp(s.timestamp())
	next.SetDeletionTimestamp(nil)
	next.SetDeletionGracePeriodSeconds(nil)
	next.SetGeneration(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	at := place{kind.Plural, key}
	if _, taken := s.objects[at]; taken {
		return store.ErrExists
	}
	s.put(at, next)
	assign(obj, copyOf(next))
	return nil
}

// put stores an object, and tells watches. Callers hold mu.
func (s *Store) put(at place, next v1alpha1.Object) {
	s.version++
	next.SetResourceVersion(strconv.FormatInt(s.version, 10))
	s.objects[at] = next
	s.tell(at)
}

// remove is the end of an object. Callers hold mu.
func (s *Store) remove(at place) {
	s.version++
	delete(s.objects, at)
	s.tell(at)
}

func (s *Store) tell(at place) {
	for w := range s.watches {
		if w.kind == at.kind && (w.namespace == "" || w.namespace == at.key.Namespace) {
			w.changed.Add(at.key)
		}
	}
}

func (s *Store) timestamp() v1alpha1.Time {
	return v1alpha1.NewTime(s.opts.Now().UTC().Truncate(time.Second))
}

// Update implements store.Store. An object that is as it stands writes nothing.
func (s *Store) Update(ctx context.Context, obj v1alpha1.Object) error {
	return s.write(ctx, "update", obj, func(cur, next v1alpha1.Object) (v1alpha1.Object, error) {
		setStatus(next, cur)
		next.SetCreationTimestamp(cur.GetCreationTimestamp())
		next.SetDeletionTimestamp(cur.GetDeletionTimestamp())
		next.SetDeletionGracePeriodSeconds(cur.GetDeletionGracePeriodSeconds())
		for _, f := range next.GetFinalizers() {
			if cur.GetDeletionTimestamp() != nil && !slices.Contains(cur.GetFinalizers(), f) {
				return nil, fmt.Errorf("%w: the finalizer %s can't be added to an object that is being deleted", store.ErrInvalid, f)
			}
		}
		return next, nil
	})
}

// UpdateStatus implements store.Store.
func (s *Store) UpdateStatus(ctx context.Context, obj v1alpha1.Object) error {
	return s.write(ctx, "update the status of", obj, func(cur, next v1alpha1.Object) (v1alpha1.Object, error) {
		changed := copyOf(cur)
		setStatus(changed, next)
		return changed, nil
	})
}

// write checks that obj was made from what is stored, and stores what change makes of
// both, which it may change. Obj holds the stored state afterwards.
func (s *Store) write(ctx context.Context, op string, obj v1alpha1.Object, change func(cur, obj v1alpha1.Object) (v1alpha1.Object, error)) error {
	kind, key := v1alpha1.KindOf(obj), store.KeyOf(obj)
	next, err := plain(obj)
	if err == nil {
		err = usable(ctx, kind, key)
	}
	if err == nil {
		next, err = s.replace(place{kind.Plural, key}, next, change)
	}
	if err != nil {
		return store.Error(op, kind, key, err)
	}
	assign(obj, next)
	return nil
}

func (s *Store) replace(at place, obj v1alpha1.Object, change func(cur, obj v1alpha1.Object) (v1alpha1.Object, error)) (v1alpha1.Object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	cur, ok := s.objects[at]
	switch {
	case !ok:
		return nil, store.ErrNotFound
	case obj.GetUID() != cur.GetUID() || obj.GetResourceVersion() != cur.GetResourceVersion():
		return nil, store.ErrConflict
	}
	next, err := change(cur, obj)
	if err != nil {
		return nil, err
	}
	next.SetGeneration(cur.GetGeneration())
	if v1alpha1.Equal(cur, next) {
		return copyOf(cur), nil
	}
	if !sameSpec(cur, next) {
		next.SetGeneration(cur.GetGeneration() + 1)
	}
	if next.GetDeletionTimestamp() != nil && len(next.GetFinalizers()) == 0 {
		s.remove(at)
	} else {
		s.put(at, next)
	}
	return copyOf(next), nil
}

// Delete implements store.Store.
func (s *Store) Delete(ctx context.Context, kind v1alpha1.Kind, key store.Key, pre store.Preconditions) error {
	if err := s.delete(ctx, kind, key, pre); err != nil {
		return store.Error("delete", kind, key, err)
	}
	return nil
}

func (s *Store) delete(ctx context.Context, kind v1alpha1.Kind, key store.Key, pre store.Preconditions) error {
	if err := usable(ctx, kind, key); err != nil {
		return err
	}
	if pre.UID == "" {
		return fmt.Errorf("%w: a deletion must name the UID of what it deletes", store.ErrInvalid)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	at := place{kind.Plural, key}
	cur, ok := s.objects[at]
	switch {
	case !ok:
		return store.ErrNotFound
	case cur.GetUID() != pre.UID || pre.ResourceVersion != "" && pre.ResourceVersion != cur.GetResourceVersion():
		return store.ErrConflict
	case len(cur.GetFinalizers()) == 0:
		s.remove(at)
	case cur.GetDeletionTimestamp() == nil:
		next, now := copyOf(cur), s.timestamp()
		next.SetDeletionTimestamp(&now)
		s.put(at, next)
	}
	return nil
}

// Watch implements store.Store.
func (s *Store) Watch(ctx context.Context, kind v1alpha1.Kind, namespace string) <-chan store.Key {
	w := &watch{kind: kind.Plural, namespace: namespace, changed: dirty.New[store.Key]()}
	s.mu.Lock()
	s.watches[w] = struct{}{}
	for at := range s.objects {
		if at.kind == w.kind && (namespace == "" || namespace == at.key.Namespace) {
			w.changed.Add(at.key)
		}
	}
	s.mu.Unlock()
	out := make(chan store.Key)
	go func() {
		defer close(out)
		w.changed.Drain(ctx, out)
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.watches, w)
	}()
	return out
}

// plain is a copy of obj as other stores would give it back, which write it as JSON:
// times without fractions, and the stringData of a Secret in its data.
func plain(obj v1alpha1.Object) (v1alpha1.Object, error) {
	kind := v1alpha1.KindOf(obj)
	raw, err := json.Marshal(obj)
	if err != nil {
		return nil, fmt.Errorf("%w: it can't be written as JSON: %w", store.ErrInvalid, err)
	}
	next := kind.New()
	if err = json.Unmarshal(raw, next); err != nil {
		// The cause is left out: it could quote what is secret.
		return nil, fmt.Errorf("%w: its JSON can't be read", store.ErrInvalid)
	}
	v1alpha1.SetType(next, kind.Kind, kind.APIVersion)
	if secret, ok := next.(*v1alpha1.Secret); ok {
		for k, v := range secret.StringData {
			if secret.Data == nil {
				secret.Data = map[string][]byte{}
			}
			secret.Data[k] = []byte(v)
		}
		secret.StringData = nil
	}
	return next, nil
}

// sameSpec reports whether two objects of one kind differ in nothing but metadata and
// status.
func sameSpec(a, b v1alpha1.Object) bool {
	a, b = copyOf(a), copyOf(b)
	for _, obj := range []v1alpha1.Object{a, b} {
		for _, part := range []string{"ObjectMeta", "Status"} {
			if field := reflect.ValueOf(obj).Elem().FieldByName(part); field.IsValid() {
				field.SetZero()
			}
		}
	}
	return v1alpha1.Equal(a, b)
}

// setStatus copies the status of from into to, which are of one kind. Kinds without a
// status have none to copy.
func setStatus(to, from v1alpha1.Object) {
	dst := reflect.ValueOf(to).Elem().FieldByName("Status")
	if dst.IsValid() {
		dst.Set(reflect.ValueOf(copyOf(from)).Elem().FieldByName("Status"))
	}
}

// assign makes to what from is; they are of one kind.
func assign(to, from v1alpha1.Object) {
	reflect.ValueOf(to).Elem().Set(reflect.ValueOf(from).Elem())
}

func copyOf(obj v1alpha1.Object) v1alpha1.Object {
	c := v1alpha1.KindOf(obj).New()
	// Every kind's deep copy is of its own type.
	assign(c, reflect.ValueOf(obj.DeepCopyObject()).Interface().(v1alpha1.Object)) //nolint:errcheck,forcetypeassert // see above
	return c
}
