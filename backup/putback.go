package backup

import (
	"context"
	"crypto/sha256"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/quorate/quorate/datadir"
)

func sumOf(value []byte) [32]byte { return sha256.Sum256(value) }

// PutBackOptions say which differences are undone.
type PutBackOptions struct {
	DiffOptions
	// OverwriteNewer also undoes what was written after the backup.
	OverwriteNewer bool
	// DeleteExtra deletes the keys of the range that are not in the backup.
	DeleteExtra bool
	// WithoutLease brings keys back for good that hung on a lease.
	WithoutLease bool
	// DryRun writes nothing.
	DryRun   bool
	Progress func(PutBackKey)
}

// Outcome is what became of one key.
type Outcome string

// The outcomes.
const (
	// PutBack: it has the backup's value again, or would have.
	PutBack Outcome = "put back"
	// Deleted: it is not in the cluster any more, or would not be.
	Deleted Outcome = "deleted"
	// RefusedNewer: the cluster's was written after the backup.
	RefusedNewer Outcome = "refused, newer"
	// RefusedExtra: it is not in the backup, and was not to be deleted.
	RefusedExtra Outcome = "refused, not in the backup"
	// RefusedLease: it hung on a lease.
	RefusedLease Outcome = "refused, hung on a lease"
	// Raced: somebody wrote it meanwhile.
	Raced Outcome = "refused, written meanwhile"
)

// PutBackKey is what became of one key.
type PutBackKey struct {
	KeyDifference
	Outcome Outcome
	// Revision at which it was written.
	Revision int64
}

// Put brings keys of a backup back into a cluster, each by a transaction that
// happens only if the key is still as it was compared: what others write is never
// lost. It may be repeated after a failure. The result is in the order of keys.
func Put(ctx context.Context, o PutBackOptions) ([]PutBackKey, error) {
	differences, _, err := Diff(ctx, o.DiffOptions)
	if err != nil {
		return nil, err
	}
	done := make([]PutBackKey, 0, len(differences))
	index := map[string]int{}
	for _, d := range differences {
		k := PutBackKey{KeyDifference: d, Outcome: o.judge(d)}
		if k.Outcome == PutBack && !o.DryRun {
			index[d.Key] = len(done)
		}
		done = append(done, k)
	}
	for i := range done {
		if k := &done[i]; k.Outcome == Deleted && !o.DryRun {
			if err = o.write(ctx, k, clientv3.OpDelete(k.Key)); err != nil {
				return done, err
			}
		}
	}
	if len(index) == 0 {
		return done, nil
	}
	// The values were not kept: they are read once more.
	err = o.Backup.Keys(ctx, 0, o.Keys, func(c datadir.Change) error {
		i, ok := index[string(c.Key)]
		if !ok {
			return nil
		}
		return o.write(ctx, &done[i], clientv3.OpPut(string(c.Key), string(c.Value)))
	})
	return done, err
}

func (o *PutBackOptions) judge(d KeyDifference) Outcome {
	switch {
	case d.Kind != Missing && d.Newer && !o.OverwriteNewer && (d.Kind == Changed || o.DeleteExtra):
		return RefusedNewer
	case d.Kind == Extra && !o.DeleteExtra:
		return RefusedExtra
	case d.Kind == Extra:
		return Deleted
	case d.Lease != 0 && !o.WithoutLease:
		return RefusedLease
	}
	return PutBack
}

// write does one key. A key that is not there has the modification revision 0.
func (o *PutBackOptions) write(ctx context.Context, k *PutBackKey, op clientv3.Op) error {
	r, err := o.Client.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(k.Key), "=", k.InCluster)).Then(op).Commit()
	if err != nil {
		return fmt.Errorf("write %q: %w: what was done before stays; run it again to go on", k.Key, err)
	}
	if k.Revision = r.Header.Revision; !r.Succeeded {
		k.Outcome = Raced
	}
	if o.Progress != nil {
		o.Progress(*k)
	}
	return nil
}
