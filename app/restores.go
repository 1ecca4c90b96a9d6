package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"filippo.io/age"

	"github.com/quorate/quorate/backup"
	"github.com/quorate/quorate/backup/bucket"
	points "github.com/quorate/quorate/backup/catalog"
	"github.com/quorate/quorate/etcd"
	"github.com/quorate/quorate/fleet"
)

// identities reads an age identity file; none from an empty text.
func identities(text string) ([]age.Identity, error) {
	if text == "" {
		return nil, nil
	}
	list, err := age.ParseIdentities(strings.NewReader(text))
	if err != nil {
		// The cause is left out: it could quote what is secret.
		return nil, fmt.Errorf("the identity in the Secret can't be read: put the text of an age identity file there, AGE-SECRET-KEY-1…: %w", fleet.ErrHopeless)
	}
	return list, nil
}

// Find implements fleet.Restores.
func (b *backups) Find(ctx context.Context, o fleet.BackupSought) (f fleet.BackupFound, err error) {
	err = b.with(ctx, o.Store, func(in bucket.Bucket) error {
		var findErr error
		if o.Object != "" {
			f, findErr = b.examine(ctx, o, in)
		} else {
			f, findErr = b.find(ctx, o, in)
		}
		return findErr
	})
	return f, err
}

func (b *backups) find(ctx context.Context, o fleet.BackupSought, in bucket.Bucket) (f fleet.BackupFound, err error) {
	entries, err := b.entries(ctx, o.BackupsOf, o.Store, in)
	if err != nil {
		return f, err
	}
	entry, err := backup.Pick(&points.Catalog{Entries: entries}, o.Point, o.NotAfter)
	if errors.Is(err, backup.ErrAmbiguous) && o.Prefer != 0 && (o.Point == backup.Latest || o.Point == backup.LatestProven) {
		now := slices.DeleteFunc(slices.Clone(entries), func(e points.Entry) bool { return etcd.ID(e.Ref.ClusterID) != o.Prefer })
		if preferred, pickErr := backup.Pick(&points.Catalog{Entries: now}, o.Point, o.NotAfter); pickErr == nil {
			entry, err = preferred, nil
		}
	}
	switch {
	case errors.Is(err, backup.ErrUnread):
		return f, err
	case errors.Is(err, backup.ErrAmbiguous):
		return f, fmt.Errorf("%w; say source.clusterID (%w)", err, fleet.ErrHopeless)
	case len(entries) == 0:
		return f, fmt.Errorf("there is no backup of %s (%w)", clusterName(o.BackupsOf), fleet.ErrHopeless)
	case err != nil:
		return f, fmt.Errorf("%w (%w)", err, fleet.ErrHopeless)
	case entry.State == points.Unknown:
		return f, fmt.Errorf("backup %s: %w: %w", entry.Ref.ID(), backup.ErrUnread, entry.Err)
	case entry.State != points.Complete:
		return f, fmt.Errorf("backup %s is %s: %w (%w)", entry.Ref.ID(), strings.ToLower(string(entry.State)), cmp.Or(entry.Err, backup.ErrNoBackup), fleet.ErrHopeless)
	}
	p := entry.Point
	f = fleet.BackupFound{
		PointID: entry.Ref.ID(), TakenAt: p.Started, EtcdVersion: cmp.Or(p.EtcdVersion, p.StorageVersion),
		Of:       fleet.BackupsOf{Namespace: p.Namespace, Cluster: p.Name, ClusterID: etcd.ID(p.ClusterID)},
		Revision: p.Revision, DBSize: p.DBSize, Keys: p.Counts.Keys,
	}
	switch entry.Verdict() {
	case points.Proven:
		f.ProvenAt = entry.Proofs[0].Proof.Ended
	case points.Failed:
		f.Failed = entry.Proofs[0].Proof.Reason
	case points.Unproven, points.Unclear:
	}
	if p.Encryption != nil && o.Identity == "" {
		return f, fmt.Errorf("backup %s is encrypted: name a Secret with an identity of one of its recipients: %w", f.PointID, backup.ErrNoIdentity)
	}
	return f, nil
}

// examine reads a snapshot that is in no catalog: what it holds stands in itself alone.
func (b *backups) examine(ctx context.Context, o fleet.BackupSought, in bucket.Bucket) (f fleet.BackupFound, err error) {
	origin := backup.Origin{Bucket: in, Object: o.Object}
	if origin.Identities, err = identities(o.Identity); err != nil {
		return f, err
	}
	o.Progress("the snapshot is being fetched and checked")
	local, err := backup.Fetch(ctx, origin, b.spool, 0)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, local.Close()) }()
	info := local.Info()
	if !local.Checked.Verified {
		return f, fmt.Errorf("%s has no hash behind the database, so nobody can tell whether it is whole: it was copied from a data directory, and `quorate restore --allow-no-hash` takes it (%w)", origin, fleet.ErrHopeless)
	}
	return fleet.BackupFound{
		PointID: o.Object, EtcdVersion: cmp.Or(info.StorageVersion, info.ClusterVersion),
		Revision: info.Revision, DBSize: local.Checked.Size, Keys: local.Checked.Keys,
	}, nil
}

// Open implements fleet.Restores.
func (b *backups) Open(ctx context.Context, o fleet.BackupTrial) (_ io.ReadCloser, size int64, err error) {
	in, err := b.open(ctx, o.Store)
	if err != nil {
		return nil, 0, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, in.Close())
		}
	}()
	origin := backup.Origin{Bucket: in, Object: o.Object}
	if origin.Identities, err = identities(o.Identity); err != nil {
		return nil, 0, err
	}
	if o.Object == "" {
		entries, readErr := b.entries(ctx, o.BackupsOf, o.Store, in)
		if readErr != nil {
			return nil, 0, readErr
		}
		if origin.Entry, err = backup.Pick(&points.Catalog{Entries: entries}, o.PointID, time.Time{}); err != nil {
			return nil, 0, err
		}
	}
	db, size, err := origin.Open(ctx)
	if err != nil {
		return nil, 0, err
	}
	return &fromStore{ReadCloser: db, in: in}, size, nil
}

// fromStore lets go of the store with the backup.
type fromStore struct {
	io.ReadCloser

	in bucket.Bucket
}

// Close lets go of both.
func (f *fromStore) Close() error { return errors.Join(f.ReadCloser.Close(), f.in.Close()) }

// Bump implements fleet.Restores.
func (*backups) Bump(revision, known int64) (int64, string) {
	b := backup.ChooseBump(revision, known)
	return b.By, b.Why
}
