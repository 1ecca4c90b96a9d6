package datadir

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestJudge(t *testing.T) {
	own := Tail{Dir: "/data/db-0", ClusterID: 0xc, MemberID: 0xa, Term: 5, Vote: 0xb, Commit: 90, LastIndex: 100}
	empty := Tail{Dir: "/data/db-0", Empty: true}
	for name, tc := range map[string]struct {
		tail   Tail
		want   Expectation
		state  State
		reason Reason
		says   string
	}{
		"own":                        {own, Expectation{Joined: true, ClusterID: 0xc, MemberID: 0xa, Mark: Mark{5, 90}}, OK, "", ""},
		"own, IDs unknown":           {own, Expectation{Joined: true}, OK, "", ""},
		"own, mark at the end":       {own, Expectation{Joined: true, Mark: Mark{5, 100}}, OK, "", ""},
		"own, exactly as stopped":    {own, Expectation{Joined: true, Rest: &Rest{5, 0xb, 100}}, OK, "", ""},
		"own, term moved on":         {own, Expectation{Joined: true, Rest: &Rest{4, 0xa, 100}}, OK, "", ""},
		"fresh":                      {empty, Expectation{}, Fresh, "", ""},
		"fresh after a failed start": {empty, Expectation{Started: true}, Fresh, "", ""},
		"started, not yet reported":  {own, Expectation{Started: true}, OK, "", ""},
		"declared, never started":    {own, Expectation{ClusterID: 0xc, MemberID: 0xa}, OK, "", ""},
		"empty":                      {empty, Expectation{Joined: true, ClusterID: 0xc, MemberID: 0xa}, Refused, ReasonEmpty, "member a of cluster c"},
		"nobody's":                   {own, Expectation{}, Refused, ReasonForeign, "no etcd was ever started here"},
		"another member's":           {own, Expectation{Joined: true, ClusterID: 0xc, MemberID: 0xf}, Refused, ReasonForeign, "belongs to member a of cluster c, not to this member (member f of cluster c)"},
		"another cluster's":          {own, Expectation{Started: true, ClusterID: 0xd}, Refused, ReasonForeign, "belongs to member a of cluster c"},
		"older term":                 {own, Expectation{Joined: true, Mark: Mark{6, 50}}, Refused, ReasonRolledBack, "ends at term 5, index 100, but the member has been seen at term 6, index 50"},
		"older index":                {own, Expectation{Joined: true, Mark: Mark{5, 101}}, Refused, ReasonRolledBack, "seen at term 5, index 101"},
		"shorter than at rest":       {own, Expectation{Joined: true, Mark: Mark{5, 90}, Rest: &Rest{5, 0xb, 101}}, Refused, ReasonRolledBack, "not started since"},
		"vote forgotten":             {own, Expectation{Joined: true, Rest: &Rest{5, 0xf, 100}}, Refused, ReasonRolledBack, "vote f"},
	} {
		t.Run(name, func(t *testing.T) {
			got := Judge(tc.tail, tc.want)
			if got.State != tc.state || got.Reason != tc.reason || !strings.Contains(got.Message, tc.says) {
				t.Fatalf("got %s %s %q, want %s %s %q", got.State, got.Reason, got.Message, tc.state, tc.reason, tc.says)
			}
			if (got.State == Refused) != strings.Contains(got.Message, nextStep) {
				t.Fatalf("the message doesn't go with the state: %q", got.Message)
			}
			if got.State == Refused && !strings.Contains(got.Message, "/data/db-0") {
				t.Fatalf("the message names no directory: %q", got.Message)
			}
		})
	}
}

func TestMergeTakesTheStricter(t *testing.T) {
	rest := &Rest{Term: 4}
	a := Expectation{Joined: true, MemberID: 0xa, Mark: Mark{3, 50}}
	b := Expectation{Started: true, MemberID: 0xb, ClusterID: 0xc, Mark: Mark{4, 40}, Rest: rest}
	want := Expectation{Joined: true, Started: true, MemberID: 0xa, ClusterID: 0xc, Mark: Mark{4, 50}, Rest: rest}
	if diff := cmp.Diff(want, a.Merge(b)); diff != "" {
		t.Fatalf("(-want +got):\n%s", diff)
	}
}
