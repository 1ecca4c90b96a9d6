package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/inspect"
)

// printClusterRestore says what an order would do.
func (e *env) printClusterRestore(title string, r *restoreOrder) {
	now := time.Now()
	e.printf("%s\n", e.painted(bold, title))
	e.fact("cluster", r.cluster().String()+r.clusterText())
	e.printRestorePoint(r, now)
	e.fact("lost", r.lostText())
	e.printBump(r.seen.Revision-r.seen.BumpRevision, r.seen.Revision, r.seen.BumpReason)
	e.fact("order", label(v1alpha1.KindRestore, r.restore.Name))
	e.printf("%s\n", e.painted(bold, "step by step"))
	for i, step := range r.steps() {
		e.printf("  %d. %s\n", i+1, e.folded(step, len("  1. ")))
	}
}

// clusterText says what is known of the cluster that is formed.
func (r *restoreOrder) clusterText() string {
	switch {
	case r.fresh != nil && r.like != nil:
		return fmt.Sprintf(", which is created: %s, as %s/%s is", sizeText(r.fresh), r.like.Namespace, r.like.Name)
	case r.fresh != nil:
		return ", which is created: " + sizeText(r.fresh)
	case r.target == nil:
		return ", which does not exist"
	case !r.restore.Spec.InPlace:
		return ", which was created before, and waits for its restore"
	case r.target.Spec.Suspended:
		return ", in place; it is suspended, and nothing is started until it is resumed"
	}
	return ", in place"
}

func sizeText(c *v1alpha1.EtcdCluster) string {
	return fmt.Sprintf("%s of etcd %s", plural(int(c.Spec.Replicas), "member", "members"), c.Spec.Version)
}

func (e *env) printRestorePoint(r *restoreOrder, now time.Time) {
	p := r.seen.Point
	text := p.ID
	if p.Cluster != "" {
		text += fmt.Sprintf(" of %s (cluster %s)", p.Cluster, p.ClusterID)
	}
	if p.Destination != "" {
		text += ", in destination " + p.Destination
	}
	e.fact("backup", text)
	if p.TakenAt != nil {
		e.fact("taken", agoText(p.TakenAt.Time, now))
	}
	holds := fmt.Sprintf("%s at revision %d, %s", plural64(p.Keys, "key", "keys"), p.Revision, inspect.Size(p.DBSize))
	if p.EtcdVersion != "" {
		holds += ", of etcd " + p.EtcdVersion
	}
	e.fact("holds", holds)
	switch {
	case p.ProvenAt != nil:
		e.fact("proven", agoText(p.ProvenAt.Time, now))
	case r.restore.Spec.Source.Object != "":
		e.fact("proven", "no: it was read whole, and agrees with the hash behind it")
	case r.restore.Spec.Proof != nil && !r.restore.Spec.Proof.Wanted():
		e.fact("proven", "no, and it is not tried first: "+r.restore.Spec.Proof.Reason)
	default:
		e.fact("proven", "no: it is restored into a scratch etcd before anything is touched")
	}
}

func agoText(t, now time.Time) string {
	return fmt.Sprintf("%s (%s ago)", t.UTC().Format(time.RFC3339), age(t, now))
}

// lostText says what the cluster no longer has afterwards.
func (r *restoreOrder) lostText() string {
	st := r.seen
	switch {
	case len(st.Places) == 0:
		return "nothing: no member is replaced"
	case st.LastRevision == 0:
		return "what was written since the backup; no member answers, so that nobody knows how much. It stays in the data that is renamed aside"
	case r.otherLineage():
		return "what was written since the backup; how many revisions that is can't be told, since the cluster was restored or made anew in between. It stays in the data that is renamed aside"
	case st.LostRevisions == 0:
		return fmt.Sprintf("nothing: the cluster is at revision %d, as the backup is", st.LastRevision)
	}
	return fmt.Sprintf("%s: the cluster is at revision %d now. What they wrote stays in the data that is renamed aside, and nowhere else",
		plural64(st.LostRevisions, "revision", "revisions"), st.LastRevision)
}

// otherLineage reports whether the revisions of the backup say nothing about those of the
// cluster: it has another ID.
func (r *restoreOrder) otherLineage() bool {
	return r.target != nil && r.seen.Point.ClusterID != "" && r.target.Status.ClusterID != "" && r.seen.Point.ClusterID != r.target.Status.ClusterID
}

// steps are what is done, in order.
func (r *restoreOrder) steps() []string {
	var steps []string
	if p := r.seen.Point; p.ProvenAt == nil && r.restore.Spec.Source.Object == "" && (r.restore.Spec.Proof == nil || r.restore.Spec.Proof.Wanted()) {
		steps = append(steps, "the backup is restored into a scratch etcd of the server; if it is not right, nothing else happens")
	}
	where := "on hosts that the fleet chooses"
	if len(r.seen.Places) > 0 {
		stops := make([]string, 0, len(r.seen.Places))
		for _, p := range r.seen.Places {
			stops = append(stops, fmt.Sprintf("%s on host %s", p.Member, p.Host))
		}
		steps = append(steps, "every member is stopped, with proof: "+strings.Join(stops, ", ")+"; from here on the cluster serves nothing",
			"once all are stopped, their data is renamed aside, below retired/ on their hosts, and "+r.keptText())
		where = "on the same hosts and ports"
	}
	one := r.fresh
	if one == nil {
		one = r.target
	}
	n := 0
	if one != nil {
		n = int(one.Spec.Replicas)
	}
	return append(steps, fmt.Sprintf("%s prepared %s, and not started yet", plural(n, "new member is", "new members are"), where),
		"each host makes the data directory of its member from the backup, and checks it",
		"once all have their data, they are started: a cluster with an ID of its own, which no member of the old one can join")
}

// keptText says how long the data that is renamed aside is kept.
func (r *restoreOrder) keptText() string {
	if r.target != nil && r.target.Spec.DeletionPolicy == v1alpha1.DeletionDelete {
		return "collected after " + r.target.Spec.RetainFor + " (deletionPolicy Delete)"
	}
	return "kept until a person removes it (deletionPolicy Retain)"
}

// printClusterRestored says what came of a restore. Aside is where the data of former
// members is, by their names.
func (e *env) printClusterRestored(r *restoreOrder, last *v1alpha1.EtcdRestore, aside map[string]string) {
	st := &last.Status
	e.printf("%s restored from %s\n", e.painted(bold, r.cluster().String()), st.Point.ID)
	e.fact("cluster", st.ClusterID+", a new ID")
	e.fact("holds", fmt.Sprintf("%s of revision %d", plural64(st.Point.Keys, "key", "keys"), st.Point.Revision))
	e.printBump(st.Revision-st.BumpRevision, st.Revision, st.BumpReason)
	e.fact("took", (time.Duration(st.TookMilliseconds)*time.Millisecond).String()+", from the first member that was touched until all served")
	if st.LostRevisions > 0 && !r.otherLineage() {
		e.fact("lost", fmt.Sprintf("%s: the cluster was at revision %d", plural64(st.LostRevisions, "revision", "revisions"), st.LastRevision))
	}
	for _, p := range st.Places {
		dir := aside[p.Member]
		if dir == "" {
			dir = "below retired/ in the data directory of that host"
		}
		e.fact("old data", fmt.Sprintf("%s on host %s: %s", p.Member, p.Host, dir))
	}
	if len(st.Places) > 0 {
		e.fact("", r.keptText())
	}
}
