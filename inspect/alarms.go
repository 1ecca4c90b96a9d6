package inspect

import (
	"fmt"
	"slices"
)

// alarms that etcd has raised itself. They are read from the members' own status:
// asking for the list of alarms is an entry of the raft log.
func alarms(o *Observation) []Finding {
	var raised []Alarm
	told := map[Alarm][]string{}
	for _, m := range o.answering() {
		for _, a := range m.Latest().Alarms {
			if !slices.Contains(raised, a) {
				raised = append(raised, a)
			}
			told[a] = append(told[a], m.Label())
		}
	}
	var found []Finding
	for _, a := range raised {
		who := o.nameOf(a.Member)
		if a.Member == "0" {
			who = "a member that etcd does not name"
		}
		evidence := []string{fmt.Sprintf("alarm %s of %s, told by %s", a.Type, who, andList(told[a]))}
		if a.Type == "NOSPACE" {
			found = append(found, o.noSpace(who, evidence))
			continue
		}
		found = append(found, Finding{
			ID: "alarm-corrupt", Severity: Critical, Subject: who, degrades: true,
			Title:    "Alarm CORRUPT: the data of " + who + " differs from that of the others",
			Evidence: evidence,
			Why:      "The whole cluster refuses writes until the alarm is gone, and reads of that member may be wrong.",
			Fix: "Find the member whose data differs (compare the hashes), take a snapshot of a good one, then remove the bad member, " +
				"put its data directory aside, and add it again so that it copies the data anew. Disarm the alarm last: before, it comes back.",
			Commands: []string{
				o.command("endpoint hashkv -w table", o.answering()...) + "   # slows writes down while it runs",
				o.command("snapshot save before-repair.db", o.answering()[:1]...),
				o.command("alarm disarm", o.answering()[:1]...),
			},
		})
	}
	return found
}

func (o *Observation) noSpace(who string, evidence []string) Finding {
	for _, m := range o.answering() {
		st := m.Latest()
		evidence = append(evidence, fmt.Sprintf("%s: %s, of which %s are in use; quota %s", m.Label(), Size(st.DBSize), Size(st.DBSizeInUse), o.quotaOf(m)))
	}
	f := Finding{
		ID: "alarm-nospace", Severity: Critical, Subject: who, degrades: true,
		Title:    "Alarm NOSPACE: the database has reached its quota, and all writes are refused",
		Evidence: evidence,
		Why:      "Only reads and deletions are served until there is space again and the alarm is disarmed; it does not go by itself.",
		Fix: "Compact the history, defragment each member (followers first: a member does not serve while it is defragmented), then disarm the alarm. " +
			"If what is in use alone fills the quota, raise --quota-backend-bytes (8 GiB is what etcd suggests at most) or delete keys.",
	}
	revision := int64(0)
	for _, m := range o.answering() {
		revision = max(revision, m.Latest().Revision)
	}
	f.Commands = append(f.Commands, o.command(fmt.Sprintf("compact %d", revision), o.answering()[:1]...))
	f.Commands = append(f.Commands, o.defragCommands()...)
	f.Commands = append(f.Commands, o.command("alarm disarm", o.answering()[:1]...))
	return f
}

// defragCommands defragment one member after the other, the leader last.
func (o *Observation) defragCommands() []string {
	members := o.answering()
	slices.SortStableFunc(members, func(a, b *Member) int {
		return boolInt(a.Latest().Leader == a.ID) - boolInt(b.Latest().Leader == b.ID)
	})
	list := make([]string, 0, len(members))
	for _, m := range members {
		list = append(list, o.command("defrag", m))
	}
	return list
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}
