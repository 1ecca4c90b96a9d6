package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/backup"
	"github.com/quorate/quorate/backup/catalog"
	"github.com/quorate/quorate/datadir"
	"github.com/quorate/quorate/etcd"
)

const (
	// aloneName and alonePeer are etcd's defaults, for a cluster of one member.
	aloneName = "default"
	alonePeer = "http://localhost:2380"
	bumpAuto  = "auto"
	// affordable is the largest database whose keys a dry run reads, in bytes.
	affordable = 512 << 20
)

// restoreOptions are the flags of `quorate restore`.
type restoreOptions struct {
	target   doctorOptions
	store    storeFlags
	pick     pickFlags
	snapshot string

	toDir          string
	members        []string
	initialCluster string
	token          string
	bump           string
	known          int64
	allowNoHash    bool
	disarm         bool
	dryRun         bool
	output         string
}

// restorePlan is what is to be restored, and how.
type restorePlan struct {
	opts backup.RestoreOptions
	from *origin
	// local is the fetched backup, where it had to be looked into before; else nil.
	local *backup.Local
	// revision of the backup; 0 where it is not known before.
	revision int64
	// old is the cluster that was asked what would be lost; nil if none was named.
	old    *clusterAccess
	survey etcd.Survey
	// elsewhere are the members that are not made here.
	elsewhere []string
}

func restoreCommand(e *env) *cobra.Command {
	var o restoreOptions
	cmd := &cobra.Command{
		Use:   "restore (URL ID | --snapshot FILE|URL) (--to-dir DIR | --member NAME=DIR...)",
		Short: "Make data directories for a new cluster from a backup or a snapshot",
		Long: `Make the data directories of a new cluster from a backup in a store, a snapshot
that etcdctl saved, or a full snapshot of etcd-backup-restore, packed or not, in a
file or in a store. The data is checked while it is written; a directory is whole,
or it is not there. A directory that holds anything is refused. The flags to start
etcd with are printed.

One member: --to-dir. Several: --initial-cluster, and --member NAME=DIR for each
that is made on this machine. Where other machines make the others, give all of
them the same --token and --bump-revision: they are printed, too.

The new cluster has other IDs than the old one. Its revision is moved on, so that
it is above whatever clients of the old cluster have seen; else those that wait
for a newer revision, such as Kubernetes' informers, would miss all changes until
then. By how much: a thousand million, or, where the old cluster is named by
--endpoints or -c, or its revision by --known-revision, as much as is needed and a
million more. --bump-revision chooses another number; 0 keeps the revision.

--dry-run says what the backup holds, what would be made, and, with the old
cluster named, what would be lost. Never start a restored cluster while clients
can still reach the old one.

Where a server runs the cluster, "quorate restore cluster" has it do all of this,
on all hosts, for a new cluster or in place of what one holds.`,
		Example: `  quorate restore ./backups latest-proven --to-dir ./restored
  quorate restore ./backups latest -c playground --to-dir ./restored --dry-run
  quorate restore ./backups latest --initial-cluster a=http://127.0.0.1:12380,b=http://127.0.0.1:22380 --member a=./a --member b=./b
  quorate restore --snapshot playground.db --to-dir ./from-file --bump-revision 0
  quorate restore --snapshot s3://backups/shoot/v2/Full-00000000-00012345-1700000000.gz?region=eu-west-1 --to-dir ./from-object
  quorate restore s3://backups/etcd?region=eu-west-1 latest-proven --name default/prod --initial-cluster a=https://10.0.0.1:2380,b=https://10.0.0.2:2380,c=https://10.0.0.3:2380 --member a=/var/lib/etcd --token restored-2026-11-21`,
		Args:              originArgs(&o.snapshot, 0, "URL and ID"),
		ValidArgsFunction: e.completeStores(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			plan, err := e.readRestore(cmd, args, &o)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, plan.close()) }()
			for _, m := range plan.opts.Members { // before the first is made
				if err = checkEmpty(m.Dir); err != nil {
					return err
				}
			}
			if o.dryRun {
				return e.dryRunRestore(cmd.Context(), plan, o.output)
			}
			return e.restore(cmd.Context(), plan, o.output)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.snapshot, "snapshot", "", snapshotUsage)
	f.StringVar(&o.toDir, "to-dir", "", "data directory of the only member; it must not exist, or be empty")
	f.StringArrayVar(&o.members, "member", nil, "NAME=DIR: a member to make here, and its data directory; may be given several times")
	f.StringVar(&o.initialCluster, "initial-cluster", "", "NAME=PEERURL,... of all members of the new cluster (default: "+aloneName+"="+alonePeer+")")
	f.StringVar(&o.token, "token", "", "token of the new cluster, equal for all members and never used before (default: a fresh one)")
	f.StringVar(&o.bump, "bump-revision", bumpAuto, "how far the revision is moved on: auto, a number, or 0")
	f.Int64Var(&o.known, "known-revision", 0, "the newest revision that the old cluster is known to have had")
	f.BoolVar(&o.allowNoHash, "allow-no-hash", false, "with --snapshot: take a database that was copied from a data directory")
	f.BoolVar(&o.disarm, "disarm-corrupt", false, "remove a CORRUPT alarm, after you have looked")
	f.BoolVar(&o.dryRun, "dry-run", false, "only say what would be made and what would be lost")
	o.store.bindData(cmd)
	o.pick.bind(e, cmd)
	checkTargetFlags(cmd, &o.target)
	for name, what := range map[string]string{
		"endpoints": "client URLs of the old cluster, if it still answers: it is asked for its revision",
		"cluster":   "the old cluster, if it is one of the server's, instead of --endpoints",
	} {
		f.Lookup(name).Usage = what
	}
	outputFlag(cmd, &o.output, backupForms...)
	complete(cmd, "bump-revision", bumpAuto, "0")
	_ = cmd.MarkFlagDirname("to-dir") // the command has that flag
	e.completeClusters(cmd)
	cmd.AddCommand(restoreClusterCommand(e))
	return cmd
}

// readRestore checks the flags and finds what is restored. Close the plan.
func (e *env) readRestore(cmd *cobra.Command, args []string, o *restoreOptions) (_ *restorePlan, err error) {
	if err = checkRestore(cmd, o); err != nil {
		return nil, err
	}
	p := &restorePlan{opts: backup.RestoreOptions{Token: o.token, AllowNoHash: o.allowNoHash, DisarmCorrupt: o.disarm}}
	if err = p.layOut(cmd, o); err != nil {
		return nil, err
	}
	ctx := cmd.Context()
	if len(o.target.endpoints) > 0 || o.target.cluster != "" {
		if p.old, err = e.clusterOf(cmd, o.target); err != nil {
			return nil, err
		}
		if p.survey, err = p.old.survey(ctx); err != nil {
			return nil, fmt.Errorf("the old cluster: %w; leave it out, or tell its revision by --known-revision", err)
		}
	}
	if p.from, err = e.originOf(cmd, args, o.snapshot, &o.store, &o.pick); err != nil {
		return nil, err
	}
	p.opts.Origin = p.from.Origin
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	if entry := p.from.Entry; entry != nil {
		if entry.Point == nil {
			return nil, noManifest(entry)
		}
		p.revision = entry.Point.Revision
	}
	known := max(o.known, p.oldRevision())
	if p.revision == 0 && (known > 0 || o.dryRun) {
		if p.local, err = e.fetch(ctx, p.from); err != nil {
			return nil, err
		}
		p.revision = p.local.Info().Revision
	}
	p.opts.Bump, err = bumpOf(cmd, o.bump, p.revision, known)
	return p, err
}

func checkRestore(cmd *cobra.Command, o *restoreOptions) error {
	if err := checkOutput(cmd, o.output, backupForms...); err != nil {
		return err
	}
	if o.target.cluster != "" || len(o.target.endpoints) > 0 {
		if err := readCheckTarget(cmd, o.target); err != nil {
			return err
		}
	}
	switch {
	case o.toDir == "" && len(o.members) == 0:
		return usagef(cmd, "--to-dir is missing: name a data directory that does not exist yet, or give --member NAME=DIR for each member")
	case o.toDir != "" && len(o.members) > 0:
		return usagef(cmd, "--to-dir is for one member, and --member names several: give one of them")
	case o.allowNoHash && o.snapshot == "":
		return usagef(cmd, "--allow-no-hash belongs to --snapshot: a backup is compared with its manifest")
	case o.known < 0:
		return usagef(cmd, "--known-revision is %d: give a revision above 0", o.known)
	}
	return nil
}

// layOut says which members the new cluster has, and which are made here.
func (p *restorePlan) layOut(cmd *cobra.Command, o *restoreOptions) error {
	cluster, err := initialCluster(cmd, cmp.Or(o.initialCluster, aloneName+"="+alonePeer))
	if err != nil {
		return err
	}
	p.opts.InitialCluster = cluster
	names := slices.Sorted(maps.Keys(cluster))
	members := o.members
	if o.toDir != "" {
		if len(names) > 1 {
			return usagef(cmd, "--to-dir is for a cluster of one member, and --initial-cluster has %s: give --member NAME=DIR for each that is made here", strings.Join(names, ", "))
		}
		members = []string{names[0] + "=" + o.toDir}
	}
	for _, m := range members {
		name, dir, ok := strings.Cut(m, "=")
		switch {
		case !ok || name == "" || dir == "":
			return usagef(cmd, "--member is %q: give NAME=DIR", m)
		case o.initialCluster == "" && o.toDir == "":
			return usagef(cmd, "--initial-cluster is missing: give NAME=PEERURL for each member, such as %s=http://10.0.0.1:2380", name)
		case cluster[name] == nil:
			return usagef(cmd, "--member names %s, and --initial-cluster has %s", name, strings.Join(names, ", "))
		}
		if dir, err = filepath.Abs(dir); err != nil {
			return err
		}
		for _, other := range p.opts.Members {
			if other.Name == name || other.Dir == dir {
				return usagef(cmd, "--member names %s twice: each has a directory of its own", m)
			}
		}
		p.opts.Members = append(p.opts.Members, backup.RestoreMember{Name: name, Dir: dir})
	}
	for _, name := range names {
		if !slices.ContainsFunc(p.opts.Members, func(m backup.RestoreMember) bool { return m.Name == name }) {
			p.elsewhere = append(p.elsewhere, name)
		}
	}
	if len(p.elsewhere) > 0 && o.token == "" {
		return usagef(cmd, "%s would not be made here: members made apart are one cluster only with the same token: give --token, such as --token restored-2026-11-21, to all", strings.Join(p.elsewhere, ", "))
	}
	return nil
}

// initialCluster reads NAME=URL,...
func initialCluster(cmd *cobra.Command, text string) (map[string][]string, error) {
	cluster := map[string][]string{}
	for part := range strings.SplitSeq(text, ",") {
		name, peer, ok := strings.Cut(strings.TrimSpace(part), "=")
		u, err := url.Parse(peer)
		if !ok || name == "" || err != nil || u.Port() == "" || u.Scheme != "http" && u.Scheme != "https" {
			return nil, usagef(cmd, "--initial-cluster has %q: give NAME=PEERURL, such as a=https://10.0.0.1:2380", part)
		}
		cluster[name] = append(cluster[name], peer)
	}
	return cluster, nil
}

// oldRevision is what the old cluster is at now; 0 if none was asked.
func (p *restorePlan) oldRevision() int64 {
	var newest int64
	for i := range p.survey.Members {
		if m := &p.survey.Members[i]; m.Answered {
			newest = max(newest, m.Status.Revision)
		}
	}
	return newest
}

// bumpOf says how far the revision is moved on.
func bumpOf(cmd *cobra.Command, text string, revision, known int64) (backup.Bump, error) {
	if text == bumpAuto {
		return backup.ChooseBump(revision, known), nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	switch {
	case err != nil || n < 0:
		return backup.Bump{}, usagef(cmd, "--bump-revision is %q: give %s, or a number of 0 or more", text, bumpAuto)
	case known > revision+n:
		return backup.Bump{}, usagef(cmd, "--bump-revision %d leads to revision %d, and clients have seen up to %d: give at least %d, or %s", n, revision+n, known, known-revision, bumpAuto)
	case n == 0:
		return backup.Bump{Why: "as you asked: a client that has seen a newer revision misses all changes until the cluster gets there"}, nil
	}
	return backup.Bump{By: n, Why: "as you asked"}, nil
}

func (p *restorePlan) close() error {
	var err error
	if p.local != nil {
		err = p.local.Close()
	}
	p.from.close()
	return err
}

// restoredMember is one data directory that was made.
type restoredMember struct {
	Name     string   `json:"name"`
	Dir      string   `json:"dir"`
	MemberID string   `json:"memberID"`
	Etcd     []string `json:"etcd"`
}

// restoreResult is what was made.
type restoreResult struct {
	From      string           `json:"from"`
	ClusterID string           `json:"clusterID"`
	Token     string           `json:"token"`
	Source    int64            `json:"sourceRevision"`
	Revision  int64            `json:"revision"`
	BumpedBy  int64            `json:"bumpedBy"`
	Bump      string           `json:"bump"`
	SHA256    string           `json:"sha256"`
	Checked   bool             `json:"hashVerified"`
	Needs     string           `json:"needsEtcd"`
	Auth      bool             `json:"authEnabled"`
	Disarmed  []string         `json:"disarmed,omitempty"`
	Kept      []string         `json:"keptAlarms,omitempty"`
	Members   []restoredMember `json:"members"`
	Elsewhere []string         `json:"elsewhere,omitempty"`
	Seconds   float64          `json:"seconds"`
	Bytes     int64            `json:"bytes"`
}

func (e *env) restore(ctx context.Context, p *restorePlan, form string) error {
	progress := newProgress(e)
	defer progress.done()
	var err error
	if p.opts.Logger, err = e.logger(slog.LevelWarn, progress); err != nil {
		return err
	}
	if entry := p.from.Entry; entry != nil && entry.Verdict() == catalog.Failed {
		e.errorf("note: the newest proof of this backup failed: %s\n", entry.Proofs[0].Proof.Reason)
	}
	p.opts.Progress = progress.backing()
	made, err := backup.Restore(ctx, p.opts)
	progress.done()
	if err != nil {
		for _, m := range made {
			e.errorf("%s was made, and stays\n", m.Dir)
		}
		return err
	}
	first := &made[0]
	r := restoreResult{
		From: p.from.String(), ClusterID: etcd.ID(first.ClusterID).String(), Token: first.Token, Source: first.Source.Revision, Revision: first.Revision,
		BumpedBy: p.opts.Bump.By, Bump: p.opts.Bump.Why, SHA256: first.SHA256, Checked: first.Verified, Needs: needs(p, &first.Source), Auth: first.Source.AuthEnabled,
		Disarmed: alarmNames(first.Disarmed), Kept: alarmNames(first.Kept), Elsewhere: p.elsewhere,
	}
	for i := range made {
		m := &made[i]
		name := p.opts.Members[i].Name
		r.Members = append(r.Members, restoredMember{
			Name: name, Dir: m.Dir, MemberID: etcd.ID(m.MemberID).String(), Etcd: etcdFlags(name, m.Dir, p.opts.InitialCluster, m.Token),
		})
		r.Seconds += m.Took.Seconds()
		r.Bytes += m.Bytes
	}
	return e.printChecked(form, r, func() { e.printRestored(&r) })
}

// needs is the oldest minor version of etcd that starts on the data.
func needs(p *restorePlan, info *datadir.Info) string {
	v := info.StorageVersion
	if entry := p.from.Entry; v == "" && entry != nil {
		v = entry.Point.EtcdVersion
	}
	parts := strings.SplitN(cmp.Or(v, info.ClusterVersion), ".", 3)
	if len(parts) < 2 {
		return ""
	}
	return parts[0] + "." + parts[1]
}

func alarmNames(list []datadir.Alarm) []string {
	var names []string
	for _, a := range list {
		names = append(names, a.Name+" of member "+etcd.ID(a.MemberID).String())
	}
	return names
}

// etcdFlags start an etcd on a restored directory. Clients get the port below that of
// the peers, as etcd has it.
func etcdFlags(name, dir string, cluster map[string][]string, token string) []string {
	var all, clients []string
	for _, n := range slices.Sorted(maps.Keys(cluster)) {
		for _, u := range cluster[n] {
			all = append(all, n+"="+u)
		}
	}
	for _, peer := range cluster[name] {
		if u, err := url.Parse(peer); err == nil {
			if port, err := strconv.Atoi(u.Port()); err == nil && port > 1 {
				u.Host = strings.TrimSuffix(u.Host, u.Port()) + strconv.Itoa(port-1)
				clients = append(clients, u.String())
			}
		}
	}
	peers := strings.Join(cluster[name], ",")
	return []string{
		"--name=" + name, "--data-dir=" + dir, "--initial-cluster=" + strings.Join(all, ","), "--initial-cluster-token=" + token,
		"--initial-advertise-peer-urls=" + peers, "--listen-peer-urls=" + peers,
		"--advertise-client-urls=" + strings.Join(clients, ","), "--listen-client-urls=" + strings.Join(clients, ","),
	}
}

// checkEmpty refuses a directory that holds something, as the restore itself does.
func checkEmpty(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case len(entries) > 0:
		return fmt.Errorf("%s: %w: it holds %s; name a directory that doesn't exist, or move this one away", dir, datadir.ErrRestore, entries[0].Name())
	}
	return nil
}
