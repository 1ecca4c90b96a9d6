package backup_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/backup"
	"github.com/quorate/quorate/backup/catalog"
)

// pickable is a complete backup of a catalog, begun in a minute after the epoch.
func pickable(name string, id catalog.ID, epoch uint32, minute int, nonce string) catalog.Entry {
	ref := catalog.Ref{
		Lineage: catalog.Lineage{Cluster: catalog.Cluster{Namespace: "default", Name: name}, ClusterID: id, Epoch: epoch},
		Time:    time.Unix(int64(minute)*60, 0).UTC(), Revision: int64(minute), Nonce: nonce,
	}
	return catalog.Entry{Ref: ref, State: catalog.Complete, Point: &catalog.Point{ClusterID: id, Epoch: epoch, Revision: int64(minute)}}
}

func provenAs(e catalog.Entry, result catalog.Result) catalog.Entry {
	e.Proofs = []catalog.ProofEntry{{Proof: &catalog.Proof{Result: result}}}
	return e
}

func broken(e catalog.Entry) catalog.Entry {
	e.State, e.Point = catalog.Partial, nil
	return e
}

// TestPick: an ID means one backup, and the words the newest that there is of one
// cluster, in the newest epoch that has one.
func TestPick(t *testing.T) {
	first := provenAs(pickable("prod", 1, 1, 90, "00000001"), catalog.Verified)
	second := provenAs(pickable("prod", 1, 2, 100, "00000002"), catalog.Verified)
	third := pickable("prod", 1, 2, 110, "00000003")
	wrong := provenAs(pickable("prod", 1, 2, 120, "00000004"), catalog.ResultFailed)
	cut := broken(pickable("prod", 1, 2, 130, "00000005"))
	unread := pickable("prod", 1, 2, 150, "00000007")
	unread.State, unread.Point, unread.Err = catalog.Unknown, nil, errors.New("connection reset")
	old := pickable("prod", 1, 1, 1, "00000008")
	old.State, old.Point, old.Err = catalog.Unknown, nil, errors.New("connection reset")
	one := []catalog.Entry{first, second, third, wrong, cut}
	far := pickable("far", 1, 1, 3, "00000001")
	again := pickable("prod", 2, 1, 140, "00000006")
	at := func(minute int) time.Time { return time.Unix(int64(minute)*60, 0) }
	for name, tc := range map[string]struct {
		entries  []catalog.Entry
		id       string
		notAfter time.Time
		want     string
		err      error
		text     string
	}{
		"latest is complete, whatever its proofs say": {one, backup.Latest, time.Time{}, "00000004", nil, ""},
		"latest-proven":                               {one, backup.LatestProven, time.Time{}, "00000002", nil, ""},
		"latest, not after":                           {one, backup.Latest, at(110), "00000003", nil, ""},
		"latest, before the epoch":                    {one, backup.Latest, at(99), "00000001", nil, ""},
		"latest-proven, not after":                    {one, backup.LatestProven, at(95), "00000001", nil, ""},
		"latest, before all":                          {one, backup.Latest, at(1), "", backup.ErrNoBackup, "none of the 5 of default/prod that was begun by 1970-01-01T00:01:00Z is complete"},
		"latest-proven of unproven":                   {[]catalog.Entry{third}, backup.LatestProven, time.Time{}, "", backup.ErrNoBackup, "none of the 1 of default/prod is proven"},
		"latest of what is cut off":                   {[]catalog.Entry{cut}, backup.Latest, time.Time{}, "", backup.ErrNoBackup, "none of the 1 of default/prod is complete"},
		"latest of nothing":                           {nil, backup.Latest, time.Time{}, "", backup.ErrNoBackup, ""},
		"latest, and a newer one is not known":        {append(one[:5:5], unread), backup.Latest, time.Time{}, "", backup.ErrUnread, "backup " + unread.Ref.ID() + " of default/prod: a manifest could not be read: connection reset"},
		"latest-proven, and a newer one is not known": {append(one[:5:5], unread), backup.LatestProven, time.Time{}, "", backup.ErrUnread, ""},
		"nothing but what is not known":               {[]catalog.Entry{unread}, backup.Latest, time.Time{}, "", backup.ErrUnread, ""},
		"an older one is not known":                   {append([]catalog.Entry{old}, one...), backup.Latest, time.Time{}, "00000004", nil, ""},
		"not after, and what is not known is":         {append(one[:5:5], unread), backup.Latest, at(149), "00000004", nil, ""},
		"an ID":                                       {one, third.Ref.ID(), time.Time{}, "00000003", nil, ""},
		"the end of one":                              {one, "00000002", time.Time{}, "00000002", nil, ""},
		"an ID of what is cut off":                    {one, "00000005", time.Time{}, "00000005", nil, ""},
		"an ID, whatever notAfter says":               {one, "00000003", at(1), "00000003", nil, ""},
		"no such ID":                                  {one, "0000000a", time.Time{}, "", backup.ErrNoBackup, "0000000a"},
		"an ID of two":                                {append([]catalog.Entry{far}, one...), "00000001", time.Time{}, "", backup.ErrAmbiguous, "00000001 is the ID of several:\n" + far.Ref.String() + "\n" + first.Ref.String()},
		"an ID of one among several":                  {append([]catalog.Entry{far}, one...), "00000003", time.Time{}, "00000003", nil, ""},
		"latest of several clusters":                  {append([]catalog.Entry{far}, one...), backup.Latest, time.Time{}, "", backup.ErrAmbiguous, "default/far, cluster ID 0000000000000001, epoch 1: 1 backup, the newest of 1970-01-01T00:03:00Z"},
		"latest of a cluster that was anew":           {append(one[:5:5], again), backup.LatestProven, time.Time{}, "", backup.ErrAmbiguous, "default/prod, cluster ID 0000000000000001, epoch 2: 4 backups, the newest of 1970-01-01T02:00:00Z"},
		"several, of which one is cut off":            {[]catalog.Entry{far, cut}, backup.Latest, time.Time{}, "", backup.ErrAmbiguous, "epoch 2: 1 backup, none of them complete"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := backup.Pick(&catalog.Catalog{Entries: tc.entries}, tc.id, tc.notAfter)
			if !errors.Is(err, tc.err) || (err == nil) != (tc.err == nil) || err != nil && !strings.Contains(err.Error(), tc.text) {
				t.Fatalf("it is %v, want %v: %s", err, tc.err, tc.text)
			}
			if err == nil && got.Ref.Nonce != tc.want {
				t.Errorf("it is %s, want %s", got.Ref.Nonce, tc.want)
			}
		})
	}
}
