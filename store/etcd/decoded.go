package etcd

import (
	"bytes"
	"sync"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/quorate/quorate/api/v1alpha1"
)

// maxDecoded bounds how many objects a store remembers decoded.
const maxDecoded = 20_000

// decoded remembers what records mean, since most of what is listed has not changed
// since the last time, and reading JSON costs ten times what a copy does. A record
// is known by its very bytes: whatever becomes of the etcd beneath, nothing else is
// ever taken for it.
type decoded struct {
	mu   sync.Mutex
	objs map[string]known
}

type known struct {
	raw      []byte
	revision int64
	obj      v1alpha1.Object
}

// decodeListed is decode for what a list found, into a new object. Secrets are not
// remembered: they are open once they are decoded.
func (s *Store) decodeListed(kind v1alpha1.Kind, kv *mvccpb.KeyValue) (v1alpha1.Object, error) {
	key := string(kv.Key)
	if kind.Kind == v1alpha1.KindSecret.Kind {
		obj := kind.New()
		return obj, s.decode(key, kv.Value, kv.ModRevision, obj)
	}
	d := &s.decoded
	d.mu.Lock()
	found, ok := d.objs[key]
	d.mu.Unlock()
	if ok && found.revision == kv.ModRevision && bytes.Equal(found.raw, kv.Value) {
		return copyOf(found.obj), nil
	}
	obj := kind.New()
	if err := s.decode(key, kv.Value, kv.ModRevision, obj); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	// What is gone is forgotten with all the rest, once there is too much.
	if d.objs == nil || len(d.objs) >= maxDecoded {
		d.objs = map[string]known{}
	}
	d.objs[key] = known{raw: kv.Value, revision: kv.ModRevision, obj: copyOf(obj)}
	return obj, nil
}
