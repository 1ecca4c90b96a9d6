package v1alpha1

import (
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
)

func TestMemberConfigHash(t *testing.T) {
	t.Parallel()
	base := func() *EtcdMemberSpec {
		return &EtcdMemberSpec{
			Release: ReleaseRef{Version: "3.7.3", Digest: "sha256:a"},
			Etcd: EtcdConfig{
				QuotaBackend: resource.MustParse("8Gi"), MaxRequest: resource.MustParse("1536Ki"), HeartbeatInterval: "100ms", ElectionTimeout: "1s",
			},
		}
	}
	now := NewTime(time.Unix(1000, 0))
	for name, c := range map[string]struct {
		change func(*EtcdMemberSpec)
		same   bool
	}{
		"the same quota in bytes":     {func(s *EtcdMemberSpec) { s.Etcd.QuotaBackend = resource.MustParse("8589934592") }, true},
		"the same timeout":            {func(s *EtcdMemberSpec) { s.Etcd.ElectionTimeout = "1000ms" }, true},
		"how it joins":                {func(s *EtcdMemberSpec) { s.Bootstrap = &Bootstrap{Token: "t"} }, true},
		"who it is":                   {func(s *EtcdMemberSpec) { s.MemberID, s.ClusterID = "1", "2" }, true},
		"whether it runs":             {func(s *EtcdMemberSpec) { s.Run = RunStopped }, true},
		"what becomes of its data":    {func(s *EtcdMemberSpec) { s.DeletionPolicy, s.RetainFor = DeletionDelete, "1h" }, true},
		"certificates, which reload":  {func(s *EtcdMemberSpec) { s.TLS.ExtraSANs, s.TLS.LeafValidity = []string{"a"}, "1h" }, true},
		"another quota":               {func(s *EtcdMemberSpec) { s.Etcd.QuotaBackend = resource.MustParse("4Gi") }, false},
		"another timeout":             {func(s *EtcdMemberSpec) { s.Etcd.ElectionTimeout = "2s" }, false},
		"another release":             {func(s *EtcdMemberSpec) { s.Release.Digest = "sha256:b" }, false},
		"another port":                {func(s *EtcdMemberSpec) { s.Ports.Client = 1 }, false},
		"a wish to restart":           {func(s *EtcdMemberSpec) { s.RestartedAt = &now }, false},
		"another source of the certs": {func(s *EtcdMemberSpec) { s.TLS.Mode = TLSFiles }, false},
	} {
		spec := base()
		c.change(spec)
		if same := MemberConfigHash(spec) == MemberConfigHash(base()); same != c.same {
			t.Errorf("%s: the same configuration: %t, want %t", name, same, c.same)
		}
	}
}
