package inspect_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/inspect"
	"github.com/quorate/quorate/test/etcdlab"
)

// olderReleases are the other etcds by version, built and fetched by make.
func olderReleases(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, v := range append(slices.Clone(maintained), withBugs...) {
		found[v] = etcdlab.Older(t, v)
	}
	return found
}

var (
	// maintained releases of the older minors, and what distributions still ship.
	maintained = []string{"3.4.23", "3.5.35", "3.6.16"}
	// withBugs are releases that nobody should run any more.
	withBugs = []string{"3.5.2", "3.5.5"}
)

// TestOlderEtcd: what is seen of 3.7 is seen of the older ones, as far as they tell.
func TestOlderEtcd(t *testing.T) {
	found := olderReleases(t)
	for _, version := range maintained {
		binary := found[version]
		t.Run(version, func(t *testing.T) {
			t.Run("down and without quorum", func(t *testing.T) { olderDown(t, binary, version) })
			t.Run("no space", func(t *testing.T) { olderNoSpace(t, binary) })
			t.Run("history", func(t *testing.T) { olderHistory(t, binary) })
			t.Run("authentication", func(t *testing.T) { olderAuth(t, binary) })
			t.Run("TLS", func(t *testing.T) { olderTLS(t, binary) })
		})
	}
}

// TestOlderEtcdMixed: members of two minors, as in the middle of an upgrade.
func TestOlderEtcdMixed(t *testing.T) {
	found := olderReleases(t)
	l := newLab(t, labOptions{Members: 3, Binary: found["3.5.35"], Edit: func(members []*node) { members[2].Binary = found["3.6.16"] }}).ready()
	r := look(t, inspect.Options{Endpoints: l.URLs()})
	f := finding(t, r, "mixed-versions")
	if f.Severity != inspect.Warning || !strings.Contains(f.Title, "3.5.35 and 3.6.16") || r.State != v1alpha1.StateHealthy {
		t.Errorf("%s %s: %s", r.State, f.Severity, f.Title)
	}
}

// TestOlderEtcdBugs: releases with known bugs are told by name, with what mends them,
// where they concern this cluster.
func TestOlderEtcdBugs(t *testing.T) {
	found := olderReleases(t)
	// Bugs that it takes several members for.
	together := []string{"bug-watch-future", "bug-stale-reads", "bug-snapshot-defrag"}
	for _, tc := range []struct {
		version string
		members int
		bugs    []string
		not     []string
	}{
		{
			"3.5.2", 1,
			[]string{
				"bug-data-inconsistency", "bug-defrag-crash", "bug-single-durability", "bug-compaction-crash", "bug-watch-loss", "bug-watch-order",
				"bug-watch-deletion", "bug-lease-renew", "bug-auth-bypass", "bug-watch-bypass", "bug-put-bypass", "bug-compacted-read",
				"upgrade-to-3.6",
			},
			append([]string{"bug-auth-snapshot"}, together...),
		},
		{
			"3.5.5", 3,
			append([]string{"bug-defrag-crash", "bug-auth-snapshot", "bug-auth-bypass", "bug-put-bypass"}, together...),
			[]string{"bug-data-inconsistency", "bug-single-durability"},
		},
		{
			"3.4.23", 3,
			append([]string{"bug-compaction-crash", "bug-watch-loss", "bug-watch-order", "bug-watch-deletion", "bug-lease-renew"}, together...),
			[]string{"bug-single-durability", "bug-auth-snapshot"},
		},
		{"3.6.16", 1, []string{"bug-compacted-read"}, append([]string{"bug-auth-bypass", "bug-watch-bypass", "bug-put-bypass", "bug-lease-renew", "upgrade-to-3.7"}, together...)},
	} {
		t.Run(tc.version, func(t *testing.T) {
			l := newLab(t, labOptions{Members: tc.members, Binary: found[tc.version]}).ready()
			withAuth(l)
			r := look(t, inspect.Options{Endpoints: l.URLs(), User: "root", Password: "secret"})
			for _, id := range tc.bugs {
				f := finding(t, r, id)
				if !strings.Contains(f.Title, tc.version) || !strings.Contains(strings.Join(f.Evidence, "\n"), "source: https://") {
					t.Errorf("%s: %q", f.Title, f.Evidence)
				}
			}
			for _, f := range r.Findings {
				if slices.Contains(tc.not, f.ID) {
					t.Errorf("%s was told of etcd %s", f.ID, tc.version)
				}
			}
		})
	}
}

// TestOlderEtcdCompactedRead: a bug that the latest releases of older minors still
// have is only worth to know, until a client has brought it about.
func TestOlderEtcdCompactedRead(t *testing.T) {
	found := olderReleases(t)
	for _, version := range maintained {
		t.Run(version, func(t *testing.T) {
			l := newLab(t, labOptions{Members: 3, Binary: found[version]}).ready()
			r := look(t, inspect.Options{Endpoints: l.URLs(l.Members[0])})
			if f := finding(t, r, "bug-compacted-read"); f.Severity != inspect.Info || r.State != v1alpha1.StateHealthy {
				t.Errorf("before, it is %s, and the cluster %s", f.Severity, r.State)
			}
			readCompacted(l)
			r = look(t, inspect.Options{Endpoints: l.URLs(l.Members[0])})
			if f := finding(t, r, "revision-differs"); f.Severity != inspect.Critical || r.State != v1alpha1.StateDegraded {
				t.Errorf("members differ: %s, and the cluster is %s", f.Severity, r.State)
			}
			f := finding(t, r, "bug-compacted-read")
			if told := strings.Join(f.Evidence, "\n"); f.Severity != inspect.Warning || !strings.Contains(told, "members differ here") || !strings.Contains(f.Fix, "3.7.0") {
				t.Errorf("behind it, it is %s: %q, %q", f.Severity, told, f.Fix)
			}
		})
	}
	for _, version := range maintained {
		t.Run(version+" alone", func(t *testing.T) {
			// Nothing is written to the database behind the compaction.
			l := newLab(t, labOptions{Members: 1, Binary: found[version], Flags: []string{"--backend-batch-interval=1h"}}).ready()
			readCompacted(l)
			l.Members[0].Restart()
			l.ready()
			if kvs := l.get("x"); len(kvs) != 1 {
				t.Errorf("what was refused is not there behind a crash: %v: is it mended, and the finding wrong?", kvs)
			}
			if f := finding(t, look(t, inspect.Options{Endpoints: l.URLs()}), "bug-compacted-read"); f.Severity != inspect.Info {
				t.Errorf("it is %s", f.Severity)
			}
		})
	}
	t.Run("not in this one", func(t *testing.T) {
		l := newLab(t, labOptions{Members: 3}).ready()
		readCompacted(l)
		r := look(t, inspect.Options{Endpoints: l.URLs(l.Members[0])})
		for _, f := range r.Findings {
			if f.ID == "bug-compacted-read" || f.ID == "revision-differs" {
				t.Errorf("%s: %q", f.Title, f.Evidence)
			}
		}
		if r.State != v1alpha1.StateHealthy {
			t.Errorf("it is %s: %s", r.State, r.Summary)
		}
	})
}

// readCompacted sends the transaction of etcd's issue 18667: it writes, and it reads
// at a compacted revision. It must be refused, and all members have come to it when
// this returns.
func readCompacted(l *lab) {
	l.t.Helper()
	c := l.client(l.Members[0])
	l.must("have a transaction refused", func(ctx context.Context) error {
		var last int64
		for range 5 {
			p, err := c.Put(ctx, "k", "v")
			if err != nil {
				return err
			}
			last = p.Header.Revision
		}
		if _, err := c.Compact(ctx, last, clientv3.WithCompactPhysical()); err != nil {
			return err
		}
		_, err := c.Txn(ctx).Then(clientv3.OpPut("x", "y"), clientv3.OpGet("k", clientv3.WithRev(last-2))).Commit()
		if !errors.Is(err, rpctypes.ErrCompacted) {
			return fmt.Errorf("a read of a compacted revision was not refused: %w", err)
		}
		return nil
	})
	// A linearizable read at each: it has applied what the others have.
	l.ready()
}

// get is what the first member has at a key.
func (l *lab) get(key string) (kvs []*mvccpb.KeyValue) {
	l.t.Helper()
	l.must("read "+key, func(ctx context.Context) error {
		r, err := l.client(l.Members[0]).Get(ctx, key)
		if err == nil {
			kvs = r.Kvs
		}
		return err
	})
	return kvs
}

func olderDown(t *testing.T, binary, version string) {
	t.Helper()
	l := newLab(t, labOptions{Members: 3, Binary: binary}).ready()
	before := position(t, l, l.Members[0])
	r := look(t, inspect.Options{Endpoints: l.URLs(l.Members[0])})
	after := position(t, l, l.Members[0])
	if before.Revision != after.Revision || before.Term != after.Term || before.Index != after.Index {
		t.Errorf("revision, term and index were %d, %d, %d and are %d, %d, %d",
			before.Revision, before.Term, before.Index, after.Revision, after.Term, after.Index)
	}
	old := strings.HasPrefix(version, "3.4")
	if r.State != v1alpha1.StateHealthy || old != (r.Worst() == inspect.Warning) || r.Worst() == inspect.Critical {
		t.Errorf("etcd %s is %s with %s", version, r.State, r.Worst())
	}
	if old {
		finding(t, r, "end-of-life")
	}
	l.Members[2].Kill()
	l.ready(l.Members[:2]...)
	r = look(t, inspect.Options{Endpoints: l.URLs(l.Members[0])})
	if finding(t, r, "member-down"); r.State != v1alpha1.StateDegraded || r.Findings[0].ID != "member-down" {
		t.Errorf("with a member down it is %s, first %s", r.State, r.Findings[0].ID)
	}
	l.Members[1].Kill()
	c := l.client(l.Members[0])
	l.until("without a leader", func(ctx context.Context) error {
		st, err := c.Status(ctx, l.Members[0].Client)
		if err == nil && st.Leader != 0 {
			return context.DeadlineExceeded
		}
		return err
	})
	r = look(t, inspect.Options{Endpoints: l.URLs(l.Members[0])})
	if r.State != v1alpha1.StateUnavailable || r.Findings[0].ID != "no-quorum" {
		t.Errorf("without a quorum it is %s, first %s", r.State, r.Findings[0].ID)
	}
	if n := len(r.Observation.Members); n != 3 {
		t.Errorf("%d members were found, want 3", n)
	}
}

func olderNoSpace(t *testing.T, binary string) {
	t.Helper()
	l := newLab(t, labOptions{Members: 1, Binary: binary, Flags: []string{"--quota-backend-bytes=2097152"}}).ready()
	c := l.client(l.Members[0])
	value := strings.Repeat("x", 100<<10)
	l.until("full", func(ctx context.Context) error {
		for range 100 {
			if _, err := c.Put(ctx, "k", value); err != nil && strings.Contains(err.Error(), "space exceeded") {
				return nil
			}
		}
		return context.DeadlineExceeded
	})
	r := look(t, inspect.Options{Endpoints: l.URLs()})
	if f := finding(t, r, "alarm-nospace"); f.Subject != "m1" || !strings.Contains(strings.Join(f.Evidence, "\n"), "quota 2.0 MiB (from") {
		t.Errorf("of %s: %q", f.Subject, f.Evidence)
	}
}

func olderHistory(t *testing.T, binary string) {
	t.Helper()
	l := newLab(t, labOptions{Members: 1, Binary: binary}).ready()
	c := l.client(l.Members[0])
	l.must("write and compact", func(ctx context.Context) error {
		for range 300 {
			if _, err := c.Put(ctx, "n", "1"); err != nil {
				return err
			}
		}
		_, err := c.Compact(ctx, 217)
		return err
	})
	r := look(t, inspect.Options{Endpoints: l.URLs()})
	if got := r.Observation.Members[0].CompactRevision; got == nil || *got != 217 {
		t.Errorf("the compact revision is %v, want 217", got)
	}
	if m := r.Observation.Members[0].Metrics; m == nil || m.QuotaBytes == 0 || m.Fsync.Count == 0 {
		t.Errorf("metrics: %+v", m)
	}
}

func olderAuth(t *testing.T, binary string) {
	t.Helper()
	l := newLab(t, labOptions{Members: 1, Binary: binary}).ready()
	withAuth(l)
	r := look(t, inspect.Options{Endpoints: l.URLs(), User: "root", Password: "secret"})
	if r.State != v1alpha1.StateHealthy || r.Worst() == inspect.Critical && !slices.ContainsFunc(r.Findings, func(f inspect.Finding) bool { return f.ID == "bug-auth-bypass" }) {
		t.Errorf("with the password it is %s with %s", r.State, r.Worst())
	}
	r = look(t, inspect.Options{Endpoints: l.URLs(), User: "root", Password: "wrong"})
	finding(t, r, "login-failed")
	r = look(t, inspect.Options{Endpoints: l.URLs()})
	finding(t, r, "login-wanted")
}

func olderTLS(t *testing.T, binary string) {
	t.Helper()
	ca, other := etcdlab.NewAuthority(t), etcdlab.NewAuthority(t)
	l := newLab(t, labOptions{Members: 1, Binary: binary, CA: ca, ClientCerts: true}).ready()
	r := look(t, inspect.Options{Endpoints: l.URLs(), CA: other.Roots()})
	finding(t, r, "tls-unknown-ca")
	r = look(t, inspect.Options{Endpoints: l.URLs(), CA: ca.Roots()})
	finding(t, r, "client-certificate-wanted")
}
