package e2e_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/fleet"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/test/s3lab"
)

// TestTwoStores: a policy keeps encrypted backups in a directory and in a real S3 server,
// with credentials of a Secret. While one store refuses, the other gets its backup, what is
// missing is told, and a restore takes the one that has it; no secret shows anywhere.
func TestTwoStores(t *testing.T) {
	dir, near := t.TempDir(), filepath.Join(t.TempDir(), "near")
	must(t, os.Mkdir(near, 0o700))
	lab := s3lab.New(t, s3lab.Options{})
	lab.Make("fleet")
	u := bringUp(t, dir)
	_, err := u.etcd("playground").Put(t.Context(), "/a", "before")
	must(t, err)
	identity, err := age.GenerateX25519Identity()
	must(t, err)
	for name, data := range map[string]map[string][]byte{
		"keys":   {"AWS_ACCESS_KEY_ID": []byte(s3lab.Key), "AWS_SECRET_ACCESS_KEY": []byte(s3lab.Secret)},
		"opener": {fleet.SecretIdentity: []byte(identity.String())},
	} {
		s := &v1alpha1.Secret{Data: data}
		s.Namespace, s.Name = "default", name
		must(t, u.client.Create(t.Context(), s))
	}
	far := lab.Config("fleet")
	must(t, u.apply("apiVersion: quorate.io/v1alpha1\nkind: EtcdBackupPolicy\nmetadata: {name: both}\nspec:\n  clusterName: playground\n"+
		"  encryption: {recipients: ["+identity.Recipient().String()+"], identitySecretRef: opener}\n"+
		"  destinations:\n  - {name: near, url: 'file://"+near+"'}\n  - {name: far, url: '"+far.String()+"', credentialsSecretRef: keys}\n"))
	u.awaitPolicy("both")
	if keys := lab.Keys("fleet"); len(keys) < 3 {
		t.Fatalf("the bucket holds %v", keys)
	}

	lab.Proxy.Add(s3lab.Fault{Share: 1, Status: http.StatusForbidden, Code: "AccessDenied"})
	must(t, u.apply(backupOf("while-denied", "playground", "policyName: both")))
	st := u.awaitBackup("while-denied")
	if st.Phase != v1alpha1.BackupVerified || !v1alpha1.IsTrue(st.Conditions, v1alpha1.ConditionDegraded) || !strings.Contains(st.Message, "far") {
		t.Errorf("with one of two stores refusing it is %+v", st)
	}
	must(t, u.apply(clusterOf("again", 1, ", restoreName: again")))
	must(t, u.apply(restoreOf("again", "again", "source: {policyName: both, clusterName: playground}")))
	restored := u.awaitRestore("again")
	if restored.Phase != v1alpha1.RestoreCompleted || restored.Point.Destination != "near" {
		t.Fatalf("with one of two stores refusing the restore is %+v", restored)
	}
	lab.Proxy.Heal()
	must(t, u.apply(clusterOf("far", 1, ", restoreName: from-far")))
	must(t, u.apply(restoreOf("from-far", "far", "source: {policyName: both, clusterName: playground, destinationName: far}")))
	if restored = u.awaitRestore("from-far"); restored.Phase != v1alpha1.RestoreCompleted || restored.Point.ID == st.Destinations[0].PointID {
		t.Fatalf("from the far store the restore is %+v", restored)
	}
	for _, name := range []string{"again", "far"} {
		r, err := u.etcd(name).Get(t.Context(), "/a")
		must(t, err)
		if len(r.Kvs) != 1 || string(r.Kvs[0].Value) != "before" {
			t.Errorf("%s has %v", name, r.Kvs)
		}
	}

	var told strings.Builder
	told.WriteString(u.metrics())
	for _, kind := range []v1alpha1.Kind{v1alpha1.KindBackup, v1alpha1.KindBackupPolicy, v1alpha1.KindRestore, v1alpha1.KindTask} {
		objects, err := u.client.List(t.Context(), kind, store.ListOptions{})
		must(t, err)
		raw, err := json.Marshal(objects)
		must(t, err)
		told.Write(raw)
	}
	for _, secret := range []string{s3lab.Secret, identity.String()} {
		if strings.Contains(told.String(), secret) {
			t.Error("a secret shows in a status or the metrics")
		}
	}
}
