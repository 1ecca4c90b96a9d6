package schema

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
)

// decode reads one valid object.
func decode[T v1alpha1.Object](tb testing.TB, text string) T {
	tb.Helper()
	docs, err := Decode(tb.Context(), []byte(text))
	if err != nil {
		tb.Fatalf("decode:\n%v", err)
	}
	obj := as[T](tb, docs[0].Object)
	if obj.GetNamespace() == "" && v1alpha1.KindOf(obj).Namespaced {
		obj.SetNamespace("default")
	}
	return obj
}

// as is obj as the type that it must have.
func as[T v1alpha1.Object](tb testing.TB, obj v1alpha1.Object) T {
	tb.Helper()
	typed, ok := obj.(T)
	if !ok {
		tb.Fatalf("got a %T", obj)
	}
	return typed
}

const clusterHead = "apiVersion: quorate.io/v1alpha1\nkind: EtcdCluster\nmetadata:\n  name: playground\n"

func newCluster(tb testing.TB, spec string) *v1alpha1.EtcdCluster {
	tb.Helper()
	return decode[*v1alpha1.EtcdCluster](tb, clusterHead+"spec:\n  version: 3.7.3\n"+spec)
}

const memberText = `
apiVersion: quorate.io/v1alpha1
kind: EtcdMember
metadata: {name: a-0}
spec:
  clusterName: a
  host: h1
  release: {version: 3.7.3, digest: "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}
  bootstrap:
    state: New
    token: t
    initialCluster: [{name: a-0, url: "https://127.0.0.1:2380"}]
`

const taskText = `
apiVersion: quorate.io/v1alpha1
kind: EtcdTask
metadata: {name: a-1}
spec: {clusterName: a, clusterUID: u, number: 1, action: StartMember, member: a-0, reason: it is time}
`

const hostText = `
apiVersion: quorate.io/v1alpha1
kind: EtcdHost
metadata: {name: h1}
spec: {address: 10.0.0.7}
`

// TestRulesOfCreation tries each rule on a spec that keeps it and one that breaks it.
func TestRulesOfCreation(t *testing.T) {
	long := strings.Repeat("x", 49)
	cases := []struct {
		name, good, bad, field, want string
	}{
		{"name", "metadata: {name: " + long[:48] + "}", "metadata: {name: " + long + "}", "", "limited to 48"},
		{"replicas", "spec: {replicas: 1}", "spec: {replicas: 0}", "spec.replicas", "greater than or equal to 1"},
		{"many replicas", "spec: {replicas: 9}", "spec: {replicas: 10}", "spec.replicas", "less than or equal to 9"},
		{"version", "spec: {version: 3.5.21}", "spec: {version: 2.9.0}", "spec.version", "should match"},
		{"policy", "spec: {deletionPolicy: Delete}", "spec: {deletionPolicy: delete}", "spec.deletionPolicy", "expected one of Retain, Delete"},
		{"retainFor", "spec: {retainFor: 1h30m}", "spec: {retainFor: 7d}", "spec.retainFor", "should match"},
		{"retainFor overflow", "spec: {retainFor: 999999h999999h}", "spec: {retainFor: 9999999999h}", "spec.retainFor", "should match"},
		{"port", "spec: {ports: {client: 65535}}", "spec: {ports: {client: 65536}}", "spec.ports.client", "65535"},
		{"CASecret", "spec: {tls: {mode: CASecret, caSecretRef: ca}}", "spec: {tls: {mode: CASecret}}", "spec.tls.caSecretRef", "needs caSecretRef"},
		{"CASecret empty", "spec: {tls: {mode: CASecret, caSecretRef: ca}}", `spec: {tls: {mode: CASecret, caSecretRef: ""}}`, "spec.tls.caSecretRef", "needs caSecretRef"},
		{"Files", "spec: {tls: {mode: Files, filesDir: /etc/pki}}", "spec: {tls: {mode: Files, filesDir: pki}}", "spec.tls.filesDir", "absolute directory"},
		{"leafValidity", "spec: {tls: {leafValidity: 30s}}", "spec: {tls: {leafValidity: 0s}}", "spec.tls.leafValidity", "above zero"},
		{"revisions", `spec: {etcd: {autoCompaction: {mode: Revision, retention: "10000"}}}`, "spec: {etcd: {autoCompaction: {mode: Revision}}}", "spec.etcd.autoCompaction.retention", "number of revisions"},
		{"period", "spec: {etcd: {autoCompaction: {retention: 1h}}}", `spec: {etcd: {autoCompaction: {retention: "10000"}}}`, "spec.etcd.autoCompaction.retention", "duration above zero"},
		{"no period", `spec: {etcd: {autoCompaction: {mode: Disabled, retention: 0s}}}`, "spec: {etcd: {autoCompaction: {retention: 0s}}}", "spec.etcd.autoCompaction.retention", "duration above zero"},
		{"quota as a number", "spec: {etcd: {quotaBackend: 8589934592}}", "spec: {etcd: {quotaBackend: 0}}", "spec.etcd.quotaBackend", "0 would mean etcd's 2Gi"},
		{"negative quota", "spec: {etcd: {quotaBackend: 100Mi}}", "spec: {etcd: {quotaBackend: -8Gi}}", "spec.etcd.quotaBackend", "above zero"},
		{"quota in thousandths", "spec: {etcd: {quotaBackend: 8M}}", "spec: {etcd: {quotaBackend: 8m}}", "spec.etcd.quotaBackend", "whole number of bytes"},
		{"large quota", "spec: {etcd: {quotaBackend: 100Gi}}", "spec: {etcd: {quotaBackend: 101Gi}}", "spec.etcd.quotaBackend", "above 100Gi"},
		{"huge quota number", "spec: {etcd: {quotaBackend: 107374182400}}", "spec: {etcd: {quotaBackend: 107374182401}}", "spec.etcd.quotaBackend", "above 100Gi"},
		{"odd quota", "spec: {etcd: {quotaBackend: 1.5Gi}}", "spec: {etcd: {quotaBackend: 8gb}}", "spec.etcd.quotaBackend", "expected a size"},
		{"quota that takes hours", "spec: {etcd: {quotaBackend: 1M}}", "spec: {etcd: {quotaBackend: 1e999999999}}", "spec.etcd.quotaBackend", "expected a size"},
		{"request", "spec: {etcd: {maxRequest: 10Mi}}", "spec: {etcd: {maxRequest: 11Mi}}", "spec.etcd.maxRequest", "at most 10Mi"},
		{"no request", "spec: {etcd: {maxRequest: 1}}", "spec: {etcd: {maxRequest: -1}}", "spec.etcd.maxRequest", "above zero"},
		{"request in thousandths", "spec: {etcd: {maxRequest: 1k}}", "spec: {etcd: {maxRequest: 1500m}}", "spec.etcd.maxRequest", "whole number of bytes"},
		{"election", "spec: {etcd: {heartbeatInterval: 200ms, electionTimeout: 1s}}", "spec: {etcd: {heartbeatInterval: 201ms}}", "spec.etcd.electionTimeout", "five heartbeatIntervals"},
		{"long election", "spec: {etcd: {electionTimeout: 50s}}", "spec: {etcd: {electionTimeout: 51s}}", "spec.etcd.electionTimeout", "at most 50s"},
		{"log dir", "spec: {etcd: {logging: {dir: /var/log}}}", "spec: {etcd: {logging: {dir: log}}}", "spec.etcd.logging.dir", "should match"},
		{"log size", "spec: {etcd: {logging: {maxSize: 1}}}", "spec: {etcd: {logging: {maxSize: -1}}}", "spec.etcd.logging.maxSize", "greater than or equal to 1"},
		{"snapshot count", "spec: {etcd: {snapshotCount: 10}}", "spec: {etcd: {snapshotCount: 9}}", "spec.etcd.snapshotCount", "greater than or equal to 10"},
		{"time", "spec: {restartedAt: 2026-11-20T14:00:00Z}", "spec: {restartedAt: yesterday}", "spec.restartedAt", "date-time"},
		{"label", "metadata: {name: a, labels: {team: a}}", "metadata: {name: a, labels: {team: a b}}", "metadata.labels", "got \"a b\""},
		{"object name", "metadata: {name: a.b-c}", "metadata: {name: A_b}", "metadata.name", "RFC 1123"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if _, err := Decode(t.Context(), clusterWith(c.good)); err != nil {
				t.Errorf("good: %v", err)
			}
			_, err := Decode(t.Context(), clusterWith(c.bad))
			wantCause(t, err, c.field, c.want)
			var all *Error
			if errors.As(err, &all) && len(all.Causes) != 1 {
				t.Errorf("more causes than one:\n%v", err)
			}
		})
	}
}

// clusterWith makes a cluster of a "metadata:" or "spec:" line in flow style.
func clusterWith(line string) []byte {
	text := "apiVersion: quorate.io/v1alpha1\nkind: EtcdCluster\n"
	if !strings.HasPrefix(line, "metadata") {
		text += "metadata: {name: a}\n"
	}
	if !strings.HasPrefix(line, "spec") {
		text += "spec: {version: 3.7.3}\n"
	} else if !strings.Contains(line, " {version:") {
		line = strings.Replace(line, "{", "{version: 3.7.3, ", 1)
	}
	return []byte(text + line + "\n")
}

// wantCause fails the test unless err has a cause at field that says want.
func wantCause(t *testing.T, err error, field, want string) {
	t.Helper()
	var all *Error
	if !errors.As(err, &all) || !errors.Is(err, ErrInvalid) {
		t.Fatalf("want an *Error about %s, got %v", field, err)
	}
	for _, c := range all.Causes {
		if c.Field == field && strings.Contains(c.String(), want) {
			return
		}
	}
	t.Fatalf("no cause at %q with %q in:\n%v", field, want, err)
}

// rewrite is an object and what somebody made of it.
type rewrite struct{ old, now v1alpha1.Object }

// rewritten changes a copy of an object.
func rewritten[T interface {
	v1alpha1.Object
	DeepCopy() T
}](old T, change func(T)) rewrite {
	now := old.DeepCopy()
	change(now)
	return rewrite{old, now}
}

// TestRulesOfChange tries each transition rule both ways.
func TestRulesOfChange(t *testing.T) {
	cluster := func(old *v1alpha1.EtcdCluster, change func(*v1alpha1.EtcdClusterSpec)) rewrite {
		return rewritten(old, func(c *v1alpha1.EtcdCluster) { change(&c.Spec) })
	}
	member := func(old *v1alpha1.EtcdMember, change func(*v1alpha1.EtcdMemberSpec)) rewrite {
		return rewritten(old, func(m *v1alpha1.EtcdMember) { change(&m.Spec) })
	}
	plain := newCluster(t, "")
	withCA := newCluster(t, "  tls: {mode: CASecret, caSecretRef: ca}\n")
	withPorts := newCluster(t, "  ports: {client: 2379}\n")
	fresh := decode[*v1alpha1.EtcdMember](t, memberText)
	joined := fresh.DeepCopy()
	joined.Spec.MemberID = "8e9e05c52164694d"
	task := decode[*v1alpha1.EtcdTask](t, taskText)

	cases := []struct {
		name string
		rewrite
		field string
		want  string // "" when it is allowed
	}{
		{"nothing", cluster(plain, func(*v1alpha1.EtcdClusterSpec) {}), "", ""},
		{"suspend", cluster(plain, func(s *v1alpha1.EtcdClusterSpec) { s.Suspended = true }), "", ""},
		{"tune", cluster(plain, func(s *v1alpha1.EtcdClusterSpec) { s.Etcd.MaxTxnOps = 512 }), "", ""},
		{"SANs", cluster(plain, func(s *v1alpha1.EtcdClusterSpec) { s.TLS.ExtraSANs = []string{"a.example"} }), "", ""},
		{"replicas", cluster(plain, func(s *v1alpha1.EtcdClusterSpec) { s.Replicas = 5 }), "spec.replicas", "scaling is not part"},
		{"version", cluster(plain, func(s *v1alpha1.EtcdClusterSpec) { s.Version = "3.7.4" }), "spec.version", "upgrades are not part"},
		{"TLS off", cluster(plain, func(s *v1alpha1.EtcdClusterSpec) { s.TLS.Mode = v1alpha1.TLSDisabled }), "spec.tls", "can't be changed"},
		{"another CA", cluster(withCA, func(s *v1alpha1.EtcdClusterSpec) { s.TLS.CASecretRef = "other" }), "spec.tls", "can't be changed"},
		{"a CA of no use", cluster(plain, func(s *v1alpha1.EtcdClusterSpec) { s.TLS.CASecretRef = "ca" }), "spec.tls", "can't be changed"},
		{"same CA", cluster(withCA, func(s *v1alpha1.EtcdClusterSpec) { s.TLS.LeafValidity = "24h" }), "", ""},
		{"no ports spelt out", cluster(plain, func(s *v1alpha1.EtcdClusterSpec) { s.Ports = &v1alpha1.Ports{} }), "", ""},
		{"ports given", cluster(plain, func(s *v1alpha1.EtcdClusterSpec) { s.Ports = &v1alpha1.Ports{Peer: 2380} }), "spec.ports", "can't be changed"},
		{"ports taken", cluster(withPorts, func(s *v1alpha1.EtcdClusterSpec) { s.Ports = nil }), "spec.ports", "can't be changed"},
		{"ports changed", cluster(withPorts, func(s *v1alpha1.EtcdClusterSpec) { s.Ports = &v1alpha1.Ports{Client: 2381} }), "spec.ports", "can't be changed"},
		{"metrics port", cluster(withPorts, func(s *v1alpha1.EtcdClusterSpec) { s.Ports = &v1alpha1.Ports{Client: 2379, Metrics: 1} }), "spec.ports", "can't be changed"},
		{"same ports", cluster(withPorts, func(s *v1alpha1.EtcdClusterSpec) { s.Ports = &v1alpha1.Ports{Client: 2379} }), "", ""},
		{"another name", rewritten(plain, func(c *v1alpha1.EtcdCluster) { c.SetName("other") }), "metadata.name", "can't be changed"},
		{"another namespace", rewritten(plain, func(c *v1alpha1.EtcdCluster) { c.SetNamespace("other") }), "metadata.namespace", "can't be changed"},
		{"another UID", rewritten(plain, func(c *v1alpha1.EtcdCluster) { c.SetUID("other") }), "metadata.uid", "can't be changed"},
		{"run", member(fresh, func(s *v1alpha1.EtcdMemberSpec) { s.Run = v1alpha1.RunRunning }), "", ""},
		{"join", member(fresh, func(s *v1alpha1.EtcdMemberSpec) { s.MemberID = "1" }), "", ""},
		{"other ID", member(joined, func(s *v1alpha1.EtcdMemberSpec) { s.MemberID = "1" }), "spec", "keeps its ID"},
		{"no ID", member(joined, func(s *v1alpha1.EtcdMemberSpec) { s.MemberID = "" }), "spec", "keeps its ID"},
		{"other host", member(fresh, func(s *v1alpha1.EtcdMemberSpec) { s.Host = "h2" }), "spec", "it is replaced"},
		{"other cluster", member(fresh, func(s *v1alpha1.EtcdMemberSpec) { s.ClusterName = "b" }), "spec", "it is replaced"},
		{"task", rewritten(task, func(k *v1alpha1.EtcdTask) { k.Spec.Reason = "" }), "spec", "never changes"},
		{"task status", rewritten(task, func(k *v1alpha1.EtcdTask) { k.Status.Phase = v1alpha1.TaskActing }), "", ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			err := Validate(t.Context(), c.now, c.old)
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			wantCause(t, err, c.field, c.want)
		})
	}
}

func TestHosts(t *testing.T) {
	decode[*v1alpha1.EtcdHost](t, hostText)
	decode[*v1alpha1.EtcdHost](t, strings.Replace(hostText, "10.0.0.7", `"fd00::7"`, 1))
	_, err := Decode(t.Context(), []byte(strings.Replace(hostText, "10.0.0.7", "host.example", 1)))
	wantCause(t, err, "spec.address", "must be an IP address")
	_, err = Decode(t.Context(), []byte(strings.Replace(hostText, "name: h1", "name: h1, namespace: a", 1)))
	wantCause(t, err, "metadata.namespace", "belong to no namespace")
}

func TestValidateNeedsANamespaceAndLeavesTheObjectAlone(t *testing.T) {
	c := &v1alpha1.EtcdCluster{}
	c.Name, c.Spec.Version = "a", "3.7.3"
	wantCause(t, Validate(t.Context(), c, nil), "metadata.namespace", "is required")
	c.Namespace = "default"
	if err := Validate(t.Context(), c, nil); err != nil {
		t.Fatal(err)
	}
	if c.Spec.Replicas != 0 || c.Kind != "" {
		t.Fatalf("Validate changed the object: %+v", c)
	}
	wantCause(t, Validate(t.Context(), &v1alpha1.EtcdCluster{}, nil), "metadata.name", "is required")
	if err := Validate(t.Context(), c, newHost()); !errors.Is(err, ErrInvalid) {
		t.Fatalf("a host became a cluster: %v", err)
	}
}

func newHost() *v1alpha1.EtcdHost { return &v1alpha1.EtcdHost{} }

// TestWhatWasWrongBeforeIsLetThrough: a rule that came later must not keep a person
// from changing something else, as in Kubernetes.
func TestWhatWasWrongBeforeIsLetThrough(t *testing.T) {
	old := newCluster(t, "")
	old.Spec.RetainFor = "7d"
	changed := old.DeepCopy()
	changed.Spec.Suspended = true
	if err := Validate(t.Context(), changed, old); err != nil {
		t.Fatal(err)
	}
	changed.Spec.RetainFor = "8d"
	wantCause(t, Validate(t.Context(), changed, old), "spec.retainFor", "should match")
}

func TestDefaultOfGoObjects(t *testing.T) {
	c := &v1alpha1.EtcdCluster{}
	c.Name, c.Spec.Version = "a", "3.7.3"
	c.Spec.Etcd.Logging.MaxSize = 7
	at := v1alpha1.NewTime(time.Date(2026, 11, 20, 14, 0, 0, 0, time.UTC))
	c.Spec.RestartedAt = &at
	if err := Default(c); err != nil {
		t.Fatal(err)
	}
	e := c.Spec.Etcd
	if c.Kind != "EtcdCluster" || c.Spec.Replicas != 3 || e.QuotaBackend.String() != "8Gi" ||
		e.MaxRequest.String() != "1536Ki" || e.Logging.MaxSize != 7 || e.Logging.MaxBackups != 4 ||
		e.AutoCompaction.Retention != "5m" || c.Spec.TLS.Mode != v1alpha1.TLSGenerated || !c.Spec.RestartedAt.Equal(&at) {
		t.Fatalf("defaulted to %+v", c.Spec)
	}
	again := c.DeepCopy()
	if err := Default(again); err != nil || !v1alpha1.Equal(c, again) {
		t.Fatalf("defaulting twice changed it: %v", err)
	}
	if err := Default((*v1alpha1.EtcdCluster)(nil)); !errors.Is(err, ErrInvalid) {
		t.Fatalf("defaulted nil: %v", err)
	}
}

func TestStatusIsChecked(t *testing.T) {
	c := newCluster(t, "")
	v1alpha1.SetCondition(&c.Status.Conditions, v1alpha1.Condition{Type: v1alpha1.ConditionAvailable, Status: v1alpha1.True, Reason: "QuorumServes"})
	if err := Validate(t.Context(), c, nil); err != nil {
		t.Fatal(err)
	}
	c.Status.Conditions[0].Reason = "not one word"
	wantCause(t, Validate(t.Context(), c, nil), "status.conditions[0].reason", "should match")
}

func TestSecrets(t *testing.T) {
	const head = "apiVersion: v1\nkind: Secret\nmetadata: {name: ca}\n"
	s := decode[*v1alpha1.Secret](t, head+"type: kubernetes.io/tls\nstringData: {tls.crt: c, tls.key: k}\ndata: {ca.crt: Yw==}\n")
	if string(s.Data["tls.key"]) != "k" || string(s.Data["ca.crt"]) != "c" || s.StringData != nil {
		t.Fatalf("data is %q", s.Data)
	}
	if plain := decode[*v1alpha1.Secret](t, head); plain.Type != "Opaque" {
		t.Fatalf("type is %q", plain.Type)
	}
	for _, c := range []struct{ name, text, field, want string }{
		{"no key", "type: kubernetes.io/tls\nstringData: {tls.crt: c}", "data[tls.key]", "is required"},
		{"plain text", "data: {password: hunter2!}", "data[password]", "not base64"},
		{"a number", "stringData: {password: 123456}", "stringData[password]", "got a number"},
		{"a boolean", "stringData: {password: yes}", "stringData[password]", "got a boolean"},
		{"key", "stringData: {a b: x}", "data[a b]", "valid config key"},
		{"unknown", "stringdata: {a: x}", "stringdata", "did you mean stringData?"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Decode(t.Context(), []byte(head+c.text))
			wantCause(t, err, c.field, c.want)
			for _, secret := range []string{"hunter2", "123456"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("the message repeats the secret: %v", err)
				}
			}
		})
	}
	big := s.DeepCopy()
	big.Data["x"] = make([]byte, maxSecretBytes)
	wantCause(t, Validate(t.Context(), big, nil), "data", "at most")
	other := s.DeepCopy()
	other.Type = "Opaque"
	wantCause(t, Validate(t.Context(), other, s), "type", "can't be changed")
	fixed, yes := s.DeepCopy(), true
	fixed.Immutable = &yes
	if err := Validate(t.Context(), fixed, s); err != nil {
		t.Fatal(err)
	}
	changed := fixed.DeepCopy()
	changed.Data["tls.key"] = []byte("other")
	wantCause(t, Validate(t.Context(), changed, fixed), "data", "immutable")
	changed.Immutable = nil
	wantCause(t, Validate(t.Context(), changed, fixed), "immutable", "can't be unset")
}

func TestCancelledValidationIsNotSuccess(t *testing.T) {
	c := newCluster(t, "")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	// The rules of a small object may all have run before the end is noticed; that a
	// broken one passes is what must not be.
	c.Spec.TLS.LeafValidity = "0s"
	if err := Validate(ctx, c, nil); err == nil {
		t.Fatal("a broken object passed under a cancelled context")
	}
}
