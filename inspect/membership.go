package inspect

import "fmt"

// membership: is the list of members as it should be?
func membership(o *Observation) []Finding {
	var found []Finding
	for _, m := range o.of() {
		switch {
		case m.Name == "" && m.Listed && !m.Answers():
			found = append(found, o.neverStarted(m))
		case m.Learner:
			found = append(found, Finding{
				ID: "learner", Severity: Warning, Subject: m.Label(),
				Title:    m.Label() + " is a learner: it has no vote",
				Evidence: learnerEvidence(o, m),
				Why:      "A learner is meant to be on its way to become a voter. One that is left over adds nothing to what the cluster survives, and by default no second one can be added.",
				Fix:      "Promote it once it has caught up; remove it if nobody needs it. Leave it if it is a standby on purpose.",
				Commands: []string{o.command("member promote "+m.ID, o.voting()...), o.command("member remove "+m.ID, o.voting()...)},
			})
		}
	}
	return append(found, o.count()...)
}

// voting are the members that answer what a learner does not.
func (o *Observation) voting() []*Member {
	var list []*Member
	for _, m := range o.answering() {
		if !m.Learner {
			list = append(list, m)
		}
	}
	return list
}

func (o *Observation) neverStarted(m *Member) Finding {
	voters, quorum, up := o.tally()
	f := Finding{
		ID: "never-started", Severity: Warning, Subject: m.Label(), degrades: true,
		Title:    fmt.Sprintf("Member %s was added and has never started", m.ID),
		Evidence: []string{"its peer URLs: " + orNone(m.PeerURLs), fmt.Sprintf("%d of %d voters run; a quorum is %d", up, voters, quorum)},
		Why:      "It counts for the quorum and does not vote, so the cluster survives less than before it was added. Further members can't be added meanwhile.",
		Fix:      "Start it with --initial-cluster-state=existing and the member list in --initial-cluster, or remove it.",
		Commands: []string{o.command("member remove "+m.ID, o.voting()...)},
	}
	if m.Learner {
		f.Why = "It is a learner, so it does not count for the quorum. Further learners can't be added meanwhile."
		f.degrades = false
	} else if up <= quorum {
		f.Severity = Critical
	}
	return f
}

func learnerEvidence(o *Observation, m *Member) []string {
	if !m.Answers() {
		return []string{"it does not answer"}
	}
	list := []string{fmt.Sprintf("it has applied index %d", m.Latest().AppliedIndex)}
	if leader := o.leader(); leader != nil {
		list = append(list, fmt.Sprintf("the leader %s is at %d", leader.Label(), leader.Latest().Index))
	}
	return list
}

// count: does the number of voters make sense?
func (o *Observation) count() []Finding {
	voters, quorum, _ := o.tally()
	if len(o.answering()) == 0 || !o.anyListed() {
		return nil
	}
	survives := voters - quorum
	f := Finding{ID: "member-count", Severity: Info, Subject: cluster, Evidence: []string{fmt.Sprintf("%s, a quorum is %d: it survives the loss of %d", plural(voters, "voter", "voters"), quorum, survives)}}
	switch {
	case voters == 1:
		f.Title = "It has a single member"
		f.Why = "When its host or its disk is lost, so is the service, and all that was written since the last backup."
		f.Fix = "Run three members where that matters, and back it up anyway."
	case voters == 2:
		f.Severity = Warning
		f.Title = "It has two voters, and survives the loss of none"
		f.Why = "Both are needed for a quorum, so it fails twice as often as a single member."
		f.Fix = "Add a third member, as a learner first."
	case voters%2 == 0:
		f.Title = fmt.Sprintf("It has an even number of voters: %d", voters)
		f.Why = fmt.Sprintf("%d voters survive the loss of %d, just as many as %d do, and every write waits for one more.", voters, survives, voters-1)
		f.Fix = "Add one member or remove one."
	default:
		return nil
	}
	if voters <= 2 {
		f.Commands = []string{o.command("member add NAME --learner --peer-urls=https://HOST:2380", o.voting()...)}
	}
	return []Finding{f}
}

func (o *Observation) anyListed() bool {
	for _, m := range o.of() {
		if m.Listed {
			return true
		}
	}
	return false
}
