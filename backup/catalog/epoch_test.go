package catalog_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quorate/quorate/backup/catalog"
)

func TestNextEpoch(t *testing.T) {
	at := func(revision int64, term, index uint64) catalog.Position {
		return catalog.Position{Revision: revision, RaftTerm: term, RaftIndex: index}
	}
	one := entry(hourly(prod, 10), catalog.Complete) // revision 1000, index 1010, term 2
	second := prod
	second.Epoch = 2
	two := entry(hourly(second, -900), catalog.Complete) // revision 90, index 100
	other := prod
	other.Name = "prod-eu"
	recreated := prod
	recreated.ClusterID++
	broken := entry(hourly(prod, 20), catalog.Damaged) // revision 1010
	clockBack := entry(hourly(prod, 9), catalog.Complete)
	clockBack.Ref.Time = noon.AddDate(5, 0, 0) // older data, later time

	for _, tc := range []struct {
		name   string
		points []catalog.Entry
		at     catalog.Position
		epoch  uint32
		reason string
	}{
		{"the first", nil, at(5, 1, 5), 1, ""},
		{"only others", []catalog.Entry{entry(hourly(other, 10), catalog.Complete), entry(hourly(recreated, 10), catalog.Complete)}, at(5, 1, 5), 1, ""},
		{"further", []catalog.Entry{one}, at(1001, 2, 1011), 1, ""},
		{"unchanged", []catalog.Entry{one}, at(1000, 2, 1010), 1, ""},
		{"revision back", []catalog.Entry{one}, at(999, 3, 2000), 2, "revision 999 is below 1000, which epoch 1 had"},
		{"term back", []catalog.Entry{one}, at(5000, 1, 2000), 2, "raft term 1 is below 2, which epoch 1 had"},
		{"index back, as after a bumped revision", []catalog.Entry{one}, at(1_000_001_000, 2, 8), 2, "raft index 8 is below 1010, which epoch 1 had"},
		{"term and index not known", []catalog.Entry{one}, at(1001, 0, 0), 1, ""},
		{"in the second epoch", []catalog.Entry{two, one}, at(95, 2, 110), 2, ""},
		{"back again", []catalog.Entry{one, two}, at(80, 2, 110), 3, "revision 80 is below 90, which epoch 2 had"},
		{"a broken manifest counts by its name", []catalog.Entry{one, broken}, at(1005, 2, 1020), 2, "revision 1005 is below 1010, which epoch 1 had"},
		{"the clock went back", []catalog.Entry{clockBack, one}, at(1001, 2, 1011), 1, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			epoch, reason := catalog.NextEpoch(tc.points, prod.Cluster, prod.ClusterID, tc.at)
			require.Equal(t, tc.epoch, epoch)
			require.Equal(t, tc.reason, reason)
		})
	}
}
