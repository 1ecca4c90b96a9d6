package inspect

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/etcd"
)

var askedAt = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// healthy is a cluster of three members of which nothing is to be said.
func healthy() *Observation {
	o := &Observation{AskedAt: askedAt, ClusterID: "c", Endpoints: []string{"https://10.0.0.1:2379"}, SampledSeconds: 2, etcdctl: "etcdctl"}
	for _, n := range []string{"1", "2", "3"} {
		st := Status{
			Version: "3.7.3", Leader: "a1", Term: 2, Index: 5000, AppliedIndex: 5000, Revision: 4000,
			DBSize: 10 << 20, DBSizeInUse: 9 << 20, DBQuota: 2 << 30, At: askedAt,
		}
		later := st
		later.At = askedAt.Add(2 * time.Second)
		compacted := int64(3900)
		o.Members = append(o.Members, Member{
			ID: "a" + n, Name: "m" + n, ClusterID: "c", Listed: true, Given: n == "1",
			PeerURLs: []string{"https://10.0.0." + n + ":2380"}, ClientURLs: []string{"https://10.0.0." + n + ":2379"},
			Endpoint: "https://10.0.0." + n + ":2379", Reach: Reach{Cause: Answered}, Status: &st, Later: &later,
			Linearizable: &Latency{Reads: 20, MedianMilliseconds: 2, WorstMilliseconds: 5},
			Serializable: &Latency{Reads: 20, MedianMilliseconds: 1, WorstMilliseconds: 2},
			Certificates: []Certificate{{
				Subject: "CN=m" + n, NotBefore: askedAt.AddDate(0, -6, 0), NotAfter: askedAt.AddDate(0, 6, 0), Hosts: []string{"10.0.0." + n},
			}},
			WantsCertificate: true, CompactRevision: &compacted, Clock: &Clock{OffsetSeconds: 0.1, MarginSeconds: 0.5},
			Metrics: &Metrics{Fsync: Quantile{Count: 1000, P99Milliseconds: 2}, Commit: Quantile{Count: 1000, P99Milliseconds: 4}},
		})
	}
	return o
}

// lost takes a member away.
func (m *Member) lost(cause etcd.FaultKind) {
	m.Status, m.Later, m.ClusterID, m.Linearizable, m.Serializable, m.Clock, m.Metrics = nil, nil, "", nil, nil, nil, nil
	m.CompactRevision, m.Certificates = nil, nil
	m.Reach = Reach{Cause: cause, Text: "as it is"}
}

func both(m *Member, edit func(*Status)) {
	edit(m.Status)
	edit(m.Later)
}

func all(o *Observation, edit func(*Status)) {
	for i := range o.Members {
		both(&o.Members[i], edit)
	}
}

func TestExamine(t *testing.T) {
	for _, tc := range []struct {
		name  string
		edit  func(o *Observation)
		state v1alpha1.ClusterState
		// want are the findings in their order, as severity and ID.
		want []string
	}{
		{"healthy", func(*Observation) {}, "Healthy", nil},
		{"a member down of three", func(o *Observation) { o.Members[2].lost(etcd.FaultRefused) }, "Degraded", []string{"critical member-down"}},
		{"silence is not known to be down", func(o *Observation) { o.Members[0].lost(etcd.FaultBlackHole) }, "Degraded", []string{"critical member-silent"}},
		{"peers are connected to it", func(o *Observation) {
			o.Members[2].lost(etcd.FaultBlackHole)
			o.Members[0].Metrics.Peers = map[string]bool{"a3": true}
		}, "Healthy", []string{"warning not-reachable-from-here"}},
		{"peers are not connected either", func(o *Observation) {
			o.Members[2].lost(etcd.FaultBlackHole)
			o.Members[0].Metrics.Peers = map[string]bool{"a3": false}
		}, "Degraded", []string{"critical member-silent"}},
		{"it advertises loopback", func(o *Observation) {
			o.Members[2].lost(etcd.FaultRefused)
			o.Members[2].Endpoint = "https://127.0.0.1:2379"
		}, "Healthy", []string{"warning not-reachable-from-here"}},
		{"too few reachable, and it serves", func(o *Observation) {
			o.Members[1].lost(etcd.FaultBlackHole)
			o.Members[2].lost(etcd.FaultNoRoute)
		}, "Healthy", []string{"warning not-reachable-from-here", "warning not-reachable-from-here"}},
		{"no quorum", func(o *Observation) {
			o.Members[1].lost(etcd.FaultRefused)
			o.Members[2].lost(etcd.FaultRefused)
			both(&o.Members[0], func(s *Status) { s.Leader = "" })
			o.Members[0].Linearizable = &Latency{Failed: &Reach{Cause: etcd.FaultNoLeader, Text: "no leader"}}
		}, "Unavailable", []string{"critical no-quorum", "critical member-down", "critical member-down"}},
		{"nobody answers", func(o *Observation) {
			for i := range o.Members {
				o.Members[i].lost(etcd.FaultUnknownAuthority)
			}
		}, "Unknown", []string{"critical tls-unknown-ca"}},
		{"an endpoint that is no member", func(o *Observation) {
			o.Members = append(o.Members, Member{Endpoint: "http://10.0.0.9:80", Given: true, Reach: Reach{Cause: etcd.FaultNotEtcd}})
		}, "Degraded", []string{"warning not-etcd"}},
		{"different clusters", func(o *Observation) {
			m := healthy().Members[0]
			m.ClusterID, m.Listed = "d", false
			o.Members = append(o.Members, m)
		}, "Degraded", []string{"critical different-clusters"}},
		{"leaders differ", func(o *Observation) { both(&o.Members[2], func(s *Status) { s.Leader = "" }) }, "Degraded", []string{"critical leaders-differ"}},
		{"an election", func(o *Observation) {
			for i := range o.Members {
				o.Members[i].Later.Term, o.Members[i].Later.Leader = 3, "a2"
			}
		}, "Degraded", []string{"warning leader-changed"}},
		{"no space", func(o *Observation) {
			all(o, func(s *Status) { s.Alarms = []Alarm{{Type: "NOSPACE", Member: "a2"}} })
		}, "Degraded", []string{"critical alarm-nospace"}},
		{"corrupt", func(o *Observation) {
			all(o, func(s *Status) { s.Alarms = []Alarm{{Type: "CORRUPT", Member: "a2"}} })
		}, "Degraded", []string{"critical alarm-corrupt"}},
		{"quota at 79 %", func(o *Observation) {
			all(o, func(s *Status) { s.DBSize, s.DBSizeInUse = s.DBQuota*79/100, s.DBQuota*78/100 })
		}, "Healthy", nil},
		{"quota at 80 %", func(o *Observation) {
			both(&o.Members[0], func(s *Status) { s.DBSize, s.DBSizeInUse = s.DBQuota*81/100, s.DBQuota*80/100 })
			both(&o.Members[1], func(s *Status) { s.DBSizeInUse, s.DBSize = s.DBQuota*70/100, s.DBQuota*71/100 })
			both(&o.Members[2], func(s *Status) { s.DBSizeInUse, s.DBSize = s.DBQuota*70/100, s.DBQuota*71/100 })
		}, "Healthy", []string{"warning quota"}},
		{"assumed quota at 96 %", func(o *Observation) {
			all(o, func(s *Status) { s.DBQuota = 0; s.DBSize, s.DBSizeInUse = defaultQuota*96/100, defaultQuota*96/100 })
		}, "Degraded", []string{"critical quota", "critical quota", "critical quota"}},
		{"growth that fills it within hours", func(o *Observation) { o.Members[0].Later.DBSizeInUse += 1 << 20 }, "Healthy", []string{"warning quota-forecast"}},
		{"growth of a request", func(o *Observation) { o.Members[0].Later.DBSizeInUse += 100 << 10 }, "Healthy", nil},
		{"fragmented", func(o *Observation) { both(&o.Members[0], func(s *Status) { s.DBSize = 200 << 20 }) }, "Healthy", []string{"warning fragmented"}},
		{"sizes differ", func(o *Observation) {
			both(&o.Members[0], func(s *Status) { s.DBSize, s.DBSizeInUse = 200<<20, 190<<20 })
		}, "Healthy", []string{"warning sizes-differ"}},
		{"never compacted", func(o *Observation) {
			*o.Members[0].CompactRevision = 0
			all(o, func(s *Status) { s.Revision = 20_000 })
		}, "Healthy", []string{"warning compaction"}},
		{"never compacted, and little written", func(o *Observation) { *o.Members[0].CompactRevision = 0 }, "Healthy", nil},
		{"compacted last week", func(o *Observation) {
			all(o, func(s *Status) { s.Revision = 20_000 })
			o.Members[0].Metrics.CompactedAt = askedAt.AddDate(0, 0, -7)
		}, "Healthy", []string{"warning compaction"}},
		{"compacted an hour ago", func(o *Observation) {
			all(o, func(s *Status) { s.Revision = 20_000 })
			o.Members[0].Metrics.CompactedAt = askedAt.Add(-time.Hour)
		}, "Healthy", nil},
		{"certificate ends in 20 days", func(o *Observation) { o.Members[1].Certificates[0].NotAfter = askedAt.AddDate(0, 0, 20) }, "Healthy", []string{"warning certificate-expiry"}},
		{"certificate ends in 5 days", func(o *Observation) { o.Members[1].Certificates[0].NotAfter = askedAt.AddDate(0, 0, 5) }, "Healthy", []string{"critical certificate-expiry"}},
		{"a certificate made for minutes", func(o *Observation) {
			o.ClientCertificate = &Certificate{Subject: "CN=x", NotBefore: askedAt.Add(-5 * time.Minute), NotAfter: askedAt.Add(10 * time.Minute)}
		}, "Healthy", nil},
		{"client certificate expired", func(o *Observation) {
			o.ClientCertificate = &Certificate{Subject: "CN=x", NotBefore: askedAt.AddDate(-1, 0, 0), NotAfter: askedAt.AddDate(0, 0, -1)}
		}, "Healthy", []string{"critical client-certificate-expiry"}},
		{"CA ends", func(o *Observation) {
			o.Roots = []Certificate{{Subject: "CN=ca", NotBefore: askedAt.AddDate(-9, 0, 0), NotAfter: askedAt.AddDate(0, 0, 29)}}
		}, "Healthy", []string{"warning ca-expiry"}},
		{"advertised address is not in the certificate", func(o *Observation) { o.Members[0].ClientURLs = []string{"https://db.example:2379"} }, "Healthy", []string{"warning tls-name"}},
		{"a wildcard names it", func(o *Observation) {
			o.Members[0].ClientURLs = []string{"https://m1.db.example:2379"}
			o.Members[0].Certificates[0].Hosts = []string{"*.db.example"}
		}, "Healthy", nil},
		{"etcd 3.4", func(o *Observation) { all(o, func(s *Status) { s.Version = "3.4.23" }) }, "Healthy", []string{
			"warning end-of-life", "warning bug-compaction-crash", "warning bug-watch-loss", "warning bug-watch-order", "warning bug-watch-deletion",
			"warning bug-watch-future", "warning bug-stale-reads", "warning bug-lease-renew", "warning bug-snapshot-defrag", "info bug-compacted-read",
		}},
		{"etcd 3.5.2", func(o *Observation) { all(o, func(s *Status) { s.Version = "3.5.2" }) }, "Healthy", []string{
			"critical bug-data-inconsistency", "warning bug-defrag-crash", "warning bug-compaction-crash", "warning bug-watch-loss", "warning bug-watch-order",
			"warning bug-watch-deletion", "warning bug-watch-future", "warning bug-stale-reads", "warning bug-lease-renew", "warning bug-snapshot-defrag",
			"info bug-compacted-read", "info upgrade-to-3.6",
		}},
		{"etcd 3.5.25", func(o *Observation) { all(o, func(s *Status) { s.Version = "3.5.25" }) }, "Healthy", []string{"warning bug-stale-reads", "info bug-compacted-read", "info upgrade-to-3.6"}},
		{"etcd 3.5.26", func(o *Observation) { all(o, func(s *Status) { s.Version = "3.5.26" }) }, "Healthy", []string{"warning bug-stale-reads", "info bug-compacted-read"}},
		{"etcd 3.6.16", func(o *Observation) { all(o, func(s *Status) { s.Version = "3.6.16" }) }, "Healthy", []string{"info bug-compacted-read"}},
		{"etcd 3.6.16, where members differ", func(o *Observation) {
			all(o, func(s *Status) { s.Version = "3.6.16" })
			both(&o.Members[2], func(s *Status) { s.Revision = 3999 })
		}, "Degraded", []string{"critical revision-differs", "warning bug-compacted-read"}},
		{"etcd 3.6.16 alone", func(o *Observation) {
			o.Members = o.Members[:1]
			all(o, func(s *Status) { s.Version = "3.6.16" })
		}, "Healthy", []string{"info member-count", "info bug-compacted-read"}},
		{"etcd 3.4.20 alone", func(o *Observation) {
			o.Members = o.Members[:1]
			all(o, func(s *Status) { s.Version = "3.4.20" })
		}, "Healthy", []string{
			"critical bug-single-durability", "warning end-of-life", "warning bug-compaction-crash", "warning bug-watch-loss", "warning bug-watch-order",
			"warning bug-watch-deletion", "warning bug-lease-renew", "info member-count", "info bug-compacted-read",
		}},
		{"etcd 3.6.8 with authentication", func(o *Observation) {
			all(o, func(s *Status) { s.Version = "3.6.8" })
			o.Login = &Reach{Cause: Answered}
		}, "Healthy", []string{
			"critical bug-auth-bypass", "warning bug-stale-reads", "warning bug-watch-bypass", "warning bug-put-bypass", "info bug-compacted-read",
			"info upgrade-to-3.7",
		}},
		{"mixed minors", func(o *Observation) { both(&o.Members[0], func(s *Status) { s.Version = "3.6.16" }) }, "Healthy", []string{"warning mixed-versions", "info bug-compacted-read"}},
		{"mixed patches", func(o *Observation) { both(&o.Members[0], func(s *Status) { s.Version = "3.7.2" }) }, "Healthy", []string{"info mixed-versions"}},
		{"revisions differ at one index", func(o *Observation) { both(&o.Members[2], func(s *Status) { s.Revision = 3999 }) }, "Degraded", []string{"critical revision-differs"}},
		{"a member lags", func(o *Observation) { both(&o.Members[2], func(s *Status) { s.AppliedIndex, s.Revision = 3000, 2000 }) }, "Degraded", []string{"warning lag"}},
		{"a moment behind", func(o *Observation) { o.Members[2].Status.AppliedIndex = 4990 }, "Healthy", nil},
		{"a learner", func(o *Observation) { o.Members = append(o.Members, learner()) }, "Healthy", []string{"warning learner"}},
		{"learners alone", func(o *Observation) {
			m := learner()
			m.Listed = false
			o.Members = []Member{m}
		}, "Unknown", []string{"warning only-learners", "warning learner"}},
		{"never started", func(o *Observation) {
			o.Members = append(o.Members, Member{ID: "a4", Listed: true, PeerURLs: []string{"https://10.0.0.4:2380"}, Reach: Reach{Cause: NoURL}})
		}, "Degraded", []string{"critical never-started", "info member-count"}},
		{"a single member", func(o *Observation) { o.Members = o.Members[:1] }, "Healthy", []string{"info member-count"}},
		{"two members", func(o *Observation) { o.Members = o.Members[:2] }, "Healthy", []string{"warning member-count"}},
		{"a clock that is off", func(o *Observation) { o.Members[0].Clock = &Clock{OffsetSeconds: -3, MarginSeconds: 0.5} }, "Healthy", []string{"warning clock"}},
		{"a clock that may be off", func(o *Observation) { o.Members[0].Clock = &Clock{OffsetSeconds: 1.4, MarginSeconds: 0.5} }, "Healthy", nil},
		{"slow reads", func(o *Observation) { o.Members[0].Linearizable.MedianMilliseconds = 150 }, "Healthy", []string{"warning slow-reads"}},
		{"few reads, each of them slow", func(o *Observation) {
			o.Members[0].Linearizable = &Latency{Reads: 2, MedianMilliseconds: 300, WorstMilliseconds: 350}
		}, "Healthy", []string{"warning slow-reads"}},
		{"one read, not slow enough to tell", func(o *Observation) {
			o.Members[0].Linearizable = &Latency{Reads: 1, MedianMilliseconds: 300, WorstMilliseconds: 300}
		}, "Healthy", nil},
		{"one slow read", func(o *Observation) { o.Members[0].Linearizable.WorstMilliseconds = 800 }, "Healthy", []string{"info slow-reads"}},
		{"a disk that is slow now", func(o *Observation) { o.Members[0].Metrics.RecentFsync = Quantile{Count: 200, P99Milliseconds: 20} }, "Healthy", []string{"warning slow-disk"}},
		{"a disk that was slow once", func(o *Observation) { o.Members[0].Metrics.Fsync.P99Milliseconds = 20 }, "Healthy", []string{"info slow-disk"}},
		{"plain text in a network", func(o *Observation) {
			for i := range o.Members {
				m := &o.Members[i]
				m.Endpoint, m.ClientURLs = strings.Replace(m.Endpoint, "https", "http", 1), nil
				m.PeerURLs = []string{"http://10.0.0.1:2380"}
			}
		}, "Healthy", []string{"warning plain-clients", "warning plain-peers"}},
		{"no client certificates and no authentication", func(o *Observation) {
			for i := range o.Members {
				o.Members[i].WantsCertificate = false
			}
		}, "Healthy", []string{"info open-to-all"}},
		{"a login that failed", func(o *Observation) {
			o.User, o.Login = "root", &Reach{Cause: etcd.FaultLoginFailed}
			for i := range o.Members {
				o.Members[i].lost(etcd.FaultLoginWanted)
			}
		}, "Unknown", []string{"critical login-failed"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := healthy()
			tc.edit(o)
			r := Examine(o)
			got := make([]string, 0, len(r.Findings))
			for _, f := range r.Findings {
				got = append(got, string(f.Severity)+" "+f.ID)
				whole(t, f)
			}
			if !slices.Equal(got, tc.want) || r.State != tc.state {
				t.Errorf("%s (%s): got %q, want %s with %q", r.State, r.Summary, got, tc.state, tc.want)
			}
			if _, err := json.Marshal(r); err != nil {
				t.Error(err)
			}
		})
	}
}

func learner() Member {
	m := healthy().Members[2]
	m.ID, m.Name, m.Learner, m.Linearizable = "a4", "m4", true, nil
	return m
}

// whole checks that a finding says all that it must.
func whole(t *testing.T, f Finding) {
	t.Helper()
	if f.Subject == "" || f.Title == "" || f.Why == "" || f.Fix == "" || len(f.Evidence) == 0 {
		t.Errorf("%s lacks something: %+v", f.ID, f)
	}
	for _, text := range append([]string{f.Title, f.Why, f.Fix}, f.Evidence...) {
		if strings.Contains(text, "%!") {
			t.Errorf("%s: a text is badly made: %q", f.ID, text)
		}
	}
	for _, c := range f.Commands {
		if strings.Contains(c, "  etcdctl") || strings.Contains(c, "--endpoints= ") || strings.Contains(c, "%!") {
			t.Errorf("%s: %q can't be copied", f.ID, c)
		}
	}
	if !slices.Contains(headings(t), f.ID) {
		t.Errorf("docs/doctor.md has no heading %q", f.ID)
	}
}

// headings of the document that findings point to.
func headings(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("../" + docsPage)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, m := range regexp.MustCompile(`(?m)^#+ (\S+)$`).FindAllStringSubmatch(string(text), -1) {
		list = append(list, m[1])
	}
	return list
}

// TestEveryCauseIsDocumented: what the tables above don't reach is documented, too.
func TestEveryCauseIsDocumented(t *testing.T) {
	have := headings(t)
	for cause, trouble := range troubles {
		if !slices.Contains(have, trouble.id) {
			t.Errorf("%s: docs/doctor.md has no heading %q", cause, trouble.id)
		}
	}
	for _, b := range bugs {
		if !slices.Contains(have, b.id) {
			t.Errorf("docs/doctor.md has no heading %q", b.id)
		}
		if !strings.Contains(b.source, "https://") {
			t.Errorf("%s names no source", b.id)
		}
	}
}

func TestOldest(t *testing.T) {
	for _, tc := range []struct{ current, compact int64 }{{1, 0}, {2, 0}, {100, 0}, {2, 2}, {100, 2}, {100, 57}, {100, 100}, {1 << 40, 1 << 39}} {
		asked := 0
		got, err := oldest(tc.current, func(r int64) (bool, error) { asked++; return r < tc.compact, nil })
		if err != nil || got != tc.compact || asked > 45 {
			t.Errorf("%d of %d: got %d (%v) after %d reads", tc.compact, tc.current, got, err, asked)
		}
	}
}

func TestClockBounds(t *testing.T) {
	var b bounds
	// A clock that is 2.3 s ahead, asked at .9 and at .1 of a second.
	for _, asked := range []time.Time{askedAt.Add(900 * time.Millisecond), askedAt.Add(2100 * time.Millisecond), askedAt.Add(2690 * time.Millisecond)} {
		b.narrow(asked.Add(2300*time.Millisecond).Truncate(time.Second), asked, asked.Add(2*time.Millisecond))
	}
	c := b.clock()
	if c.OffsetSeconds-c.MarginSeconds > 2.3 || c.OffsetSeconds+c.MarginSeconds < 2.3 || c.MarginSeconds > 0.45 {
		t.Errorf("got %+v, want 2.3 s within a margin that has become smaller", c)
	}
}

func TestQuantile(t *testing.T) {
	bucket := func(to float64, count uint64) *dto.Bucket {
		return &dto.Bucket{UpperBound: &to, CumulativeCount: &count}
	}
	histogram := func(counts ...uint64) *dto.Histogram {
		n := counts[len(counts)-1]
		return &dto.Histogram{SampleCount: &n, Bucket: []*dto.Bucket{bucket(0.001, counts[0]), bucket(0.002, counts[1]), bucket(0.004, counts[2])}}
	}
	if q := quantile(histogram(100, 100, 100), nil); q.Count != 100 || q.P99Milliseconds < 0.9 || q.P99Milliseconds > 1 {
		t.Errorf("all in the first bucket: %+v", q)
	}
	// Before, all were fast; since then, all were slow.
	if q := quantile(histogram(100, 100, 200), histogram(100, 100, 100)); q.Count != 100 || q.P99Milliseconds < 3.9 {
		t.Errorf("since the first look: %+v", q)
	}
	if q := quantile(nil, nil); q != (Quantile{}) {
		t.Errorf("nothing: %+v", q)
	}
}

func TestParseRelease(t *testing.T) {
	for s, want := range map[string]release{"3.5.21": {3, 5, 21}, "v3.6.0-rc.1": {3, 6, 0}, "3.4": {3, 4, 0}, "x": {}, "": {}} {
		if got := parseRelease(s); got != want {
			t.Errorf("%q: got %v", s, got)
		}
	}
}

// TestBugBounds: each bug is in the last release before its fix, and not in the first
// that has it.
func TestBugBounds(t *testing.T) {
	for id, bounds := range map[string]struct{ in, out []string }{
		"bug-data-inconsistency": {[]string{"3.5.0", "3.5.2"}, []string{"3.4.44", "3.5.3", "3.6.0"}},
		"bug-defrag-crash":       {[]string{"3.5.5"}, []string{"3.5.6", "3.6.0"}},
		"bug-auth-snapshot":      {[]string{"3.4.20", "3.4.21", "3.5.5"}, []string{"3.4.19", "3.4.22", "3.5.4", "3.5.6"}},
		"bug-single-durability":  {[]string{"3.4.20", "3.5.4"}, []string{"3.4.21", "3.5.5", "3.6.0"}},
		"bug-compaction-crash":   {[]string{"3.4.31", "3.5.13"}, []string{"3.4.32", "3.5.14", "3.6.0"}},
		"bug-watch-loss":         {[]string{"3.4.30", "3.5.12"}, []string{"3.4.31", "3.5.13", "3.6.0"}},
		"bug-watch-order":        {[]string{"3.4.24", "3.5.7"}, []string{"3.4.25", "3.5.8", "3.6.0"}},
		"bug-watch-deletion":     {[]string{"3.4.35", "3.5.17"}, []string{"3.4.36", "3.5.18", "3.6.0"}},
		"bug-watch-future":       {[]string{"3.4.37", "3.5.21", "3.6.1"}, []string{"3.4.38", "3.5.22", "3.6.2", "3.7.0"}},
		"bug-stale-reads":        {[]string{"3.4.41", "3.5.27", "3.6.8"}, []string{"3.4.42", "3.5.28", "3.6.9", "3.7.0"}},
		"bug-lease-renew":        {[]string{"3.4.37", "3.5.22", "3.6.4"}, []string{"3.4.38", "3.5.23", "3.6.5", "3.7.0"}},
		"bug-snapshot-defrag":    {[]string{"3.4.37", "3.5.22", "3.6.4"}, []string{"3.4.38", "3.5.23", "3.6.5", "3.7.0"}},
		"bug-compacted-read":     {[]string{"3.4.0", "3.4.44", "3.5.0", "3.5.35", "3.5.99", "3.6.0", "3.6.16"}, []string{"3.7.0", "3.7.3", "3.8.0"}},
		"bug-auth-bypass":        {[]string{"3.4.41", "3.5.27", "3.6.8"}, []string{"3.4.42", "3.5.28", "3.6.9", "3.7.0"}},
		"bug-watch-bypass":       {[]string{"3.5.32", "3.6.13", "3.7.0"}, []string{"3.5.33", "3.6.14", "3.7.1"}},
		"bug-put-bypass":         {[]string{"3.4.43", "3.5.29", "3.6.10"}, []string{"3.4.44", "3.5.30", "3.6.11", "3.7.0"}},
		"upgrade-to-3.6":         {[]string{"3.5.25"}, []string{"3.4.44", "3.5.26", "3.6.0"}},
		"upgrade-to-3.7":         {[]string{"3.6.10"}, []string{"3.5.35", "3.6.11", "3.7.0"}},
	} {
		i := slices.IndexFunc(bugs, func(b bug) bool { return b.id == id })
		if i < 0 {
			t.Errorf("%s is not in the table", id)
			continue
		}
		for _, v := range bounds.in {
			if !bugs[i].hits(parseRelease(v)) {
				t.Errorf("%s is not told of etcd %s", id, v)
			}
		}
		for _, v := range bounds.out {
			if bugs[i].hits(parseRelease(v)) {
				t.Errorf("%s is told of etcd %s", id, v)
			}
		}
	}
	if len(bugs) != 18 {
		t.Errorf("the table has %d bugs: give each its bounds here", len(bugs))
	}
}

func TestEndpoints(t *testing.T) {
	for _, tc := range []struct {
		given []string
		ca    string
		want  []string
		ok    bool
	}{
		{[]string{"10.0.0.1:2379", " https://a:1/ ", ""}, "", []string{"http://10.0.0.1:2379", "https://a:1"}, true},
		{[]string{"10.0.0.1", "10.0.0.1:2379"}, "ca", []string{"https://10.0.0.1:2379"}, true},
		{[]string{"http://[::1]:2379"}, "", []string{"http://[::1]:2379"}, true},
		{nil, "", nil, false},
		{[]string{"ftp://a"}, "", nil, false},
		{[]string{"http://"}, "", nil, false},
	} {
		o := Options{Endpoints: tc.given, CA: []byte(tc.ca)}
		got, err := o.endpoints()
		if !slices.Equal(got, tc.want) || (err == nil) != tc.ok {
			t.Errorf("%q: got %q, %v", tc.given, got, err)
		}
	}
}
