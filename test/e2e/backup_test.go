package e2e_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/quorate/quorate/api/schema"
	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/app"
	"github.com/quorate/quorate/backup"
	"github.com/quorate/quorate/backup/bucket"
	"github.com/quorate/quorate/backup/catalog"
	"github.com/quorate/quorate/etcd"
	"github.com/quorate/quorate/fleet"
	"github.com/quorate/quorate/pki"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
	"github.com/quorate/quorate/test/etcdlab"
)

// upped is a whole `quorate up` in this process, and a client of its API.
type upped struct {
	t      *testing.T
	client *remote.Client
	config remote.Config
	stop   func()
}

// bringUp runs `up` with one member, on dir.
func bringUp(t *testing.T, dir string) *upped {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- app.Up(ctx, app.UpOptions{
			DataDir: dir, Listen: "127.0.0.1:0", Members: 1, Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelError})),
			Progress: func(p app.UpProgress) {
				if p.Ready != nil {
					close(ready)
				}
			},
		})
	}()
	select {
	case <-ready:
	case err := <-done:
		cancel()
		t.Fatalf("up ended: %v", err)
	case <-time.After(2 * time.Minute):
		cancel()
		t.Fatal("up was not ready in time")
	}
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("up: %v", err)
		}
	}
	t.Cleanup(stop)
	config, err := remote.LoadConfig(app.ClientConfigFile(dir))
	must(t, err)
	client, err := remote.New(config, remote.Options{Logger: slog.New(slog.DiscardHandler)})
	must(t, err)
	t.Cleanup(client.Close)
	return &upped{t: t, client: client, config: config, stop: stop}
}

// apply creates what stands in YAML.
func (u *upped) apply(text string) error {
	u.t.Helper()
	docs, err := schema.Decode(u.t.Context(), []byte(text))
	must(u.t, err)
	for _, d := range docs {
		if d.Object.GetNamespace() == "" {
			d.Object.SetNamespace("default")
		}
		if err = u.client.Create(u.t.Context(), d.Object); err != nil {
			return err
		}
	}
	return nil
}

// etcd is a client of the cluster that Quorate runs.
func (u *upped) etcd(name string) *clientv3.Client {
	u.t.Helper()
	key, err := pki.NewKey()
	must(u.t, err)
	csr, err := pki.NewRequest(key, "test")
	must(u.t, err)
	bundle, endpoints, err := u.client.ClientCertificate(u.t.Context(), store.Key{Namespace: "default", Name: name}, csr, time.Hour)
	must(u.t, err)
	config, err := pki.ClientTLS(bundle.Certificate, key, bundle.CA)
	must(u.t, err)
	c, err := etcd.Dial(etcd.Target{Endpoint: endpoints[0], TLS: config})
	must(u.t, err)
	u.t.Cleanup(func() { _ = c.Close() })
	return c
}

// awaitBackup waits until a backup is over.
func (u *upped) awaitBackup(name string) v1alpha1.EtcdBackupStatus {
	u.t.Helper()
	ctx, cancel := context.WithTimeout(u.t.Context(), 2*time.Minute)
	defer cancel()
	b := &v1alpha1.EtcdBackup{}
	eventually(ctx, u.t, func() (bool, string) {
		if err := u.client.Get(ctx, store.Key{Namespace: "default", Name: name}, b); err != nil {
			return false, err.Error()
		}
		return b.Finished(), fmt.Sprintf("%s is %s: %s", name, b.Status.Phase, b.Status.Message)
	})
	return b.Status
}

// metrics of the server.
func (u *upped) metrics() string {
	u.t.Helper()
	req, err := http.NewRequestWithContext(u.t.Context(), http.MethodGet, u.config.Server+"/metrics", http.NoBody)
	must(u.t, err)
	req.Header.Set("Authorization", "Bearer "+u.config.Token)
	resp, err := http.DefaultClient.Do(req)
	must(u.t, err)
	defer resp.Body.Close() //nolint:errcheck // what was wanted of it has been read
	text, err := io.ReadAll(resp.Body)
	must(u.t, err)
	return string(text)
}

// everything that an etcd has.
func everything(t *testing.T, c *clientv3.Client) string {
	t.Helper()
	r, err := c.Get(t.Context(), "\x00", clientv3.WithFromKey())
	must(t, err)
	var b strings.Builder
	fmt.Fprintf(&b, "revision %d\n", r.Header.Revision)
	for _, kv := range r.Kvs {
		fmt.Fprintf(&b, "%q=%q %d %d %d\n", kv.Key, kv.Value, kv.CreateRevision, kv.ModRevision, kv.Version)
	}
	return b.String()
}

// points that lie in a directory.
func points(t *testing.T, dir string) (bucket.Bucket, []catalog.Entry) {
	t.Helper()
	in, err := bucket.Open(t.Context(), bucket.Config{Provider: bucket.File, Prefix: dir}, bucket.Options{})
	must(t, err)
	t.Cleanup(func() { _ = in.Close() })
	cat, err := backup.ReadCatalog(t.Context(), in, catalog.ReadOptions{})
	must(t, err)
	return in, cat.Entries
}

// TestBackupPolicy: a policy has a cluster backed up at once, the backup is proven, told
// and pruned, and what is restored of it is what was there; another server knows of it
// by the stores alone. A cluster that others run is backed up once they allow it.
func TestBackupPolicy(t *testing.T) {
	dir, vault := t.TempDir(), filepath.Join(t.TempDir(), "vault")
	must(t, os.Mkdir(vault, 0o700))
	u := bringUp(t, dir)
	c := u.etcd("playground")
	for i := range 300 {
		_, err := c.Put(t.Context(), fmt.Sprintf("/key/%03d", i%200), fmt.Sprint("value ", i))
		must(t, err)
	}
	for _, bad := range []string{"s3://bucket?region=x&colour=red", "file://vault/x", "s3://bucket"} {
		if err := u.apply(policyOf("bad", "clusterName: playground", bad)); err == nil {
			t.Errorf("the destination %s is taken", bad)
		}
	}
	want := everything(t, c)
	must(t, u.apply(policyOf("hourly", "clusterName: playground", "file://"+vault)))
	status := u.awaitPolicy("hourly")
	if status.Clusters != 1 || status.Fresh != 1 || status.Failed+status.Stale+status.Unproven != 0 || status.NextRunAt == nil {
		t.Errorf("the policy says %+v", status)
	}
	text := u.metrics()
	for _, series := range []string{
		`quorate_backup_last_proven_timestamp_seconds{cluster="playground",destination="vault",namespace="default",policy="hourly"}`,
		`quorate_backup_restore_seconds{cluster="playground"`, `quorate_backup_points{cluster="playground",destination="vault",namespace="default",policy="hourly"} 1`,
		"quorate_http_requests_total",
	} {
		if !strings.Contains(text, series) {
			t.Errorf("the metrics lack %s", series)
		}
	}
	in, entries := points(t, vault)
	if len(entries) != 1 || entries[0].Verdict() != catalog.Proven || entries[0].Point.Policy != "default/hourly" {
		t.Fatalf("the store holds %+v", entries)
	}
	l := etcdlab.New(t, etcdlab.Options{Edit: func(members []*etcdlab.Member) {
		m := members[0]
		m.Dir = filepath.Join(t.TempDir(), "data")
		_, err := backup.Restore(t.Context(), backup.RestoreOptions{
			Origin:  backup.Origin{Bucket: in, Entry: &entries[0]},
			Members: []backup.RestoreMember{{Name: m.Name, Dir: m.Dir}}, InitialCluster: map[string][]string{m.Name: {m.Peer}},
		})
		must(t, err)
	}}).Ready()
	if got := everything(t, l.Members[0].Dial()); got != want {
		t.Errorf("the restored etcd has\n%.500s\nnot\n%.500s", got, want)
	}

	u.byHand(vault)
	u.foreign(vault)

	// The records are lost, and the server begins anew: the stores tell what there is, and
	// nothing is taken that is there already.
	records, err := u.client.List(t.Context(), v1alpha1.KindBackup, store.ListOptions{})
	must(t, err)
	for _, b := range records {
		must(t, u.client.Delete(t.Context(), v1alpha1.KindBackup, store.KeyOf(b), store.Preconditions{UID: b.GetUID()}))
	}
	u.stop()
	u = bringUp(t, dir)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	eventually(ctx, t, func() (bool, string) {
		text := u.metrics()
		return strings.Contains(text, `quorate_backup_points{cluster="playground",destination="vault",namespace="default",policy="hourly"} 3`) &&
			strings.Contains(text, `quorate_backup_restore_seconds{cluster="playground"`), text
	})
	u.awaitPolicy("hourly")
	records, err = u.client.List(t.Context(), v1alpha1.KindBackup, store.ListOptions{})
	must(t, err)
	if len(records) > 0 {
		t.Errorf("%d backups were taken although the newest is minutes old", len(records))
	}
}

func policyOf(name, clusters, url string) string {
	return "apiVersion: quorate.io/v1alpha1\nkind: EtcdBackupPolicy\nmetadata: {name: " + name + "}\nspec:\n  " + clusters +
		"\n  destinations: [{name: vault, url: '" + url + "'}]\n  retention: {keepLast: 2}\n"
}

func backupOf(name, cluster, more string) string {
	return "apiVersion: quorate.io/v1alpha1\nkind: EtcdBackup\nmetadata: {name: " + name + "}\nspec: {clusterName: " + cluster + ", " + more + "}\n"
}

// awaitPolicy waits until a policy's backups are fresh and proven.
func (u *upped) awaitPolicy(name string) v1alpha1.EtcdBackupPolicyStatus {
	u.t.Helper()
	ctx, cancel := context.WithTimeout(u.t.Context(), 2*time.Minute)
	defer cancel()
	p := &v1alpha1.EtcdBackupPolicy{}
	eventually(ctx, u.t, func() (bool, string) {
		if err := u.client.Get(ctx, store.Key{Namespace: "default", Name: name}, p); err != nil {
			return false, err.Error()
		}
		good := true
		for _, kind := range []string{v1alpha1.ConditionReady, v1alpha1.ConditionFresh, v1alpha1.ConditionProven} {
			good = good && v1alpha1.IsTrue(p.Status.Conditions, kind)
		}
		return good, fmt.Sprintf("%+v", p.Status)
	})
	return p.Status
}

// byHand backs the cluster up by orders of a person: those with the policy are pruned by
// its rules, one without is left alone.
func (u *upped) byHand(vault string) {
	t := u.t
	must(t, u.apply(backupOf("mine", "playground", "destinations: [{name: vault, url: 'file://"+vault+"'}]")))
	if st := u.awaitBackup("mine"); st.Phase != v1alpha1.BackupVerified || st.Source == nil || st.Keys == 0 || st.DBSize == 0 || len(st.Destinations) != 1 {
		t.Errorf("mine is %+v", st)
	}
	u.encrypted(filepath.Join(filepath.Dir(vault), "sealed"))
	last := ""
	for i := range 3 {
		name := fmt.Sprint("more-", i)
		must(t, u.apply(backupOf(name, "playground", "policyName: hourly")))
		st := u.awaitBackup(name)
		if st.Phase != v1alpha1.BackupVerified {
			t.Fatalf("%s is %+v", name, st)
		}
		last = st.Destinations[0].PointID
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	eventually(ctx, t, func() (bool, string) {
		_, entries := points(t, vault)
		mine, theirs, newest := 0, 0, false
		for _, e := range entries {
			switch {
			case e.Point == nil:
			case e.Point.Policy == "":
				mine++
			default:
				theirs++
				newest = newest || e.Ref.ID() == last
			}
		}
		return mine == 1 && theirs <= 2 && newest, fmt.Sprintf("%d of the policy, %d by hand, the newest is there: %t", theirs, mine, newest)
	})
}

// encrypted backs the cluster up for an identity, and proves it with that and with
// another one.
func (u *upped) encrypted(vault string) {
	t := u.t
	must(t, os.Mkdir(vault, 0o700))
	mine, err := age.GenerateX25519Identity()
	must(t, err)
	other, err := age.GenerateX25519Identity()
	must(t, err)
	for name, identity := range map[string]string{"mine": mine.String(), "other": "# of somebody else\n" + other.String() + "\n"} {
		s := &v1alpha1.Secret{Data: map[string][]byte{fleet.SecretIdentity: []byte(identity)}}
		s.Namespace, s.Name = "default", name
		must(t, u.client.Create(t.Context(), s))
	}
	for name, want := range map[string]v1alpha1.BackupPhase{"mine": v1alpha1.BackupVerified, "other": v1alpha1.BackupTaken} {
		must(t, u.apply(backupOf("sealed-"+name, "playground",
			"destinations: [{name: vault, url: 'file://"+vault+"'}], encryption: {recipients: ["+mine.Recipient().String()+"], identitySecretRef: "+name+"}")))
		if st := u.awaitBackup("sealed-" + name); st.Phase != want || want == v1alpha1.BackupTaken && !strings.Contains(st.Message, "no identity opens the backup") {
			t.Errorf("with the identity %s it is %s: %s", name, st.Phase, st.Message)
		}
	}
	_, entries := points(t, vault)
	for _, e := range entries {
		if e.Point.Encryption == nil || len(e.Point.Encryption.Recipients) != 1 {
			t.Errorf("%s is not encrypted", e.Ref)
		}
	}
}

// foreign backs up a cluster that others run.
func (u *upped) foreign(vault string) {
	t := u.t
	theirs := etcdlab.New(t, etcdlab.Options{}).Ready()
	_, err := theirs.Members[0].Dial().Put(t.Context(), "a", "b")
	must(t, err)
	must(t, u.apply("apiVersion: quorate.io/v1alpha1\nkind: EtcdCluster\nmetadata: {name: theirs}\nspec: {management: Observe, replicas: 1, import: {endpoints: ['"+theirs.URLs()[0]+"']}}\n"))
	key := store.Key{Namespace: "default", Name: "theirs"}
	cluster := &v1alpha1.EtcdCluster{}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	eventually(ctx, t, func() (bool, string) {
		err := u.client.Get(ctx, key, cluster)
		return err == nil && cluster.Status.ClusterID != "", fmt.Sprint(err)
	})
	where := "destinations: [{name: vault, url: 'file://" + vault + "'}]"
	must(t, u.apply(backupOf("refused", "theirs", where)))
	if st := u.awaitBackup("refused"); st.Phase != v1alpha1.BackupFailed || !strings.Contains(st.Message, "Add Backup to its spec.import.maintain") {
		t.Errorf("without leave it is %+v", st)
	}
	must(t, store.Mutate(ctx, u.client, key, cluster, func(c *v1alpha1.EtcdCluster) (bool, error) {
		c.Spec.Import.Maintain = []v1alpha1.Maintenance{v1alpha1.MaintainBackup}
		return true, nil
	}))
	must(t, u.apply(backupOf("allowed", "theirs", where)))
	if st := u.awaitBackup("allowed"); st.Phase != v1alpha1.BackupVerified || st.Keys != 1 {
		t.Errorf("with leave it is %+v", st)
	}
}
