package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
)

// errCrash stands for the death of the controller: what it was about to write is
// not written, and nothing after it is.
var errCrash = errors.New("the controller died here")

// memStore is a Store in memory that can die before its nth write.
type memStore struct {
	objects map[string]v1alpha1.Object
	rv      int
	// dieIn counts writes down; at 0 every call fails until revive.
	dieIn int
	armed bool
}

func newMemStore() *memStore { return &memStore{objects: map[string]v1alpha1.Object{}} }

func (s *memStore) dieBeforeWrite(n int) { s.armed, s.dieIn = true, n }
func (s *memStore) revive()              { s.armed = false }
func (s *memStore) dead() bool           { return s.armed && s.dieIn < 0 }

func (s *memStore) write() error {
	if !s.armed {
		return nil
	}
	s.dieIn--
	if s.dieIn < 0 {
		return errCrash
	}
	return nil
}

func id(kind v1alpha1.Kind, key store.Key) string { return kind.Plural + "/" + key.String() }

func copyOf(o v1alpha1.Object) v1alpha1.Object {
	c, _ := o.DeepCopyObject().(v1alpha1.Object)
	return c
}

func assign(to, from v1alpha1.Object) {
	switch t := to.(type) {
	case *v1alpha1.EtcdCluster:
		*t = *from.(*v1alpha1.EtcdCluster).DeepCopy() //nolint:errcheck // same kind
	case *v1alpha1.EtcdMember:
		*t = *from.(*v1alpha1.EtcdMember).DeepCopy() //nolint:errcheck // same kind
	case *v1alpha1.EtcdHost:
		*t = *from.(*v1alpha1.EtcdHost).DeepCopy() //nolint:errcheck // same kind
	case *v1alpha1.EtcdTask:
		*t = *from.(*v1alpha1.EtcdTask).DeepCopy() //nolint:errcheck // same kind
	case *v1alpha1.EtcdBackupPolicy:
		*t = *from.(*v1alpha1.EtcdBackupPolicy).DeepCopy() //nolint:errcheck // same kind
	case *v1alpha1.EtcdBackup:
		*t = *from.(*v1alpha1.EtcdBackup).DeepCopy() //nolint:errcheck // same kind
	case *v1alpha1.EtcdRestore:
		*t = *from.(*v1alpha1.EtcdRestore).DeepCopy() //nolint:errcheck // same kind
	case *v1alpha1.Secret:
		*t = *from.(*v1alpha1.Secret).DeepCopy() //nolint:errcheck // same kind
	}
}

func (s *memStore) Get(_ context.Context, key store.Key, obj v1alpha1.Object) error {
	return s.get(key, obj)
}

// get is Get for the simulation around the controller, which has no ctx to give.
func (s *memStore) get(key store.Key, obj v1alpha1.Object) error {
	if s.dead() {
		return errCrash
	}
	kind := v1alpha1.KindOf(obj)
	have, ok := s.objects[id(kind, key)]
	if !ok {
		return store.Error("get", kind, key, store.ErrNotFound)
	}
	assign(obj, have)
	return nil
}

func (s *memStore) List(_ context.Context, kind v1alpha1.Kind, opts store.ListOptions) ([]v1alpha1.Object, error) {
	return s.list(kind, opts)
}

// list is List for the simulation around the controller, which has no ctx to give.
func (s *memStore) list(kind v1alpha1.Kind, opts store.ListOptions) ([]v1alpha1.Object, error) {
	if s.dead() {
		return nil, errCrash
	}
	var out []v1alpha1.Object
	for _, k := range slices.Sorted(maps.Keys(s.objects)) {
		o := s.objects[k]
		if v1alpha1.KindOf(o).Plural != kind.Plural || opts.Namespace != "" && o.GetNamespace() != opts.Namespace {
			continue
		}
		match := strings.HasPrefix(o.GetName(), opts.NamePrefix)
		for l, v := range opts.Labels {
			match = match && o.GetLabels()[l] == v
		}
		if match {
			out = append(out, copyOf(o))
		}
	}
	return out, nil
}

func (s *memStore) Create(_ context.Context, obj v1alpha1.Object) error {
	if err := s.write(); err != nil {
		return err
	}
	kind, key := v1alpha1.KindOf(obj), store.KeyOf(obj)
	if _, ok := s.objects[id(kind, key)]; ok {
		return store.Error("create", kind, key, store.ErrExists)
	}
	s.rv++
	obj.SetUID(v1alpha1.UID(fmt.Sprintf("uid-%d", s.rv)))
	obj.SetResourceVersion(strconv.Itoa(s.rv))
	obj.SetGeneration(1)
	s.objects[id(kind, key)] = copyOf(obj)
	return nil
}

func (s *memStore) Update(_ context.Context, obj v1alpha1.Object) error {
	if err := s.write(); err != nil {
		return err
	}
	kind, key := v1alpha1.KindOf(obj), store.KeyOf(obj)
	have, ok := s.objects[id(kind, key)]
	if !ok {
		return store.Error("update", kind, key, store.ErrNotFound)
	}
	if have.GetUID() != obj.GetUID() || have.GetResourceVersion() != obj.GetResourceVersion() {
		return store.Error("update", kind, key, store.ErrConflict)
	}
	next := copyOf(obj)
	next.SetGeneration(have.GetGeneration())
	if !sameSpec(have, next) {
		next.SetGeneration(have.GetGeneration() + 1)
	}
	takeStatus(next, have)
	s.put(kind, key, next, obj)
	return nil
}

func (s *memStore) put(kind v1alpha1.Kind, key store.Key, next, out v1alpha1.Object) {
	s.rv++
	next.SetResourceVersion(strconv.Itoa(s.rv))
	if next.GetDeletionTimestamp() != nil && len(next.GetFinalizers()) == 0 {
		delete(s.objects, id(kind, key))
	} else {
		s.objects[id(kind, key)] = next
	}
	assign(out, next)
}

func (s *memStore) UpdateStatus(_ context.Context, obj v1alpha1.Object) error {
	if err := s.write(); err != nil {
		return err
	}
	kind, key := v1alpha1.KindOf(obj), store.KeyOf(obj)
	have, ok := s.objects[id(kind, key)]
	if !ok {
		return store.Error("update status", kind, key, store.ErrNotFound)
	}
	if have.GetUID() != obj.GetUID() || have.GetResourceVersion() != obj.GetResourceVersion() {
		return store.Error("update status", kind, key, store.ErrConflict)
	}
	next := copyOf(have)
	takeStatus(next, obj)
	s.put(kind, key, next, obj)
	return nil
}

func (s *memStore) Delete(_ context.Context, kind v1alpha1.Kind, key store.Key, pre store.Preconditions) error {
	if err := s.write(); err != nil {
		return err
	}
	have, ok := s.objects[id(kind, key)]
	if !ok || have.GetUID() != pre.UID {
		return store.Error("delete", kind, key, store.ErrNotFound)
	}
	if len(have.GetFinalizers()) == 0 {
		delete(s.objects, id(kind, key))
		return nil
	}
	if have.GetDeletionTimestamp() == nil {
		now := v1alpha1.NewTime(time.Unix(1, 0))
		next := copyOf(have)
		next.SetDeletionTimestamp(&now)
		s.put(kind, key, next, kind.New())
	}
	return nil
}

func (s *memStore) Watch(ctx context.Context, _ v1alpha1.Kind, _ string) <-chan store.Key {
	ch := make(chan store.Key)
	go func() { <-ctx.Done(); close(ch) }()
	return ch
}

func sameSpec(a, b v1alpha1.Object) bool {
	switch x := a.(type) {
	case *v1alpha1.EtcdCluster:
		y, _ := b.(*v1alpha1.EtcdCluster)
		return v1alpha1.Equal(x.Spec, y.Spec)
	case *v1alpha1.EtcdMember:
		y, _ := b.(*v1alpha1.EtcdMember)
		return v1alpha1.Equal(x.Spec, y.Spec)
	case *v1alpha1.EtcdHost:
		y, _ := b.(*v1alpha1.EtcdHost)
		return v1alpha1.Equal(x.Spec, y.Spec)
	case *v1alpha1.EtcdBackupPolicy:
		y, _ := b.(*v1alpha1.EtcdBackupPolicy)
		return v1alpha1.Equal(x.Spec, y.Spec)
	case *v1alpha1.EtcdRestore:
		y, _ := b.(*v1alpha1.EtcdRestore)
		return v1alpha1.Equal(x.Spec, y.Spec)
	}
	return true
}

func takeStatus(to, from v1alpha1.Object) {
	switch t := to.(type) {
	case *v1alpha1.EtcdCluster:
		f, _ := from.(*v1alpha1.EtcdCluster)
		f.Status.DeepCopyInto(&t.Status)
	case *v1alpha1.EtcdMember:
		f, _ := from.(*v1alpha1.EtcdMember)
		f.Status.DeepCopyInto(&t.Status)
	case *v1alpha1.EtcdHost:
		f, _ := from.(*v1alpha1.EtcdHost)
		f.Status.DeepCopyInto(&t.Status)
	case *v1alpha1.EtcdTask:
		f, _ := from.(*v1alpha1.EtcdTask)
		f.Status.DeepCopyInto(&t.Status)
	case *v1alpha1.EtcdBackupPolicy:
		f, _ := from.(*v1alpha1.EtcdBackupPolicy)
		f.Status.DeepCopyInto(&t.Status)
	case *v1alpha1.EtcdBackup:
		f, _ := from.(*v1alpha1.EtcdBackup)
		f.Status.DeepCopyInto(&t.Status)
	case *v1alpha1.EtcdRestore:
		f, _ := from.(*v1alpha1.EtcdRestore)
		f.Status.DeepCopyInto(&t.Status)
	}
}
