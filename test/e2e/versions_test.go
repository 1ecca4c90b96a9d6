package e2e_test

import (
	"context"
	"testing"
	"time"

	"github.com/quorate/quorate/api/schema"
	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/fleet"
	"github.com/quorate/quorate/release"
	"github.com/quorate/quorate/test/etcdlab"
)

// TestOlderEtcd: releases of the other minors are added, and clusters of them are
// formed and changed with TLS, with every flag that Quorate gives.
func TestOlderEtcd(t *testing.T) {
	for _, v := range []string{"3.5.35", "3.6.16"} {
		path := etcdlab.Older(t, v)
		t.Run(v, func(t *testing.T) {
			l := newLab(t)
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			_, err := l.releases.AddDirectory(ctx, path, release.AddOptions{Version: v})
			must(t, err)
			l.runAgent()
			c := &v1alpha1.EtcdCluster{Spec: v1alpha1.EtcdClusterSpec{Version: v, Replicas: 3}}
			c.Namespace, c.Name = labKey.Namespace, labKey.Name
			v1alpha1.SetType(c, v1alpha1.KindCluster.Kind, v1alpha1.KindCluster.APIVersion)
			must(t, schema.Default(c))
			must(t, l.store.Create(ctx, c))
			const never = 1 << 40
			l.runCluster(ctx, never, func() bool { return l.running(ctx) })
			l.edit(func(s *v1alpha1.EtcdClusterSpec) { s.Etcd.SnapshotCount = 5000 })
			l.runCluster(ctx, never, func() bool { return l.running(ctx) })
			if ctx.Err() != nil {
				t.Fatalf("not in time: %+v", l.cluster(context.WithoutCancel(ctx)).Status)
			}
			probes, _, err := l.etcd.Etcd.Probe(ctx, l.cluster(ctx), []*v1alpha1.EtcdMember{l.member(ctx, "lab-1")})
			must(t, err)
			if got := probes["lab-1"].Status.Version; got != v {
				t.Errorf("etcd %s answers, want %s", got, v)
			}
		})
	}
}

var _ fleet.Etcd = (*lateEtcd)(nil)
