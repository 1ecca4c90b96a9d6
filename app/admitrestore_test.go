package app

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/memory"
)

// TestAdmitRestoreName: what a cluster is formed from can be changed to what replaces its
// members, and back to what they come from, and to nothing else.
func TestAdmitRestoreName(t *testing.T) {
	a := admission{store: memory.New(memory.Options{})}
	for name, change := range map[string]func(r *v1alpha1.EtcdRestore){
		"undo":     func(r *v1alpha1.EtcdRestore) { r.Spec.InPlace = true },
		"beside":   func(*v1alpha1.EtcdRestore) {},
		"others":   func(r *v1alpha1.EtcdRestore) { r.Spec.InPlace, r.Spec.ClusterName = true, "other" },
		"over":     func(r *v1alpha1.EtcdRestore) { r.Spec.InPlace, r.Status.Phase = true, v1alpha1.RestoreFailed },
		"finished": func(r *v1alpha1.EtcdRestore) { r.Spec.InPlace, r.Status.Phase = true, v1alpha1.RestoreCompleted },
	} {
		r := &v1alpha1.EtcdRestore{Spec: v1alpha1.EtcdRestoreSpec{ClusterName: "prod"}}
		r.Namespace, r.Name = "default", name
		change(r)
		if err := errors.Join(a.store.Create(t.Context(), r.DeepCopy())); err != nil {
			t.Fatal(err)
		}
		have := &v1alpha1.EtcdRestore{}
		if err := a.store.Get(t.Context(), store.KeyOf(r), have); err != nil {
			t.Fatal(err)
		}
		have.Status = r.Status
		if err := a.store.UpdateStatus(t.Context(), have); err != nil {
			t.Fatal(err)
		}
	}
	member := func(cluster, restore string, n int) {
		m := &v1alpha1.EtcdMember{Spec: v1alpha1.EtcdMemberSpec{ClusterName: cluster, RestoreName: restore}}
		m.Namespace, m.Name = "default", fmt.Sprint(cluster, "-", n)
		m.Labels = map[string]string{v1alpha1.LabelCluster: cluster}
		if err := a.store.Create(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	cluster := func(name, restore string) *v1alpha1.EtcdCluster {
		c := &v1alpha1.EtcdCluster{Spec: v1alpha1.EtcdClusterSpec{RestoreName: restore, Version: "3.7.3"}}
		c.Namespace, c.Name = "default", name
		return c
	}
	// prod has members without a restore, half has some of each, and new has none.
	member("prod", "", 1)
	member("prod", "", 2)
	member("half", "", 2)
	member("half", "first", 3)
	member("done", "first", 4)
	for _, tc := range []struct{ name, was, is, want string }{
		{"prod", "", "", ""},
		{"prod", "", "undo", ""},
		{"prod", "undo", "", ""},
		{"prod", "undo", "nowhere", "there is no EtcdRestore nowhere in namespace default: apply one with inPlace: true, which sets this by itself"},
		{"prod", "", "beside", "EtcdRestore beside is over, is for another cluster, or does not say inPlace"},
		{"prod", "", "others", "EtcdRestore others is over, is for another cluster, or does not say inPlace"},
		{"prod", "", "over", "EtcdRestore over is over, "},
		{"prod", "", "finished", "EtcdRestore finished is over, "},
		{"done", "first", "", "it can't be taken away: done-4 has the data of EtcdRestore first: write restoreName: first into what you apply"},
		{"done", "second", "first", ""},
		{"half", "first", "", "it can't be taken away: half-3 has the data of EtcdRestore first"},
		{"new", "nowhere", "elsewhere", ""},
		{"new", "", "nowhere", ""},
		{"new", "nowhere", "", "it can't be taken away: the cluster would begin empty: name another EtcdRestore, or delete the cluster and apply it again"},
	} {
		err := a.admit(t.Context(), cluster(tc.name, tc.is), cluster(tc.name, tc.was))
		if tc.want == "" && err != nil || tc.want != "" && (!errors.Is(err, store.ErrInvalid) || !strings.Contains(err.Error(), "spec.restoreName: "+tc.want)) {
			t.Errorf("%s from %q to %q: %v, want %q", tc.name, tc.was, tc.is, err, tc.want)
		}
	}
}

// TestAdmitRestore: the store that an EtcdRestore names must be one.
func TestAdmitRestore(t *testing.T) {
	r := &v1alpha1.EtcdRestore{Spec: v1alpha1.EtcdRestoreSpec{ClusterName: "prod", Source: v1alpha1.RestoreSource{
		Destination: &v1alpha1.BackupDestination{Name: "a", URL: "s3://user:word@b?region=x"},
	}}}
	err := admission{store: memory.New(memory.Options{})}.admit(t.Context(), r, nil)
	if !errors.Is(err, store.ErrInvalid) || !strings.Contains(err.Error(), "spec.source.destination.url: ") || strings.Contains(err.Error(), "word") {
		t.Errorf("%v", err)
	}
	r.Spec.Source.Destination = &v1alpha1.BackupDestination{Name: "a", URL: "file:///a", CredentialsSecretRef: "keys"}
	if err = (admission{store: memory.New(memory.Options{})}).admit(t.Context(), r, nil); err == nil || !strings.Contains(err.Error(), "spec.source.destination.credentialsSecretRef: a directory needs no credentials") {
		t.Errorf("%v", err)
	}
}
