package schema

import (
	"strings"
	"testing"

	"github.com/quorate/quorate/api/v1alpha1"
)

const importedText = clusterHead + `spec:
  management: Observe
  import: {endpoints: ["https://10.0.0.1:2379"]}
`

// TestRulesOfImport tries what an observed cluster may say, and each thing that it
// may not.
func TestRulesOfImport(t *testing.T) {
	for _, good := range []string{
		"", "  version: 3.4.23\n", "  version: 3.12.0\n", "  replicas: 5\n", "  tls: {}\n", "  etcd: {}\n",
	} {
		c := decode[*v1alpha1.EtcdCluster](t, importedText+good)
		if !c.Observed() {
			t.Errorf("%q is not observed", good)
		}
	}
	for _, endpoint := range []string{"http://a:2379", "https://a.example:2379", "https://[fd00::1]:2379"} {
		decode[*v1alpha1.EtcdCluster](t, strings.Replace(importedText, "https://10.0.0.1:2379", endpoint, 1))
	}
	observe := "spec: {management: Observe, import: {endpoints: ['http://a:1']}"
	for _, c := range []struct{ name, spec, field, want string }{
		{"no endpoints", "spec: {management: Observe}", "spec.import", "needs import.endpoints"},
		{"an empty list", "spec: {management: Observe, import: {endpoints: []}}", "spec.import.endpoints", "at least 1"},
		{"no scheme", "spec: {management: Observe, import: {endpoints: ['a:1']}}", "spec.import.endpoints[0]", "https://HOST:PORT"},
		{"a path", "spec: {management: Observe, import: {endpoints: ['http://a:1/']}}", "spec.import.endpoints[0]", "https://HOST:PORT"},
		{"twice", "spec: {management: Observe, import: {endpoints: ['http://a:1', 'http://a:1']}}", "spec.import.endpoints[1]", "Duplicate"},
		{"import of a managed one", "spec: {version: 3.7.3, import: {endpoints: ['http://a:1']}}", "spec.import", "leave import out"},
		{"3.4 managed", "spec: {version: 3.4.23}", "spec.version", "can be observed"},
		{"no version", "spec: {replicas: 1}", "spec.version", "version is required"},
		{"suspended", observe + ", suspended: true}", "spec.suspended", "can't be suspended"},
		{"restarted", observe + ", restartedAt: 2026-11-20T14:00:00Z}", "spec.restartedAt", "can't be restarted"},
		{"deletionPolicy", observe + ", deletionPolicy: Delete}", "spec.deletionPolicy", "only forgets it"},
		{"ports", observe + ", ports: {client: 2379}}", "spec.ports", "leave it out"},
		{"TLS", observe + ", tls: {mode: Disabled}}", "spec.tls", "credentialsSecretRef"},
		{"SANs", observe + ", tls: {extraSANs: [a]}}", "spec.tls", "credentialsSecretRef"},
		{"quota", observe + ", etcd: {quotaBackend: 4Gi}}", "spec.etcd", "can't be tuned"},
		{"corrupt check", observe + ", etcd: {initialCorruptCheck: false}}", "spec.etcd", "can't be tuned"},
		{"compaction", observe + ", etcd: {autoCompaction: {retention: 1h}}}", "spec.etcd", "compaction and logging"},
		{"logs", observe + ", etcd: {logging: {dir: /var/log}}}", "spec.etcd", "compaction and logging"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Decode(t.Context(), []byte(clusterHead+c.spec+"\n"))
			wantCause(t, err, c.field, c.want)
		})
	}
}

func TestChangesOfAnImport(t *testing.T) {
	imported := decode[*v1alpha1.EtcdCluster](t, importedText)
	grown := imported.DeepCopy()
	grown.Spec.Replicas, grown.Spec.Version = 5, "3.6.0"
	grown.Spec.Import.Endpoints = []string{"https://10.0.0.2:2379"}
	if err := Validate(t.Context(), grown, imported); err != nil {
		t.Errorf("more members are expected: %v", err)
	}
	managed := newCluster(t, "")
	taken := managed.DeepCopy()
	taken.Spec.Management, taken.Spec.Import = v1alpha1.ManagementObserve, imported.Spec.Import
	wantCause(t, Validate(t.Context(), taken, managed), "spec.management", "can't be changed")
	// Objects from before there was a choice are managed.
	older := managed.DeepCopy()
	older.Spec.Management = ""
	if err := Validate(t.Context(), managed, older); err != nil {
		t.Error(err)
	}
}
