package app

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/backup/bucket"
	points "github.com/quorate/quorate/backup/catalog"
	"github.com/quorate/quorate/etcd"
	"github.com/quorate/quorate/fleet"
	"github.com/quorate/quorate/internal/version"
	"github.com/quorate/quorate/store"
)

// vault is a directory of the test, and what the fleet calls it.
func vault(t *testing.T) (fleet.BackupStore, bucket.Bucket) {
	t.Helper()
	s := fleet.BackupStore{Name: "vault", URL: "file://" + t.TempDir()}
	b, err := testBackups(t).open(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return s, b
}

func testBackups(t *testing.T) *backups {
	t.Helper()
	b, err := newBackups(paths(t.TempDir()), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// held is a backup in a store.
type held struct {
	cluster  string
	id       points.ID
	policy   string
	revision int64
	age      time.Duration
	proven   bool
}

// put stores a backup without data worth the name.
func put(t *testing.T, in bucket.Bucket, h held) {
	t.Helper()
	data := "data"
	p := points.Point{
		Namespace: "default", Name: h.cluster, ClusterID: h.id, Epoch: 1, Nonce: fmt.Sprintf("%08x", h.revision), Revision: h.revision,
		Started: time.Now().Add(-h.age), Ended: time.Now().Add(-h.age).Add(3 * time.Second), Object: "snapshot.db", DBSize: 10, StoredSize: int64(len(data)),
		DBSHA256: strings.Repeat("a", 64), StoredSHA256: strings.Repeat("b", 64), Compression: points.CompressionNone, Policy: h.policy,
	}
	layout := points.Layout{}
	name, err := layout.File(p.Ref(), p.Object)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := points.EncodePoint(p)
	if err != nil {
		t.Fatal(err)
	}
	dir := strings.TrimSuffix(name, p.Object)
	files := map[string]string{name: data, dir + "point.json": string(manifest)}
	if h.proven {
		proof := points.Proof{Point: p.Ref().ID(), StoredSHA256: p.StoredSHA256, Result: points.Verified, Ended: p.Ended.Add(time.Second), Durations: points.ProofDurations{Download: 1, Restore: 2, Start: 0.5}}
		raw, err := points.EncodeProof(proof)
		if err != nil {
			t.Fatal(err)
		}
		files[dir+"proof-"+proof.Ended.UTC().Format("20060102T150405.000000000Z")+".json"] = string(raw)
	}
	for name, text := range files {
		if _, err := in.Put(t.Context(), name, strings.NewReader(text), bucket.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPruneOnlyOnesOwn: the rules of a policy are for what it took of this very cluster.
func TestPruneOnlyOnesOwn(t *testing.T) {
	s, in := vault(t)
	for i := range 5 {
		put(t, in, held{"prod", 1, "default/hourly", int64(10 + i), time.Duration(50-i) * time.Hour, i == 2})
	}
	put(t, in, held{"prod", 1, "default/monthly", 3, 900 * time.Hour, false})
	put(t, in, held{"prod", 1, "", 4, 800 * time.Hour, false})
	put(t, in, held{"prod", 2, "default/hourly", 5, 700 * time.Hour, false})
	put(t, in, held{"prod", 2, "default/hourly", 6, 600 * time.Hour, false})
	put(t, in, held{"prod-eu", 1, "default/hourly", 7, 600 * time.Hour, false})
	put(t, in, held{"prod-eu", 1, "default/hourly", 8, 500 * time.Hour, false})

	b := testBackups(t)
	of := fleet.BackupsOf{Namespace: "default", Cluster: "prod", ClusterID: 1}
	before, err := b.Holds(t.Context(), of, s)
	if err != nil || before.Points != 7 || !strings.Contains(before.Newest.PointID, "r0000000000000000014-") || !strings.Contains(before.Proven.PointID, "r0000000000000000012-") {
		t.Errorf("it holds %+v, %v", before, err)
	}
	if before.Proven.RestoreTook != 3500*time.Millisecond || before.Newest.Took.Round(time.Millisecond) != 3*time.Second {
		t.Errorf("the newest took %s, the restore %s", before.Newest.Took, before.Proven.RestoreTook)
	}
	rules := fleet.BackupPruning{BackupsOf: of, Store: s, Policy: "default/hourly", Retention: v1alpha1.BackupRetention{KeepLast: 1}}
	pruned, err := b.Prune(t.Context(), rules)
	// The newest, the newest proven, and those of others.
	if err != nil || pruned.Deleted != 3 || pruned.Holdings.Points != 4 {
		t.Errorf("pruned %+v, %v", pruned, err)
	}
	for cluster, id := range map[string]points.ID{"prod": 2, "prod-eu": 1} {
		h, holdsErr := b.Holds(t.Context(), fleet.BackupsOf{Namespace: "default", Cluster: cluster, ClusterID: etcd.ID(id)}, s)
		if holdsErr != nil || h.Points != 2 {
			t.Errorf("%s with cluster ID %d holds %+v, %v", cluster, id, h, holdsErr)
		}
	}
	rules.Retention = v1alpha1.BackupRetention{}
	if pruned, err = b.Prune(t.Context(), rules); err != nil || pruned.Deleted != 0 || pruned.Holdings.Points != 4 {
		t.Errorf("without a rule it pruned %+v, %v", pruned, err)
	}
}

// TestFutureBackup: one of a clock that was wrong hides none that was taken since.
func TestFutureBackup(t *testing.T) {
	s, in := vault(t)
	put(t, in, held{"prod", 1, "", 20, -500 * time.Hour, true})
	put(t, in, held{"prod", 1, "", 21, time.Hour, true})
	h, err := testBackups(t).Holds(t.Context(), fleet.BackupsOf{Namespace: "default", Cluster: "prod", ClusterID: 1}, s)
	if err != nil || h.Points != 2 || time.Since(h.Newest.At) < 0 || time.Since(h.Proven.At) < 0 {
		t.Errorf("%+v, %v", h, err)
	}
}

func TestProvable(t *testing.T) {
	for v, want := range map[string]bool{
		"3.4.23": false, "3.5.0": true, "3.6.16": true, version.Etcd(): true, "3.99.0": false, "4.0.0": false, "": false, "x.y.z": false, "3.5.35-rc.1": true,
	} {
		if provable(v) != want {
			t.Errorf("%q is provable: %t", v, !want)
		}
	}
}

// TestAdmitBackups: what would fail each time it runs is refused at once.
func TestAdmitBackups(t *testing.T) {
	policy := func(change func(*v1alpha1.EtcdBackupPolicySpec)) *v1alpha1.EtcdBackupPolicy {
		p := &v1alpha1.EtcdBackupPolicy{Spec: v1alpha1.EtcdBackupPolicySpec{
			Schedule:     v1alpha1.BackupSchedule{TimeZone: "Europe/Berlin", Cron: "0 2 * * *"},
			Destinations: []v1alpha1.BackupDestination{{Name: "a", URL: "file:///a"}, {Name: "b", URL: "s3://b?region=x", CredentialsSecretRef: "s"}},
			Encryption:   &v1alpha1.BackupEncryption{Recipients: []string{"age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"}},
		}}
		change(&p.Spec)
		return p
	}
	if err := admitBackups(policy(func(*v1alpha1.EtcdBackupPolicySpec) {})); err != nil {
		t.Error(err)
	}
	for want, change := range map[string]func(*v1alpha1.EtcdBackupPolicySpec){
		"never comes":          func(p *v1alpha1.EtcdBackupPolicySpec) { p.Schedule.Cron = "0 0 31 4 *" },
		"no time zone":         func(p *v1alpha1.EtcdBackupPolicySpec) { p.Schedule.TimeZone = "Europe/Atlantis" },
		"region is missing":    func(p *v1alpha1.EtcdBackupPolicySpec) { p.Destinations[1].URL = "s3://b" },
		"the same store":       func(p *v1alpha1.EtcdBackupPolicySpec) { p.Destinations[1].URL = "file:///a/" },
		"needs no credentials": func(p *v1alpha1.EtcdBackupPolicySpec) { p.Destinations[0].CredentialsSecretRef = "s" },
		"no age recipient":     func(p *v1alpha1.EtcdBackupPolicySpec) { p.Encryption.Recipients = []string{"age1x"} },
	} {
		if err := admitBackups(policy(change)); !errors.Is(err, store.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, and not %q", err, want)
		}
	}
	inline := &v1alpha1.EtcdBackup{Spec: v1alpha1.EtcdBackupSpec{Destinations: []v1alpha1.BackupDestination{{Name: "a", URL: "s3://user:word@b?region=x"}}}}
	if err := admitBackups(inline); err == nil || strings.Contains(err.Error(), "word") {
		t.Errorf("%v", err)
	}
	if err := admitBackups(&v1alpha1.EtcdCluster{}); err != nil {
		t.Error(err)
	}
}
