package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/quorate/quorate/datadir"
)

// diffPage is how many keys are read at once, and maxDiff bounds how many keys a
// difference may be made of: both sides are held, without their values.
const (
	diffPage = 500
	maxDiff  = 2_000_000
)

// ErrTooMany says that the range has more keys than are compared at once.
var ErrTooMany = errors.New("too many keys")

// Difference says how a key stands in a backup and in a cluster.
type Difference string

// The differences.
const (
	// Missing: it is in the backup and not in the cluster.
	Missing Difference = "missing"
	// Changed: its value is another one.
	Changed Difference = "changed"
	// Extra: it is in the cluster and not in the backup.
	Extra Difference = "extra"
)

// KeyDifference is one key that differs.
type KeyDifference struct {
	Key  string
	Kind Difference
	// InBackup and InCluster are the revisions at which it was modified last, 0 where it
	// is not.
	InBackup, InCluster int64
	// Newer: the cluster's was written after the backup, or nobody can say.
	Newer bool
	// Lease it hung on in the backup; 0 is none. A lease can't be brought back: it would
	// stay for good.
	Lease int64
	// BackupSize and ClusterSize are bytes of the values.
	BackupSize, ClusterSize int
}

// DiffOptions say what is compared.
type DiffOptions struct {
	// Backup that was fetched.
	Backup *Local
	// Client of the cluster.
	Client *clientv3.Client
	// Keys of the range.
	Keys datadir.KeyRange
	// SameLineage: revisions of the two can be compared, since the backup is of this
	// cluster and it was not restored since.
	SameLineage bool
}

// Diff compares a range of keys in a backup with those in a cluster, as it is at one
// revision, which it returns. The differences are in the order of keys.
func Diff(ctx context.Context, o DiffOptions) (all []KeyDifference, at int64, err error) {
	wanted, err := o.backedUp(ctx)
	if err != nil {
		return nil, 0, err
	}
	at, err = o.walkCluster(ctx, func(key, value []byte, mod int64) error {
		name := string(key)
		old, ok := wanted[name]
		delete(wanted, name)
		d := KeyDifference{
			Key: name, InCluster: mod, ClusterSize: len(value), InBackup: old.mod, BackupSize: old.size, Lease: old.lease,
			Newer: !o.SameLineage || mod > o.Backup.Info().Revision,
		}
		switch {
		case !ok:
			d.Kind = Extra
		case old.sum != sumOf(value):
			d.Kind = Changed
		default:
			return nil
		}
		all = append(all, d)
		return nil
	})
	if err != nil {
		return nil, 0, err
	}
	for key, old := range wanted {
		all = append(all, KeyDifference{Key: key, Kind: Missing, InBackup: old.mod, BackupSize: old.size, Lease: old.lease})
	}
	slices.SortFunc(all, func(a, b KeyDifference) int { return strings.Compare(a.Key, b.Key) })
	return all, at, nil
}

type backedUp struct {
	mod, lease int64
	size       int
	sum        [32]byte
}

func (o *DiffOptions) backedUp(ctx context.Context) (map[string]backedUp, error) {
	wanted := map[string]backedUp{}
	err := o.Backup.Keys(ctx, 0, o.Keys, func(c datadir.Change) error {
		if len(wanted) == maxDiff {
			return fmt.Errorf("%w: the backup has more than %d in this range: name a narrower one", ErrTooMany, maxDiff)
		}
		wanted[string(c.Key)] = backedUp{mod: c.Revision, lease: c.Lease, size: len(c.Value), sum: sumOf(c.Value)}
		return nil
	})
	return wanted, err
}

// walkCluster reads the range page by page, all at the revision of the first page.
func (o *DiffOptions) walkCluster(ctx context.Context, visit func(key, value []byte, mod int64) error) (at int64, err error) {
	from, seen := slices.Clone(o.Keys.From), 0
	if len(from) == 0 {
		from = []byte{0}
	}
	to := string(o.Keys.To)
	if to == "" {
		to = "\x00" // etcd's word for no end
	}
	for {
		r, err := o.Client.Get(ctx, string(from), clientv3.WithRange(to), clientv3.WithLimit(diffPage), clientv3.WithRev(at))
		if err != nil {
			return at, fmt.Errorf("read the cluster's keys from %q on: %w", from, err)
		}
		if at == 0 {
			at = r.Header.Revision
		}
		for _, kv := range r.Kvs {
			if seen++; seen > maxDiff {
				return at, fmt.Errorf("%w: the cluster has more than %d in this range: name a narrower one", ErrTooMany, maxDiff)
			}
			if err := visit(kv.Key, kv.Value, kv.ModRevision); err != nil {
				return at, err
			}
		}
		if !r.More {
			return at, nil
		}
		from = append(bytes.Clone(r.Kvs[len(r.Kvs)-1].Key), 0)
	}
}
