package backup

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/quorate/quorate/etcd"
)

// maxBehind is how many raft entries a member may be behind the leader and still be
// asked for a backup. Why: between the two answers of one survey a busy cluster
// applies some hundred; whether the file is recent enough is judged by its revision
// once it is there.
const maxBehind = 5000

// Errors of choosing a member. Test with errors.Is.
var (
	// ErrNoSource says that no member is fit to be backed up.
	ErrNoSource = errors.New("no member is fit to be backed up")
	// ErrNoLeader says that the members that answer follow no leader, so that nobody can say
	// whether they are behind.
	ErrNoLeader = errors.New("the cluster has no leader")
)

// Role of a member when it was backed up.
type Role string

// The roles, in the order in which they are asked.
const (
	RoleLearner  Role = "learner"
	RoleFollower Role = "follower"
	RoleLeader   Role = "leader"
)

// Source is a member that a backup is taken from.
type Source struct {
	etcd.MemberAnswer
	Role Role
	// Why it and not another, in a sentence.
	Why string
}

// Wanted narrows the choice of a member.
type Wanted struct {
	// Member by name or ID in hex; empty lets Choose decide.
	Member string
	// WithoutLeader takes the member that is furthest where there is no leader.
	WithoutLeader bool
}

// Choose lists the members fit to be backed up, best first: a learner, which
// serves no client, then followers, then the leader; of equal ones that with the
// shortest answer. A member that is behind or corrupt is never among them. The error
// is ErrNoSource or ErrNoLeader, with what is wrong with each.
func Choose(s *etcd.Survey, wanted Wanted) ([]Source, error) {
	leader := leaderOf(s)
	if !slices.ContainsFunc(s.Members, func(m etcd.MemberAnswer) bool { return m.Answered }) {
		return nil, fmt.Errorf("%w: nobody answers: %s", ErrNoSource, unfitness(s, nil))
	}
	if leader == nil && !wanted.WithoutLeader {
		return nil, fmt.Errorf("%w: whether a member is behind can't be told without one; `quorate doctor` says why, and --without-leader takes the member that is furthest: %s",
			ErrNoLeader, unfitness(s, leader))
	}
	var fit []Source
	for _, m := range s.Members {
		if unfit(m, leader, corrupt(s)) != "" || wanted.Member != "" && !wanted.names(m) {
			continue
		}
		fit = append(fit, Source{MemberAnswer: m, Role: roleOf(m, leader)})
	}
	if len(fit) == 0 {
		whom := "none of the members"
		if wanted.Member != "" {
			whom = "member " + wanted.Member
			if !slices.ContainsFunc(s.Members, wanted.names) {
				return nil, fmt.Errorf("%w: there is no %s: the members are %s", ErrNoSource, whom, namesOf(s))
			}
		}
		return nil, fmt.Errorf("%w: %s: %s", ErrNoSource, whom, unfitness(s, leader))
	}
	rank := map[Role]int{RoleLearner: 0, RoleFollower: 1, RoleLeader: 2}
	slices.SortFunc(fit, func(a, b Source) int {
		if leader == nil {
			return cmp.Or(-cmp.Compare(a.Status.Term, b.Status.Term), -cmp.Compare(a.Status.AppliedIndex, b.Status.AppliedIndex), strings.Compare(a.Name, b.Name))
		}
		return cmp.Or(cmp.Compare(rank[a.Role], rank[b.Role]), cmp.Compare(a.Took, b.Took), strings.Compare(a.Name, b.Name))
	})
	for i := range fit {
		if fit[i].Why = why(&fit[i], leader); wanted.Member != "" {
			fit[i].Why = "the " + string(fit[i].Role) + " that was asked for"
		}
	}
	return fit, nil
}

// names reports whether a member is the one that is wanted by name or ID.
func (w Wanted) names(m etcd.MemberAnswer) bool {
	return w.Member == m.Name || w.Member == m.ID.String()
}

func namesOf(s *etcd.Survey) string {
	names := make([]string, 0, len(s.Members))
	for _, m := range s.Members {
		names = append(names, cmp.Or(m.Name, m.ID.String()))
	}
	return strings.Join(names, ", ")
}

func why(s *Source, leader *etcd.MemberAnswer) string {
	switch {
	case leader == nil:
		return "there is no leader, and it has applied the most"
	case s.Role == RoleLearner:
		return "a learner serves no client"
	case s.Role == RoleFollower:
		return "a follower, which spares the leader"
	default:
		return "the leader, since no other member is fit"
	}
}

func leaderOf(s *etcd.Survey) *etcd.MemberAnswer {
	for i := range s.Members {
		if m := &s.Members[i]; m.Answered && m.Status.Leader != 0 && m.Status.Leader == m.ID {
			return m
		}
	}
	return nil
}

func roleOf(m etcd.MemberAnswer, leader *etcd.MemberAnswer) Role {
	switch {
	case m.Learner || m.Status.Learner:
		return RoleLearner
	case leader != nil && leader.ID == m.ID:
		return RoleLeader
	default:
		return RoleFollower
	}
}

// corrupt are the members that an alarm of any member names.
func corrupt(s *etcd.Survey) map[etcd.ID]bool {
	named := map[etcd.ID]bool{}
	for _, m := range s.Members {
		for _, a := range m.Status.Alarms() {
			if a.Type == "CORRUPT" {
				named[a.Member] = true
			}
		}
	}
	return named
}

// unfit says why a member is not to be backed up, or "".
func unfit(m etcd.MemberAnswer, leader *etcd.MemberAnswer, corrupt map[etcd.ID]bool) string {
	switch {
	case !m.Answered && m.Fault != nil:
		return m.Fault.Cause
	case !m.Answered:
		return "it has not answered"
	case corrupt[m.ID]:
		return "an alarm says that its data is corrupt"
	case leader == nil:
		return ""
	case m.Status.Term != leader.Status.Term:
		return fmt.Sprintf("it is in term %d and the leader in %d", m.Status.Term, leader.Status.Term)
	case m.Status.AppliedIndex+maxBehind < leader.Status.AppliedIndex:
		return fmt.Sprintf("it is %d entries behind the leader", leader.Status.AppliedIndex-m.Status.AppliedIndex)
	}
	return ""
}

// unfitness lists what is wrong with each member.
func unfitness(s *etcd.Survey, leader *etcd.MemberAnswer) string {
	var all []string
	for _, m := range s.Members {
		if reason := unfit(m, leader, corrupt(s)); reason != "" {
			all = append(all, cmp.Or(m.Name, m.ID.String())+": "+reason)
		}
	}
	for _, f := range s.Deaf {
		if len(s.Members) == 0 {
			all = append(all, f.String())
		}
	}
	if len(all) == 0 {
		return "no member was found at the given endpoints"
	}
	return strings.Join(all, "; ")
}
