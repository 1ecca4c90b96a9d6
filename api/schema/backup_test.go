package schema

import (
	"strings"
	"testing"

	"github.com/quorate/quorate/api/v1alpha1"
)

const (
	policyHead = "apiVersion: quorate.io/v1alpha1\nkind: EtcdBackupPolicy\nmetadata: {name: hourly}\n"
	backupHead = "apiVersion: quorate.io/v1alpha1\nkind: EtcdBackup\nmetadata: {name: now}\n"
)

// policyWith makes a policy; what is not given is filled in.
func policyWith(spec string) []byte {
	if !strings.Contains(spec, "clusterName:") && !strings.Contains(spec, "selector:") {
		spec += ", clusterName: a"
	}
	if !strings.Contains(spec, "destinations:") {
		spec += ", destinations: [{name: d, url: 'file:///b'}]"
	}
	return []byte(policyHead + "spec: {" + strings.TrimPrefix(spec, ", ") + "}\n")
}

// backupWith makes a backup of cluster a.
func backupWith(spec string) []byte {
	if spec != "" {
		spec = ", " + spec
	}
	return []byte(backupHead + "spec: {clusterName: a" + spec + "}\n")
}

// to is a policy of one destination.
func to(destination string) string { return "destinations: [{" + destination + "}]" }

// TestRulesOfPolicies tries each rule on a spec that keeps it and one that breaks it.
func TestRulesOfPolicies(t *testing.T) {
	recipient := "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"
	long := strings.Repeat("x", 64)
	cases := []struct{ name, good, bad, field, want string }{
		{"both", "selector: {matchLabels: {a: b}}", "clusterName: a, selector: {}", "spec.clusterName", "and not both"},
		{"no destination", "", "destinations: []", "spec.destinations", "at least 1"},
		{"destination twice", to("name: a, url: 's3://b/c'"), "destinations: [{name: a, url: 's3://b'}, {name: a, url: 's3://c'}]", "spec.destinations[1]", "Duplicate"},
		{"name of a destination", to("name: a-1, url: 's3://b'"), to("name: A, url: 's3://b'"), "spec.destinations[0].name", "should match"},
		{"scheme", to("name: a, url: 'azblob://c/p?account=x'"), to("name: a, url: 'https://b'"), "spec.destinations[0].url", "file:///directory"},
		{"credentials in the URL", to("name: a, url: 's3://b/x@y'"), to("name: a, url: 's3://key:word@b'"), "spec.destinations[0].url", "credentialsSecretRef"},
		{"rate", to("name: a, url: 's3://b', uploadRate: 50Mi"), to("name: a, url: 's3://b', uploadRate: '0'"), "spec.destinations[0].uploadRate", "should match"},
		{"rate in thousandths", to("name: a, url: 's3://b', uploadRate: '1000'"), to("name: a, url: 's3://b', uploadRate: 50m"), "spec.destinations[0].uploadRate", "should match"},
		{"lock", to("name: a, url: 's3://b', lockFor: 24h"), to("name: a, url: 'gs://b', lockFor: 24h"), "spec.destinations[0].lockFor", "only s3"},
		{"compliance", to("name: a, url: 's3://b', lockFor: 24h, compliance: true"), to("name: a, url: 's3://b', compliance: true"), "spec.destinations[0].compliance", "give lockFor"},
		{"credentialsFrom", to("name: a, url: 's3://b', credentialsFrom: Instance"), to("name: a, url: 's3://b', credentialsFrom: Disk"), "spec.destinations[0].credentialsFrom", "Environment, Instance"},
		{"interval", "schedule: {interval: 1m}", "schedule: {interval: 59s}", "spec.schedule.interval", "at least 1m"},
		{"no interval", "schedule: {interval: 90m}", "schedule: {interval: 0s}", "spec.schedule.interval", "at least 1m"},
		{"long interval", "schedule: {interval: 8760h}", "schedule: {interval: 8761h}", "spec.schedule.interval", "at most 8760h"},
		{"days", "schedule: {interval: 24h}", "schedule: {interval: 1d}", "spec.schedule.interval", "should match"},
		{"cron and interval", "schedule: {cron: '0 2 * * *'}", "schedule: {cron: '0 2 * * *', interval: 1h}", "spec.schedule.cron", "and not both"},
		{"cron", "schedule: {cron: '@daily'}", "schedule: {cron: '@every 1s'}", "spec.schedule.cron", "should match"},
		{"six fields", "schedule: {cron: '*/5 1-3 * 1,2 MON'}", "schedule: {cron: '0 0 2 * * *'}", "spec.schedule.cron", "should match"},
		{"jitter", "schedule: {cron: '0 2 * * *', jitter: 5m}", "schedule: {jitter: 5m}", "spec.schedule.jitter", "its own moment"},
		{"stale", "staleAfter: 1h", "staleAfter: 59m", "spec.staleAfter", "shorter than the interval"},
		{"never stale", "staleAfter: 24h, schedule: {interval: 24h}", "staleAfter: 0s, schedule: {cron: '@daily'}", "spec.staleAfter", "above zero"},
		{"stale with cron", "staleAfter: 1m, schedule: {cron: '@daily'}", "staleAfter: 1m, schedule: {interval: 2m}", "spec.staleAfter", "shorter"},
		{"proof", "proof: {mode: Never, reason: a test cluster}", "proof: {mode: Never}", "spec.proof.reason", "needs a reason"},
		{"no reason", "proof: {mode: Always}", "proof: {mode: Never, reason: ''}", "spec.proof.reason", "needs a reason"},
		{"mode", "proof: {}", "proof: {mode: Sometimes}", "spec.proof.mode", "Always, Never"},
		{"identity", "encryption: {recipients: [" + recipient + "], identitySecretRef: s}", "encryption: {recipients: [" + recipient + "]}", "spec.encryption", "identitySecretRef"},
		{"no proof, no identity", "encryption: {recipients: [" + recipient + "]}, proof: {mode: Never, reason: r}", "encryption: {recipients: []}, proof: {mode: Never, reason: r}", "spec.encryption.recipients", "at least 1"},
		{"recipient", "encryption: {recipients: [" + recipient + "], identitySecretRef: s}", "encryption: {recipients: [AGE-SECRET-KEY-1], identitySecretRef: s}", "spec.encryption.recipients[0]", "should match"},
		{"compression", "compression: Better", "compression: Best", "spec.compression", "Fastest, Default, Better"},
		{"retention", "retention: {keepLast: 1, keepWithin: 24h, yearly: 3}", "retention: {daily: -1}", "spec.retention.daily", "greater than or equal to 1"},
		{"keep within", "retention: {}", "retention: {keepWithin: 7d}", "spec.retention.keepWithin", "should match"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if _, err := Decode(t.Context(), policyWith(c.good)); err != nil {
				t.Errorf("good: %v", err)
			}
			_, err := Decode(t.Context(), policyWith(c.bad))
			wantCause(t, err, c.field, c.want)
		})
	}
	_, err := Decode(t.Context(), []byte(strings.Replace(string(policyWith("")), "hourly", long, 1)))
	wantCause(t, err, "", "limited to 63")
	_, err = Decode(t.Context(), []byte(policyHead+"spec: {destinations: [{name: d, url: 'file:///b'}]}\n"))
	wantCause(t, err, "spec.clusterName", "clusterName or selector")
}

// TestDefaultsOfPolicies: a policy of three lines is a good one.
func TestDefaultsOfPolicies(t *testing.T) {
	p := decode[*v1alpha1.EtcdBackupPolicy](t, string(policyWith("")))
	s := p.Spec
	want := v1alpha1.BackupRetention{Hourly: 24, Daily: 7, Weekly: 5, Monthly: 6}
	if s.Retention != want || s.Proof.Mode != v1alpha1.ProofAlways || s.Compression != v1alpha1.CompressionFastest || s.Schedule.TimeZone != "UTC" ||
		s.Destinations[0].CredentialsFrom != v1alpha1.CredentialsEnvironment || s.Schedule.Interval != "" || s.Suspended || s.WithoutLeader {
		t.Errorf("the defaults are %+v", s)
	}
	// Who says what is kept, says all of it.
	p = decode[*v1alpha1.EtcdBackupPolicy](t, string(policyWith("retention: {keepLast: 3}")))
	if p.Spec.Retention != (v1alpha1.BackupRetention{KeepLast: 3}) {
		t.Errorf("retention is %+v", p.Spec.Retention)
	}
	p = decode[*v1alpha1.EtcdBackupPolicy](t, string(policyWith("retention: {}")))
	if p.Spec.Retention != (v1alpha1.BackupRetention{}) {
		t.Errorf("an empty retention became %+v", p.Spec.Retention)
	}
}

func TestRulesOfBackups(t *testing.T) {
	inline := "destinations: [{name: d, url: 'file:///b'}]"
	cases := []struct{ name, good, bad, field, want string }{
		{"policy or destinations", "policyName: p", "policyName: p, " + inline, "spec.destinations", "and not both"},
		{"neither", inline, "", "spec.destinations", "and not both"},
		{"encryption", inline + ", encryption: {recipients: [age1x], identitySecretRef: s}", "policyName: p, encryption: {recipients: [age1x], identitySecretRef: s}", "spec.encryption", "leave it out"},
		{"identity", inline + ", encryption: {recipients: [age1x]}, proof: {mode: Never, reason: r}", inline + ", encryption: {recipients: [age1x]}", "spec.encryption", "identitySecretRef"},
		{"retention", inline, "destinations: [{name: d, url: 'file:///b', retention: {daily: 1}}]", "spec.destinations", "kept until a person deletes it"},
		{"reason", "policyName: p, reason: Scheduled", "policyName: p, reason: Because", "spec.reason", "Scheduled, Manual"},
		{"proof", "policyName: p, proof: {mode: Never, reason: r}", "policyName: p, proof: {mode: Never}", "spec.proof.reason", "needs a reason"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if _, err := Decode(t.Context(), backupWith(c.good)); err != nil {
				t.Errorf("good: %v", err)
			}
			_, err := Decode(t.Context(), backupWith(c.bad))
			wantCause(t, err, c.field, c.want)
		})
	}
	b := decode[*v1alpha1.EtcdBackup](t, string(backupWith("policyName: p")))
	if b.Spec.Reason != v1alpha1.BackupManual {
		t.Errorf("a person's backup is %s", b.Spec.Reason)
	}
	changed := b.DeepCopy()
	changed.Spec.Member = "m1"
	wantCause(t, Validate(t.Context(), changed, b), "spec", "never changes")
	told := b.DeepCopy()
	told.Labels, told.Status.Phase = map[string]string{"a": "b"}, v1alpha1.BackupVerified
	if err := Validate(t.Context(), told, b); err != nil {
		t.Error(err)
	}
}

// TestMaintain: others' clusters are only asked, unless they say otherwise.
func TestMaintain(t *testing.T) {
	asked := decode[*v1alpha1.EtcdCluster](t, importedText)
	if asked.Allows(v1alpha1.MaintainBackup) {
		t.Error("an observed cluster may be backed up though nobody said so")
	}
	allowed := decode[*v1alpha1.EtcdCluster](t, clusterHead+"spec: {management: Observe, import: {endpoints: ['http://a:1'], maintain: [Backup]}}\n")
	if !allowed.Allows(v1alpha1.MaintainBackup) {
		t.Error("it may not be backed up though it says so")
	}
	if !newCluster(t, "").Allows(v1alpha1.MaintainBackup) {
		t.Error("a cluster that Quorate runs may not be backed up")
	}
	for _, bad := range []string{"[Defragment]", "[Backup, Backup]"} {
		if _, err := Decode(t.Context(), []byte(clusterHead+"spec: {management: Observe, import: {endpoints: ['http://a:1'], maintain: "+bad+"}}\n")); err == nil {
			t.Errorf("maintain: %s is taken", bad)
		}
	}
}
