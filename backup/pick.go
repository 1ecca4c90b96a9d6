package backup

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/quorate/quorate/backup/catalog"
)

// Words that stand for the ID of a backup.
const (
	Latest       = "latest"
	LatestProven = "latest-proven"
)

var (
	// ErrNoBackup says that nothing is there of what is asked for.
	ErrNoBackup = errors.New("there is no such backup")
	// ErrUnread says that a manifest could not be read, so that nobody knows which is meant.
	ErrUnread = errors.New("a manifest could not be read")
	// ErrAmbiguous says that several backups, or those of several clusters, could be meant.
	ErrAmbiguous = errors.New("it is not clear which backup is meant")
)

// Pick finds the backup that is meant by an ID, the last eight digits of one, Latest or
// LatestProven. The latter two look at what is complete and was not begun after notAfter,
// unless that is zero, in the newest epoch that has one: what came before a reset is not
// what the cluster has now. Errors: ErrNoBackup; ErrUnread where one that is newer could
// not be looked at; and ErrAmbiguous, whose text has a line for each that could be meant.
func Pick(cat *catalog.Catalog, id string, notAfter time.Time) (*catalog.Entry, error) {
	if id == Latest || id == LatestProven {
		return pickLatest(cat, id == LatestProven, notAfter)
	}
	found := cat.Find(id)
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("%w: %s", ErrNoBackup, id)
	case 1:
		return &found[0], nil
	}
	lines := make([]string, 0, len(found))
	for i := range found {
		lines = append(lines, found[i].Ref.String())
	}
	return nil, fmt.Errorf("%w: %s is the ID of several:\n%s", ErrAmbiguous, id, strings.Join(lines, "\n"))
}

func pickLatest(cat *catalog.Catalog, proven bool, notAfter time.Time) (*catalog.Entry, error) {
	if len(cat.Entries) == 0 {
		return nil, ErrNoBackup
	}
	if err := ofOneCluster(cat); err != nil {
		return nil, err
	}
	of, what := catalog.Newest, "complete"
	if proven {
		of, what = catalog.NewestProven, "proven"
	}
	for _, lineage := range slices.Backward(cat.Lineages()) {
		if !notAfter.IsZero() {
			lineage = slices.DeleteFunc(slices.Clone(lineage), func(e catalog.Entry) bool { return e.Ref.Time.After(notAfter) })
		}
		e := of(lineage)
		for i := range lineage {
			// It may be the one: an older backup is not to be taken without a word.
			if u := &lineage[i]; u.State == catalog.Unknown && (e == nil || u.Ref.Compare(e.Ref) > 0) {
				return nil, fmt.Errorf("backup %s of %s: %w: %w", u.Ref.ID(), u.Ref.Cluster, ErrUnread, u.Err)
			}
		}
		if e != nil {
			return e, nil
		}
	}
	when := ""
	if !notAfter.IsZero() {
		when = " that was begun by " + notAfter.UTC().Format(time.RFC3339)
	}
	return nil, fmt.Errorf("%w: none of the %d of %s%s is %s", ErrNoBackup, len(cat.Entries), cat.Entries[0].Ref.Cluster, when, what)
}

// ofOneCluster refuses a catalog with several clusters.
func ofOneCluster(cat *catalog.Catalog) error {
	first := cat.Entries[0].Ref
	for i := range cat.Entries {
		if r := cat.Entries[i].Ref; r.Cluster != first.Cluster || r.ClusterID != first.ClusterID {
			return fmt.Errorf("%w: there are those of several clusters:\n%s", ErrAmbiguous, Describe(cat, nil))
		}
	}
	return nil
}

// Describe has a line for each lineage of a catalog. Which says how the lineage of a
// backup is named; nil names cluster, cluster ID and epoch.
func Describe(cat *catalog.Catalog, which func(catalog.Ref) string) string {
	if which == nil {
		which = func(r catalog.Ref) string {
			return fmt.Sprintf("%s, cluster ID %s, epoch %d", r.Cluster, r.ClusterID, r.Epoch)
		}
	}
	var lines []string
	for _, l := range cat.Lineages() {
		newest := "none of them complete"
		if n := catalog.Newest(l); n != nil {
			newest = "the newest of " + n.Ref.Time.Format(time.RFC3339)
		}
		backups := "backups"
		if len(l) == 1 {
			backups = "backup"
		}
		lines = append(lines, fmt.Sprintf("%s: %d %s, %s", which(l[0].Ref), len(l), backups, newest))
	}
	return strings.Join(lines, "\n")
}

// Open reads a backup as etcd streams a snapshot: the database, and its hash behind. Size
// is in bytes, 0 where it is not known before. What is read to its end without an error is
// what was stored. Errors: ErrPacked, ErrNoIdentity, ErrDelta, and those of the bucket or
// the file.
func (o Origin) Open(ctx context.Context) (db io.ReadCloser, size int64, err error) {
	db, size, err = o.open(ctx)
	if err == nil && o.Entry != nil {
		size += sha256.Size // a manifest counts the database alone
	}
	return db, size, err
}
