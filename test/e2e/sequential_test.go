package e2e_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/quorate/quorate/api/schema"
	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/etcd"
	"github.com/quorate/quorate/internal/version"
	"github.com/quorate/quorate/release"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/test/etcdlab"
	"github.com/quorate/quorate/test/slow"
)

// TestSequential: a cluster of real etcds with TLS that one member founds, and that the
// others join one after the other, is in the end as one that was formed at once; also when
// the controller dies at ever later writes meanwhile.
func TestSequential(t *testing.T) {
	for _, v := range []string{"3.5.35", "3.6.16", version.Etcd()} {
		for _, members := range []int32{1, 3, 5} {
			t.Run(fmt.Sprintf("%s with %d", v, members), func(t *testing.T) {
				if members > 3 {
					slow.Only(t)
				}
				path := ""
				if v != version.Etcd() {
					path = etcdlab.Older(t, v)
				}
				l := newLab(t)
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
				defer cancel()
				if path != "" {
					_, err := l.releases.AddDirectory(ctx, path, release.AddOptions{Version: v})
					must(t, err)
				}
				l.runAgent()
				l.createSequential(v, members)
				deaths := 0
				for writes := int64(3); l.runCluster(ctx, writes, func() bool { return l.running(ctx) }); writes++ {
					deaths++
				}
				if ctx.Err() != nil {
					t.Fatalf("not in time: %+v", l.cluster(context.WithoutCancel(ctx)).Status)
				}
				l.checkJoined(ctx, int(members))
				for _, fault := range l.faults {
					t.Error(fault)
				}
				t.Logf("%d members of etcd %s joined one after the other; the controller died %d times", members, v, deaths)
			})
		}
	}
}

func (l *lab) createSequential(v string, members int32) {
	l.t.Helper()
	check := false
	c := &v1alpha1.EtcdCluster{Spec: v1alpha1.EtcdClusterSpec{Version: v, Replicas: members}}
	c.Namespace, c.Name = labKey.Namespace, labKey.Name
	c.Spec.Formation.Mode = v1alpha1.FormationSequential
	c.Spec.Etcd.InitialCorruptCheck = &check
	v1alpha1.SetType(c, v1alpha1.KindCluster.Kind, v1alpha1.KindCluster.APIVersion)
	must(l.t, schema.Default(c))
	must(l.t, l.store.Create(l.t.Context(), c))
}

// checkJoined compares what etcd says of its members with what the objects do, and writes
// through one member what is read through another.
func (l *lab) checkJoined(ctx context.Context, want int) {
	t := l.t
	t.Helper()
	objects, err := l.store.List(ctx, v1alpha1.KindMember, store.ListOptions{})
	must(t, err)
	byID := map[string]*v1alpha1.EtcdMember{}
	founders := 0
	var endpoints []string
	for _, o := range objects {
		m, _ := o.(*v1alpha1.EtcdMember)
		byID[m.Spec.MemberID] = m
		endpoints = append(endpoints, m.Status.ClientURL)
		if m.Spec.Bootstrap.State == v1alpha1.BootstrapNew {
			founders++
		}
	}
	if founders != 1 {
		t.Errorf("%d members founded the cluster, want one", founders)
	}
	creds, err := l.authority.ClientTLS(ctx, l.cluster(ctx))
	must(t, err)
	var clients []*clientv3.Client
	for _, e := range endpoints {
		c, dialErr := etcd.Dial(etcd.Target{Endpoint: e, TLS: creds})
		must(t, dialErr)
		defer func() { _ = c.Close() }()
		clients = append(clients, c)
	}
	list, err := clients[0].MemberList(ctx)
	must(t, err)
	if len(list.Members) != want || len(objects) != want {
		t.Fatalf("etcd has %d members, and %d are declared, want %d", len(list.Members), len(objects), want)
	}
	for _, m := range list.Members {
		o := byID[etcd.ID(m.ID).String()]
		if o == nil || m.IsLearner || m.Name != o.Name || m.PeerURLs[0] != o.Status.PeerURL {
			t.Errorf("etcd has member %+v, which is declared as %+v", m, o)
		}
	}
	_, err = clients[len(clients)-1].Put(ctx, "key", "value")
	must(t, err)
	for i, c := range clients {
		if got, err := c.Get(ctx, "key"); err != nil || len(got.Kvs) != 1 || string(got.Kvs[0].Value) != "value" {
			t.Errorf("%s gives %v, %v", endpoints[i], got, err)
		}
	}
}
