package inspect

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/internal/bytesize"
)

// Severity of a finding.
type Severity string

// The severities, worst first.
const (
	// Critical: it does not serve, loses data, or is one step before.
	Critical Severity = "critical"
	// Warning: it serves, and something has to be done about it.
	Warning Severity = "warning"
	// Info: worth to know; nothing is wrong.
	Info Severity = "info"
)

var ranks = map[Severity]int{Critical: 0, Warning: 1, Info: 2}

// Finding is one thing that is wrong, with all that a person needs to put it right.
type Finding struct {
	// ID names the kind of finding; it is the heading in docs/doctor.md.
	ID       string   `json:"id"`
	Severity Severity `json:"severity"`
	// Subject is the cluster, or the member or endpoint.
	Subject string `json:"subject"`
	// Title says it in one sentence.
	Title string `json:"title"`
	// Evidence are the figures it rests on.
	Evidence []string `json:"evidence,omitempty"`
	// Why it matters.
	Why string `json:"why"`
	// Fix says what to do, and Commands are to copy.
	Fix      string   `json:"fix"`
	Commands []string `json:"commands,omitempty"`
	// Docs is where more is written.
	Docs string `json:"docs"`

	// degrades: the cluster is not healthy while this stands.
	degrades bool
}

// Report is what an inspection ends with.
type Report struct {
	// State as operators call it, and Summary, which says why in one sentence.
	State   v1alpha1.ClusterState `json:"state"`
	Summary string                `json:"summary"`
	// Findings, worst first.
	Findings []Finding `json:"findings"`
	// Observation that they rest on.
	Observation *Observation `json:"observation"`
}

// Worst is the severity of the worst finding; empty without one.
func (r *Report) Worst() Severity {
	if len(r.Findings) == 0 {
		return ""
	}
	return r.Findings[0].Severity
}

// docsPage explains each finding under its ID.
const docsPage = "docs/doctor.md"

// cluster is the subject of what concerns no single member.
const cluster = "cluster"

// checks are all that is examined. Findings of equal severity keep this order.
var checks = []func(*Observation) []Finding{
	availability, split, unreachable, logins, alarms, divergence, leaders, membership, lag,
	certificates, space, forecast, fragmentation, compaction, releases, clocks, latency, disks, sizes, access,
}

// Examine says what is wrong with what was seen.
func Examine(o *Observation) *Report {
	r := &Report{Observation: o, Findings: []Finding{}}
	for _, check := range checks {
		r.Findings = append(r.Findings, check(o)...)
	}
	for i := range r.Findings {
		r.Findings[i].Docs = docsPage + "#" + r.Findings[i].ID
	}
	slices.SortStableFunc(r.Findings, func(a, b Finding) int { return cmp.Compare(ranks[a.Severity], ranks[b.Severity]) })
	r.State, r.Summary = o.judge(r.Findings)
	return r
}

// judge is the state in one word, and why in one sentence.
func (o *Observation) judge(findings []Finding) (v1alpha1.ClusterState, string) {
	voters, quorum, up := o.tally()
	answering := len(o.answering())
	switch {
	case answering == 0:
		return v1alpha1.StateUnknown, "nobody answers at " + andList(o.Endpoints)
	case !o.serves() && len(o.voting()) == 0:
		return v1alpha1.StateUnknown, "only learners answer at " + andList(o.Endpoints)
	case !o.serves():
		return v1alpha1.StateUnavailable, fmt.Sprintf("serializable reads only: %d of %s a leader, and %d are needed to write", up, plural(voters, "voter follows", "voters follow"), quorum)
	}
	told := fmt.Sprintf("%d of %s, etcd %s", answering, plural(len(o.of()), "member answers", "members answer"), andList(o.versions()))
	for _, f := range findings {
		if f.degrades {
			return v1alpha1.StateDegraded, "it serves, and " + lower(f.Title)
		}
	}
	if n := len(findings); n > 0 && findings[0].Severity != Info {
		return v1alpha1.StateHealthy, told + ", with findings"
	}
	return v1alpha1.StateHealthy, told
}

// tally counts the voters, how many are a quorum, and how many follow a leader.
func (o *Observation) tally() (voters, quorum, up int) {
	for _, m := range o.voters() {
		voters++
		if m.Answers() && m.Latest().Leader != "" {
			up++
		}
	}
	return voters, voters/2 + 1, up
}

// serves says that a linearizable read was answered: a quorum stands behind that.
func (o *Observation) serves() bool {
	return slices.ContainsFunc(o.of(), func(m *Member) bool { return m.Linearizable != nil && m.Linearizable.Reads > 0 })
}

// versions that the members run, lowest first.
func (o *Observation) versions() []string {
	var list []string
	for _, m := range o.answering() {
		if v := m.Latest().Version; v != "" && !slices.Contains(list, v) {
			list = append(list, v)
		}
	}
	slices.SortFunc(list, func(a, b string) int { return parseRelease(a).compare(parseRelease(b)) })
	return list
}

func lower(s string) string { return strings.ToLower(s[:1]) + s[1:] }

func plural(n int, one, many string) string {
	if n == 1 {
		return fmt.Sprintf("%d %s", n, one)
	}
	return fmt.Sprintf("%d %s", n, many)
}

// andList is "a", "a and b", "a, b and c".
func andList(list []string) string {
	if len(list) < 2 {
		return strings.Join(list, "")
	}
	last := len(list) - 1
	return strings.Join(list[:last], ", ") + " and " + list[last]
}

// Size is a number of bytes as people write it.
func Size(n int64) string { return bytesize.Text(n) }

// span is a duration as people say it.
func span(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < 0:
		return span(-d)
	case d >= 2*day:
		return fmt.Sprintf("%d days", int(d/day))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d hours", int(d/time.Hour))
	case d >= 2*time.Minute:
		return fmt.Sprintf("%d minutes", int(d/time.Minute))
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }
