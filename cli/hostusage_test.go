package cli

import (
	"strings"
	"testing"

	"github.com/quorate/quorate/api/v1alpha1"
)

// TestUsageTable: what is not known is said to be unknown, never 0; what is promised is shown
// against what there is, and more than all as more than all.
func TestUsageTable(t *testing.T) {
	const gib = 1 << 30
	u := &v1alpha1.Usage{By: "host", Rows: []v1alpha1.UsageRow{
		{Name: "db1", Hosts: 1, Members: 3, Requested: v1alpha1.NewResources(1500, 3*gib, 30*gib), BestEffort: v1alpha1.NewResources(250, 0, 0), Capacity: v1alpha1.NewResources(4000, 8*gib, 0), Used: v1alpha1.NewResources(400, gib/2, gib)},
		{Name: "db2", Hosts: 1, Members: 1, Requested: v1alpha1.NewResources(5000, gib, gib), Capacity: v1alpha1.NewResources(4000, 8*gib, 100*gib), Unknown: 1},
		{Name: "db3", Hosts: 1, Capacity: v1alpha1.NewResources(4000, 8*gib, 100*gib)},
	}, Total: v1alpha1.UsageRow{Hosts: 3, Members: 4, Requested: v1alpha1.NewResources(6500, 4*gib, 31*gib), Capacity: v1alpha1.NewResources(12_000, 24*gib, 0), Unknown: 1}}
	for by, want := range map[string]string{
		"host": `
HOST MEMBERS CPU ASKED USED MEMORY ASKED USED DISK ASKED USED
db1 3 ████░░░░░░ 38% 1.5 of 4 +0.25 0.4 ████░░░░░░ 38% 3Gi of 8Gi 512Mi 30Gi of unknown 1Gi
db2 1 ██████████ 125% 5 of 4 unknown █░░░░░░░░░ 13% 1Gi of 8Gi unknown █░░░░░░░░░ 1% 1Gi of 100Gi unknown
db3 0 ░░░░░░░░░░ 0% 0 of 4 0 ░░░░░░░░░░ 0% 0 of 8Gi 0 ░░░░░░░░░░ 0% 0 of 100Gi 0
total 4 █████░░░░░ 54% 6.5 of 12 unknown ██░░░░░░░░ 17% 4Gi of 24Gi unknown 31Gi of unknown unknown`,
		"label=team": `
TEAM MEMBERS CPU ASKED USED MEMORY ASKED USED DISK ASKED USED
db1 3 1.5 +0.25 0.4 3Gi 512Mi 30Gi 1Gi
db2 1 5 unknown 1Gi unknown 1Gi unknown
db3 0 0 0 0 0 0 0
total 4 6.5 unknown 4Gi unknown 31Gi unknown`,
	} {
		u.By = by
		g := usageGrid(u)
		var b strings.Builder
		if err := g.write(&b, 0); err != nil {
			t.Fatal(err)
		}
		var got strings.Builder
		for line := range strings.Lines(b.String()) {
			got.WriteString("\n" + strings.Join(strings.Fields(line), " "))
		}
		if got.String() != want {
			t.Errorf("by %s:%s\nwant:%s", by, got.String(), want)
		}
	}
}
