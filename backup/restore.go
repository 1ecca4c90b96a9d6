package backup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/quorate/quorate/datadir"
)

// DefaultBump is added to the revision of a restored cluster where nobody knows which
// revisions its clients have seen: more than a busy cluster writes in years, and far
// below where numbers end. Why at all: a client that has seen a newer revision than the
// cluster has would miss every change until the cluster gets there.
const DefaultBump = 1_000_000_000

// bumpMargin is left for what was written after the last look at the old cluster.
const bumpMargin = 1_000_000

// ErrReplaced says that what is restored changed between two members.
var ErrReplaced = errors.New("it was replaced while it was restored")

// Bump says how far the revision is to be moved on.
type Bump struct {
	// By is added to the revision; 0 keeps it.
	By int64
	// Why in a sentence.
	Why string
}

// ChooseBump says how far the revision of a restored cluster must move on, so that it
// is above whatever clients of the old one have seen. Known is the newest revision that
// the old cluster is known to have had, 0 where that is unknown.
func ChooseBump(snapshot, known int64) Bump {
	if known == 0 {
		return Bump{By: DefaultBump, Why: "nobody knows which revisions clients have seen: a client that waits for a newer one than the cluster has would miss all changes until then"}
	}
	by := max(known-snapshot, 0) + bumpMargin
	return Bump{By: by, Why: fmt.Sprintf("the old cluster was at revision %d when it was last seen, %d after the backup, and clients may have seen some more", known, max(known-snapshot, 0))}
}

// RestoreOptions say what is restored, and to where.
type RestoreOptions struct {
	Origin Origin
	// Members to make a data directory for, at least one, each in a directory of its own.
	Members []RestoreMember
	// InitialCluster are the peer URLs of each member of the new cluster by its name.
	InitialCluster map[string][]string
	// Token of the new cluster; a fresh one where empty.
	Token string
	// Bump of the revision.
	Bump Bump
	// AllowNoHash takes a file copied from a data directory.
	AllowNoHash bool
	// DisarmCorrupt removes a CORRUPT alarm.
	DisarmCorrupt bool
	Progress      func(Progress)
	Logger        *slog.Logger
}

// RestoreMember is one data directory.
type RestoreMember struct {
	Name, Dir string
}

// Restore makes the data directories of members of a new cluster. Where one fails,
// those before it stay: they are whole. It reads the origin once for each.
func Restore(ctx context.Context, o RestoreOptions) ([]datadir.Restored, error) {
	if len(o.Members) == 0 {
		return nil, fmt.Errorf("%w: no member is named", ErrOptions)
	}
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	done := make([]datadir.Restored, 0, len(o.Members))
	for _, m := range o.Members {
		one, err := o.restore(ctx, m)
		if err != nil {
			return done, fmt.Errorf("member %s: %w", m.Name, err)
		}
		if len(done) > 0 && one.SHA256 != done[0].SHA256 {
			return done, fmt.Errorf("member %s: %s: %w: %s and %s hold different data: remove both, and restore again", m.Name, o.Origin, ErrReplaced, done[0].Dir, one.Dir)
		}
		// The others belong to the same cluster.
		o.Token = one.Token
		done = append(done, one)
	}
	return done, nil
}

func (o *RestoreOptions) restore(ctx context.Context, m RestoreMember) (done datadir.Restored, err error) {
	db, size, err := o.Origin.open(ctx)
	if err != nil {
		return done, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	o.Progress(Progress{Stage: StageRestore, Of: m.Name, Total: size})
	told := &telling{Reader: db, tell: func(n int64) {
		o.Progress(Progress{Stage: StageRestore, Of: m.Name, Done: n, Total: size})
	}}
	return datadir.Restore(ctx, datadir.RestoreOptions{
		Snapshot: told, Size: size, Path: o.Origin.String(), AllowNoHash: o.AllowNoHash, Dir: m.Dir, Name: m.Name,
		InitialCluster: o.InitialCluster, Token: o.Token, BumpRevision: o.Bump.By, DisarmCorrupt: o.DisarmCorrupt,
	})
}
