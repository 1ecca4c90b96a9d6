package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/quorate/quorate/backup"
	"github.com/quorate/quorate/backup/catalog"
	"github.com/quorate/quorate/inspect"
)

// factColumn is where a fact begins, behind its name.
const factColumn = 12

// fact writes one line of what is told, folded.
func (e *env) fact(name, text string) {
	e.printf("  %s%s\n", e.painted(dim, fmt.Sprintf("%-*s", factColumn-2, name)), e.folded(text, factColumn))
}

// printBackup writes what came of a backup for people.
func (e *env) printBackup(r *backupResult) {
	p := r.Point
	e.printf("%s %s\n", e.painted(bold, "backup"), p.Ref().ID())
	e.fact("of", fmt.Sprintf("%s (cluster %s), revision %d, %s, %s, %s", r.Cluster, p.ClusterID, p.Revision,
		plural64(p.Counts.Keys, "key", "keys"), plural64(p.Counts.Leases, "lease", "leases"), etcdText(p)))
	e.fact("from", fmt.Sprintf("%s: %s", r.Member, r.Why))
	for _, passed := range r.Passed {
		e.fact("not", passed)
	}
	speed := ""
	if r.ReadBytes > 1<<20 { // of less, a speed says nothing
		speed = ", read at " + perSecond(r.ReadBytes, time.Duration(r.ReadSecs*float64(time.Second)))
	}
	e.fact("size", fmt.Sprintf("%s%s; stored in %s%s", inspect.Size(p.DBSize), speed, inspect.Size(p.StoredSize), packedText(p)))
	if p.EpochReason != "" {
		e.fact("reset", fmt.Sprintf("epoch %d begins, since the cluster's data was reset: %s", p.Epoch, p.EpochReason))
	}
	for _, s := range r.Stores {
		e.printStored(&s, r.ProofAsked)
	}
	e.fact("took", seconds(r.Seconds))
}

func (e *env) printStored(s *stored, asked bool) {
	if s.Error != "" {
		e.printf("%s does not have it\n", e.painted(red, "✗ "+s.Store))
		e.fact("why", s.Error)
		return
	}
	switch p := s.Proof; {
	case p != nil && p.Result == catalog.Verified:
		e.printf("%s stored and proven\n", e.painted(green, "✓ "+s.Store))
		e.printProof(p)
	case p != nil:
		e.printf("%s stored, and it failed its proof\n", e.painted(red, "✗ "+s.Store))
		e.fact("why", p.Reason)
	case asked:
		e.printf("%s stored, and could not be tried\n", e.painted(yellow, "! "+s.Store))
		e.fact("why", s.Untried)
	default:
		e.printf("%s stored, not proven\n", e.painted(green, "✓ "+s.Store))
	}
	for _, d := range s.Pruned {
		e.fact("pruned", prunedText(d))
	}
	if s.PruneError != "" {
		e.fact("prune", s.PruneError)
	}
}

// printProof says what a proof found, and what it cost.
func (e *env) printProof(p *catalog.Proof) {
	if p.Result != catalog.Verified {
		e.fact("proof", "failed: "+p.Reason)
	} else {
		e.fact("proof", fmt.Sprintf("etcd %s served it after %s: %s, HashKV %d at revision %d, as its manifest says",
			p.EtcdVersion, seconds(restoreTime(p)), plural64(p.Counts.Keys, "key", "keys"), p.HashKV.Hash, p.HashKV.Revision))
	}
	d := p.Durations
	cost := fmt.Sprintf("%s read; download %s, restore %s", inspect.Size(p.Bytes), seconds(d.Download), seconds(d.Restore))
	if p.PeakMemory > 0 {
		cost += fmt.Sprintf(", start %s, compare %s; etcd's memory up to %s", seconds(d.Start), seconds(d.Hash), inspect.Size(p.PeakMemory))
	}
	e.fact("cost", cost)
}

// restoreTime is how long it takes from the store to an etcd that answers, in seconds:
// the recovery time that was measured.
func restoreTime(p *catalog.Proof) float64 {
	return p.Durations.Download + p.Durations.Restore + p.Durations.Start
}

func etcdText(p *catalog.Point) string {
	if p.EtcdVersion == "" {
		return "etcd of an unknown version"
	}
	return "etcd " + p.EtcdVersion
}

func packedText(p *catalog.Point) string {
	var how []string
	if p.Compression != catalog.CompressionNone {
		how = append(how, p.Compression)
	}
	if p.Encryption != nil {
		how = append(how, "encrypted with "+p.Encryption.Method)
	}
	if len(how) == 0 {
		return ""
	}
	return " (" + strings.Join(how, ", ") + ")"
}

func plural64(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// backupPlan is what a backup would do.
type backupPlan struct {
	Cluster string      `json:"cluster"`
	ID      string      `json:"clusterID"`
	Member  string      `json:"member"`
	Role    backup.Role `json:"role"`
	Why     string      `json:"why"`
	DBSize  int64       `json:"dbSize"`
	Spool   string      `json:"spool"`
	Proof   string      `json:"proof,omitempty"`
	Stores  []storePlan `json:"stores"`
	others  []backup.Source
}

// storePlan is what would happen in one store.
type storePlan struct {
	Store   string   `json:"store"`
	Backups int      `json:"backups"`
	Prune   []pruned `json:"prune,omitempty"`
}

// dryRunBackup says what would be done, and writes nothing.
func (e *env) dryRunBackup(ctx context.Context, job *backupJob, form string) error {
	survey, err := job.access.survey(ctx)
	if err != nil {
		return err
	}
	sources, err := backup.Choose(&survey, job.take.Wanted)
	if err != nil {
		return err
	}
	from := sources[0]
	plan := backupPlan{
		Cluster: job.take.Cluster.String(), ID: catalog.ID(survey.ClusterID).String(), Member: from.Name, Role: from.Role, Why: from.Why,
		DBSize: from.Status.DBSize, Spool: job.spool, others: sources[1:],
	}
	if job.prove != nil {
		plan.Proof = "on etcd " + job.prove.Version
	}
	for _, d := range job.take.Destinations {
		cat, err := e.readCatalog(ctx, d.Bucket, catalog.Filter{Clusters: []catalog.Cluster{job.take.Cluster}})
		if err != nil {
			return err
		}
		s := storePlan{Store: d.Name, Backups: len(cat.Entries)}
		if !job.policy.Empty() {
			decisions, err := job.policy.Decide(cat.Entries, catalog.Situation{Now: time.Now()})
			if err != nil {
				return err
			}
			for i := range decisions {
				if !decisions[i].Keep {
					s.Prune = append(s.Prune, prunedOf(&decisions[i], "would go"))
				}
			}
		}
		plan.Stores = append(plan.Stores, s)
	}
	return e.printChecked(form, plan, func() { e.printBackupPlan(&plan) })
}

func (e *env) printBackupPlan(p *backupPlan) {
	e.printf("%s\n", e.painted(bold, "nothing was done: this would be"))
	e.fact("of", fmt.Sprintf("%s (cluster %s)", p.Cluster, p.ID))
	e.fact("from", fmt.Sprintf("%s: %s", p.Member, p.Why))
	for _, s := range p.others {
		e.fact("else", s.Name+" ("+string(s.Role)+"), if that fails")
	}
	e.fact("size", inspect.Size(p.DBSize)+", spooled in "+p.Spool)
	if p.Proof != "" {
		e.fact("proof", p.Proof+", from each store")
	} else {
		e.fact("proof", "none")
	}
	for _, s := range p.Stores {
		e.printf("%s has %s of it\n", s.Store, plural(s.Backups, "backup", "backups"))
		for _, d := range s.Prune {
			e.fact("prune", prunedText(d))
		}
	}
}
