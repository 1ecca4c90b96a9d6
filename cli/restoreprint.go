package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/quorate/quorate/backup"
	"github.com/quorate/quorate/backup/catalog"
	"github.com/quorate/quorate/datadir"
	"github.com/quorate/quorate/inspect"
)

func (e *env) printRestored(r *restoreResult) {
	e.printf("%s %s\n", e.painted(bold, "restored"), r.From)
	e.fact("cluster", fmt.Sprintf("%s, token %s", r.ClusterID, r.Token))
	e.printBump(r.Source, r.Revision, r.Bump)
	e.fact("took", fmt.Sprintf("%s, %s", seconds(r.Seconds), perSecond(r.Bytes, time.Duration(r.Seconds*float64(time.Second)))))
	if !r.Checked {
		e.fact("note", "no hash stood behind the database, so that only its structure could be checked")
	}
	if r.Auth {
		e.fact("auth", "is on: it asks for the users and passwords that the backup has")
	}
	for _, a := range r.Disarmed {
		e.fact("alarm", a+" was removed")
	}
	for _, a := range r.Kept {
		e.fact("alarm", a+" stands: the snapshot may be that of the member with the wrong data. Look, and disarm it with etcdctl alarm disarm, or restore again with --disarm-corrupt")
	}
	with := "start etcd"
	if r.Needs != "" {
		with += " " + r.Needs + " or newer"
	}
	for _, m := range r.Members {
		e.printf("\n%s (member %s): %s with these flags, and those for TLS that the old cluster had:\n", e.painted(bold, m.Dir), m.MemberID, with)
		e.printf("  etcd %s\n", e.painted(cyan, joinQuoted(m.Etcd)))
	}
	if len(r.Elsewhere) > 0 {
		e.printf("\nmake %s from the same backup with --token %s --bump-revision %d\n", strings.Join(r.Elsewhere, ", "), quoted(r.Token), r.BumpedBy)
	}
}

func joinQuoted(words []string) string {
	list := make([]string, 0, len(words))
	for _, w := range words {
		list = append(list, quoted(w))
	}
	return strings.Join(list, " \\\n    ")
}

func (e *env) printBump(source, revision int64, why string) {
	if source == revision {
		e.fact("revision", fmt.Sprintf("%d, as in the backup: %s", revision, why))
		return
	}
	e.fact("revision", fmt.Sprintf("%d, moved on from %d; what is older counts as compacted. Why: %s", revision, source, why))
}

// lost is what a restore would lose of the old cluster.
type lost struct {
	Cluster string `json:"cluster"`
	// Revision it is at now.
	Revision int64 `json:"revision"`
	// Revisions were written since the backup; -1 where that can't be told.
	Revisions int64  `json:"revisions"`
	Unlike    string `json:"unlike,omitempty"`
	// Missing keys are in the backup alone, Extra in the cluster alone. Nil where it was
	// not counted.
	Missing   *int   `json:"missing,omitempty"`
	Changed   *int   `json:"changed,omitempty"`
	Extra     *int   `json:"extra,omitempty"`
	Uncounted string `json:"uncounted,omitempty"`
}

// restorePreview is what a restore would do.
type restorePreview struct {
	From     string                 `json:"from"`
	Point    *listedBackup          `json:"backup,omitempty"`
	File     *snapshotReport        `json:"file,omitempty"`
	Revision int64                  `json:"sourceRevision"`
	BumpedBy int64                  `json:"bumpedBy"`
	Bump     string                 `json:"bump"`
	Members  []backup.RestoreMember `json:"members"`
	Lost     *lost                  `json:"lost,omitempty"`
}

func (e *env) dryRunRestore(ctx context.Context, p *restorePlan, form string) error {
	r := restorePreview{From: p.from.String(), Revision: p.revision, BumpedBy: p.opts.Bump.By, Bump: p.opts.Bump.Why, Members: p.opts.Members}
	if p.from.Entry != nil {
		l := listed(p.from.Entry)
		r.Point = &l
	}
	if p.local != nil {
		f := reportOf(p.from.File, p.local.Checked)
		r.File = &f
	}
	if p.old != nil {
		var err error
		if r.Lost, err = e.lostBy(ctx, p); err != nil {
			return err
		}
	}
	return e.printChecked(form, r, func() { e.printPreview(p, &r) })
}

// lostBy compares the backup with the old cluster.
func (e *env) lostBy(ctx context.Context, p *restorePlan) (*lost, error) {
	l := &lost{Cluster: p.old.String(), Revision: p.oldRevision(), Revisions: -1, Unlike: unlike(p.from, &p.survey)}
	if l.Unlike == "" {
		l.Revisions = l.Revision - p.revision
	}
	var inUse int64
	for i := range p.survey.Members {
		inUse = max(inUse, p.survey.Members[i].Status.DBSizeInUse)
	}
	if inUse > affordable {
		l.Uncounted = fmt.Sprintf("the old cluster has %s of data, and to compare it would read all of it: `quorate backup diff` does, prefix by prefix", inspect.Size(inUse))
		return l, nil
	}
	local := p.local
	if local == nil {
		fetched, err := e.fetch(ctx, p.from)
		if err != nil {
			return nil, err
		}
		p.local, local = fetched, fetched
	}
	client, err := p.old.dial()
	if err != nil {
		return nil, err
	}
	defer func() { _ = client.Close() }() // nothing was written on it
	done := e.slowly("comparing")
	defer done()
	found, _, err := backup.Diff(ctx, backup.DiffOptions{Backup: local, Client: client, Keys: datadir.KeyRange{}, SameLineage: l.Unlike == ""})
	if err != nil {
		l.Uncounted = err.Error() // the rest is of use without it
		return l, nil
	}
	n := map[backup.Difference]int{}
	for _, d := range found {
		n[d.Kind]++
	}
	missing, changed, extra := n[backup.Missing], n[backup.Changed], n[backup.Extra]
	l.Missing, l.Changed, l.Extra = &missing, &changed, &extra
	return l, nil
}

func (e *env) printPreview(p *restorePlan, r *restorePreview) {
	e.printf("%s\n", e.painted(bold, "nothing was made: this would be"))
	e.fact("from", r.From)
	if entry := p.from.Entry; entry != nil {
		e.fact("taken", fmt.Sprintf("%s (%s ago)", entry.Ref.Time.Format(time.RFC3339), age(entry.Ref.Time, time.Now())))
		e.printPoint(entry.Point)
		if entry.Verdict() == catalog.Proven {
			e.fact("proven", provenText(entry, time.Now()))
		} else {
			e.fact("proven", "no ("+strings.ToLower(string(entry.Verdict()))+"): `quorate backup verify` tries it")
		}
	}
	if r.File != nil {
		e.printSnapshot(r.File)
	}
	e.printBump(r.Revision, r.Revision+r.BumpedBy, r.Bump)
	for _, m := range r.Members {
		e.fact("makes", fmt.Sprintf("%s for member %s", m.Dir, m.Name))
	}
	switch l := r.Lost; {
	case l == nil:
		e.fact("lost", "is what was written since: --endpoints or -c names the old cluster, which is then compared")
	case l.Unlike != "":
		e.fact("lost", "can't be told by revisions: "+l.Unlike)
	case l.Revisions == 0:
		e.fact("lost", "nothing: "+l.Cluster+" is at the revision of the backup")
	default:
		e.fact("lost", fmt.Sprintf("%s of %s, which is at %d now", plural64(l.Revisions, "revision", "revisions"), l.Cluster, l.Revision))
	}
	if l := r.Lost; l != nil && l.Missing != nil {
		e.fact("keys", fmt.Sprintf("%d would go that the backup does not have, %d would have an older value, %d would come back", *l.Extra, *l.Changed, *l.Missing))
	} else if l != nil {
		e.fact("keys", "not compared: "+l.Uncounted)
	}
}
