package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/quorate/quorate/api/schema"
	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/fleet"
	"github.com/quorate/quorate/pki"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/test/etcdlab"
)

// tellWithin is how soon a fault must stand in the status.
const tellWithin = 5 * time.Second

// watchtower observes clusters as the server does.
type watchtower struct {
	*lab
	control *fleet.ClusterController
	wake    chan store.Key
}

func newWatchtower(t *testing.T) *watchtower {
	t.Helper()
	w := &watchtower{lab: newLab(t), wake: make(chan store.Key)}
	w.control = fleet.NewClusterController(fleet.Options{
		Store: w.store, Etcd: w.etcd, Authority: w.authority, Releases: w.releases, Recorder: w.store, Logger: w.log,
	})
	ctx, cancel := context.WithCancel(context.Background())
	runner := fleet.Runner{
		Name: "imported", Reconcile: w.control.ReconcileImported, Workers: 4, Logger: w.log,
		Sources: []fleet.Source{
			func(ctx context.Context) <-chan store.Key { return w.store.Watch(ctx, v1alpha1.KindCluster, "") },
			func(context.Context) <-chan store.Key { return w.wake },
		},
	}
	var wg sync.WaitGroup
	wg.Go(func() { runner.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		close(w.wake)
		wg.Wait()
	})
	return w
}

// observe imports a cluster with a Secret of that data; no Secret if it is nil.
func (w *watchtower) observe(name string, replicas int32, endpoints []string, data map[string][]byte) {
	w.t.Helper()
	c := &v1alpha1.EtcdCluster{Spec: v1alpha1.EtcdClusterSpec{
		Management: v1alpha1.ManagementObserve, Replicas: replicas, Import: &v1alpha1.ImportSpec{Endpoints: endpoints},
	}}
	c.Namespace, c.Name = "default", name
	v1alpha1.SetType(c, v1alpha1.KindCluster.Kind, v1alpha1.KindCluster.APIVersion)
	if data != nil {
		c.Spec.Import.CredentialsSecretRef = name + "-credentials"
		s := &v1alpha1.Secret{Data: data}
		s.Namespace, s.Name = "default", c.Spec.Import.CredentialsSecretRef
		s.Annotations = map[string]string{v1alpha1.AnnotationImportedFor: name}
		must(w.t, w.store.Create(w.t.Context(), s))
	}
	must(w.t, schema.Default(c))
	must(w.t, schema.Validate(w.t.Context(), c, nil))
	must(w.t, w.store.Create(w.t.Context(), c))
}

// credentials replaces what is in a cluster's Secret.
func (w *watchtower) credentials(name string, data map[string][]byte) {
	w.t.Helper()
	s := &v1alpha1.Secret{}
	must(w.t, store.Mutate(w.t.Context(), w.store, store.Key{Namespace: "default", Name: name + "-credentials"}, s, func(s *v1alpha1.Secret) (bool, error) {
		s.Data = data
		return true, nil
	}))
	w.wake <- store.Key{Namespace: "default", Name: name}
}

func (w *watchtower) get(name string) *v1alpha1.EtcdCluster {
	w.t.Helper()
	c := &v1alpha1.EtcdCluster{}
	must(w.t, w.store.Get(w.t.Context(), store.Key{Namespace: "default", Name: name}, c))
	return c
}

// expect waits until the condition of a cluster has the reason, and its message
// says all of texts.
func (w *watchtower) expect(name, condition, reason string, texts ...string) {
	w.t.Helper()
	w.expectWithin(tellWithin, name, condition, reason, texts...)
}

func (w *watchtower) expectWithin(patience time.Duration, name, condition, reason string, texts ...string) {
	w.t.Helper()
	began := time.Now()
	changes := w.store.Watch(w.t.Context(), v1alpha1.KindCluster, "default")
	late := time.After(patience)
	for {
		c := w.get(name)
		cond := v1alpha1.FindCondition(c.Status.Conditions, condition)
		good := cond != nil && cond.Reason == reason
		for _, text := range texts {
			good = good && strings.Contains(cond.Message, text)
		}
		if good {
			w.t.Logf("%s %s=%s after %d ms: %s", name, condition, reason, time.Since(began).Milliseconds(), cond.Message)
			return
		}
		select {
		case <-changes:
		case <-late:
			w.t.Fatalf("%s: %s is not %s %q within %s: %+v", name, condition, reason, texts, patience, cond)
		}
	}
}

func (w *watchtower) healthy(name string) {
	w.t.Helper()
	// Members start and elect before that; a cluster that was silent is asked less often.
	w.expectWithin(4*tellWithin, name, v1alpha1.ConditionDegraded, "AllHealthy")
	w.expect(name, v1alpha1.ConditionAvailable, "QuorumServes")
}

// TestImported: observed clusters tell each fault by its own message in time, the
// others are not affected, and nothing is written to any of them.
func TestImported(t *testing.T) {
	testImported(t, "")
}

// TestOlderEtcdImported is TestImported with the other versions.
func TestOlderEtcdImported(t *testing.T) {
	for _, version := range []string{"3.4.23", "3.5.35", "3.6.16"} {
		binary := etcdlab.Older(t, version)
		t.Run(version, func(t *testing.T) { testImported(t, binary) })
	}
}

func testImported(t *testing.T, binary string) {
	t.Helper()
	w := newWatchtower(t)
	steady := startForeign(t, etcdlab.Options{Binary: binary})
	revision, index := steady.position()
	w.observe("steady", 1, steady.URLs(), nil)
	w.healthy("steady")

	t.Run("members", func(t *testing.T) { w.at(t).members(binary) })
	t.Run("TLS", func(t *testing.T) { w.at(t).certificates(binary) })
	t.Run("mutual TLS and users", func(t *testing.T) { w.at(t).users(binary) })
	t.Run("behind a proxy", func(t *testing.T) { w.at(t).proxied(binary) })
	t.Run("not etcd", func(t *testing.T) { w.at(t).strangers(binary) })

	w.healthy("steady")
	events, err := w.store.Events(t.Context(), store.EventOptions{Namespace: "default", Cluster: "steady"})
	must(t, err)
	for _, e := range events {
		if e.Type == store.Warning {
			t.Errorf("others' faults were told of the steady cluster: %s %s", e.Reason, e.Message)
		}
	}
	nowRevision, nowIndex := steady.position()
	if nowRevision != revision || nowIndex > index+2 {
		t.Errorf("watching it took the cluster from revision %d, index %d to %d, %d", revision, index, nowRevision, nowIndex)
	}
}

// at is the watchtower for a subtest.
func (w *watchtower) at(t *testing.T) *watchtower {
	t.Helper()
	l := *w.lab
	l.t = t
	return &watchtower{lab: &l, control: w.control, wake: w.wake}
}

func (w *watchtower) members(binary string) {
	t := w.t
	f := startForeign(t, etcdlab.Options{Members: 3, Binary: binary})
	// One endpoint is enough: the others are found through it.
	w.observe("plain", 3, f.URLs()[:1], nil)
	w.healthy("plain")
	c := w.get("plain")
	if c.Status.Ready != "3/3" || len(c.Status.Endpoints) != 3 || c.Status.Version == "" || c.Status.ClusterID == "" || c.Status.Leader == "" {
		t.Errorf("status is %+v", c.Status)
	}
	v, err := w.control.View(t.Context(), store.KeyOf(c))
	must(t, err)
	if v.State != v1alpha1.StateHealthy || len(v.Members) != 3 || v.Leader == "" || v.Members[0].Revision == 0 || v.Members[0].Version == "" {
		t.Errorf("view is %+v", v)
	}
	p, err := w.control.Plan(t.Context(), store.KeyOf(c), nil)
	must(t, err)
	if len(p.Steps) != 0 || p.Token == "" {
		t.Errorf("plan is %+v", p)
	}

	f.Members[2].Kill()
	w.expect("plain", v1alpha1.ConditionDegraded, "MembersDown", "member m3: "+f.Members[2].Client, "nothing listens", "start the member")
	w.expect("plain", v1alpha1.ConditionAvailable, "QuorumServes")
	f.Members[2].Start()
	w.healthy("plain")

	f.signal(1, syscall.SIGSTOP)
	w.expect("plain", v1alpha1.ConditionDegraded, "NotResponding", "member m2", "does not answer")
	w.expect("plain", v1alpha1.ConditionAvailable, "QuorumServes")
	f.signal(1, syscall.SIGCONT)
	w.healthy("plain")

	f.Members[1].Kill()
	f.Members[2].Kill()
	w.expect("plain", v1alpha1.ConditionAvailable, "QuorumLost", "1", "2 are needed", "m2", "m3")
	f.Members[0].Kill()
	w.expect("plain", v1alpha1.ConditionAvailable, "AllMembersDown", "no member of cluster plain can be asked", "nothing listens")
	for _, m := range f.Members {
		m.Start()
	}
	w.healthy("plain")

	must(t, store.Mutate(t.Context(), w.store, store.KeyOf(c), c, func(c *v1alpha1.EtcdCluster) (bool, error) {
		c.Spec.Replicas = 5
		return true, nil
	}))
	w.expect("plain", v1alpha1.ConditionDegraded, "MembersMissing", "has 3 members, and 5 are expected")

	must(t, w.store.Delete(t.Context(), v1alpha1.KindCluster, store.KeyOf(c), store.Preconditions{UID: c.UID}))
	w.gone(v1alpha1.KindCluster, store.KeyOf(c))
	if revision, _ := f.position(); revision != 1 {
		t.Errorf("the forgotten etcd is at revision %d", revision)
	}
}

// gone waits until an object is. What has vanished before a watch begins is not
// told by it.
func (w *watchtower) gone(kind v1alpha1.Kind, key store.Key) {
	w.t.Helper()
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	late := time.After(tellWithin)
	for {
		if err := w.store.Get(w.t.Context(), key, kind.New()); errors.Is(err, store.ErrNotFound) {
			return
		}
		select {
		case <-look.C:
		case <-late:
			w.t.Fatalf("%s is still there", key)
		}
	}
}

func (w *watchtower) certificates(binary string) {
	f := startForeign(w.t, etcdlab.Options{Binary: binary, CA: etcdlab.NewAuthority(w.t)})
	otherCA, _, err := pki.NewCA("other", time.Hour, time.Now())
	must(w.t, err)
	w.observe("tls", 1, f.URLs(), map[string][]byte{"ca.crt": otherCA})
	w.expect("tls", v1alpha1.ConditionAvailable, "CertificateUnknownAuthority", "cluster tls", f.Members[0].Client, "test CA", "ca.crt")
	w.credentials("tls", map[string][]byte{"ca.crt": f.ca.Roots()})
	w.healthy("tls")
	f.certify("etcd.example", time.Hour)
	w.credentials("tls", map[string][]byte{"ca.crt": f.ca.Roots(), "note": []byte("dial anew, please")})
	w.expect("tls", v1alpha1.ConditionAvailable, "CertificateNameMismatch", "not for 127.0.0.1, only for etcd.example", "serverName")
	c := w.get("tls")
	must(w.t, store.Mutate(w.t.Context(), w.store, store.KeyOf(c), c, func(c *v1alpha1.EtcdCluster) (bool, error) {
		c.Spec.Import.ServerName = "etcd.example"
		return true, nil
	}))
	w.healthy("tls")
	// The connection lives on when the certificate runs out: that is told all the same.
	f.certify("etcd.example", 2*time.Second)
	w.credentials("tls", map[string][]byte{"ca.crt": f.ca.Roots(), "note": []byte("dial anew")})
	w.expect("tls", v1alpha1.ConditionDegraded, "CertificateExpired", "expired at", "renew it")
	w.credentials("tls", map[string][]byte{"ca.crt": f.ca.Roots()})
	w.expect("tls", v1alpha1.ConditionAvailable, "CertificateExpired", "cluster tls", "expired at")
	f.certify("etcd.example", time.Hour)
	w.healthy("tls")
	w.credentials("tls", map[string][]byte{"ca.crt": []byte("nonsense")})
	w.expect("tls", v1alpha1.ConditionAvailable, "CredentialsInvalid", "ca.crt holds no certificate")
}

func (w *watchtower) users(binary string) {
	f := startForeign(w.t, etcdlab.Options{Binary: binary, CA: etcdlab.NewAuthority(w.t), ClientCerts: true})
	cert, key := f.ca.Issue(w.t, pki.Client, "watcher", nil)
	data := func(password string) map[string][]byte {
		d := map[string][]byte{"ca.crt": f.ca.Roots(), "tls.crt": cert, "tls.key": key}
		if password != "" {
			d["username"], d["password"] = []byte("watch"), []byte(password)
		}
		return d
	}
	w.observe("users", 1, f.URLs(), map[string][]byte{"ca.crt": f.ca.Roots()})
	w.expect("users", v1alpha1.ConditionAvailable, "ClientCertificateRequired", "tls.crt and tls.key")
	strangerCA, strangerKey, err := pki.NewCA("stranger", time.Hour, time.Now())
	must(w.t, err)
	w.credentials("users", map[string][]byte{"ca.crt": f.ca.Roots(), "tls.crt": strangerCA, "tls.key": strangerKey})
	w.expect("users", v1alpha1.ConditionAvailable, "ClientCertificateRefused", "signed by the CA that the member trusts")
	w.credentials("users", data(""))
	w.healthy("users")
	f.authOn("watch", "secret")
	w.credentials("users", data("wrong"))
	w.expect("users", v1alpha1.ConditionDegraded, "LoginFailed", "password")
	w.credentials("users", data("secret"))
	w.healthy("users")
	revision, index := f.position()
	_, err = f.Members[0].Dial().UserChangePassword(w.t.Context(), "watch", "changed")
	must(w.t, err)
	w.expect("users", v1alpha1.ConditionDegraded, "LoginFailed", "password")
	w.credentials("users", data("changed"))
	w.healthy("users")
	// A login is an entry of the raft log each; they must be few, and no change.
	nowRevision, nowIndex := f.position()
	if nowRevision != revision || nowIndex > index+10 {
		w.t.Errorf("watching it took the cluster from revision %d, index %d to %d, %d", revision, index, nowRevision, nowIndex)
	}
	c := w.get("users")
	must(w.t, w.store.Delete(w.t.Context(), v1alpha1.KindCluster, store.KeyOf(c), store.Preconditions{UID: c.UID}))
	w.gone(v1alpha1.KindSecret, store.Key{Namespace: "default", Name: "users-credentials"})
	w.gone(v1alpha1.KindCluster, store.KeyOf(c))
}

// proxied members advertise URLs that lead nowhere from here; they are found by the
// endpoints given. This one is full, too.
func (w *watchtower) proxied(binary string) {
	t := w.t
	f := startForeign(t, etcdlab.Options{
		Binary: binary, Flags: []string{"--quota-backend-bytes=1000000"},
		Edit: func(members []*etcdlab.Member) { members[0].Advertised = "http://127.0.0.1:1" },
	})
	w.observe("full", 1, f.URLs(), nil)
	w.healthy("full")
	if c := w.get("full"); len(c.Status.Endpoints) != 1 || c.Status.Endpoints[0] != f.Members[0].Client {
		t.Errorf("endpoints are %v", c.Status.Endpoints)
	}
	c := f.Members[0].Dial()
	for range 100 {
		if _, err := c.Put(t.Context(), "k", strings.Repeat("x", 100_000)); err != nil {
			break
		}
	}
	w.expect("full", v1alpha1.ConditionDegraded, "AlarmRaised", "NOSPACE on m1", "disarm")
	w.expect("full", v1alpha1.ConditionAvailable, "QuorumServes")
}

func (w *watchtower) strangers(binary string) {
	t := w.t
	a := startForeign(t, etcdlab.Options{Binary: binary})
	b := startForeign(t, etcdlab.Options{Binary: binary})
	w.observe("moved", 1, a.URLs(), nil)
	w.healthy("moved")
	c := w.get("moved")
	must(t, store.Mutate(t.Context(), w.store, store.KeyOf(c), c, func(c *v1alpha1.EtcdCluster) (bool, error) {
		c.Spec.Import.Endpoints = b.URLs()
		return true, nil
	}))
	w.expect("moved", v1alpha1.ConditionAvailable, "OtherCluster", b.Members[0].Client+" answers for the etcd cluster", c.Status.ClusterID)

	web := httptest.NewServer(http.NotFoundHandler())
	defer web.Close()
	w.observe("web", 1, []string{web.URL}, nil)
	w.expect("web", v1alpha1.ConditionAvailable, "NotEtcd", "not an etcd")

	// Whoever connects here is never answered.
	hole, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	defer func() { _ = hole.Close() }()
	w.observe("hole", 1, []string{"http://" + hole.Addr().String()}, nil)
	w.expect("hole", v1alpha1.ConditionAvailable, "NotResponding", "takes connections, but does not answer")
	w.observe("hole-tls", 1, []string{"https://" + hole.Addr().String()}, nil)
	w.expect("hole-tls", v1alpha1.ConditionAvailable, "NotResponding")

	w.observe("dropped", 1, []string{"http://" + deafAddress(t)}, nil)
	w.expect("dropped", v1alpha1.ConditionAvailable, "NoAnswer", "no answer at all", "firewall")

	w.observe("https", 1, []string{strings.Replace(a.Members[0].Client, "http:", "https:", 1)}, nil)
	w.expect("https", v1alpha1.ConditionAvailable, "NotTLS", "write http://")
	secure := startForeign(t, etcdlab.Options{Binary: binary, CA: etcdlab.NewAuthority(t)})
	w.observe("http", 1, []string{strings.Replace(secure.Members[0].Client, "https:", "http:", 1)}, nil)
	w.expect("http", v1alpha1.ConditionAvailable, "TLSRequired", "https://")
	w.observe("nowhere", 1, []string{"http://no-such-name.invalid:2379"}, nil)
	w.expect("nowhere", v1alpha1.ConditionAvailable, "NameNotFound", "no-such-name.invalid")
}

// deafAddress is one at which what is sent is dropped: its queue of connections is
// full, and nobody takes one from it.
func deafAddress(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { _ = syscall.Close(fd) })
	must(t, syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	must(t, syscall.Listen(fd, 0))
	bound, err := syscall.Getsockname(fd)
	must(t, err)
	inet, ok := bound.(*syscall.SockaddrInet4)
	if !ok {
		t.Fatalf("bound to a %T", bound)
	}
	address := fmt.Sprintf("127.0.0.1:%d", inet.Port)
	for range 16 {
		conn, err := (&net.Dialer{Timeout: 200 * time.Millisecond}).DialContext(t.Context(), "tcp", address)
		if err != nil {
			return address
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
	t.Skip("the queue of a listener can't be filled here")
	return ""
}
