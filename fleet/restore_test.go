package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/fleet"
	"github.com/quorate/quorate/store"
)

// held changes the only backup of the archive.
func (w *world) held(change func(*fleet.BackupFound)) { change(&w.archive.held[archiveURL][0]) }

func (w *world) create(obj v1alpha1.Object, name string) {
	obj.SetNamespace("default")
	obj.SetName(name)
	w.must(w.store.Create(context.Background(), obj))
}

func (w *world) policy(destinations ...string) {
	p := &v1alpha1.EtcdBackupPolicy{}
	for _, d := range destinations {
		p.Spec.Destinations = append(p.Spec.Destinations, v1alpha1.BackupDestination{Name: d, URL: "file:///" + d})
	}
	w.create(p, "hourly")
}

func (w *world) record(phase v1alpha1.BackupPhase, message string) {
	b := &v1alpha1.EtcdBackup{Spec: v1alpha1.EtcdBackupSpec{ClusterName: "c", PolicyName: "hourly"}}
	w.create(b, "b-1")
	b.Status.Phase, b.Status.Message, b.Status.ClusterID = phase, message, "63"
	b.Status.Destinations = []v1alpha1.BackupDestinationStatus{{Name: "near", Error: "it was away"}, {Name: "archive", PointID: "point-1"}}
	w.must(w.store.UpdateStatus(context.Background(), b))
}

func inPlace(s *v1alpha1.EtcdRestoreSpec) { s.InPlace = true }

func unproven(w *world) { w.held(func(f *fleet.BackupFound) { f.ProvenAt = time.Time{} }) }

// restoreCase is a restore that meets something before members are touched.
type restoreCase struct {
	name    string
	prepare func(w *world)
	spec    func(s *v1alpha1.EtcdRestoreSpec)
	// phase it comes to, and what its message has in it.
	phase v1alpha1.RestorePhase
	want  string
	// preview is what one says, where it does not say the same: it proves nothing.
	preview v1alpha1.RestorePhase
}

func targetCases() []restoreCase {
	const wait, over = v1alpha1.RestorePending, v1alpha1.RestoreFailed
	return []restoreCase{
		{
			"no cluster", nil, func(s *v1alpha1.EtcdRestoreSpec) { s.ClusterName = "other" }, wait,
			"there is no EtcdCluster other in namespace default: apply one with spec.restoreName: undo, and it is formed from the backup", "",
		},
		{
			"observed", func(w *world) {
				w.create(&v1alpha1.EtcdCluster{Spec: v1alpha1.EtcdClusterSpec{Management: v1alpha1.ManagementObserve}}, "other")
			}, func(s *v1alpha1.EtcdRestoreSpec) { s.ClusterName = "other" }, over,
			"cluster other is run by others: make data directories with `quorate restore`, or restore into a cluster of another name", "",
		},
		{"being deleted", deleteCluster, inPlace, wait, "cluster c is being deleted", ""},
		{"held since the store was restored", func(w *world) {
			w.must(store.Mutate(context.Background(), w.store, store.KeyOf(w.cluster()), &v1alpha1.EtcdCluster{}, func(c *v1alpha1.EtcdCluster) (bool, error) {
				c.Annotations = map[string]string{v1alpha1.AnnotationRestored: "7"}
				return true, nil
			}))
		}, inPlace, wait, "cluster c is held since the fleet's store was restored: accept its plan first", ""},
		{"members", nil, nil, over, "cluster c has members: say inPlace: true to have their data renamed aside and replaced, or restore into a cluster of another name", ""},
		{"the name was used before", func(w *world) {
			w.restore("undo", true)
			w.settle()
			w.dropRestore("undo")
		}, inPlace, over, "cluster c was restored by an earlier EtcdRestore of the name undo: apply this one under another name", ""},
		{"another one is under way", func(w *world) {
			w.restore("other", true)
			w.restoreOne("other")
		}, inPlace, wait, "EtcdRestore other of the cluster is under way; deleting it gives way to this one", ""},
		{"another one of another cluster is under way", func(w *world) {
			w.restore("other", true, func(s *v1alpha1.EtcdRestoreSpec) { s.ClusterName = "other" })
			w.setRestore("other", func(st *v1alpha1.EtcdRestoreStatus) { st.Phase = v1alpha1.RestoreRunning })
		}, inPlace, v1alpha1.RestoreRunning, "", ""},
		{"suspended", func(w *world) {
			w.edit(func(s *v1alpha1.EtcdClusterSpec) { s.Suspended = true })
			w.settle()
		}, inPlace, v1alpha1.RestoreRunning, "", ""},
	}
}

func fitCases() []restoreCase {
	const over = v1alpha1.RestoreFailed
	return []restoreCase{
		{
			"newer etcd", func(w *world) { w.held(func(f *fleet.BackupFound) { f.EtcdVersion = "3.8.1" }) }, inPlace, over,
			"the backup is of etcd 3.8.1, and cluster c runs 3.7.3, which does not read its data: restore into a cluster of version 3.8", "",
		},
		{"newer etcd, of which the minor is known", func(w *world) { w.held(func(f *fleet.BackupFound) { f.EtcdVersion = "3.8" }) }, inPlace, over, "the backup is of etcd 3.8, ", ""},
		{"older etcd", func(w *world) { w.held(func(f *fleet.BackupFound) { f.EtcdVersion = "3.5.9" }) }, inPlace, v1alpha1.RestoreRunning, "", ""},
		{"some etcd", func(w *world) { w.held(func(f *fleet.BackupFound) { f.EtcdVersion = "" }) }, inPlace, v1alpha1.RestoreRunning, "", ""},
		{"too small a quota", func(w *world) {
			w.edit(func(s *v1alpha1.EtcdClusterSpec) { s.Etcd.QuotaBackend = resource.MustParse("4Mi") })
		}, inPlace, over, "the database has 4 MiB, and the quota of cluster c is 4 MiB: it would refuse every write: raise spec.etcd.quotaBackend first", ""},
		{
			"found wrong before", func(w *world) {
				w.held(func(f *fleet.BackupFound) { f.ProvenAt, f.Failed = time.Time{}, "keys: 4, and not 5" })
			}, func(s *v1alpha1.EtcdRestoreSpec) { s.InPlace, s.Source.Point = true, "latest" }, over,
			"backup point-1 is not right, as its newest proof says: keys: 4, and not 5: choose another one", "",
		},
		{
			"too small a bump", nil, func(s *v1alpha1.EtcdRestoreSpec) { s.InPlace, s.BumpRevision = true, new(int64(99)) }, over,
			"bumpRevision 99 leads to revision 599, and clients have seen up to 600: give at least 100, or leave it out", "",
		},
		{"just enough of a bump", nil, func(s *v1alpha1.EtcdRestoreSpec) { s.InPlace, s.BumpRevision = true, new(int64(100)) }, v1alpha1.RestoreRunning, "", ""},
	}
}

func proofCases() []restoreCase {
	const wait, over, latest = v1alpha1.RestorePending, v1alpha1.RestoreFailed, "latest"
	newest := func(s *v1alpha1.EtcdRestoreSpec) { s.InPlace, s.Source.Point = true, latest }
	return []restoreCase{
		{"not proven yet", unproven, newest, v1alpha1.RestoreRunning, "", ""},
		{"proof of the restore's own", func(w *world) {
			unproven(w)
			w.archive.verdict = func(fleet.BackupTrial) (fleet.BackupVerdict, error) {
				return fleet.BackupVerdict{Reason: "keys differ"}, nil
			}
		}, newest, over, "backup point-1 is not right: keys differ: choose another one", v1alpha1.RestoreRunning},
		{"proof that can't be tried", func(w *world) {
			unproven(w)
			w.archive.verdict = func(fleet.BackupTrial) (fleet.BackupVerdict, error) {
				return fleet.BackupVerdict{}, errors.New("no space left")
			}
		}, newest, wait, "the backup could not be proven: no space left; say proof.mode: Never, with a reason, to restore it all the same", v1alpha1.RestoreRunning},
		{"proof that can never be tried", func(w *world) {
			unproven(w)
			w.archive.verdict = func(fleet.BackupTrial) (fleet.BackupVerdict, error) {
				return fleet.BackupVerdict{}, fmt.Errorf("there is no etcd 3.7 (%w)", fleet.ErrHopeless)
			}
		}, newest, over, "the backup could not be proven: there is no etcd 3.7", v1alpha1.RestoreRunning},
		{"no proof wanted", func(w *world) {
			unproven(w)
			w.archive.verdict = func(fleet.BackupTrial) (fleet.BackupVerdict, error) { panic("nobody asked for a proof") }
		}, func(s *v1alpha1.EtcdRestoreSpec) {
			newest(s)
			s.Proof = &v1alpha1.BackupProof{Mode: v1alpha1.ProofNever, Reason: "it is small"}
		}, v1alpha1.RestoreRunning, "", ""},
		{"an object is in no catalog", func(w *world) {
			w.held(func(f *fleet.BackupFound) {
				*f = fleet.BackupFound{PointID: "nightly.db", Revision: archiveRevision, EtcdVersion: "3.7", DBSize: 1}
			})
			w.archive.verdict = func(fleet.BackupTrial) (fleet.BackupVerdict, error) { panic("it has no proof") }
		}, func(s *v1alpha1.EtcdRestoreSpec) { s.InPlace, s.Source.Object = true, "nightly.db" }, v1alpha1.RestoreRunning, "", ""},
	}
}

func sourceCases() []restoreCase {
	const wait, over = v1alpha1.RestorePending, v1alpha1.RestoreFailed
	from := func(change func(*v1alpha1.RestoreSource)) func(*v1alpha1.EtcdRestoreSpec) {
		return func(s *v1alpha1.EtcdRestoreSpec) {
			s.InPlace, s.Source = true, v1alpha1.RestoreSource{}
			change(&s.Source)
		}
	}
	policy := from(func(s *v1alpha1.RestoreSource) { s.PolicyName = "hourly" })
	record := from(func(s *v1alpha1.RestoreSource) { s.BackupName = "b-1" })
	several := func(w *world) {
		other := w.archive.held[archiveURL][0]
		other.PointID, other.Of.ClusterID, other.TakenAt = "point-2", 100, other.TakenAt.Add(-time.Hour)
		w.archive.held[archiveURL] = append(w.archive.held[archiveURL], other)
	}
	secret := func(name string) func(*v1alpha1.EtcdRestoreSpec) {
		return from(func(s *v1alpha1.RestoreSource) {
			s.Destination = &v1alpha1.BackupDestination{Name: "archive", URL: archiveURL}
			s.IdentitySecretRef = name
		})
	}
	return []restoreCase{
		{"several cluster IDs", several, inPlace, over, "archive: there are those of 2 clusters; say source.clusterID", ""},
		{"one of several cluster IDs", several, func(s *v1alpha1.EtcdRestoreSpec) { s.InPlace, s.Source.ClusterID = true, "64" }, v1alpha1.RestoreRunning, "", ""},
		{"no cluster ID", nil, func(s *v1alpha1.EtcdRestoreSpec) { s.InPlace, s.Source.ClusterID = true, "xyz" }, over, `source.clusterID "xyz" is not hexadecimal`, ""},
		{"a store that is away", func(w *world) { w.archive.down[archiveURL] = errors.New("connection refused") }, inPlace, wait, "archive: connection refused", ""},
		{"no such backup", nil, func(s *v1alpha1.EtcdRestoreSpec) { s.InPlace, s.Source.Point = true, "point-9" }, over, "archive: there is no such backup", ""},
		{"too old", nil, func(s *v1alpha1.EtcdRestoreSpec) {
			before := v1alpha1.NewTime(time.Unix(899_999, 0))
			s.InPlace, s.Source.NotAfter = true, &before
		}, over, "archive: there is no such backup", ""},
		{"no Secret for the store", nil, from(func(s *v1alpha1.RestoreSource) {
			s.Destination = &v1alpha1.BackupDestination{Name: "archive", URL: archiveURL, CredentialsSecretRef: "keys"}
		}), wait, "destination archive names the Secret keys, which does not exist in namespace default: apply it", ""},
		{"no Secret for the identity", nil, secret("age"), wait, "names the Secret age, which does not exist in namespace default: apply it", ""},
		{"no identity in the Secret", func(w *world) { w.create(&v1alpha1.Secret{}, "age") }, secret("age"), wait, "the Secret age has no identity: put an age identity there", ""},
		{"no policy", nil, policy, wait, "there is no EtcdBackupPolicy hourly in namespace default: apply it, or name its store", ""},
		{"a policy", func(w *world) { w.policy("archive") }, policy, v1alpha1.RestoreRunning, "", ""},
		{"no such destination", func(w *world) { w.policy("archive") }, from(func(s *v1alpha1.RestoreSource) {
			s.PolicyName, s.DestinationName = "hourly", "far"
		}), over, "there is no destination far that has the backup", ""},
		{"no record", nil, record, wait, "there is no EtcdBackup b-1 in namespace default: name a policy or a store instead, if only its record is gone", ""},
		{"a record that runs", func(w *world) { w.record(v1alpha1.BackupRunning, "") }, record, wait, "EtcdBackup b-1 is Running", ""},
		{"a record that failed", func(w *world) { w.record(v1alpha1.BackupFailed, "no member answers") }, record, over, "EtcdBackup b-1 failed: no member answers", ""},
		{"a record without its policy", func(w *world) { w.record(v1alpha1.BackupVerified, "") }, record, wait, "there is no EtcdBackupPolicy hourly in namespace default", ""},
		{"a record", func(w *world) {
			w.policy("near", "archive")
			w.record(v1alpha1.BackupVerified, "")
		}, record, v1alpha1.RestoreRunning, "", ""},
	}
}

// TestRestoreProblems: whatever speaks against a restore is told, nothing is touched, and
// what only somebody else can put right ends it. A preview says the same, and writes
// nothing.
func TestRestoreProblems(t *testing.T) {
	var all []restoreCase
	for _, list := range [][]restoreCase{targetCases(), fitCases(), proofCases(), sourceCases()} {
		all = append(all, list...)
	}
	for _, tc := range all {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(3, 3)
			w.formed(t)
			if tc.prepare != nil {
				tc.prepare(w)
			}
			r := w.restore("undo", false, func(s *v1alpha1.EtcdRestoreSpec) {
				if tc.spec != nil {
					tc.spec(s)
				}
			})
			spec, rv, orders := w.cluster().Spec, w.store.rv, w.ordered
			seen, err := w.restores.Preview(context.Background(), r)
			if err != nil || w.store.rv != rv || len(r.Status.Phase) > 0 {
				t.Fatalf("the preview: %v; %d writes", err, w.store.rv-rv)
			}
			want := tc.phase
			if tc.preview != "" {
				want = tc.preview
			}
			if seen.Status.Phase != want || tc.preview == "" && !strings.Contains(seen.Status.Message, tc.want) || seen.Status.Token != "" {
				t.Errorf("the preview says %s: %s", seen.Status.Phase, seen.Status.Message)
			}
			w.restoreOne("undo")
			w.fail(t)
			st := w.restored("undo").Status
			if st.Phase != tc.phase || !strings.Contains(st.Message, tc.want) {
				t.Errorf("it is %s: %s\nwant %s: %s", st.Phase, st.Message, tc.phase, tc.want)
			}
			checkEnding(t, w.restored("undo"))
			if w.ordered != orders {
				t.Error("a member was touched")
			}
			if tc.phase == v1alpha1.RestoreRunning {
				comparePreview(t, seen, w.restored("undo"))
				w.restoreOne("undo")
				spec.RestoreName = "undo"
			}
			if diff := cmp.Diff(spec, w.cluster().Spec); diff != "" {
				t.Errorf("the cluster's spec:\n%s", diff)
			}
		})
	}
}

// checkEnding holds a restore's conditions against its phase.
func checkEnding(t *testing.T, r *v1alpha1.EtcdRestore) {
	t.Helper()
	st := &r.Status
	failed, running := st.Phase == v1alpha1.RestoreFailed, st.Phase == v1alpha1.RestoreRunning
	if (st.FinishedAt != nil) != failed || failed != strings.HasSuffix(st.Message, "; nothing was touched") || (st.StartedAt != nil) != running {
		t.Errorf("it began at %v and ended at %v: %s", st.StartedAt, st.FinishedAt, st.Message)
	}
	if v1alpha1.IsTrue(st.Conditions, v1alpha1.ConditionProgressing) != running || v1alpha1.IsTrue(st.Conditions, v1alpha1.ConditionDegraded) == running {
		t.Errorf("its conditions are %+v", st.Conditions)
	}
}

// comparePreview: what a preview shows is what is then carried out. It has no token, no
// times of its own, and no proof that the restore has had made.
func comparePreview(t *testing.T, seen, is *v1alpha1.EtcdRestore) {
	t.Helper()
	a, b := seen.Status.DeepCopy(), is.Status.DeepCopy()
	if b.Token == "" || b.StartedAt == nil || !strings.HasPrefix(a.Message, "backup "+b.Point.ID+" of revision 500, ") {
		t.Errorf("it is accepted with %+v; %s", b, a.Message)
	}
	if a.Point.ProvenAt == nil {
		b.Point.ProvenAt = nil
	}
	b.Token, b.StartedAt, b.Conditions, a.Conditions, b.Message, a.Message = "", nil, nil, nil, "", ""
	if diff := cmp.Diff(a, b); diff != "" {
		t.Errorf("preview and restore:\n%s", diff)
	}
}

// TestRestoreWaits: what a restore waits for is told once, and it goes on by itself.
func TestRestoreWaits(t *testing.T) {
	w := newWorld(3, 3)
	w.formed(t)
	w.archive.down[archiveURL] = errors.New("connection refused")
	w.restore("undo", true)
	again, err := w.restores.Reconcile(context.Background(), store.Key{Namespace: "default", Name: "undo"})
	if err != nil || again <= 0 || again > time.Minute {
		t.Errorf("it is looked at again in %s, %v", again, err)
	}
	rv := w.store.rv
	for range 5 {
		w.restoreOne("undo")
	}
	if told := strings.Count(strings.Join(w.events, "\n"), "NoBackup undo: "); told != 1 || w.store.rv != rv {
		t.Errorf("it was told %d times, with %d writes", told, w.store.rv-rv)
	}
	delete(w.archive.down, archiveURL)
	w.formed(t)
	if st := w.restored("undo").Status; st.Phase != v1alpha1.RestoreCompleted {
		t.Errorf("it is %s: %s", st.Phase, st.Message)
	}
}

// TestRestoreOfDeletedCluster: a restore ends with its cluster, and one of the same name
// is another one.
func TestRestoreOfDeletedCluster(t *testing.T) {
	for _, anew := range []bool{false, true} {
		w := newWorld(3, 3)
		w.formed(t)
		w.restore("undo", true)
		for n := 0; len(w.members()) == 3 && n < 50; n++ {
			w.rounds(1)
		}
		deleteCluster(w)
		for n := 0; w.cluster() != nil && n < 50; n++ {
			w.reconcile()
			for _, m := range w.members() {
				w.agent(m)
			}
		}
		if anew {
			w.create(&v1alpha1.EtcdCluster{Spec: v1alpha1.EtcdClusterSpec{Version: "3.7.3", Replicas: 3}}, "c")
		}
		w.restoreOne("undo")
		w.fail(t)
		st := w.restored("undo").Status
		if st.Phase != v1alpha1.RestoreFailed || st.Message != "the cluster was deleted meanwhile; the data of its members was renamed aside" || st.FinishedAt == nil {
			t.Errorf("made anew %t: it is %s: %s", anew, st.Phase, st.Message)
		}
		if anew && w.cluster().Spec.RestoreName != "" {
			t.Error("another cluster was told to be restored")
		}
		w.formed(t)
	}
}

// TestTwoRestoresAtOnce: of two that are accepted at the same time one gives way.
func TestTwoRestoresAtOnce(t *testing.T) {
	for _, slow := range []string{"a", "b"} {
		w := newWorld(3, 3)
		w.formed(t)
		fast := map[string]string{"a": "b", "b": "a"}[slow]
		w.restore(slow, true)
		w.restore(fast, true)
		const lastLook = 3 // before it is accepted
		asked := 0
		w.probed = func() {
			if asked++; asked == lastLook {
				w.restoreOne(fast)
			}
		}
		w.restoreOne(slow)
		w.probed = nil
		if a, b := w.restored("a").Status.Phase, w.restored("b").Status.Phase; a != v1alpha1.RestoreRunning || b != a {
			t.Fatalf("the test misses its aim: they are %s and %s", a, b)
		}
		w.formed(t)
		completed, failed := 0, ""
		for _, r := range w.listRestores() {
			if r.Status.Phase == v1alpha1.RestoreCompleted {
				completed++
			} else {
				failed = r.Status.Message
			}
		}
		if completed != 1 || !strings.Contains(failed, "was begun before this one, and is carried out") || w.members()[0].Name != "c-4" {
			t.Errorf("%d completed; %q; %s", completed, failed, w.members()[0].Name)
		}
	}
}

// TestRestoreFromDestinations: which of several stores is read.
func TestRestoreFromDestinations(t *testing.T) {
	at := func(hour int) time.Time { return time.Unix(900_000, 0).Add(time.Duration(hour) * time.Hour) }
	point := func(id string, hour int, proven bool) fleet.BackupFound {
		f := fleet.BackupFound{PointID: id, Of: fleet.BackupsOf{Namespace: "default", Cluster: "c", ClusterID: 99}, TakenAt: at(hour), Revision: archiveRevision, Keys: 5}
		if proven {
			f.ProvenAt = at(hour + 1)
		}
		return f
	}
	rotten := point("p-3", 3, false)
	rotten.Failed = "keys differ"
	type stores map[string][]fleet.BackupFound
	for _, tc := range []struct {
		name   string
		held   stores
		down   string
		source v1alpha1.RestoreSource
		want   string
	}{
		{"the first", stores{"near": {point("p-1", 1, true)}, "far": {point("p-1", 1, true)}}, "", v1alpha1.RestoreSource{}, "p-1 in near"},
		{"the first is down", stores{"near": {point("p-2", 2, true)}, "far": {point("p-1", 1, true)}}, "near", v1alpha1.RestoreSource{}, "p-1 in far"},
		{"the first has none", stores{"far": {point("p-1", 1, true)}}, "", v1alpha1.RestoreSource{}, "p-1 in far"},
		{"newer before proven", stores{"near": {point("p-1", 1, true)}, "far": {point("p-2", 2, false)}}, "", v1alpha1.RestoreSource{Point: "latest"}, "p-2 in far"},
		{"proven alone", stores{"near": {point("p-1", 1, true), point("p-3", 3, false)}, "far": {point("p-2", 2, false)}}, "", v1alpha1.RestoreSource{}, "p-1 in near"},
		{"the newest proven one", stores{"near": {point("p-1", 1, true)}, "far": {point("p-2", 2, true)}}, "", v1alpha1.RestoreSource{}, "p-2 in far"},
		{"proven before the first", stores{"near": {point("p-1", 1, false)}, "far": {point("p-1", 1, true)}}, "", v1alpha1.RestoreSource{Point: "latest"}, "p-1 in far"},
		{"anything before what is wrong", stores{"near": {rotten}, "far": {point("p-3", 3, false)}}, "", v1alpha1.RestoreSource{Point: "latest"}, "p-3 in far"},
		{"not after", stores{"near": {point("p-1", 1, true)}, "far": {point("p-2", 2, true)}}, "", v1alpha1.RestoreSource{NotAfter: new(v1alpha1.NewTime(at(1)))}, "p-1 in near"},
		{"the one that is named", stores{"near": {point("p-2", 2, true)}, "far": {point("p-1", 1, true)}}, "", v1alpha1.RestoreSource{DestinationName: "far"}, "p-1 in far"},
		{"an ID", stores{"near": {point("p-2", 2, true)}, "far": {point("p-1", 1, false)}}, "", v1alpha1.RestoreSource{Point: "p-1"}, "p-1 in far"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(3, 3)
			w.formed(t)
			w.policy("near", "far")
			w.archive.held = map[string][]fleet.BackupFound{}
			for name, held := range tc.held {
				w.archive.held["file:///"+name] = held
			}
			if tc.down != "" {
				w.archive.down["file:///"+tc.down] = errors.New("connection refused")
			}
			w.restore("undo", true, func(s *v1alpha1.EtcdRestoreSpec) {
				s.Source = tc.source
				s.Source.PolicyName = "hourly"
			})
			w.restoreOne("undo")
			st := w.restored("undo").Status
			if st.Phase != v1alpha1.RestoreRunning || st.Point == nil || st.Point.ID+" in "+st.Point.Destination != tc.want {
				t.Fatalf("it is %s: %s: %+v", st.Phase, st.Message, st.Point)
			}
			for _, o := range w.archive.proofs {
				if o.Store.Name != st.Point.Destination || o.PointID != st.Point.ID || o.ClusterID != 99 {
					t.Errorf("proven was %+v", o)
				}
			}
			w.formed(t)
			for _, o := range w.archive.opened {
				if o.Store.Name != st.Point.Destination || o.PointID != st.Point.ID || o.ClusterID != 99 || o.Cluster != "c" {
					t.Errorf("read was %+v", o)
				}
			}
		})
	}
}

// TestWhereARestoreLooks: what is named says whose backups are meant.
func TestWhereARestoreLooks(t *testing.T) {
	for name, tc := range map[string]struct {
		source v1alpha1.RestoreSource
		want   string
	}{
		"nothing":        {v1alpha1.RestoreSource{PolicyName: "hourly"}, "archive: default/c 0 latest-proven; near: default/c 0 latest-proven"},
		"a cluster":      {v1alpha1.RestoreSource{PolicyName: "hourly", ClusterName: "d", Point: "latest"}, "archive: default/d 0 latest; near: default/d 0 latest"},
		"another's":      {v1alpha1.RestoreSource{PolicyName: "hourly", ClusterName: "prod/d", ClusterID: "64"}, "archive: prod/d 64 latest-proven; near: prod/d 64 latest-proven"},
		"a record":       {v1alpha1.RestoreSource{BackupName: "b-1"}, "archive: default/c 63 point-1"},
		"a destination":  {v1alpha1.RestoreSource{Destination: &v1alpha1.BackupDestination{Name: "x", URL: archiveURL}, Point: "p-1"}, "x: default/c 0 p-1"},
		"its identities": {v1alpha1.RestoreSource{Destination: &v1alpha1.BackupDestination{Name: "x", URL: archiveURL}, IdentitySecretRef: "age"}, "x: default/c 0 latest-proven AGE-SECRET-KEY-1"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(3, 3)
			w.policy("near", "archive")
			w.record(v1alpha1.BackupVerified, "")
			w.create(&v1alpha1.Secret{Data: map[string][]byte{fleet.SecretIdentity: []byte("AGE-SECRET-KEY-1")}}, "age")
			w.restore("undo", false, func(s *v1alpha1.EtcdRestoreSpec) { s.Source = tc.source })
			w.restoreOne("undo")
			w.fail(t)
			var got []string
			for _, o := range w.archive.sought {
				got = append(got, strings.TrimSpace(fmt.Sprintf("%s: %s/%s %s %s %s", o.Store.Name, o.Namespace, o.Cluster, o.ClusterID, o.Point, o.Identity)))
			}
			slices.Sort(got)
			if text := strings.Join(got, "; "); text != tc.want {
				t.Errorf("it looked for %s, want %s", text, tc.want)
			}
		})
	}
}

// TestOpenForMember: a backup is read for a member that is being made from it, and for
// nobody else.
func TestOpenForMember(t *testing.T) {
	w := newWorld(3, 3)
	w.formed(t)
	was := w.members()[0]
	w.restore("undo", true)
	w.unmakeable = true
	w.rounds(40)
	m := w.members()[0]
	read := func(m *v1alpha1.EtcdMember) error {
		db, _, err := w.restores.Open(t.Context(), m)
		if err != nil {
			return err
		}
		_, err = io.ReadAll(db)
		return errors.Join(err, db.Close())
	}
	if err := read(m); err != nil {
		t.Fatal(err)
	}
	if err := read(was); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("for a member without a restore: %v", err)
	}
	untold := m.DeepCopy()
	untold.Spec.Bootstrap = nil
	if err := read(untold); !errors.Is(err, store.ErrConflict) {
		t.Errorf("for one that was not told to: %v", err)
	}
	other := m.DeepCopy()
	other.Spec.Bootstrap.Token = "quorate-another"
	if err := read(other); !errors.Is(err, store.ErrConflict) {
		t.Errorf("for one of another cluster: %v", err)
	}
	c := v1alpha1.FindCondition(w.cluster().Status.Conditions, v1alpha1.ConditionProgressing)
	if want := m.Name + ": no space left on device"; c.Reason != fleet.HeldRestore || !strings.Contains(c.Message, want) || !strings.Contains(w.restored("undo").Status.Message, want) {
		t.Errorf("%+v; %s", c, w.restored("undo").Status.Message)
	}
	w.formed(t)
	if err := read(m); !errors.Is(err, store.ErrConflict) {
		t.Errorf("after the restore: %v", err)
	}
}

// TestRememberedRevision: where no member answers, what earlier restores and backups tell
// is the least that clients have seen, and the revision moves on from there.
func TestRememberedRevision(t *testing.T) {
	for name, remember := range map[string]func(w *world){
		"by a restore": func(w *world) {
			w.restore("earlier", true)
			began := v1alpha1.Now()
			w.setRestore("earlier", func(st *v1alpha1.EtcdRestoreStatus) {
				st.Phase, st.StartedAt, st.Revision = v1alpha1.RestoreCompleted, &began, 5_000_000_000
			})
		},
		"by a backup": func(w *world) {
			b := &v1alpha1.EtcdBackup{Spec: v1alpha1.EtcdBackupSpec{ClusterName: "c"}}
			b.Namespace, b.Name = "default", "late"
			w.must(w.store.Create(context.Background(), b))
			b.Status.Revision = 5_000_000_000
			w.must(w.store.UpdateStatus(context.Background(), b))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(3, 3)
			w.settle()
			w.edit(func(s *v1alpha1.EtcdClusterSpec) { s.Suspended = true })
			w.settle()
			remember(w)
			w.restore("undo", true)
			w.restoreOne("undo")
			st := w.listRestores()[len(w.listRestores())-1].Status
			if st.Phase != v1alpha1.RestoreRunning || st.LastRevision != 0 || st.Revision <= 5_000_000_000 || !strings.Contains(st.BumpReason, "records tell of revision 5000000000") {
				t.Errorf("the restore is %s: %s; from revision %d on, since %s", st.Phase, st.Message, st.Revision, st.BumpReason)
			}
			w.restore("short", true, func(s *v1alpha1.EtcdRestoreSpec) { s.BumpRevision = new(int64(1000)) })
			w.dropRestore("undo")
			w.restoreOne("short")
			for _, r := range w.listRestores() {
				if r.Name == "short" && (r.Status.Phase != v1alpha1.RestoreFailed || !strings.Contains(r.Status.Message, "clients have seen up to 5000000000")) {
					t.Errorf("a bump that is too short: %s: %s", r.Status.Phase, r.Status.Message)
				}
			}
			w.fail(t)
		})
	}
}
