package inspect

import "fmt"

// availability: does a quorum stand behind it?
func availability(o *Observation) []Finding {
	if len(o.answering()) == 0 || o.serves() {
		return nil
	}
	if len(o.voting()) == 0 {
		return []Finding{{
			ID: "only-learners", Severity: Warning, Subject: cluster,
			Title:    "Only learners answer: whether the cluster serves is unknown",
			Evidence: []string{"learners: " + andList(labels(o.answering()))},
			Why:      "A learner does not list the members and answers no linearizable read. It goes on answering when all voters are dead.",
			Fix:      "Name the client URL of a voter with --endpoints.",
		}}
	}
	voters, quorum, up := o.tally()
	answer := 0
	for _, m := range o.voters() {
		if m.Answers() {
			answer++
		}
	}
	f := Finding{
		ID: "no-quorum", Severity: Critical, Subject: cluster, degrades: true,
		Title: "There is no quorum: nothing can be written, and only serializable reads are answered",
		Evidence: []string{
			fmt.Sprintf("of %s %d answer, and %d follow a leader; a quorum is %d", plural(voters, "voter", "voters"), answer, up, quorum),
		},
		Why: "etcd commits a write, and answers a linearizable read, only when more than half of its voters agree.",
		Fix: fmt.Sprintf("Bring back at least %d of the members that are named below; the cluster then elects a leader by itself. "+
			"Only when their data is lost for good is it restored from a snapshot, or rebuilt from one survivor: that gives up what only they had.", max(quorum-answer, 1)),
		Commands: []string{"systemctl status etcd; journalctl -u etcd -n 50   # on the hosts of the members that do not answer"},
	}
	for _, m := range o.answering() {
		if m.Linearizable != nil && m.Linearizable.Failed != nil {
			f.Evidence = append(f.Evidence, m.Label()+" to a linearizable read: "+m.Linearizable.Failed.Text)
		}
	}
	if answer >= quorum {
		f.Fix = "Enough voters run, so it is between them that something is wrong: look whether they reach each other's peer URLs, and whether their peer certificates are valid."
		f.Commands = peerCommands(o)
	}
	return []Finding{f}
}

func labels(members []*Member) []string {
	list := make([]string, 0, len(members))
	for _, m := range members {
		list = append(list, m.Label())
	}
	return list
}

func peerCommands(o *Observation) []string {
	var list []string
	for _, m := range o.voters() {
		for _, u := range m.PeerURLs {
			list = append(list, "curl -vk "+u+"/version   # from the host of every other member: does it connect?")
		}
	}
	return list
}

// leaders: do all follow the same one?
func leaders(o *Observation) []Finding {
	var found []Finding
	follow := map[string][]string{}
	var order []string
	changed := false
	for _, m := range o.answering() {
		st := m.Latest()
		if m.Later != nil && m.Status.Leader != "" && m.Later.Leader != "" && (m.Status.Term != m.Later.Term || m.Status.Leader != m.Later.Leader) {
			changed = true
		}
		if _, ok := follow[st.Leader]; !ok {
			order = append(order, st.Leader)
		}
		follow[st.Leader] = append(follow[st.Leader], fmt.Sprintf("%s, term %d", m.Label(), st.Term))
	}
	if len(order) > 1 && o.serves() {
		f := Finding{
			ID: "leaders-differ", Severity: Critical, Subject: cluster, degrades: true,
			Title: "The members do not follow the same leader",
			Why:   "A member without the cluster's leader serves old data at best, and its clients can't write: it is cut off from the others.",
			Fix:   "Look whether the members that stand apart reach the peer URLs of the others, and are reached at theirs.",
		}
		for _, id := range order {
			who := "no leader"
			if id != "" {
				who = o.nameOf(id)
			}
			f.Evidence = append(f.Evidence, fmt.Sprintf("%s: followed by %s", who, andList(follow[id])))
		}
		f.Commands = peerCommands(o)
		found = append(found, f)
	}
	if changed {
		found = append(found, Finding{
			ID: "leader-changed", Severity: Warning, Subject: cluster, degrades: true,
			Title:    "The leader changed while it was looked at",
			Evidence: []string{fmt.Sprintf("within %.1f s", o.SampledSeconds)},
			Why:      "Each election stops all writes for about a second. A cluster that holds elections often suffers from slow disks, a slow network, or too little CPU.",
			Fix:      "Run it again in a minute. If the leader changes again, look at disk and network latency below, and raise --election-timeout only when they can't be better.",
			Commands: []string{o.command("endpoint status -w table", o.answering()...)},
		})
	}
	return found
}
