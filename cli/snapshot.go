package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/backup"
	"github.com/quorate/quorate/backup/bucket"
	"github.com/quorate/quorate/backup/catalog"
	"github.com/quorate/quorate/datadir"
	"github.com/quorate/quorate/etcd"
	"github.com/quorate/quorate/inspect"
)

// snapshotReport is what a whole snapshot holds.
type snapshotReport struct {
	File            string   `json:"file"`
	Error           string   `json:"error,omitempty"`
	SHA256          string   `json:"sha256,omitempty"`
	HashVerified    bool     `json:"hashVerified"`
	Size            int64    `json:"size"`
	Revision        int64    `json:"revision"`
	CompactRevision int64    `json:"compactRevision"`
	Keys            int64    `json:"keys"`
	Records         int64    `json:"records"`
	Leases          int      `json:"leases"`
	Users           int      `json:"users"`
	Roles           int      `json:"roles"`
	AuthEnabled     bool     `json:"authEnabled"`
	RaftIndex       uint64   `json:"raftIndex"`
	RaftTerm        uint64   `json:"raftTerm"`
	StorageVersion  string   `json:"storageVersion,omitempty"`
	Members         []string `json:"members,omitempty"`
	Alarms          []string `json:"alarms,omitempty"`
	Seconds         float64  `json:"seconds"`
}

func reportOf(file string, i datadir.SnapshotInfo) snapshotReport {
	r := snapshotReport{
		File: file, SHA256: i.SHA256, HashVerified: i.Verified, Size: i.Size, Revision: i.Revision, CompactRevision: i.CompactRevision(), Keys: i.Keys,
		Records: i.Records, Leases: i.Leases, Users: i.Users, Roles: i.Roles, AuthEnabled: i.AuthEnabled, RaftIndex: i.ConsistentIndex, RaftTerm: i.Term,
		StorageVersion: i.StorageVersion, Alarms: alarmNames(i.Alarms), Seconds: i.Took.Seconds(),
	}
	for _, m := range i.Members {
		text := m.Name + " (" + etcd.ID(m.ID).String() + ") " + strings.Join(m.PeerURLs, ",")
		if m.Learner {
			text += ", learner"
		}
		r.Members = append(r.Members, text)
	}
	return r
}

func snapshotCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "snapshot",
		Short: "Check and hash snapshots of etcd, without an etcd",
		Long: `Work on files that hold a snapshot: as etcdctl saved it, a full snapshot of
etcd-backup-restore, or the data of a backup, packed or not. A file may also be an
object of a store, named by its URL, such as
s3://bucket/etcd/nightly.db?region=eu-west-1.`,
		Example: `  quorate snapshot check playground.db
  quorate snapshot hash playground.db`,
		Args: argsBetween(0, 0, ""),
		RunE: runGroup,
	}
	cmd.AddCommand(snapshotCheckCommand(e), snapshotHashCommand(e))
	return cmd
}

func snapshotCheckCommand(e *env) *cobra.Command {
	var s storeFlags
	var allowNoHash bool
	var output string
	cmd := &cobra.Command{
		Use:   "check FILE...",
		Short: "Find out whether a snapshot is whole, and what it holds",
		Long: `Read a snapshot to its end: its SHA-256, the structure of its pages, and every
record. "etcdutl snapshot status" takes a file for good whose end is missing, or
in which a byte has changed; this does not.

A database that was copied from a data directory has no hash behind it, so that
nothing says whether its content is what etcd wrote; it is refused without
--allow-no-hash. A packed file is unpacked in --spool-dir, and an object of a
store is fetched to there.

The exit code is 14 when a file is damaged or is no snapshot.`,
		Example: `  quorate snapshot check playground.db
  quorate snapshot check playground.db -o json`,
		Args: argsBetween(1, -1, "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(cmd, output, backupForms...); err != nil {
				return err
			}
			return e.snapshotCheck(cmd, args, &s, allowNoHash, output)
		},
	}
	cmd.Flags().BoolVar(&allowNoHash, "allow-no-hash", false, "take a database that was copied from a data directory")
	snapshotFlags(cmd, &s)
	outputFlag(cmd, &output, backupForms...)
	return cmd
}

func snapshotFlags(cmd *cobra.Command, s *storeFlags) {
	s.bind(cmd)
	f := cmd.Flags()
	f.StringVar(&s.spoolDir, "spool-dir", "", "directory where a packed file is unpacked, and where an object is fetched to (default: "+spoolName+" in the data directory)")
	f.StringVar(&s.identityFile, "identity-file", "", "file with the age identity that opens encrypted files")
	_ = cmd.MarkFlagDirname("spool-dir") // the command has that flag
}

func (e *env) snapshotCheck(cmd *cobra.Command, files []string, s *storeFlags, allowNoHash bool, form string) error {
	reports := make([]snapshotReport, 0, len(files))
	var errs []error
	for _, file := range files {
		info, err := e.checkOne(cmd, file, s, allowNoHash)
		switch {
		case err == nil:
			reports = append(reports, reportOf(file, info))
			continue
		case cmd.Context().Err() != nil:
			return err
		}
		errs = append(errs, err)
		reports = append(reports, snapshotReport{File: file, Error: err.Error()})
	}
	err := e.printChecked(form, reports, func() {
		for i := range reports {
			if r := &reports[i]; r.Error == "" {
				e.printf("%s is whole\n", e.painted(green, "✓ "+r.File))
				e.printSnapshot(r)
			}
		}
	})
	if err != nil {
		return err
	}
	return errors.Join(errs...)
}

// damaged tells what is wrong with a snapshot from what is wrong with the way to it.
func damaged(err error) bool {
	for _, its := range []error{
		datadir.ErrEmpty, datadir.ErrTruncated, datadir.ErrAltered, datadir.ErrNotDatabase, datadir.ErrNotEtcd, datadir.ErrStructure, datadir.ErrNoHash, backup.ErrPacked, backup.ErrDelta,
		catalog.ErrDamaged, catalog.ErrIncomplete, bucket.ErrCorrupt,
	} {
		if errors.Is(err, its) {
			return true
		}
	}
	return false
}

func (e *env) checkOne(cmd *cobra.Command, file string, s *storeFlags, allowNoHash bool) (info datadir.SnapshotInfo, err error) {
	done := e.slowly("reading " + file)
	defer done()
	if !strings.Contains(file, schemeMark) {
		info, err = datadir.CheckSnapshot(cmd.Context(), file, datadir.CheckOptions{AllowNoHash: allowNoHash})
		if !errors.Is(err, datadir.ErrNotDatabase) {
			return info, err
		}
	}
	local, fetchErr := e.unpacked(cmd, file, s)
	if fetchErr != nil {
		return info, moreTelling(err, fetchErr)
	}
	if info = local.Checked; !info.Verified && !allowNoHash {
		err = fmt.Errorf("%s: %w: it was stored without the hash that etcd sends; allow a database without a hash", file, datadir.ErrNoHash)
	} else {
		err = nil
	}
	return info, errors.Join(err, local.Close())
}

// moreTelling is the error that says more: that of unpacking, unless nothing was packed.
// Direct is nil for what is not a file.
func moreTelling(direct, unpacking error) error {
	if direct != nil && errors.Is(unpacking, datadir.ErrNotDatabase) {
		return direct
	}
	return unpacking
}

// unpacked brings a file that is packed, or an object, to the spool. Close it.
func (e *env) unpacked(cmd *cobra.Command, file string, s *storeFlags) (_ *backup.Local, err error) {
	spool, err := e.spool(s)
	if err != nil {
		return nil, err
	}
	identities, err := readIdentities(s.identityFile)
	if err != nil {
		return nil, err
	}
	o := origin{Origin: backup.Origin{Identities: identities}}
	defer o.close()
	if err = e.snapshotOf(cmd, &o.Origin, file, s, spool); err != nil {
		return nil, err
	}
	return backup.Fetch(cmd.Context(), o.Origin, spool, 0)
}

func (e *env) printSnapshot(r *snapshotReport) {
	e.fact("holds", fmt.Sprintf("%s and %s at revision %d, %s; compacted at %d", plural64(r.Keys, "key", "keys"), plural(r.Leases, "lease", "leases"),
		r.Revision, plural64(r.Records, "record", "records"), r.CompactRevision))
	e.fact("size", inspect.Size(r.Size))
	hash := "it stands behind the database, too"
	if !r.HashVerified {
		hash = "none stands behind the database to compare with"
	}
	e.fact("sha256", r.SHA256+"; "+hash)
	e.fact("raft", fmt.Sprintf("index %d, term %d", r.RaftIndex, r.RaftTerm))
	for _, m := range r.Members {
		e.fact("member", m)
	}
	if r.AuthEnabled {
		e.fact("auth", fmt.Sprintf("is on: %s, %s", plural(r.Users, "user", "users"), plural(r.Roles, "role", "roles")))
	}
	for _, a := range r.Alarms {
		e.fact("alarm", a)
	}
}

// snapshotHash is etcd's hash of a snapshot's keys.
type snapshotHash struct {
	File            string `json:"file"`
	Hash            uint32 `json:"hash"`
	Revision        int64  `json:"revision"`
	CompactRevision int64  `json:"compactRevision"`
}

func snapshotHashCommand(e *env) *cobra.Command {
	var s storeFlags
	var rev int64
	var output string
	cmd := &cobra.Command{
		Use:   "hash FILE",
		Short: "Compute etcd's hash of the keys in a snapshot",
		Long: `Compute HashKV as an etcd that runs on the snapshot answers it, without starting
one. It is worth comparing with "etcdctl endpoint hashkv --rev REVISION" of a
cluster that was compacted at the same revision.

FILE may also be member/snap/db of a stopped member, or the URL of an object.`,
		Example: `  quorate snapshot hash playground.db
  quorate snapshot hash playground.db --rev 2 -o json`,
		Args: argsBetween(1, 1, "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(cmd, output, backupForms...); err != nil {
				return err
			}
			if rev < 0 {
				return usagef(cmd, "--rev is %d: give a revision above 0", rev)
			}
			return e.snapshotHash(cmd, args[0], rev, &s, output)
		},
	}
	cmd.Flags().Int64Var(&rev, "rev", 0, "up to this revision (default: the newest)")
	snapshotFlags(cmd, &s)
	outputFlag(cmd, &output, backupForms...)
	return cmd
}

func (e *env) snapshotHash(cmd *cobra.Command, file string, rev int64, s *storeFlags, form string) (err error) {
	ctx := cmd.Context()
	done := e.slowly("reading " + file)
	defer done()
	var db *datadir.DB
	stored := strings.Contains(file, schemeMark)
	if !stored {
		db, err = datadir.OpenDB(ctx, file)
	}
	switch {
	case stored, errors.Is(err, datadir.ErrNotDatabase):
		local, unpackErr := e.unpacked(cmd, file, s)
		if unpackErr != nil {
			return moreTelling(err, unpackErr)
		}
		defer func() { err = errors.Join(err, local.Close()) }()
		db = local.DB
	case err != nil:
		return err
	default:
		defer func() { err = errors.Join(err, db.Close()) }()
	}
	h, err := db.HashKV(ctx, rev)
	if err != nil {
		return err
	}
	done()
	out := snapshotHash{file, h.Hash, h.Revision, h.CompactRevision}
	return e.printChecked(form, out, func() {
		e.printf("%d at revision %d, compacted at %d\n", h.Hash, h.Revision, max(h.CompactRevision, 0))
	})
}
