package schema

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
)

func document(t *testing.T, text string) Document {
	t.Helper()
	docs, err := Decode(t.Context(), []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return docs[0]
}

// apply runs ThreeWay and plays the store's part.
func apply(t *testing.T, live v1alpha1.Object, text string) (*v1alpha1.EtcdCluster, bool) {
	t.Helper()
	obj, changed, err := ThreeWay(live, document(t, text))
	if err != nil {
		t.Fatal(err)
	}
	c := as[*v1alpha1.EtcdCluster](t, obj)
	if live == nil {
		c.Namespace, c.UID, c.ResourceVersion, c.Generation = "default", "u", "1", 1
		c.Finalizers = []string{v1alpha1.FinalizerCluster}
	}
	return c, changed
}

func spec(fields string) string {
	return clusterHead + "spec:\n  version: 3.7.3\n" + fields
}

func TestApply(t *testing.T) {
	first := spec("  suspended: true\n  etcd: {maxTxnOps: 512}\n  tls: {extraSANs: [a.example, b.example]}\n")
	live, changed := apply(t, nil, first)
	if !changed || live.Spec.Replicas != 3 || live.Spec.Etcd.MaxTxnOps != 512 {
		t.Fatalf("created %t %+v", changed, live.Spec)
	}
	if applied := live.Annotations[v1alpha1.AnnotationLastApplied]; strings.Contains(applied, "replicas") || !strings.Contains(applied, `"maxTxnOps":512`) {
		t.Fatalf("applied is %s", applied)
	}
	live.Status.Ready = "3/3"

	again, changed := apply(t, live, first)
	if changed || again.ResourceVersion != "1" {
		t.Error("applying the same file changed something")
	}
	// Another actor sets a field that has a default, and one that has none.
	at := v1alpha1.NewTime(v1alpha1.Now().Truncate(time.Second))
	live.Spec.RestartedAt = &at
	live.Spec.Etcd.SnapshotCount = 5000
	live.Labels = map[string]string{"owner": "them"}
	if again, changed = apply(t, live, first); changed || again.Spec.Etcd.SnapshotCount != 5000 || again.Spec.RestartedAt == nil {
		t.Errorf("another's fields were reset: %+v", again.Spec)
	}

	before := live.DeepCopy()
	second, changed := apply(t, live, spec("  tls: {extraSANs: [c.example]}\n  etcd: {heartbeatInterval: 50ms}\n"))
	switch {
	case !changed:
		t.Error("nothing changed")
	case second.Spec.Suspended || second.Spec.Etcd.MaxTxnOps != 128:
		t.Errorf("what the file dropped is still there: %+v", second.Spec)
	case len(second.Spec.TLS.ExtraSANs) != 1:
		t.Errorf("lists were merged: %v", second.Spec.TLS.ExtraSANs)
	case second.Spec.Etcd.SnapshotCount != 5000 || !second.Spec.RestartedAt.Equal(&at) || second.Labels["owner"] != "them":
		t.Errorf("another's fields were lost: %+v", second)
	case second.UID != "u" || second.ResourceVersion != "1" || len(second.Finalizers) != 1 || second.Namespace != "default" || second.Status.Ready != "3/3":
		t.Errorf("the store's fields were lost: %+v", second.ObjectMeta)
	case second.Spec.Etcd.QuotaBackend.String() != "8Gi":
		t.Errorf("the quota is %s", second.Spec.Etcd.QuotaBackend.String())
	}
	if !v1alpha1.Equal(before, live) {
		t.Error("ThreeWay changed the live object")
	}
}

// TestApplyDroppedBlock: a block that the file drops goes whole, as with kubectl.
func TestApplyDroppedBlock(t *testing.T) {
	live, _ := apply(t, nil, spec("  etcd: {maxTxnOps: 512}\n"))
	live.Spec.Etcd.SnapshotCount = 5000
	got, changed := apply(t, live, spec(""))
	if !changed || got.Spec.Etcd.SnapshotCount != 10000 || got.Spec.Etcd.MaxTxnOps != 128 {
		t.Fatalf("%t %+v", changed, got.Spec.Etcd)
	}
}

func TestApplyToAnObjectThatWasNeverApplied(t *testing.T) {
	live := newCluster(t, "  etcd: {maxTxnOps: 512}\n")
	got, changed := apply(t, live, spec("  suspended: true\n"))
	if !changed || got.Spec.Etcd.MaxTxnOps != 512 || !got.Spec.Suspended || got.Annotations[v1alpha1.AnnotationLastApplied] == "" {
		t.Fatalf("%t %+v", changed, got)
	}
}

func TestApplyLabelsAndAnnotations(t *testing.T) {
	with := func(meta string) string {
		return clusterHead + "  " + meta + "\nspec: {version: 3.7.3}\n"
	}
	live, _ := apply(t, nil, clusterHead+"  labels: {a: x, b: v}\n  annotations: {note: old}\nspec: {version: 3.7.3}\n")
	live.Labels["theirs"] = "z"
	got, _ := apply(t, live, with("labels: {a: x2}"))
	if got.Labels["a"] != "x2" || got.Labels["b"] != "" || got.Labels["theirs"] != "z" {
		t.Errorf("labels are %v", got.Labels)
	}
	if _, ok := got.Annotations["note"]; ok || got.Annotations[v1alpha1.AnnotationLastApplied] == "" {
		t.Errorf("annotations are %v", got.Annotations)
	}
}

func TestApplyNullRemoves(t *testing.T) {
	live := newCluster(t, "  etcd: {maxTxnOps: 512}\n")
	got, changed := apply(t, live, spec("  etcd: {maxTxnOps: null}\n"))
	if !changed || got.Spec.Etcd.MaxTxnOps != 128 {
		t.Fatalf("maxTxnOps is %d, want the default", got.Spec.Etcd.MaxTxnOps)
	}
}

func TestApplySameSizeInOtherWords(t *testing.T) {
	live, _ := apply(t, nil, spec("  etcd: {quotaBackend: 8Gi}\n"))
	got, _ := apply(t, live, spec("  etcd: {quotaBackend: 8192Mi}\n"))
	if !v1alpha1.Equal(got.Spec, live.Spec) {
		t.Fatalf("quota is %s", got.Spec.Etcd.QuotaBackend.String())
	}
}

// TestApplyExported: a file from `get -o yaml` is a precondition on what was read,
// and can make the object anew.
func TestApplyExported(t *testing.T) {
	live, _ := apply(t, nil, spec(""))
	live.Generation = 3
	text, err := YAML(live)
	if err != nil {
		t.Fatal(err)
	}
	if _, changed := apply(t, live, string(text)); !changed {
		t.Error("the file says more than the last one, which must be recorded")
	}
	now := live.DeepCopy()
	now.ResourceVersion = "2"
	got, changed := apply(t, now, strings.Replace(string(text), "suspended: false", "suspended: true", 1))
	if strings.Contains(string(text), "suspended: false") && (!changed || !got.Spec.Suspended) {
		t.Error("the edit was lost")
	}
	if got.ResourceVersion != "2" {
		t.Errorf("resourceVersion is %s: a write of status alone must not refuse the file", got.ResourceVersion)
	}
	now.Generation = 4
	got, _ = apply(t, now, strings.Replace(string(text), "suspended: false", "suspended: true", 1))
	if got.ResourceVersion != "1" {
		t.Errorf("resourceVersion is %s: a stale file would overwrite what it has not seen", got.ResourceVersion)
	}
	if strings.Contains(got.Annotations[v1alpha1.AnnotationLastApplied], "resourceVersion") {
		t.Error("the precondition was recorded as if it were wanted")
	}
	anew, _, err := ThreeWay(nil, document(t, string(text)))
	if err != nil || anew.GetUID() != "" || anew.GetResourceVersion() != "" {
		t.Errorf("made anew as %+v, %v", anew, err)
	}
}

func TestApplySecretKeepsDataOutOfTheAnnotation(t *testing.T) {
	const head = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: s\n"
	doc := document(t, head+"  labels: {a: x}\nstringData: {one: hunter2}\n")
	created, changed, err := ThreeWay(nil, doc)
	if err != nil || !changed {
		t.Fatal(changed, err)
	}
	live := as[*v1alpha1.Secret](t, created)
	live.Namespace = "default"
	if len(live.Annotations) != 0 || string(live.Data["one"]) != "hunter2" {
		t.Fatalf("created %+v", live)
	}
	if _, changed, err = ThreeWay(live, doc); err != nil || changed {
		t.Fatal(changed, err)
	}
	live.Labels["theirs"] = "z"
	next, changed, err := ThreeWay(live, document(t, head+"  labels: {b: v}\nstringData: {two: t}\n"))
	if err != nil || !changed {
		t.Fatal(changed, err)
	}
	s := as[*v1alpha1.Secret](t, next)
	if len(s.Data) != 1 || string(s.Data["two"]) != "t" || len(s.Annotations) != 0 || len(s.Labels) != 3 {
		t.Fatalf("merged to %+v", s)
	}
}

func TestApplyRefuses(t *testing.T) {
	live := newCluster(t, "")
	live.Annotations = map[string]string{v1alpha1.AnnotationLastApplied: "{"}
	if _, _, err := ThreeWay(live, document(t, spec(""))); err == nil || !strings.Contains(err.Error(), "remove the annotation") {
		t.Errorf("a broken annotation: %v", err)
	}
	if _, _, err := ThreeWay(live, document(t, hostText)); !errors.Is(err, ErrInvalid) {
		t.Errorf("a host on a cluster: %v", err)
	}
	if _, _, err := ThreeWay(live, Document{}); !errors.Is(err, ErrInvalid) {
		t.Errorf("no document: %v", err)
	}
}

// TestApplyExportedAgain: the same exported file is edited and applied twice; once
// someone else has changed the spec in between, it is refused.
func TestApplyExportedAgain(t *testing.T) {
	live, _ := apply(t, nil, spec(""))
	live.Generation, live.ResourceVersion = 1, "5"
	text, err := YAML(live)
	if err != nil {
		t.Fatal(err)
	}
	edit := func(count string) string {
		return strings.Replace(string(text), "snapshotCount: 10000", "snapshotCount: "+count, 1)
	}
	store := func(got *v1alpha1.EtcdCluster, version string) *v1alpha1.EtcdCluster {
		got.Generation++
		got.ResourceVersion = version
		return got
	}
	first, changed := apply(t, live, edit("5000"))
	if !changed || first.ResourceVersion != "5" {
		t.Fatalf("the first: %s, %t", first.ResourceVersion, changed)
	}
	live = store(first, "8")
	second, changed := apply(t, live, edit("6000"))
	if !changed || second.ResourceVersion != "8" || second.Spec.Etcd.SnapshotCount != 6000 {
		t.Fatalf("the second: %s, %t, %d", second.ResourceVersion, changed, second.Spec.Etcd.SnapshotCount)
	}
	live = store(second, "9")
	live.Spec.Suspended = true
	live = store(live, "11")
	if third, _ := apply(t, live, edit("7000")); third.ResourceVersion != "5" {
		t.Fatalf("someone else's change would be overwritten: %s", third.ResourceVersion)
	}
}
