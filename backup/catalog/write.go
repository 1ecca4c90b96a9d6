package catalog

import (
	"context"
	"errors"
	"fmt"
)

// WritePoint writes the manifest of a point whose data is in the store, and by that
// makes it one. It wraps ErrIncomplete if the data is not there in the size that the
// manifest has, before or after: a pruner that took it for a leftover may have deleted
// it meanwhile. So it does if the data is older than half of LeftoverAge, when one may
// be about to. Do not write another manifest then, but take the backup again.
func WritePoint(ctx context.Context, objects Objects, layout Layout, p Point) error {
	ref := p.Ref()
	name, err := layout.Manifest(ref)
	if err != nil {
		return err
	}
	data, err := EncodePoint(p)
	if err != nil {
		return err
	}
	r := reader{objects: objects}
	for _, written := range []bool{false, true} {
		e, err := r.look(ctx, layout, ref)
		if err != nil {
			return fmt.Errorf("manifest of %s: %w", ref, err)
		}
		switch o, ok := e.object(p.Object); {
		case !ok:
			return fmt.Errorf("manifest of %s: %w: its data %s is not in the store", ref, ErrIncomplete, e.Dir+p.Object)
		case o.Size != p.StoredSize:
			return fmt.Errorf("manifest of %s: %w: its data %s has %d bytes in the store, not %d", ref, ErrIncomplete, o.Name, o.Size, p.StoredSize)
		case written && tooLate(e, o):
			err = objects.Delete(ctx, name)
			return errors.Join(fmt.Errorf("manifest of %s: %w: it came more than %s after the data, when a pruner may take that for a leftover", ref, ErrIncomplete, LeftoverAge/2), err)
		case written && e.State != Complete:
			return fmt.Errorf("manifest of %s: %w: read back, it is %s: %w", ref, ErrIncomplete, e.State, e.Err)
		case written:
			return nil
		}
		if err := objects.Put(ctx, name, data); err != nil {
			return fmt.Errorf("manifest of %s: %w", ref, err)
		}
	}
	return nil
}

// WriteProof writes a proof beside its point's manifest. It wraps ErrNotFound if the
// point was deleted meanwhile.
func WriteProof(ctx context.Context, objects Objects, layout Layout, ref Ref, p Proof) error {
	name, err := layout.File(ref, proofFile(p.Ended))
	if err != nil {
		return err
	}
	p.Point = ref.ID()
	p.Ended = p.Ended.UTC().Round(0)
	data, err := EncodeProof(p)
	if err != nil {
		return err
	}
	r := reader{objects: objects}
	e, err := r.look(ctx, layout, ref)
	if err != nil {
		return fmt.Errorf("proof of %s: %w", ref, err)
	}
	if _, ok := e.object(manifestFile); !ok {
		return fmt.Errorf("proof of %s: its manifest: %w", ref, ErrNotFound)
	}
	if err := objects.Put(ctx, name, data); err != nil {
		return fmt.Errorf("proof of %s: %w", ref, err)
	}
	return nil
}

// tooLate says whether the manifest, by the store's clock, came when a pruner may
// already have looked at the data as a leftover that it is about to delete.
func tooLate(e *Entry, data Object) bool {
	m, ok := e.object(manifestFile)
	return ok && m.Modified.Sub(data.Modified) > LeftoverAge/2
}
