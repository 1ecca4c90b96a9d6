package etcd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
)

// pageSize is how many objects are read in one request.
const pageSize = 1000

func formatRevision(revision int64) string { return strconv.FormatInt(revision, 10) }

// stored is an object as it stands in etcd.
type stored struct {
	key      string
	obj      v1alpha1.Object
	revision int64
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, key store.Key, obj v1alpha1.Object) error {
	kind := v1alpha1.KindOf(obj)
	ctx, cancel := s.deadline(ctx)
	defer cancel()
	cur, err := s.read(ctx, kind, key)
	if err != nil {
		return store.Error("get", kind, key, err)
	}
	assign(obj, cur.obj)
	return nil
}

func (s *Store) read(ctx context.Context, kind v1alpha1.Kind, key store.Key) (stored, error) {
	at, err := storageKey(kind, key)
	if err != nil {
		return stored{}, err
	}
	resp, err := s.client.Get(ctx, at)
	if err != nil {
		return stored{}, s.fail(err)
	}
	s.saw(resp.Header.GetRevision())
	if len(resp.Kvs) == 0 {
		return stored{}, store.ErrNotFound
	}
	kv := resp.Kvs[0]
	cur := stored{key: at, obj: kind.New(), revision: kv.ModRevision}
	return cur, s.decode(at, kv.Value, kv.ModRevision, cur.obj)
}

// List implements store.Store. All of it is of one revision.
func (s *Store) List(ctx context.Context, kind v1alpha1.Kind, opts store.ListOptions) ([]v1alpha1.Object, error) {
	ctx, cancel := s.deadline(ctx)
	defer cancel()
	var list []v1alpha1.Object
	prefix := prefixOf(kind, opts.Namespace)
	if kind.Namespaced && opts.Namespace != "" {
		prefix += opts.NamePrefix
	}
	_, err := s.scanPrefix(ctx, prefix, func(kv *mvccpb.KeyValue) error {
		obj, err := s.decodeListed(kind, kv)
		if err != nil {
			return err
		}
		if strings.HasPrefix(obj.GetName(), opts.NamePrefix) && matches(obj.GetLabels(), opts.Labels) {
			list = append(list, obj)
		}
		return nil
	}, func() { list = nil })
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", kind.Plural, err)
	}
	// Keys are sorted by their bytes, in which "prod-eu/" comes before "prod/".
	slices.SortFunc(list, func(a, b v1alpha1.Object) int {
		return cmp.Or(cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetName(), b.GetName()))
	})
	return list, nil
}

func matches(labels, wanted map[string]string) bool {
	for k, v := range wanted {
		if have, ok := labels[k]; !ok || have != v {
			return false
		}
	}
	return true
}

// scanPrefix passes the records below prefix, as they are at one revision, which
// it returns. When that revision is compacted in between, it calls restart and
// begins again. Options go with each request.
func (s *Store) scanPrefix(ctx context.Context, prefix string, each func(*mvccpb.KeyValue) error, restart func(), opts ...clientv3.OpOption) (int64, error) {
	end := clientv3.GetPrefixRangeEnd(prefix)
	from, revision := prefix, int64(0)
	for {
		page := append([]clientv3.OpOption{clientv3.WithRange(end), clientv3.WithLimit(pageSize), clientv3.WithRev(revision)}, opts...)
		resp, err := s.client.Get(ctx, from, page...)
		if errors.Is(err, rpctypes.ErrCompacted) {
			restart()
			from, revision = prefix, 0
			continue
		}
		if err != nil {
			return 0, s.fail(err)
		}
		s.saw(resp.Header.GetRevision())
		if revision == 0 {
			revision = resp.Header.GetRevision()
		}
		for _, kv := range resp.Kvs {
			if err := each(kv); err != nil {
				return 0, err
			}
		}
		if !resp.More {
			return revision, nil
		}
		from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
}

// Create implements store.Store.
func (s *Store) Create(ctx context.Context, obj v1alpha1.Object) error {
	kind, key := v1alpha1.KindOf(obj), store.KeyOf(obj)
	ctx, cancel := s.deadline(ctx)
	defer cancel()
	if err := s.create(ctx, kind, key, obj); err != nil {
		return store.Error("create", kind, key, err)
	}
	return nil
}

func (s *Store) create(ctx context.Context, kind v1alpha1.Kind, key store.Key, obj v1alpha1.Object) error {
	at, err := storageKey(kind, key)
	if err != nil {
		return err
	}
	uid, err := uuid.NewRandom()
	if err != nil {
		return fmt.Errorf("make a UID: %w", err)
	}
	next := copyOf(obj)
	foldStringData(next)
	next.SetUID(v1alpha1.UID(uid.String()))
	next.SetCreationTimestamp(s.timestamp())
	next.SetDeletionTimestamp(nil)
	next.SetDeletionGracePeriodSeconds(nil)
	next.SetGeneration(1)
	err = s.put(ctx, at, 0, next)
	if errors.Is(err, store.ErrConflict) {
		return store.ErrExists
	}
	if err != nil {
		return err
	}
	assign(obj, next)
	return nil
}

// put writes obj at key if the record there is of that revision, or absent where
// it is 0, and makes obj what was stored. ErrConflict otherwise.
func (s *Store) put(ctx context.Context, key string, revision int64, obj v1alpha1.Object) error {
	if v1alpha1.KindOf(obj).Kind == v1alpha1.KindSecret.Kind {
		// The primary key must not change between sealing and storing.
		s.keyring.sealing.RLock()
		defer s.keyring.sealing.RUnlock()
	}
	raw, err := s.encode(key, obj)
	if err != nil {
		return err
	}
	written, err := s.commit(ctx, key, revision, clientv3.OpPut(key, string(raw)))
	if err != nil {
		return err
	}
	// What was stored is read back from its bytes, so that the caller holds exactly
	// what a Get would give.
	return s.decode(key, raw, written, obj)
}

func (s *Store) commit(ctx context.Context, key string, revision int64, op clientv3.Op) (int64, error) {
	resp, err := s.client.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(key), "=", revision)).
		Then(op).
		Commit()
	if err != nil {
		return 0, s.fail(err)
	}
	s.saw(resp.Header.GetRevision())
	if !resp.Succeeded {
		return 0, store.ErrConflict
	}
	return resp.Header.GetRevision(), nil
}

func (s *Store) timestamp() v1alpha1.Time {
	return v1alpha1.NewTime(s.now().UTC().Truncate(time.Second))
}

// Delete implements store.Store.
func (s *Store) Delete(ctx context.Context, kind v1alpha1.Kind, key store.Key, pre store.Preconditions) error {
	ctx, cancel := s.deadline(ctx)
	defer cancel()
	for {
		err := s.delete(ctx, kind, key, pre)
		// Without a resourceVersion to hold against, a write in between is no conflict.
		if errors.Is(err, errRace) && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return store.Error("delete", kind, key, err)
		}
		return nil
	}
}

var errRace = errors.New("the object changed between reading and writing it")

func (s *Store) delete(ctx context.Context, kind v1alpha1.Kind, key store.Key, pre store.Preconditions) error {
	if pre.UID == "" {
		return fmt.Errorf("%w: a deletion must name the UID of what it deletes", store.ErrInvalid)
	}
	cur, err := s.read(ctx, kind, key)
	if err != nil {
		return err
	}
	if cur.obj.GetUID() != pre.UID || (pre.ResourceVersion != "" && pre.ResourceVersion != cur.obj.GetResourceVersion()) {
		return store.ErrConflict
	}
	if cur.obj.GetDeletionTimestamp() != nil && len(cur.obj.GetFinalizers()) > 0 {
		return nil
	}
	if len(cur.obj.GetFinalizers()) == 0 {
		_, err = s.commit(ctx, cur.key, cur.revision, clientv3.OpDelete(cur.key))
	} else {
		now := s.timestamp()
		cur.obj.SetDeletionTimestamp(&now)
		err = s.put(ctx, cur.key, cur.revision, cur.obj)
	}
	if errors.Is(err, store.ErrConflict) && pre.ResourceVersion == "" {
		return errRace
	}
	return err
}
