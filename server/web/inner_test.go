package web

import (
	"fmt"
	"math"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/quorate/quorate/api/v1alpha1"
)

func TestFigures(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1 KiB", 20 << 10: "20 KiB", 1536: "1.5 KiB", 1<<20 - 1: "1.0 MiB",
		8 << 30: "8 GiB", 123 << 20: "123 MiB", math.MaxInt64: "8 EiB",
	} {
		if got := bytesText(n); got != want {
			t.Errorf("%d bytes are %q, want %q", n, got, want)
		}
	}
	for n, want := range map[any]string{0: "0", 9999: "9999", 12345: "12\u202f345", int64(-1234567): "-1\u202f234\u202f567", uint64(math.MaxUint64): "18\u202f446\u202f744\u202f073\u202f709\u202f551\u202f615"} {
		if got := numberText(n); got != want {
			t.Errorf("%v is %q, want %q", n, got, want)
		}
	}
	for ms, want := range map[float64]string{0.04: "0.0 ms", 1.26: "1.3 ms", 99.9: "99.9 ms", 1234: "1234 ms", 12345: "12.3 s"} {
		if got := millisText(ms); got != want {
			t.Errorf("%v ms are %q, want %q", ms, got, want)
		}
	}
	for _, tc := range []struct {
		part, whole int64
		want        string
	}{{0, 10, "0"}, {5, 0, "0"}, {1, 8, "12.5"}, {9, 8, "100.0"}, {-1, 8, "0"}} {
		if got := share(tc.part, tc.whole); got != tc.want {
			t.Errorf("%d of %d is %q, want %q", tc.part, tc.whole, got, tc.want)
		}
	}
}

func TestAge(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for d, want := range map[time.Duration][2]string{
		-time.Hour: {"0 s", "0 秒"}, 119 * time.Second: {"119 s", "119 秒"}, 3 * time.Minute: {"3 min", "3 分钟"},
		47 * time.Hour: {"47 h", "47 小时"}, 72 * time.Hour: {"3 d", "3 天"},
	} {
		for i, lang := range []string{"en", "zh"} {
			if got := words(t, lang).age(now.Add(-d), now); got != want[i] {
				t.Errorf("%s in %s: %q, want %q", d, lang, got, want[i])
			}
		}
	}
	if got := words(t, "en").age((*v1alpha1.Time)(nil), now); got != "–" {
		t.Errorf("never: %q", got)
	}
}

func TestFleetQuery(t *testing.T) {
	q := fleetQueryOf(url.Values{"q": {" a b "}, "state": {"Healthy"}, "page": {"3"}, "sort": {"nonsense"}})
	for _, tc := range []struct{ got, want string }{
		{q.With("figures", ""), "?page=3&q=a+b&state=Healthy"},
		{q.With("figures", "true"), "?figures=true&page=3&q=a+b&state=Healthy"},
		{q.With("state", ""), "?q=a+b"},
		{q.Turn(1), "?page=4&q=a+b&state=Healthy"},
		{fleetQueryOf(nil).With("state", ""), ""},
	} {
		if tc.got != tc.want {
			t.Errorf("got %q, want %q", tc.got, tc.want)
		}
	}
}

func TestNarrow(t *testing.T) {
	var rows []row
	for i := range 120 {
		rows = append(rows, row{Name: fmt.Sprintf("c-%03d", i), Namespace: "ns", State: states[i%len(states)], Version: "3.7.3"})
	}
	d := fleetData{Query: fleetQueryOf(url.Values{"page": {"99"}})}
	d.narrow(rows)
	if d.Total != 120 || d.Pages != 3 || len(d.Rows) != 20 || d.From != 101 || d.To != 120 || d.Rows[0].State != v1alpha1.StateStopped {
		t.Errorf("the last page: %d of %d, %d rows from %d to %d", d.Query.Page, d.Pages, len(d.Rows), d.From, d.To)
	}
	d = fleetData{Query: fleetQueryOf(url.Values{"state": {"Degraded"}, "q": {"NS/c-00 3.7"}})}
	d.narrow(rows)
	if d.Total != 10 || d.Shown != 2 || d.Counts[1].Count != 2 {
		t.Errorf("narrowed: %d of %d, counts %v", d.Shown, d.Total, d.Counts)
	}
}

func TestDraw(t *testing.T) {
	for n := range 10 {
		members := make([]v1alpha1.MemberView, n)
		for i := range members {
			members[i] = v1alpha1.MemberView{Name: fmt.Sprintf("c-%d", i+1), Healthy: true}
		}
		if n > 1 {
			members[1].Role = v1alpha1.RoleLeader
			members[0].Healthy = false
		}
		d := draw(members, 3)
		if len(d.Nodes) != max(n, 3) {
			t.Errorf("%d members are drawn as %d", n, len(d.Nodes))
		}
		up := 0
		for _, l := range d.Links {
			if l.Up {
				up++
			}
			if math.IsNaN(l.X1) || math.IsNaN(l.Y2) {
				t.Errorf("%d members: a link leads nowhere: %+v", n, l)
			}
		}
		if want := max(0, n-2); n > 1 && up != want {
			t.Errorf("%d members: %d links carry entries, want %d", n, up, want)
		}
		for _, p := range d.Nodes {
			if p.X < 0 || p.X > drawingWidth || p.Y < 0 || max(p.NameY, p.RoleY) > d.Height || min(p.NameY, p.RoleY) < 0 {
				t.Errorf("%d members: %s lies outside of the picture: %+v, height %v", n, p.Name, p, d.Height)
			}
		}
	}
}

func TestParseLine(t *testing.T) {
	for text, want := range map[string]logLine{
		`{"level":"WARN","ts":"2026-01-02T03:04:05Z","caller":"a.go:1","msg":"slow","took":"1s","n":3}`: {
			Time: "2026-01-02T03:04:05Z", Level: "warn", Message: "slow", More: "caller=a.go:1 n=3 took=1s",
		},
		`panic: <script>`:            {Message: "panic: <script>"},
		`{"broken`:                   {Message: `{"broken`},
		`{"msg":{"not":"a text"}}`:   {More: `msg={"not":"a text"}`},
		`{"time":"t","msg":"hello"}`: {Time: "t", Message: "hello"},
	} {
		if diff := cmp.Diff(want, parseLine(text)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
	}
}

func TestReadLines(t *testing.T) {
	long := strings.Repeat("x", 3*maxLogLine)
	var got []logLine
	for batch := range readLines(t.Context(), strings.NewReader("one\n"+long+"\ntwo\n")) {
		got = append(got, batch...)
	}
	if len(got) != 3 || got[0].Message != "one" || got[2].Message != "two" || len(got[1].Message) > maxLogLine {
		t.Errorf("read %d lines", len(got))
	}
}

// TestMessage: text with any end of line is one event of a stream.
func TestMessage(t *testing.T) {
	got := message("event", []byte("a\nevent: forged\r\n\ndata: b"))
	if want := "event: event\ndata: a\ndata: event: forged\ndata: \ndata: \ndata: data: b\n\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestRecovery follows a leader's death in the order in which its steps are seen.
func TestRecovery(t *testing.T) {
	member := func(name string, role v1alpha1.MemberRole, term uint64) v1alpha1.MemberView {
		return v1alpha1.MemberView{Name: name, Role: role, RaftTerm: term, Answered: true, Healthy: true}
	}
	down := func(name string) v1alpha1.MemberView { return v1alpha1.MemberView{Name: name} }
	view := func(state v1alpha1.ClusterState, leader string, members ...v1alpha1.MemberView) *v1alpha1.ClusterView {
		return &v1alpha1.ClusterView{State: state, Leader: leader, Members: members}
	}
	healthy, leads, follows := v1alpha1.StateHealthy, v1alpha1.RoleLeader, v1alpha1.RoleFollower
	late := member("a", follows, 3)
	late.LatencyMilliseconds = 900
	before := view(healthy, "a", member("a", leads, 2), member("b", follows, 2), member("c", follows, 2))
	for name, tc := range map[string]struct {
		views []*v1alpha1.ClusterView
		want  string
	}{
		"step by step": {[]*v1alpha1.ClusterView{
			before,
			view(v1alpha1.StateUnavailable, "", down("a"), member("b", follows, 2), member("c", follows, 2)),
			view(v1alpha1.StateDegraded, "b", down("a"), member("b", leads, 3), member("c", follows, 3)),
			view(healthy, "b", member("a", follows, 3), member("b", leads, 3), member("c", follows, 3)),
		}, "lost@1 elected@2 serving@2 back@3 healthy@3"},
		"all at once": {[]*v1alpha1.ClusterView{
			view(healthy, "b", member("a", follows, 3), member("b", leads, 3), member("c", follows, 3)),
		}, "lost@0 back@0 elected@0 serving@0 healthy@0"},
		"it leads again": {[]*v1alpha1.ClusterView{
			view(v1alpha1.StateUnavailable, "", down("a"), member("b", follows, 2), member("c", follows, 2)),
			view(healthy, "a", member("a", leads, 3), member("b", follows, 3), member("c", follows, 3)),
		}, "lost@0 back@1 elected@1 serving@1 healthy@1"},
		"an answer that came late was none at the moment": {[]*v1alpha1.ClusterView{
			view(healthy, "b", late, member("b", leads, 3), member("c", follows, 3)),
		}, "lost@0 elected@0 serving@0"},
	} {
		r := newRecovery(before)
		var got []string
		for at, v := range tc.views {
			r.date(v)
			for _, m := range r.see(v, int64(at)) {
				got = append(got, fmt.Sprintf("%s@%d", m.Step, m.At))
			}
		}
		if strings.Join(got, " ") != tc.want || r.healed != strings.Contains(tc.want, "healthy") {
			t.Errorf("%s: %v, want %s", name, got, tc.want)
		}
	}
}

// TestHostRow: what a list of hosts says of a host beside what its agent reports.
func TestHostRow(t *testing.T) {
	h := &v1alpha1.EtcdHost{}
	if r := (hostRow{Host: h}); r.Unfit() != "" || r.Capacity() != "" {
		t.Fatalf("of nothing known: %q, %q", r.Unfit(), r.Capacity())
	}
	h.Spec.Capacity = &v1alpha1.Resources{CPU: resource.MustParse("1500m"), Memory: resource.MustParse("4Gi")}
	v1alpha1.SetCondition(&h.Status.Conditions, v1alpha1.Condition{Type: v1alpha1.ConditionFit, Status: v1alpha1.False, Reason: "ChecksFail", Message: "disk-space"})
	r := hostRow{Host: h}
	if r.Unfit() != "disk-space" || r.Capacity() != "cpu 1500m, memory 4Gi" {
		t.Fatalf("%q, %q", r.Unfit(), r.Capacity())
	}
}
