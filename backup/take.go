package backup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"

	"github.com/quorate/quorate/backup/bucket"
	"github.com/quorate/quorate/backup/catalog"
	"github.com/quorate/quorate/datadir"
	"github.com/quorate/quorate/etcd"
	"github.com/quorate/quorate/internal/backoff"
	"github.com/quorate/quorate/internal/version"
)

const (
	// catchUpTime is how long a member gets to apply what the leader has applied.
	catchUpTime  = 5 * time.Second
	catchUpPause = 20 * time.Millisecond
	// electionWait is how long a cluster may be without a leader, and electionLook how
	// often it is looked at meanwhile.
	electionWait = 10 * time.Second
	electionLook = 250 * time.Millisecond
)

// maxTries is how many members are asked before a backup is given up.
const maxTries = 3

var (
	// ErrOptions says that what was asked for makes no sense.
	ErrOptions = errors.New("the backup can't be taken so")
	// ErrDestinations says that not every destination has the backup.
	ErrDestinations = errors.New("not every destination has it")
)

// Destination is a store that a backup goes to.
type Destination struct {
	// Name of it in messages and results.
	Name   string
	Bucket bucket.Bucket
	// LockFor keeps the objects from being deleted by anybody, where the store has
	// object lock; 0 does not lock. Compliance has nobody shorten it.
	LockFor    time.Duration
	Compliance bool
}

// TakeOptions say what is backed up, and where to.
type TakeOptions struct {
	// Cluster as the catalog names it.
	Cluster catalog.Cluster
	// Access to it, and the ID it must have; 0 takes the first that answers.
	Access    etcd.Access
	ClusterID etcd.ID
	Wanted    Wanted
	// Destinations, at least one.
	Destinations []Destination
	// SpoolDir needs room for the database and what is stored of it; SpoolFloor bytes
	// stay free on its disk, 256 MiB if 0.
	SpoolDir   string
	SpoolFloor int64
	// Level of compression; zstd's fastest if 0.
	Level zstd.EncoderLevel
	// Recipients that it is encrypted for; none leaves it unencrypted.
	Recipients []Recipient
	// Policy that asked for it, as namespace/name.
	Policy   string
	Progress func(Progress)
	Logger   *slog.Logger
}

// Stage of a backup, a proof or a restore, as it is shown.
type Stage string

// The stages.
const (
	StageChoose   Stage = "choose"
	StageStream   Stage = "stream"
	StageCheck    Stage = "check"
	StageUpload   Stage = "upload"
	StageDownload Stage = "download"
	StageRestore  Stage = "restore"
	StageStart    Stage = "start"
	StageCompare  Stage = "compare"
	StageCommit   Stage = "commit"
)

// Progress is how far something is.
type Progress struct {
	Stage Stage
	// Of is the member or the destination it is about, or empty.
	Of string
	// Done and Total are bytes; Total is 0 where it is unknown.
	Done, Total int64
}

// Taken is a backup that was taken.
type Taken struct {
	// Source it came from, and Passed, the members that were tried before, each with
	// the reason.
	Source Source
	Passed []string
	// Snapshot is what the file holds; HashKV is its hash, made offline.
	Snapshot datadir.SnapshotInfo
	HashKV   catalog.HashKV
	// Written is what came of each destination.
	Written []Written
	// StreamTook is how long the member was read, Took how long all of it was.
	StreamTook, Took time.Duration
}

// Written is what came of one destination.
type Written struct {
	Destination string
	Ref         catalog.Ref
	// EpochReason says why its epoch is a new one, if it is.
	EpochReason string
	// Point is what was written; nil with Err.
	Point *catalog.Point
	Took  time.Duration
	Err   error
}

func (o *TakeOptions) check() error {
	switch {
	case len(o.Destinations) == 0:
		return fmt.Errorf("%w: no destination is named", ErrOptions)
	case len(o.Access.Endpoints) == 0:
		return fmt.Errorf("%w: no endpoint is named", ErrOptions)
	case o.SpoolDir == "":
		return fmt.Errorf("%w: no spool directory is named", ErrOptions)
	case o.Cluster.Name == "":
		return fmt.Errorf("%w: the cluster has no name", ErrOptions)
	}
	if o.SpoolFloor == 0 {
		o.SpoolFloor = spoolFloor
	}
	if o.Level == 0 {
		o.Level = zstd.SpeedFastest
	}
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// choose finds the members to read, best first. An election takes a second or two, during
// which nobody leads: that is waited out.
func (o *TakeOptions) choose(ctx context.Context, surveyor *etcd.Surveyor) (etcd.Survey, []Source, error) {
	for began := time.Now(); ; {
		survey := surveyor.Survey(ctx, o.ClusterID)
		sources, err := Choose(&survey, o.Wanted)
		if !errors.Is(err, ErrNoLeader) || time.Since(began) > electionWait || backoff.Sleep(ctx, electionLook) != nil {
			return survey, sources, err
		}
	}
}

// Take backs a cluster up into every destination. Where only some have it, Taken says
// which, beside an error that wraps ErrDestinations. What a destination holds counts
// as a backup only from when its manifest was written, which is the last thing.
func Take(ctx context.Context, o TakeOptions) (*Taken, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	began := time.Now()
	surveyor := etcd.NewSurveyor(o.Access)
	defer surveyor.Close()
	taken := &Taken{}
	o.Progress(Progress{Stage: StageChoose})
	for {
		survey, sources, err := o.choose(ctx, surveyor)
		if err != nil {
			return nil, fmt.Errorf("back up %s: %w", o.Cluster, joinPassed(err, taken.Passed))
		}
		from, ok := next(sources, taken.Passed)
		if !ok || len(taken.Passed) == maxTries {
			return nil, fmt.Errorf("back up %s: %w: %s", o.Cluster, ErrNoSource, strings.Join(taken.Passed, "; "))
		}
		again, err := o.takeFrom(ctx, surveyor, &survey, from, taken)
		taken.Took = time.Since(began)
		if !again {
			return taken, err
		}
		o.Logger.WarnContext(ctx, "back up from another member", slog.String("member", from.Name), slog.Any("error", err))
		taken.Passed = append(taken.Passed, passedName(from)+": "+err.Error())
	}
}

func passedName(s Source) string { return s.Name + " (" + s.ID.String() + ")" }

func next(sources []Source, passed []string) (Source, bool) {
	for _, s := range sources {
		tried := false
		for _, p := range passed {
			tried = tried || strings.HasPrefix(p, passedName(s)+": ")
		}
		if !tried {
			return s, true
		}
	}
	return Source{}, false
}

func joinPassed(err error, passed []string) error {
	if len(passed) == 0 {
		return err
	}
	return fmt.Errorf("%w (tried before: %s)", err, strings.Join(passed, "; "))
}

// takeFrom backs up from one member. Again says that another member may do better.
func (o *TakeOptions) takeFrom(ctx context.Context, s *etcd.Surveyor, survey *etcd.Survey, from Source, taken *Taken) (again bool, err error) {
	taken.Source = from
	if err = catchUp(ctx, s, survey, from); err != nil {
		return ctx.Err() == nil, err
	}
	spool, err := NewSpool(o.SpoolDir, o.SpoolFloor, from.Status.DBSize)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, spool.Close()) }()
	recipients, _ := opened(o.Recipients)
	p := packing{level: o.Level, recipients: recipients}
	began := time.Now()
	o.Progress(Progress{Stage: StageStream, Of: from.Name, Total: from.Status.DBSize})
	pack, err := spoolFrom(ctx, s, from, spool, p, func(done int64) {
		o.Progress(Progress{Stage: StageStream, Of: from.Name, Done: done, Total: from.Status.DBSize})
	})
	taken.StreamTook = time.Since(began)
	if err != nil {
		// A disk that is full here is full for every member.
		return ctx.Err() == nil && !errors.Is(err, ErrSpoolFull) && !errors.Is(err, ErrGrowing), err
	}
	defer pack.stop()
	info, err := position(ctx, spool.Path())
	if err != nil {
		return ctx.Err() == nil, err
	}
	at := catalog.Position{Revision: info.Revision}
	if leader := leaderOf(survey); leader != nil {
		if info.Revision < leader.Status.Revision {
			return true, fmt.Errorf("%w: its data is at revision %d, and the leader was at %d before it was read", ErrBehind, info.Revision, leader.Status.Revision)
		}
		// The leader's, since those in the file may be a little older on one member than
		// on another: etcd writes them only together with data.
		at.RaftTerm, at.RaftIndex = leader.Status.Term, leader.Status.AppliedIndex
	}
	d := &draft{
		TakeOptions: o, taken: taken, path: spool.Path(), size: info.Size, pack: pack, began: began, at: at,
		cluster: catalog.ID(survey.ClusterID), nonce: catalog.NewNonce(),
	}
	return d.publish(ctx)
}

// catchUp waits until a member has applied what the leader had when it was chosen: a
// follower learns up to a heartbeat later what is committed. A backup that is behind
// the one before it would look as if the data had been reset.
func catchUp(ctx context.Context, s *etcd.Surveyor, survey *etcd.Survey, from Source) error {
	leader := leaderOf(survey)
	if leader == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, catchUpTime)
	defer cancel()
	at := from.Status.AppliedIndex
	for at < leader.Status.AppliedIndex {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: it has applied %d entries, and the leader had %d %s ago", ErrBehind, at, leader.Status.AppliedIndex, catchUpTime)
		case <-time.After(catchUpPause): // a member tells nobody what it applies
		}
		for _, m := range s.Survey(ctx, survey.ClusterID).Members {
			if m.ID == from.ID && m.Answered {
				at = m.Status.AppliedIndex
			}
		}
	}
	return nil
}

// position reads how far the file goes, which is quick.
func position(ctx context.Context, path string) (datadir.Info, error) {
	db, err := datadir.OpenDB(ctx, path)
	if err != nil {
		return datadir.Info{}, err
	}
	return db.Info(), db.Close()
}

// draft is a backup that is spooled, and not yet one in any store.
type draft struct {
	*TakeOptions
	taken *Taken
	// path of the database, and its size in bytes.
	path    string
	size    int64
	pack    *packer
	began   time.Time
	at      catalog.Position
	cluster catalog.ID
	nonce   string
}

// publish checks the spooled file, whose hash comes from what packs it: its structure,
// every record, and its HashKV. Meanwhile it is packed to its end and uploaded. Only then
// are manifests written.
func (d *draft) publish(ctx context.Context) (again bool, err error) {
	group, groupCtx := errgroup.WithContext(ctx)
	taken := d.taken
	group.Go(func() error {
		d.Progress(Progress{Stage: StageCheck, Total: d.size})
		var checkErr error
		taken.Snapshot, checkErr = datadir.CheckSnapshot(groupCtx, d.path, datadir.CheckOptions{HashKV: true, Hash: func(ctx context.Context) (*datadir.SnapshotHash, error) {
			pack, packErr := d.pack.wait(ctx)
			return pack.hash, packErr
		}})
		hash := taken.Snapshot.HashKV
		taken.HashKV = catalog.HashKV{Hash: hash.Hash, Revision: hash.Revision, CompactRevision: hash.CompactRevision}
		if checkErr == nil {
			// Nobody reads it again: the stores may need its room.
			checkErr = os.Truncate(d.path, 0)
		}
		return checkErr
	})
	taken.Written = make([]Written, len(d.Destinations))
	for i, to := range d.Destinations {
		group.Go(func() error {
			start := time.Now()
			ref, reason, failed := d.upload(groupCtx, to)
			taken.Written[i] = Written{Destination: to.Name, Ref: ref, EpochReason: reason, Err: failed, Took: time.Since(start)}
			return nil // the others go on
		})
	}
	if err = group.Wait(); err != nil {
		if failed := d.pack.failed(); failed != nil {
			return ctx.Err() == nil, failed
		}
		// What was uploaded has no manifest: it is no backup, and is collected later.
		return ctx.Err() == nil, fmt.Errorf("what %s sent: %w", taken.Source.Name, err)
	}
	var failed []error
	for i, to := range d.Destinations {
		w := &taken.Written[i]
		if w.Err == nil {
			w.Err = d.commit(ctx, to, w)
		}
		if w.Err != nil {
			failed = append(failed, fmt.Errorf("destination %s: %w", to.Name, w.Err))
		}
	}
	if len(failed) > 0 {
		return false, fmt.Errorf("back up %s: %w (%d of %d): %w", d.Cluster, ErrDestinations, len(d.Destinations)-len(failed), len(d.Destinations), errors.Join(failed...))
	}
	return false, nil
}

// upload stores the packed file below the directory of its point. Reason says why its
// epoch is a new one, if it is.
func (d *draft) upload(ctx context.Context, to Destination) (ref catalog.Ref, reason string, err error) {
	cat, err := ReadCatalog(ctx, to.Bucket, catalog.ReadOptions{Filter: catalog.Filter{Clusters: []catalog.Cluster{d.Cluster}, ClusterID: d.cluster}})
	if err != nil {
		return ref, "", err
	}
	epoch, reason := catalog.NextEpoch(cat.Entries, d.Cluster, d.cluster, d.at)
	ref = catalog.Ref{
		Lineage: catalog.Lineage{Cluster: d.Cluster, ClusterID: d.cluster, Epoch: epoch},
		Time:    d.began.UTC().Truncate(time.Second), Revision: d.at.Revision, Nonce: d.nonce,
	}
	name, err := catalog.Layout{}.File(ref, d.dataFile())
	if err != nil {
		return ref, reason, err
	}
	pack, err := d.pack.wait(ctx)
	if err != nil {
		return ref, reason, err
	}
	f, err := os.Open(pack.path)
	if err != nil {
		return ref, reason, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	d.Progress(Progress{Stage: StageUpload, Of: to.Name, Total: pack.size})
	opts := to.put(pack.size, d.began)
	opts.Yield = len(d.Destinations) == 1 // two are to have a copy each
	_, err = to.Bucket.Put(ctx, name, f, opts)
	d.Progress(Progress{Stage: StageUpload, Of: to.Name, Done: pack.size, Total: pack.size})
	return ref, reason, err
}

func (o *TakeOptions) dataFile() string {
	return catalog.DataFile(catalog.CompressionZstd, len(o.Recipients) > 0)
}

func (d Destination) put(size int64, began time.Time) bucket.PutOptions {
	opts := bucket.PutOptions{Size: size, Compliance: d.Compliance}
	if d.LockFor > 0 {
		opts.RetainUntil = began.Add(d.LockFor)
	}
	return opts
}

// commit writes the manifest, which makes a backup of what was uploaded.
func (d *draft) commit(ctx context.Context, to Destination, w *Written) error {
	pack, err := d.pack.wait(ctx)
	if err != nil {
		return err
	}
	from, info := d.taken.Source, d.taken.Snapshot
	p := catalog.Point{
		Namespace: d.Cluster.Namespace, Name: d.Cluster.Name, ClusterID: w.Ref.ClusterID,
		Epoch: w.Ref.Epoch, EpochReason: w.EpochReason, Nonce: w.Ref.Nonce,
		Source:      catalog.Source{MemberID: catalog.ID(from.ID), MemberName: from.Name, Role: string(from.Role)},
		EtcdVersion: from.Status.Version, StorageVersion: info.StorageVersion,
		Revision: info.Revision, CompactRevision: info.CompactRevision(), RaftIndex: d.at.RaftIndex, RaftTerm: d.at.RaftTerm,
		Started: d.began, Ended: time.Now(), Object: d.dataFile(),
		DBSize: info.Size, StoredSize: pack.size, DBSHA256: info.SHA256, StoredSHA256: pack.sha256,
		HashKV: d.taken.HashKV, Counts: catalog.Counts{Keys: info.Keys, Revisions: info.Records, Leases: int64(info.Leases)},
		AuthEnabled: info.AuthEnabled, Compression: catalog.CompressionZstd, Tool: version.Version(), Policy: d.Policy,
	}
	if _, fingerprints := opened(d.Recipients); len(fingerprints) > 0 {
		p.Encryption = &catalog.Encryption{Method: catalog.EncryptionAge, Recipients: fingerprints}
	}
	opts := to.put(0, d.began)
	if !opts.RetainUntil.IsZero() {
		p.LockedUntil = &opts.RetainUntil
	}
	d.Progress(Progress{Stage: StageCommit, Of: to.Name})
	if err = catalog.WritePoint(ctx, objects{bucket: to.Bucket, put: opts}, catalog.Layout{}, p); err != nil {
		return err
	}
	p.Format = catalog.PointFormat
	w.Point = &p
	return nil
}
