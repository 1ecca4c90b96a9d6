package etcd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
)

// RotateKey makes a new sealing key, seals every Secret with it, and drops the keys
// that nothing is sealed with any more. It returns how many Secrets it sealed anew.
//
// It can be cut off at any point: the key is in the keyring's file before it is
// used, and the old ones stay there until nothing needs them. Calling it again
// finishes what was begun, without making yet another key. A backup made before
// needs the keyring of its time, which is kept beside the keyring's file under its
// name and ".until-" with the ID of the key that came then.
func (s *Store) RotateKey(ctx context.Context) (int, error) {
	s.rotating.Lock()
	defer s.rotating.Unlock()
	// More than one key is what a rotation that was cut off leaves behind.
	if len(s.keyring.IDs()) == 1 {
		if err := s.keyring.addPrimary(s.now()); err != nil {
			return 0, fmt.Errorf("rotate the sealing key: %w", err)
		}
	}
	count, err := s.reseal(ctx)
	if err != nil {
		return count, fmt.Errorf("rotate the sealing key: %w: nothing is lost, run it again to finish", err)
	}
	inUse, err := s.keysInUse(ctx)
	if err != nil {
		return count, fmt.Errorf("rotate the sealing key: %w: nothing is lost, run it again to finish", err)
	}
	return count, s.keyring.keepOnly(inUse)
}

// reseal seals with the primary key what another key sealed.
func (s *Store) reseal(ctx context.Context) (int, error) {
	keyOf, err := s.sealedWith(ctx)
	if err != nil {
		return 0, err
	}
	primary, count := s.keyring.IDs()[0], 0
	for key, id := range keyOf {
		if id == primary {
			continue
		}
		if err := s.resealOne(ctx, key); err != nil {
			return count, store.Error("seal", v1alpha1.KindSecret, key, err)
		}
		count++
	}
	return count, nil
}

func (s *Store) resealOne(ctx context.Context, key store.Key) error {
	for {
		err := s.rewrite(ctx, key)
		switch {
		case errors.Is(err, store.ErrNotFound):
			return nil
		case !errors.Is(err, store.ErrConflict) || ctx.Err() != nil:
			return err
		}
	}
}

// rewrite stores a Secret as it is, which seals it anew.
func (s *Store) rewrite(ctx context.Context, key store.Key) error {
	ctx, cancel := s.deadline(ctx)
	defer cancel()
	cur, err := s.read(ctx, v1alpha1.KindSecret, key)
	if err != nil {
		return err
	}
	return s.put(ctx, cur.key, cur.revision, cur.obj)
}

func (s *Store) keysInUse(ctx context.Context) (map[string]bool, error) {
	keyOf, err := s.sealedWith(ctx)
	if err != nil {
		return nil, err
	}
	inUse := map[string]bool{}
	for _, id := range keyOf {
		inUse[id] = true
	}
	return inUse, nil
}

// sealedWith tells each Secret's sealing key.
func (s *Store) sealedWith(ctx context.Context) (map[store.Key]string, error) {
	ctx, cancel := s.deadline(ctx)
	defer cancel()
	keyOf := map[store.Key]string{}
	_, err := s.scanPrefix(ctx, kindPrefix(v1alpha1.KindSecret), func(kv *mvccpb.KeyValue) error {
		key, err := keyFrom(v1alpha1.KindSecret, string(kv.Key))
		if err != nil {
			return err
		}
		var r struct {
			Sealed *sealed `json:"sealed"`
		}
		if err := json.Unmarshal(kv.Value, &r); err != nil || r.Sealed == nil {
			return fmt.Errorf("%w: the record at %s is not a sealed secret: %s", ErrCorrupt, kv.Key, restoreHint)
		}
		keyOf[key] = r.Sealed.KeyID
		return nil
	}, func() { clear(keyOf) })
	return keyOf, err
}
