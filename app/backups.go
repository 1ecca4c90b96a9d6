package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/backup"
	"github.com/quorate/quorate/backup/bucket"
	points "github.com/quorate/quorate/backup/catalog"
	"github.com/quorate/quorate/etcd"
	"github.com/quorate/quorate/fleet"
	"github.com/quorate/quorate/internal/version"
	"github.com/quorate/quorate/release"
)

// oldestProvable is the oldest minor of etcd 3 whose data the linked etcd is known to
// serve as it is.
const oldestProvable = 5

// errNoEtcd: no etcd here serves the data of a backup.
var errNoEtcd = errors.New("no etcd here serves the data of this backup")

// backups gives package backup the shape that the fleet wants. It implements
// fleet.Backups.
type backups struct {
	// spool and scratch are directories of the server's.
	spool, scratch string
	releases       etcdReleases
	// missing says how an etcd is added; %s is its version.
	missing string
	log     *slog.Logger

	mu sync.Mutex
	// read is what was fetched of each store: manifests never change.
	read map[string]*points.Cache
}

// etcdReleases is the catalogue of releases.
type etcdReleases interface {
	Resolve(version, platform string) (v1alpha1.ReleaseRef, error)
	executable(ctx context.Context, digest string) (string, error)
}

func newBackups(p paths, releases etcdReleases, log *slog.Logger) (*backups, error) {
	dir, err := filepath.Abs(p.server())
	if err != nil {
		return nil, err
	}
	return &backups{
		spool: filepath.Join(dir, "spool"), scratch: filepath.Join(dir, "scratch"), releases: releases, log: log, read: map[string]*points.Cache{},
		missing: "add etcd %s with `quorate release add`",
	}, nil
}

// open makes a store ready.
func (b *backups) open(ctx context.Context, s fleet.BackupStore) (bucket.Bucket, error) {
	config, err := bucket.Parse(s.URL)
	if err != nil {
		return nil, fmt.Errorf("destination %s: %w", s.Name, err)
	}
	credentials := bucket.Environment()
	switch {
	case s.Credentials != nil:
		credentials = bucket.Explicit(s.Credentials)
	case s.From == v1alpha1.CredentialsInstance:
		credentials = bucket.Instance()
	}
	opened, err := bucket.Open(ctx, config, bucket.Options{Credentials: credentials, UploadRate: s.UploadRate, SpoolDir: b.spool, Log: b.log})
	if err != nil {
		return nil, fmt.Errorf("destination %s: %w", s.Name, err)
	}
	return opened, nil
}

// with opens a store for as long as use takes.
func (b *backups) with(ctx context.Context, s fleet.BackupStore, use func(bucket.Bucket) error) error {
	opened, err := b.open(ctx, s)
	if err != nil {
		return err
	}
	return errors.Join(use(opened), opened.Close())
}

// Take implements fleet.Backups. A store that can't even be opened costs only itself.
func (b *backups) Take(ctx context.Context, o fleet.BackupOrder) (fleet.BackupTaken, error) {
	recipients, err := backup.ParseRecipients(o.Recipients)
	if err != nil {
		return fleet.BackupTaken{}, err
	}
	take := backup.TakeOptions{
		Cluster: clusterName(o.BackupsOf), Access: o.Access, ClusterID: o.ClusterID,
		Wanted:   backup.Wanted{Member: o.Member, WithoutLeader: o.WithoutLeader},
		SpoolDir: b.spool, Level: levels[o.Compression], Recipients: recipients,
		Policy: o.Policy, Progress: inWords(o.Progress), Logger: b.log,
	}
	var closed []fleet.BackupWritten
	defer func() {
		for _, d := range take.Destinations {
			_ = d.Bucket.Close() // what it stored was compared already
		}
	}()
	for _, s := range o.Stores {
		opened, openErr := b.open(ctx, s)
		if openErr != nil {
			closed = append(closed, fleet.BackupWritten{Store: s.Name, Err: openErr})
			continue
		}
		take.Destinations = append(take.Destinations, backup.Destination{Name: s.Name, Bucket: opened, LockFor: s.LockFor, Compliance: s.Compliance})
	}
	if len(take.Destinations) == 0 {
		return fleet.BackupTaken{}, written(closed)
	}
	taken, err := backup.Take(ctx, take)
	if err != nil && !errors.Is(err, backup.ErrDestinations) {
		return fleet.BackupTaken{}, err
	}
	out := fleet.BackupTaken{
		Source:      v1alpha1.BackupSource{Member: taken.Source.Name, Role: string(taken.Source.Role), Why: taken.Source.Why},
		EtcdVersion: taken.Source.Status.Version, ClusterID: taken.Source.Status.ClusterID, Revision: taken.Snapshot.Revision,
		DBSize: taken.Snapshot.Size, Keys: taken.Snapshot.Keys, Took: taken.Took, Written: closed,
	}
	any := false
	for _, w := range taken.Written {
		to := fleet.BackupWritten{Store: w.Destination, Err: w.Err}
		if w.Err == nil && w.Point != nil {
			any = true
			to.PointID, out.StoredSize = w.Ref.ID(), w.Point.StoredSize
			if to.Dir, err = (points.Layout{}).Dir(w.Ref); err != nil {
				return out, err
			}
		}
		out.Written = append(out.Written, to)
	}
	if !any {
		return fleet.BackupTaken{}, written(out.Written)
	}
	return out, nil
}

// written is the error of a backup that no store has.
func written(all []fleet.BackupWritten) error {
	var errs []error
	for _, w := range all {
		errs = append(errs, w.Err)
	}
	return fmt.Errorf("no destination has it: %w", errors.Join(errs...))
}

var levels = map[v1alpha1.BackupCompression]zstd.EncoderLevel{
	v1alpha1.CompressionFastest: zstd.SpeedFastest,
	v1alpha1.CompressionDefault: zstd.SpeedDefault,
	v1alpha1.CompressionBetter:  zstd.SpeedBetterCompression,
}

func clusterName(of fleet.BackupsOf) points.Cluster {
	return points.Cluster{Namespace: of.Namespace, Name: of.Cluster}
}

// stages in words.
var stages = map[backup.Stage]string{
	backup.StageChoose:   "a member is being chosen",
	backup.StageStream:   "its snapshot is being read from",
	backup.StageCheck:    "what was read is being checked",
	backup.StageUpload:   "it is being stored in",
	backup.StageDownload: "it is being read back",
	backup.StageRestore:  "it is being restored",
	backup.StageStart:    "etcd is being started on the restored copy",
	backup.StageCompare:  "the restored copy is being compared",
	backup.StageCommit:   "it is being noted",
}

func inWords(tell func(string)) func(backup.Progress) {
	if tell == nil {
		return nil
	}
	return func(p backup.Progress) {
		text := strings.TrimSpace(stages[p.Stage] + " " + p.Of)
		if p.Total > 0 && p.Done > 0 {
			text += fmt.Sprintf(", %d of %d MiB", p.Done>>20, p.Total>>20)
		}
		tell(text)
	}
}

// Prove implements fleet.Backups.
func (b *backups) Prove(ctx context.Context, o fleet.BackupTrial) (v fleet.BackupVerdict, err error) {
	keys, err := identities(o.Identity)
	if err != nil {
		return v, err
	}
	err = b.with(ctx, o.Store, func(in bucket.Bucket) error {
		var proveErr error
		v, proveErr = b.proveIn(ctx, o, in, keys)
		return proveErr
	})
	return v, err
}

func (b *backups) proveIn(ctx context.Context, o fleet.BackupTrial, in bucket.Bucket, keys []age.Identity) (v fleet.BackupVerdict, err error) {
	entries, err := b.entries(ctx, o.BackupsOf, o.Store, in)
	if err != nil {
		return v, err
	}
	i := slices.IndexFunc(entries, func(e points.Entry) bool { return e.Ref.ID() == o.PointID })
	switch {
	case i < 0:
		return v, fmt.Errorf("%s: the store does not list it: it was deleted meanwhile", o.PointID)
	case entries[i].Point == nil:
		return v, fmt.Errorf("%s: it has no manifest that can be read: %w", o.PointID, errors.Join(entries[i].Err, backup.ErrUnproven))
	}
	command, err := b.etcdFor(ctx, entries[i].Point.EtcdVersion)
	if err != nil {
		return v, err
	}
	proof, err := backup.Prove(ctx, &entries[i], backup.ProveOptions{
		Bucket: in, Identities: keys, ScratchDir: b.scratch, Etcd: command, Progress: inWords(o.Progress), Logger: b.log,
	})
	if errors.Is(err, backup.ErrNoIdentity) {
		err = fmt.Errorf("%w: %w", fleet.ErrHopeless, err)
	}
	if err != nil {
		return v, err
	}
	return fleet.BackupVerdict{Verified: proof.Result == points.Verified, Reason: proof.Reason, At: proof.Ended, Took: restoreTook(proof)}, nil
}

func restoreTook(p *points.Proof) time.Duration {
	d := p.Durations
	return time.Duration((d.Download + d.Restore + d.Start) * float64(time.Second))
}

// etcdFor finds an etcd for the data of that version: that very release, or the one in
// this binary. One that is too old or too new would fail on a good backup.
func (b *backups) etcdFor(ctx context.Context, wanted string) (backup.EtcdCommand, error) {
	platform := release.HostPlatform()
	for _, v := range []string{wanted, version.Etcd()} {
		if v != wanted && !provable(wanted) {
			return backup.EtcdCommand{}, fmt.Errorf("%w (%w): it is of etcd %s, and etcd %s runs data of 3.%d to its own minor: %s",
				errNoEtcd, fleet.ErrHopeless, wanted, version.Etcd(), oldestProvable, fmt.Sprintf(b.missing, wanted))
		}
		ref, err := b.releases.Resolve(v, platform)
		if err != nil && v == wanted && v != version.Etcd() {
			continue
		}
		if err != nil {
			return backup.EtcdCommand{}, err
		}
		path, err := b.releases.executable(ctx, ref.Digest)
		if err != nil {
			return backup.EtcdCommand{}, err
		}
		if path, err = filepath.Abs(path); err != nil {
			return backup.EtcdCommand{}, err
		}
		return backup.EtcdCommand{Path: path, Name: "etcd", Version: v}, nil
	}
	return backup.EtcdCommand{}, errNoEtcd
}

// provable reports whether the linked etcd serves data of that version.
func provable(v string) bool {
	return etcd.Minor(v) >= oldestProvable && etcd.Minor(v) <= etcd.Minor(version.Etcd())
}

// entries of a cluster in a store.
func (b *backups) entries(ctx context.Context, of fleet.BackupsOf, s fleet.BackupStore, in bucket.Bucket) ([]points.Entry, error) {
	b.mu.Lock()
	cache := b.read[s.URL]
	if cache == nil {
		cache = &points.Cache{}
		b.read[s.URL] = cache
	}
	b.mu.Unlock()
	cat, err := backup.ReadCatalog(ctx, in, points.ReadOptions{
		Filter: points.Filter{Clusters: []points.Cluster{clusterName(of)}, ClusterID: points.ID(of.ClusterID)}, Cache: cache,
	})
	if err != nil {
		return nil, err
	}
	return cat.Entries, nil
}

// Holds implements fleet.Backups.
func (b *backups) Holds(ctx context.Context, of fleet.BackupsOf, s fleet.BackupStore) (h fleet.BackupHoldings, err error) {
	err = b.with(ctx, s, func(in bucket.Bucket) error {
		entries, readErr := b.entries(ctx, of, s, in)
		h = holdings(entries)
		return readErr
	})
	return h, err
}

// holdings sums entries up. A damaged backup is none.
func holdings(entries []points.Entry) fleet.BackupHoldings {
	var h fleet.BackupHoldings
	now := time.Now()
	for i := range entries {
		e := &entries[i]
		if e.State != points.Complete || e.Verdict() == points.Failed {
			continue
		}
		h.Points++
		one := &fleet.HeldBackup{
			PointID: e.Ref.ID(), Policy: e.Point.Policy, At: e.Point.Started, StoredSize: e.Point.StoredSize, Took: e.Point.Ended.Sub(e.Point.Started),
		}
		if one.Succeeds(h.Newest, now) {
			h.Newest = one
		}
		if e.Verdict() == points.Proven && one.Succeeds(h.Proven, now) {
			one.ProofAt, one.RestoreTook = e.Proofs[0].Proof.Ended, restoreTook(e.Proofs[0].Proof)
			h.Proven = one
		}
	}
	return h
}

// Prune implements fleet.Backups. What another policy took, or a person, stays, as do
// the backups of another cluster ID.
func (b *backups) Prune(ctx context.Context, o fleet.BackupPruning) (p fleet.BackupPruned, err error) {
	policy, err := policyOf(o)
	if err != nil || o.ClusterID == 0 {
		return p, err
	}
	err = b.with(ctx, o.Store, func(in bucket.Bucket) error {
		var pruneErr error
		p, pruneErr = b.pruneIn(ctx, o, in, policy)
		return pruneErr
	})
	return p, err
}

func (b *backups) pruneIn(ctx context.Context, o fleet.BackupPruning, in bucket.Bucket, policy points.Policy) (p fleet.BackupPruned, err error) {
	entries, err := b.entries(ctx, o.BackupsOf, o.Store, in)
	if err != nil {
		return p, err
	}
	if p.Holdings = holdings(entries); policy.Empty() {
		return p, nil
	}
	decisions, err := policy.Decide(entries, points.Situation{
		Now:    time.Now(),
		Locked: func(e *points.Entry) bool { return e.Point != nil && e.Point.Policy != o.Policy },
	})
	if err != nil {
		return p, err
	}
	pruned, err := backup.Prune(ctx, in, decisions, points.PruneOptions{DryRun: o.DryRun, Now: time.Now()})
	if pruned == nil {
		return p, err
	}
	gone := points.Deleted
	if o.DryRun {
		gone = points.WouldDelete
	}
	p.Deleted, p.Bytes = pruned.Count(gone)
	p.Locked, _ = pruned.Count(points.Locked)
	for _, step := range pruned.Steps {
		if step.Outcome == gone {
			p.PointIDs = append(p.PointIDs, step.Ref.ID())
		}
	}
	if p.Deleted == 0 || o.DryRun {
		return p, err
	}
	left, readErr := b.entries(ctx, o.BackupsOf, o.Store, in)
	if readErr == nil {
		p.Holdings = holdings(left)
	}
	return p, errors.Join(err, readErr)
}

func policyOf(o fleet.BackupPruning) (points.Policy, error) {
	r := o.Retention
	p := points.Policy{
		KeepLast: int(r.KeepLast), Hourly: int(r.Hourly), Daily: int(r.Daily), Weekly: int(r.Weekly), Monthly: int(r.Monthly), Yearly: int(r.Yearly),
		Zone: o.Zone, AwaitProof: o.AwaitProof,
	}
	if r.KeepWithin != "" {
		var err error
		if p.KeepWithin, err = time.ParseDuration(r.KeepWithin); err != nil {
			return p, fmt.Errorf("retention: keepWithin: %w", err)
		}
	}
	return p, nil
}
