package inspect_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/inspect"
)

// olderReleases are the other etcds by version, built and fetched by make.
func olderReleases(t *testing.T) map[string]string {
	t.Helper()
	dir := os.Getenv("QUORATE_ETCD_RELEASES")
	if dir == "" {
		t.Skip("older etcds are built and run by make check-slow (QUORATE_ETCD_RELEASES)")
	}
	found := map[string]string{}
	for _, pattern := range []string{dir, dir + "-debian"} {
		paths, err := filepath.Glob(filepath.Join(pattern, "3.*", "etcd"))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range paths {
			found[filepath.Base(filepath.Dir(p))] = p
		}
	}
	for _, v := range append(slices.Clone(maintained), withBugs...) {
		if found[v] == "" {
			t.Fatalf("%s and %s-debian hold no etcd %s: make etcd-releases etcd-debian", dir, dir, v)
		}
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
	l := newLab(t, labOptions{members: 3, binaries: []string{found["3.5.35"], found["3.5.35"], found["3.6.16"]}}).ready()
	r := look(t, inspect.Options{Endpoints: l.urls()})
	f := finding(t, r, "mixed-versions")
	if f.Severity != inspect.Warning || !strings.Contains(f.Title, "3.5.35 and 3.6.16") || r.State != v1alpha1.StateHealthy {
		t.Errorf("%s %s: %s", r.State, f.Severity, f.Title)
	}
}

// TestOlderEtcdBugs: releases with known bugs are told by name, with what mends them,
// where they concern this cluster.
func TestOlderEtcdBugs(t *testing.T) {
	found := olderReleases(t)
	for _, tc := range []struct {
		version string
		bugs    []string
		not     []string
	}{
		{
			"3.5.2",
			[]string{
				"bug-data-inconsistency", "bug-defrag-crash", "bug-single-durability", "bug-compaction-crash",
				"bug-watch-loss", "bug-auth-bypass", "bug-watch-bypass", "upgrade-to-3.6",
			},
			[]string{"bug-auth-snapshot"},
		},
		{"3.5.5", []string{"bug-defrag-crash", "bug-auth-snapshot", "bug-auth-bypass"}, []string{"bug-data-inconsistency", "bug-single-durability"}},
		{"3.6.16", nil, []string{"bug-auth-bypass", "bug-watch-bypass", "upgrade-to-3.7"}},
	} {
		t.Run(tc.version, func(t *testing.T) {
			l := newLab(t, labOptions{members: 1, binary: found[tc.version]}).ready()
			withAuth(l)
			r := look(t, inspect.Options{Endpoints: l.urls(), User: "root", Password: "secret"})
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

func olderDown(t *testing.T, binary, version string) {
	t.Helper()
	l := newLab(t, labOptions{members: 3, binary: binary}).ready()
	before := position(t, l, l.members[0])
	r := look(t, inspect.Options{Endpoints: l.urls(l.members[0])})
	after := position(t, l, l.members[0])
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
	l.members[2].stop()
	l.ready(l.members[:2]...)
	r = look(t, inspect.Options{Endpoints: l.urls(l.members[0])})
	if finding(t, r, "member-down"); r.State != v1alpha1.StateDegraded || r.Findings[0].ID != "member-down" {
		t.Errorf("with a member down it is %s, first %s", r.State, r.Findings[0].ID)
	}
	l.members[1].stop()
	c := l.client(l.members[0])
	l.until("without a leader", func(ctx context.Context) error {
		st, err := c.Status(ctx, l.members[0].client)
		if err == nil && st.Leader != 0 {
			return context.DeadlineExceeded
		}
		return err
	})
	r = look(t, inspect.Options{Endpoints: l.urls(l.members[0])})
	if r.State != v1alpha1.StateUnavailable || r.Findings[0].ID != "no-quorum" {
		t.Errorf("without a quorum it is %s, first %s", r.State, r.Findings[0].ID)
	}
	if n := len(r.Observation.Members); n != 3 {
		t.Errorf("%d members were found, want 3", n)
	}
}

func olderNoSpace(t *testing.T, binary string) {
	t.Helper()
	l := newLab(t, labOptions{members: 1, binary: binary, flags: []string{"--quota-backend-bytes=2097152"}}).ready()
	c := l.client(l.members[0])
	value := strings.Repeat("x", 100<<10)
	l.until("full", func(ctx context.Context) error {
		for range 100 {
			if _, err := c.Put(ctx, "k", value); err != nil && strings.Contains(err.Error(), "space exceeded") {
				return nil
			}
		}
		return context.DeadlineExceeded
	})
	r := look(t, inspect.Options{Endpoints: l.urls()})
	if f := finding(t, r, "alarm-nospace"); f.Subject != "m1" || !strings.Contains(strings.Join(f.Evidence, "\n"), "quota 2.0 MiB (from") {
		t.Errorf("of %s: %q", f.Subject, f.Evidence)
	}
}

func olderHistory(t *testing.T, binary string) {
	t.Helper()
	l := newLab(t, labOptions{members: 1, binary: binary}).ready()
	c := l.client(l.members[0])
	l.must("write and compact", func(ctx context.Context) error {
		for range 300 {
			if _, err := c.Put(ctx, "n", "1"); err != nil {
				return err
			}
		}
		_, err := c.Compact(ctx, 217)
		return err
	})
	r := look(t, inspect.Options{Endpoints: l.urls()})
	if got := r.Observation.Members[0].CompactRevision; got == nil || *got != 217 {
		t.Errorf("the compact revision is %v, want 217", got)
	}
	if m := r.Observation.Members[0].Metrics; m == nil || m.QuotaBytes == 0 || m.Fsync.Count == 0 {
		t.Errorf("metrics: %+v", m)
	}
}

func olderAuth(t *testing.T, binary string) {
	t.Helper()
	l := newLab(t, labOptions{members: 1, binary: binary}).ready()
	withAuth(l)
	r := look(t, inspect.Options{Endpoints: l.urls(), User: "root", Password: "secret"})
	if r.State != v1alpha1.StateHealthy || r.Worst() == inspect.Critical && !slices.ContainsFunc(r.Findings, func(f inspect.Finding) bool { return f.ID == "bug-auth-bypass" }) {
		t.Errorf("with the password it is %s with %s", r.State, r.Worst())
	}
	r = look(t, inspect.Options{Endpoints: l.urls(), User: "root", Password: "wrong"})
	finding(t, r, "login-failed")
	r = look(t, inspect.Options{Endpoints: l.urls()})
	finding(t, r, "login-wanted")
}

func olderTLS(t *testing.T, binary string) {
	t.Helper()
	ca, other := newAuthority(t), newAuthority(t)
	l := newLab(t, labOptions{members: 1, binary: binary, ca: ca, clientCerts: true}).ready()
	r := look(t, inspect.Options{Endpoints: l.urls(), CA: other.roots()})
	finding(t, r, "tls-unknown-ca")
	r = look(t, inspect.Options{Endpoints: l.urls(), CA: ca.roots()})
	finding(t, r, "client-certificate-wanted")
}
