package backup_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/backup"
	"github.com/quorate/quorate/etcd"
)

// answer of a member, as far as the choice looks at it.
func answer(id etcd.ID, name string, edit func(*etcd.MemberAnswer)) etcd.MemberAnswer {
	m := etcd.MemberAnswer{
		Member: etcd.Member{ID: id, Name: name}, Endpoint: "http://" + name, Answered: true, Took: time.Duration(id) * time.Millisecond,
		Status: etcd.Status{MemberID: id, Leader: 1, Term: 3, AppliedIndex: 100_000, Revision: 500},
	}
	if edit != nil {
		edit(&m)
	}
	return m
}

func TestChoose(t *testing.T) {
	t.Parallel()
	learner := func(m *etcd.MemberAnswer) { m.Learner, m.Status.Learner = true, true }
	behind := func(m *etcd.MemberAnswer) { m.Status.AppliedIndex = 10_000 }
	silent := func(m *etcd.MemberAnswer) {
		m.Answered, m.Status = false, etcd.Status{}
		m.Fault = &etcd.Fault{Kind: etcd.FaultRefused, Cause: "connection refused"}
	}
	leaderless := func(m *etcd.MemberAnswer) { m.Status.Leader = 0 }
	for name, c := range map[string]struct {
		members []etcd.MemberAnswer
		wanted  backup.Wanted
		// names of the fit ones in order, or what the error says.
		names string
		err   error
		says  string
	}{
		"followers before the leader, the quicker first": {
			members: []etcd.MemberAnswer{answer(1, "a", nil), answer(3, "c", nil), answer(2, "b", nil)}, names: "b c a",
		},
		"a learner first": {
			members: []etcd.MemberAnswer{answer(1, "a", nil), answer(2, "b", nil), answer(3, "c", learner)}, names: "c b a",
		},
		"no learner that is behind": {
			members: []etcd.MemberAnswer{answer(1, "a", nil), answer(2, "b", nil), answer(3, "c", func(m *etcd.MemberAnswer) { learner(m); behind(m) })}, names: "b a",
		},
		"nobody in another term": {
			members: []etcd.MemberAnswer{answer(1, "a", nil), answer(2, "b", func(m *etcd.MemberAnswer) { m.Status.Term = 2 })}, names: "a",
		},
		"nobody whose data is corrupt": {
			members: []etcd.MemberAnswer{answer(1, "a", func(m *etcd.MemberAnswer) { m.Status.Errors = []string{"memberID:2 alarm:CORRUPT"} }), answer(2, "b", nil)}, names: "a",
		},
		"the one that is asked for": {
			members: []etcd.MemberAnswer{answer(1, "a", nil), answer(2, "b", nil)}, wanted: backup.Wanted{Member: "a"}, names: "a",
		},
		"by its ID": {
			members: []etcd.MemberAnswer{answer(1, "a", nil), answer(0xbeef, "b", nil)}, wanted: backup.Wanted{Member: "beef"}, names: "b",
		},
		"not the one that is asked for and behind": {
			members: []etcd.MemberAnswer{answer(1, "a", nil), answer(2, "b", behind)}, wanted: backup.Wanted{Member: "b"},
			err: backup.ErrNoSource, says: "b: it is 90000 entries behind the leader",
		},
		"nobody without a leader": {
			members: []etcd.MemberAnswer{answer(1, "a", silent), answer(2, "b", leaderless)}, err: backup.ErrNoLeader, says: "a: connection refused",
		},
		"the furthest without a leader, when told": {
			members: []etcd.MemberAnswer{answer(1, "a", silent), answer(2, "b", func(m *etcd.MemberAnswer) { leaderless(m); behind(m) }), answer(3, "c", leaderless)},
			wanted:  backup.Wanted{WithoutLeader: true}, names: "c b",
		},
		"nobody at all": {err: backup.ErrNoSource, says: "no member was found"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sources, err := backup.Choose(&etcd.Survey{Members: c.members}, c.wanted)
			if !errors.Is(err, c.err) || c.err != nil && !strings.Contains(err.Error(), c.says) {
				t.Fatalf("error %v, want %v that says %q", err, c.err, c.says)
			}
			var names []string
			for _, s := range sources {
				names = append(names, s.Name)
				if s.Why == "" {
					t.Errorf("%s is chosen without a reason", s.Name)
				}
			}
			if got := strings.Join(names, " "); got != c.names {
				t.Errorf("chose %q, want %q", got, c.names)
			}
		})
	}
}
