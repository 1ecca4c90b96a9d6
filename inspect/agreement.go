package inspect

import "fmt"

// lagEntries: a member that applies so many entries later than the leader has them
// is not just a moment behind.
const lagEntries = 1000

// split: do all endpoints lead to one cluster?
func split(o *Observation) []Finding {
	var others []*Member
	for i := range o.Members {
		if m := &o.Members[i]; m.Answers() && m.ClusterID != o.ClusterID {
			others = append(others, m)
		}
	}
	if len(others) == 0 {
		return nil
	}
	f := Finding{
		ID: "different-clusters", Severity: Critical, Subject: cluster, degrades: true,
		Title: "The endpoints belong to different clusters",
		Why: "A client with these endpoints reads and writes now here, now there: what it wrote seems to be gone. " +
			"It happens when a member was bootstrapped with --initial-cluster-state=new instead of joining, or restored by itself.",
		Fix: "Find out which cluster holds the data, and take the others off the endpoints of all clients. Only then put the data directory of the wrong member aside, remove it and add it to the right cluster.",
	}
	for _, m := range o.answering() {
		if m.Given {
			f.Evidence = append(f.Evidence, fmt.Sprintf("cluster %s: %s at revision %d", m.ClusterID, m.Label(), m.Latest().Revision))
		}
	}
	for _, m := range others {
		f.Evidence = append(f.Evidence, fmt.Sprintf("cluster %s: %s at revision %d", m.ClusterID, m.Label(), m.Latest().Revision))
		f.Commands = append(f.Commands, o.command("member list -w table", m))
	}
	return []Finding{f}
}

// lag: who has, at the second look, still less than another had at the first? A
// moment does not explain that.
func lag(o *Observation) []Finding {
	leader := o.leader()
	if leader == nil || leader.Later == nil {
		return nil
	}
	var found []Finding
	for _, m := range o.answering() {
		if m == leader || m.Later == nil {
			continue
		}
		applied := m.Later.AppliedIndex
		if applied >= leader.Status.Index || leader.Status.Index-applied <= lagEntries && m.Later.Revision >= leader.Status.Revision {
			continue
		}
		now := leader.Later.Index - applied
		f := Finding{
			ID: "lag", Severity: Warning, Subject: m.Label(), degrades: !m.Learner,
			Title: fmt.Sprintf("%s is behind by %d entries", m.Label(), now),
			Evidence: []string{
				fmt.Sprintf("applied index %d, revision %d", m.Later.AppliedIndex, m.Later.Revision),
				fmt.Sprintf("%.1f s earlier the leader %s had %d, revision %d", o.SampledSeconds, leader.Label(), leader.Status.Index, leader.Status.Revision),
			},
			Why: "Its serializable reads and its watches are that late, and it can't stand in for the leader. From 5000 entries on a member refuses writes.",
			Fix: "Look at its disk and its CPU: it applies more slowly than the others. If it does not catch up, move its data to a faster disk, or replace it.",
		}
		f.Commands = []string{o.command("endpoint status -w table", o.answering()...)}
		found = append(found, f)
	}
	return found
}

// divergence: at one index all members must have the same revision. That can be
// told only where neither moved between the two looks.
func divergence(o *Observation) []Finding {
	var still []*Member
	for _, m := range o.answering() {
		if m.Later != nil && m.Later.AppliedIndex == m.Status.AppliedIndex && m.Later.Revision == m.Status.Revision {
			still = append(still, m)
		}
	}
	for i, m := range still {
		for _, other := range still[i+1:] {
			if m.Later.AppliedIndex != other.Later.AppliedIndex || m.Later.Revision == other.Later.Revision {
				continue
			}
			return []Finding{{
				ID: "revision-differs", Severity: Critical, Subject: cluster, degrades: true,
				Title: "Members have different revisions at the same point of the log: their data differs",
				Evidence: []string{
					fmt.Sprintf("%s: revision %d at index %d", m.Label(), m.Later.Revision, m.Later.AppliedIndex),
					fmt.Sprintf("%s: revision %d at index %d", other.Label(), other.Later.Revision, other.Later.AppliedIndex),
				},
				Why: "Every member must have the same data. From here on they answer differently, and a snapshot of the wrong one spreads the damage.",
				Fix: "Take a snapshot of each member first. Compare their hashes, find the one that differs from the majority, and replace it: remove it, put its data directory aside, add it again.",
				Commands: []string{
					o.command("endpoint hashkv -w table", o.answering()...) + "   # slows writes down while it runs",
					o.command("snapshot save "+m.Name+".db", m),
					o.command("snapshot save "+other.Name+".db", other),
				},
			}}
		}
	}
	return nil
}
