package cli

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/backup/bucket"
	"github.com/quorate/quorate/backup/catalog"
	"github.com/quorate/quorate/inspect"
)

// listedBackup is a backup as it is told.
type listedBackup struct {
	ID        string          `json:"id"`
	Namespace string          `json:"namespace"`
	Name      string          `json:"name"`
	ClusterID catalog.ID      `json:"clusterID"`
	Epoch     uint32          `json:"epoch"`
	Time      time.Time       `json:"time"`
	Revision  int64           `json:"revision"`
	State     catalog.State   `json:"state"`
	Verdict   catalog.Verdict `json:"verdict"`
	// Error says what is wrong with it.
	Error string `json:"error,omitempty"`
	// StoredBytes are all its objects.
	StoredBytes int64 `json:"storedBytes"`
	// RestoreSeconds is how long the newest proof took from the store to an etcd that
	// answers.
	RestoreSeconds float64         `json:"restoreSeconds,omitempty"`
	Proven         *time.Time      `json:"proven,omitempty"`
	Point          *catalog.Point  `json:"point,omitempty"`
	Proofs         []catalog.Proof `json:"proofs,omitempty"`
	Objects        []string        `json:"objects,omitempty"`
}

func listed(entry *catalog.Entry) listedBackup {
	r := entry.Ref
	l := listedBackup{
		ID: r.ID(), Namespace: r.Namespace, Name: r.Name, ClusterID: r.ClusterID, Epoch: r.Epoch, Time: r.Time, Revision: r.Revision,
		State: entry.State, Verdict: entry.Verdict(), StoredBytes: entry.Bytes(), Point: entry.Point,
	}
	if entry.Err != nil {
		l.Error = entry.Err.Error()
	}
	for _, p := range entry.Proofs {
		if p.Proof != nil {
			l.Proofs = append(l.Proofs, *p.Proof)
		} else if l.Error == "" {
			l.Error = p.Err.Error()
		}
	}
	if l.Verdict == catalog.Proven {
		newest := entry.Proofs[0].Proof
		l.Proven, l.RestoreSeconds = &newest.Ended, restoreTime(newest)
	}
	return l
}

// backupList is what a store holds.
type backupList struct {
	Store   string         `json:"store"`
	Backups []listedBackup `json:"backups"`
	// Foreign objects lie there that are no part of a backup.
	Foreign  int      `json:"foreign,omitempty"`
	Examples []string `json:"examples,omitempty"`
}

func backupListCommand(e *env) *cobra.Command {
	var s storeFlags
	var p pickFlags
	var output string
	cmd := &cobra.Command{
		Use:   "list URL",
		Short: "List the backups in a store",
		Long: `List the backups in a store, the newest first, those of each history together: a
history is one cluster ID whose revisions only grow, so that a cluster that was
made anew under the same name, or was reset, is never mixed with the one before.

A backup is proven when its newest proof restored it and found what it should
hold; the time beside it is how long that took, from the store to an etcd that
answers. What is damaged, and uploads that were never finished, are told.`,
		Example: `  quorate backup list ./backups
  quorate backup list ./backups --name default/playground -o json
  quorate backup list s3://backups/etcd?region=eu-west-1`,
		Args:              argsBetween(1, 1, "URL"),
		ValidArgsFunction: completeOneStore,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(cmd, output, backupForms...); err != nil {
				return err
			}
			filter, err := p.filter(e, cmd)
			if err != nil {
				return err
			}
			b, err := e.openStore(cmd, args[0], &s, "")
			if err != nil {
				return err
			}
			defer func() { _ = b.Close() }() // it was only read
			cat, err := e.readCatalog(cmd.Context(), b, filter)
			if err != nil {
				return err
			}
			return e.printBackups(output, b, cat)
		},
	}
	s.bind(cmd)
	p.bind(e, cmd)
	outputFlag(cmd, &output, backupForms...)
	return cmd
}

func (e *env) printBackups(form string, b bucket.Bucket, cat *catalog.Catalog) error {
	list := backupList{Store: b.String(), Backups: []listedBackup{}, Foreign: cat.Foreign, Examples: cat.Examples}
	lineages := cat.Lineages()
	// The history that was added to last comes first.
	slices.SortStableFunc(lineages, func(x, y []catalog.Entry) int { return youngest(y).Compare(youngest(x)) })
	for _, l := range lineages {
		for i := range slices.Backward(l) {
			list.Backups = append(list.Backups, listed(&l[i]))
		}
	}
	return e.printChecked(form, list, func() {
		if len(lineages) == 0 {
			e.printf("%s has no backups\n", b)
		}
		for i, l := range lineages {
			if i > 0 {
				e.printf("\n")
			}
			e.printLineage(l)
		}
		if cat.Foreign > 0 {
			e.errorf("%s in %s are no part of a backup, such as %s\n", plural(cat.Foreign, "object", "objects"), b, cat.Examples[0])
		}
	})
}

func youngest(l []catalog.Entry) time.Time {
	return slices.MaxFunc(l, func(a, b catalog.Entry) int { return a.Ref.Time.Compare(b.Ref.Time) }).Ref.Time
}

// printLineage lists one history, newest first.
func (e *env) printLineage(l []catalog.Entry) {
	ref, now := l[0].Ref, time.Now()
	e.printf("%s cluster %s, epoch %d\n", e.painted(bold, ref.Cluster.String()), ref.ClusterID, ref.Epoch)
	g := grid{header: []string{"id", "age", "revision", "keys", "size", "stored", "state", "proven"}}
	var notes []string
	leftovers := 0
	for i := range slices.Backward(l) {
		entry := &l[i]
		keys, size := "", ""
		if p := entry.Point; p != nil {
			keys, size = strconv.FormatInt(p.Counts.Keys, 10), inspect.Size(p.DBSize)
		}
		g.add(entry.Ref.ID(), age(entry.Ref.Time, now), strconv.FormatInt(entry.Ref.Revision, 10), keys, size, inspect.Size(entry.Bytes()),
			strings.ToLower(string(entry.State)), provenText(entry, now))
		switch {
		case entry.State == catalog.Partial:
			leftovers++
		case entry.Err != nil:
			notes = append(notes, entry.Ref.ID()+": "+entry.Err.Error())
		case entry.Verdict() == catalog.Failed:
			notes = append(notes, entry.Ref.ID()+" failed its proof: "+entry.Proofs[0].Proof.Reason)
		case entry.Verdict() == catalog.Unclear:
			notes = append(notes, entry.Ref.ID()+": its newest proof can't be read: "+entry.Proofs[0].Err.Error())
		}
	}
	_ = g.write(e.Out, 0) // As with printf: a reader that has gone away is no failure.
	for _, n := range notes {
		e.printf("%s %s\n", e.painted(red, "✗"), n)
	}
	if leftovers > 0 {
		e.printf("%s without a manifest, being written or left over: `quorate backup prune` collects what is a day old\n", plural(leftovers, "upload", "uploads"))
	}
}

// provenText says what the proofs say, in a few words.
func provenText(entry *catalog.Entry, now time.Time) string {
	switch entry.Verdict() {
	case catalog.Proven:
		p := entry.Proofs[0].Proof
		return fmt.Sprintf("%s ago, up in %s", age(p.Ended, now), seconds(restoreTime(p)))
	case catalog.Failed:
		return "failed " + age(entry.Proofs[0].Proof.Ended, now) + " ago"
	case catalog.Unclear:
		return "unclear"
	default:
		return ""
	}
}

func backupShowCommand(e *env) *cobra.Command {
	var s storeFlags
	var p pickFlags
	var output string
	cmd := &cobra.Command{
		Use:   "show URL ID",
		Short: "Show what a backup holds, and its proofs",
		Long: `Show what the manifest of a backup says of it, each of its proofs, and the objects
it is made of. Nothing of the data is read: "quorate backup verify" tries it, and
"quorate backup browse" looks into it.

ID is an ID, its last eight digits, "latest" or "latest-proven".`,
		Example: `  quorate backup show ./backups latest
  quorate backup show ./backups latest-proven -o yaml`,
		Args:              argsBetween(2, 2, "URL and ID"),
		ValidArgsFunction: e.completeStores(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(cmd, output, backupForms...); err != nil {
				return err
			}
			o, err := e.originOf(cmd, args, "", &s, &p)
			if err != nil {
				return err
			}
			defer o.close()
			l := listed(o.Entry)
			for _, obj := range o.Entry.Objects {
				l.Objects = append(l.Objects, obj.Name)
			}
			return e.printChecked(output, l, func() { e.printEntry(o.Entry) })
		},
	}
	s.bind(cmd)
	p.bind(e, cmd)
	outputFlag(cmd, &output, backupForms...)
	return cmd
}

func (e *env) printEntry(entry *catalog.Entry) {
	ref := entry.Ref
	e.printf("%s %s\n", e.painted(bold, ref.ID()), strings.ToLower(string(entry.State)))
	if entry.Err != nil {
		e.fact("wrong", entry.Err.Error())
	}
	e.fact("of", ref.Lineage.String())
	e.fact("taken", fmt.Sprintf("%s (%s ago)", ref.Time.Format(time.RFC3339), age(ref.Time, time.Now())))
	if p := entry.Point; p != nil {
		e.printPoint(p)
	}
	if len(entry.Proofs) == 0 {
		e.fact("proof", "none: `quorate backup verify` makes one")
	}
	for _, p := range entry.Proofs {
		if p.Proof == nil {
			e.fact("proof", p.Err.Error())
			continue
		}
		e.printf("%s by %s on %s, quorate %s\n", e.painted(bold, strings.ToLower(string(p.Proof.Result))+" "+p.Time.Format(time.RFC3339)), "etcd "+p.Proof.EtcdVersion, p.Proof.Where, p.Proof.Tool)
		e.printProof(p.Proof)
	}
	g := grid{header: []string{"object", "size", "stored"}}
	for _, o := range entry.Objects {
		g.add(o.Name, inspect.Size(o.Size), o.Modified.UTC().Format(time.RFC3339))
	}
	e.printf("\n")
	_ = g.write(e.Out, 0) // As with printf: a reader that has gone away is no failure.
}

// printPoint says what a manifest says.
func (e *env) printPoint(p *catalog.Point) {
	e.fact("from", fmt.Sprintf("%s (%s), %s, data of %s", p.Source.MemberName, p.Source.Role, etcdText(p), cmp.Or(p.StorageVersion, "3.5")))
	e.fact("holds", fmt.Sprintf("%s and %s at revision %d; compacted at %d; HashKV %d", plural64(p.Counts.Keys, "key", "keys"),
		plural64(p.Counts.Leases, "lease", "leases"), p.Revision, p.CompactRevision, p.HashKV.Hash))
	if p.AuthEnabled {
		e.fact("auth", "is on: a cluster that is restored from it asks for its users and passwords")
	}
	e.fact("size", fmt.Sprintf("%s, stored in %s%s", inspect.Size(p.DBSize), inspect.Size(p.StoredSize), packedText(p)))
	e.fact("sha256", p.DBSHA256+" of the database")
	e.fact("", p.StoredSHA256+" of "+p.Object)
	if p.EpochReason != "" {
		e.fact("epoch", p.EpochReason)
	}
	if p.Encryption != nil {
		e.fact("for", strings.Join(p.Encryption.Recipients, ", "))
	}
	if p.LockedUntil != nil {
		e.fact("locked", "until "+p.LockedUntil.UTC().Format(time.RFC3339))
	}
	if p.Policy != "" {
		e.fact("policy", p.Policy)
	}
	e.fact("tool", "quorate "+p.Tool)
}
