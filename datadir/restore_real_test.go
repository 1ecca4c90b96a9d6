package datadir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/quorate/quorate/test/etcdlab"
)

// restored is a cluster of that version on a restore of a snapshot, each member of
// it restored by a call of its own.
func restored(t *testing.T, version string, members int, o RestoreOptions) (*etcdlab.Cluster, []Restored) {
	t.Helper()
	var done []Restored
	l := unready(t, version, etcdlab.Options{Members: members, Edit: func(ms []*etcdlab.Member) {
		o.InitialCluster = map[string][]string{}
		for _, m := range ms {
			o.InitialCluster[m.Name] = []string{m.Peer}
		}
		for _, m := range ms {
			o.Name, o.Dir = m.Name, m.Dir
			one, err := Restore(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			nothingLeft(t, m.Dir)
			done = append(done, one)
		}
	}})
	if done[0].Source.AuthEnabled {
		l.User, l.Password = "root", "secret"
	}
	return l.Ready(), done
}

func nothingLeft(t *testing.T, dir string) {
	t.Helper()
	if _, err := os.Lstat(dir + partialMark); err == nil {
		t.Errorf("%s is left", dir+partialMark)
	}
}

// TestRestoreEqualsSource restores snapshots of real etcds and holds what the new
// etcd serves against what the old one did.
func TestRestoreEqualsSource(t *testing.T) {
	t.Parallel()
	for _, version := range versions {
		t.Run("etcd-"+version, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			l := lab(t, version)
			c := l.Members[0].Dial()
			r := rand.New(rand.NewPCG(11, uint64(len(version))))
			leases := grant(t, c, 3)
			churn(t, c, r, leases, 300)
			must[*clientv3.CompactResponse](t)(c.Compact(ctx, revisionOf(t, c)-100, clientv3.WithCompactPhysical()))
			churn(t, c, r, leases, 100)
			enableAuth(t, c)
			c = dialAs(t, l, "root", "secret")
			path := save(t, c)
			at := revisionOf(t, c)
			want, hash := served(t, c, 0), must[*clientv3.HashKVResponse](t)(c.HashKV(ctx, c.Endpoints()[0], at))
			live := lives(t, c, leases)

			l, done := restored(t, version, 1, RestoreOptions{Path: path})
			if d := done[0]; d.Revision != at || d.Source.Revision != at || !d.Verified || len(d.Token) < 20 || !d.Source.AuthEnabled {
				t.Errorf("restored %+v at %d", d, at)
			}
			plain := must[*clientv3.Client](t)(clientv3.New(clientv3.Config{Endpoints: l.URLs()}))
			t.Cleanup(func() { _ = plain.Close() })
			if _, err := plain.Get(ctx, "x"); !errors.Is(err, rpctypes.ErrUserEmpty) {
				t.Errorf("without a password: %v", err)
			}
			c = dialAs(t, l, "root", "secret")
			if diff := cmp.Diff(want, served(t, c, 0)); diff != "" {
				t.Errorf("-source +restored:\n%s", diff)
			}
			if got := revisionOf(t, c); got != at {
				t.Errorf("revision %d, want %d", got, at)
			}
			got := must[*clientv3.HashKVResponse](t)(c.HashKV(ctx, c.Endpoints()[0], at))
			if got.Hash != hash.Hash || got.CompactRevision != hash.CompactRevision {
				t.Errorf("hash %v, want %v", got, hash)
			}
			if diff := cmp.Diff(live, lives(t, c, leases)); diff != "" {
				t.Errorf("leases: -source +restored:\n%s", diff)
			}
			if _, err := dialAs(t, l, "reader", "pw").Get(ctx, "/k/001"); err != nil {
				t.Errorf("a user with the role: %v", err)
			}
			if _, err := dialAs(t, l, "reader", "pw").Put(ctx, "/k/001", "no"); !errors.Is(err, rpctypes.ErrPermissionDenied) {
				t.Errorf("a user without it: %v", err)
			}
			members := must[*clientv3.MemberListResponse](t)(c.MemberList(ctx))
			if len(members.Members) != 1 || members.Members[0].ID != done[0].MemberID || members.Header.ClusterId != done[0].ClusterID {
				t.Errorf("members %v, want %x of %x", members, done[0].MemberID, done[0].ClusterID)
			}
			// It goes on, and over a restart too.
			must[*clientv3.PutResponse](t)(c.Put(ctx, "new", "x"))
			l.Members[0].Restart()
			etcdlab.Until(t, "it serves again", func(ctx context.Context) error {
				_, err := c.Get(ctx, "new")
				return err
			})
		})
	}
}

func enableAuth(t *testing.T, c *clientv3.Client) {
	t.Helper()
	ctx := t.Context()
	_, e1 := c.RoleAdd(ctx, "root")
	_, e2 := c.UserAdd(ctx, "root", "secret")
	_, e3 := c.UserGrantRole(ctx, "root", "root")
	_, e4 := c.RoleAdd(ctx, "reads")
	_, e5 := c.RoleGrantPermission(ctx, "reads", "/k/", "/k0", clientv3.PermissionType(clientv3.PermRead))
	_, e6 := c.UserAdd(ctx, "reader", "pw")
	_, e7 := c.UserGrantRole(ctx, "reader", "reads")
	_, e8 := c.AuthEnable(ctx)
	if err := errors.Join(e1, e2, e3, e4, e5, e6, e7, e8); err != nil {
		t.Fatal(err)
	}
}

func dialAs(t *testing.T, l *etcdlab.Cluster, user, password string) *clientv3.Client {
	t.Helper()
	var c *clientv3.Client
	etcdlab.Until(t, "log-in of "+user, func(context.Context) (err error) {
		c, err = clientv3.New(clientv3.Config{Endpoints: l.URLs(), Username: user, Password: password, DialTimeout: 3 * time.Second})
		return err
	})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// lives are leases with their keys, as etcd tells them.
func lives(t *testing.T, c *clientv3.Client, ids []clientv3.LeaseID) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	for _, id := range ids {
		r := must[*clientv3.LeaseTimeToLiveResponse](t)(c.TimeToLive(t.Context(), id, clientv3.WithAttachedKeys()))
		name := fmt.Sprintf("%x %d", r.ID, r.GrantedTTL)
		all[name] = []string{}
		for _, k := range r.Keys {
			all[name] = append(all[name], string(k))
		}
		slices.Sort(all[name])
	}
	return all
}

// TestRestoreBumped restores with a bump, and then the snapshot of that, which has
// the empty record in it.
func TestRestoreBumped(t *testing.T) {
	t.Parallel()
	for _, version := range versions {
		t.Run("etcd-"+version, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			l := lab(t, version)
			c := l.Members[0].Dial()
			churn(t, c, rand.New(rand.NewPCG(5, 5)), grant(t, c, 2), 200)
			path, at, want := save(t, c), revisionOf(t, c), served(t, c, 0)

			l, done := restored(t, version, 1, RestoreOptions{Path: path, BumpRevision: 1_000_000_000})
			c = l.Members[0].Dial()
			bumped := at + 1_000_000_000
			if done[0].Revision != bumped || revisionOf(t, c) != bumped {
				t.Errorf("%+v, and etcd is at %d; want %d", done[0], revisionOf(t, c), bumped)
			}
			if diff := cmp.Diff(want, served(t, c, 0)); diff != "" {
				t.Errorf("-source +restored:\n%s", diff)
			}
			// What a proof compares: the restored database before any etcd ran on it.
			o := restoreOptions(t.TempDir())
			o.Path, o.BumpRevision = path, 1_000_000_000
			must[Restored](t)(Restore(ctx, o))
			unstarted := open(t, filepath.Join(o.Dir, "member", "snap", "db"))
			sameHash(t, c, unstarted, 0)
			sameHash(t, c, unstarted, bumped)
			for _, from := range []int64{2, at, at + 5} {
				r := <-c.Watch(ctx, "/", clientv3.WithPrefix(), clientv3.WithRev(from))
				if !errors.Is(r.Err(), rpctypes.ErrCompacted) {
					t.Errorf("a watch from %d: %v", from, r.Err())
				}
			}
			w := c.Watch(ctx, "/k/new", clientv3.WithRev(bumped+1))
			must[*clientv3.PutResponse](t)(c.Put(ctx, "/k/new", "x"))
			if r := <-w; len(r.Events) != 1 || r.Events[0].Kv.ModRevision != bumped+1 {
				t.Errorf("a watch from beyond the bump: %+v", r)
			}
			path = save(t, c)
			db := open(t, path)
			var holes int
			err := db.Walk(ctx, 0, func(ch Change) error {
				if ch.Placeholder() {
					holes++
				}
				return nil
			})
			if err != nil || holes != 1 {
				t.Errorf("%d placeholders: %v", holes, err)
			}
			compare(t, c, db, []int64{bumped, bumped + 1})

			again, _ := restored(t, version, 1, RestoreOptions{Path: path, BumpRevision: 10})
			if got := revisionOf(t, again.Members[0].Dial()); got != bumped+11 {
				t.Errorf("restored again at %d, want %d", got, bumped+11)
			}
		})
	}
}

// TestRestoreThreeMembers restores one snapshot, as a stream, to three members that
// find each other.
func TestRestoreThreeMembers(t *testing.T) {
	t.Parallel()
	for _, version := range versions {
		t.Run("etcd-"+version, func(t *testing.T) {
			t.Parallel()
			l := lab(t, version)
			c := l.Members[0].Dial()
			churn(t, c, rand.New(rand.NewPCG(6, 6)), grant(t, c, 2), 100)
			path, want := save(t, c), served(t, c, 0)
			l, done := restored(t, version, 3, RestoreOptions{Path: path, Token: "one", BumpRevision: 7})
			if done[0].ClusterID != done[1].ClusterID || done[1].ClusterID != done[2].ClusterID || done[0].MemberID == done[1].MemberID {
				t.Errorf("IDs differ where they must be equal: %+v", done)
			}
			l.Members[0].Kill()
			for _, m := range l.Members[1:] {
				c := m.Dial()
				etcdlab.Until(t, "a leader", m.Ask)
				if diff := cmp.Diff(want, served(t, c, done[0].Revision)); diff != "" {
					t.Errorf("%s: -source +restored:\n%s", m.Name, diff)
				}
				must[*clientv3.PutResponse](t)(c.Put(t.Context(), "by", m.Name))
			}
		})
	}
}

// TestRestoreToNewer starts newer etcds on restores of older snapshots.
func TestRestoreToNewer(t *testing.T) {
	t.Parallel()
	for _, way := range [][2]string{{"3.5.35", "3.6.16"}, {"3.6.16", ""}, {"3.5.35", ""}} {
		t.Run(way[0]+" to "+way[1], func(t *testing.T) {
			t.Parallel()
			c := lab(t, way[0]).Members[0].Dial()
			churn(t, c, rand.New(rand.NewPCG(8, 8)), grant(t, c, 2), 100)
			path, want := save(t, c), served(t, c, 0)
			l, _ := restored(t, way[1], 1, RestoreOptions{Path: path})
			if diff := cmp.Diff(want, served(t, l.Members[0].Dial(), 0)); diff != "" {
				t.Errorf("-source +restored:\n%s", diff)
			}
		})
	}
}

// TestRestoreAlarms restores a snapshot with alarms.
func TestRestoreAlarms(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	l := lab(t, "")
	c := l.Members[0].Dial()
	must[*clientv3.PutResponse](t)(c.Put(ctx, "k", "v"))
	maintenance := etcdserverpb.NewMaintenanceClient(c.ActiveConnection())
	for _, kind := range []etcdserverpb.AlarmType{etcdserverpb.AlarmType_NOSPACE, etcdserverpb.AlarmType_CORRUPT} {
		_, err := maintenance.Alarm(ctx, &etcdserverpb.AlarmRequest{Action: etcdserverpb.AlarmRequest_ACTIVATE, MemberID: 5, Alarm: kind})
		if err != nil {
			t.Fatal(err)
		}
	}
	path := save(t, c)
	two := []Alarm{{MemberID: 5, Name: "NOSPACE"}, {MemberID: 5, Name: "CORRUPT"}}
	if info := open(t, path).Info(); !slices.Equal(info.Alarms, two) {
		t.Errorf("alarms %v", info.Alarms)
	}
	_, done := restored(t, "", 1, RestoreOptions{Path: path, DisarmCorrupt: true})
	if !slices.Equal(done[0].Disarmed, two) || len(done[0].Kept) > 0 {
		t.Errorf("both were to go: %+v", done[0])
	}
	home := t.TempDir()
	o := RestoreOptions{Path: path, Dir: filepath.Join(home, "data"), Name: "a", InitialCluster: map[string][]string{"a": {"http://127.0.0.1:1"}}}
	one, err := Restore(ctx, o)
	if err != nil || !slices.Equal(one.Disarmed, two[:1]) || !slices.Equal(one.Kept, two[1:]) {
		t.Errorf("CORRUPT was to stay: %+v, %v", one, err)
	}
	db := open(t, filepath.Join(o.Dir, "member", "snap", "db"))
	if info := db.Info(); !slices.Equal(info.Alarms, two[1:]) || len(info.Members) != 1 || info.Members[0].ID != one.MemberID || info.ConsistentIndex != 1 || info.Term != 1 {
		t.Errorf("the new database: %+v", info)
	}
	if tail := mustRead(t, o.Dir); tail.ClusterID != one.ClusterID || tail.MemberID != one.MemberID || tail.LastIndex != 1 {
		t.Errorf("the new log: %+v", tail)
	}
}

const killedDir = "QUORATE_TEST_RESTORE_KILLED"

// dripping gives a snapshot a little at a time.
type dripping struct{ src io.Reader }

func (d dripping) Read(p []byte) (int, error) {
	time.Sleep(time.Millisecond)
	return d.src.Read(p[:min(len(p), 64<<10)])
}

func restoreOptions(home string) RestoreOptions {
	return RestoreOptions{
		Path: filepath.Join(home, "snapshot.db"), Dir: filepath.Join(home, "data"), Name: "a", BumpRevision: 5,
		InitialCluster: map[string][]string{"a": {"http://127.0.0.1:2380"}, "b": {"http://127.0.0.1:2381"}},
	}
}

// restoreToBeKilled is what the child process does.
func restoreToBeKilled(home string) {
	o := restoreOptions(home)
	src, err := os.Open(o.Path)
	if err == nil {
		o.Snapshot = dripping{src}
		_, err = Restore(context.Background(), o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// TestRestoreKilled kills restores at moments of all kinds: what looks like a data
// directory is one, whole, and the next restore does away with the rest.
func TestRestoreKilled(t *testing.T) {
	t.Parallel()
	raw := sealed(t, synthetic(t, 3000, 2000))
	var before, after int
	for i := range 25 {
		home := t.TempDir()
		if err := os.WriteFile(filepath.Join(home, "snapshot.db"), raw, 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), killedDir+"="+home)
		var said strings.Builder
		cmd.Stderr = &said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		partial := filepath.Join(home, "data"+partialMark)
		for start := time.Now(); time.Since(start) < 20*time.Second; {
			if _, err := os.Lstat(partial); err == nil {
				break
			}
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Duration(i*i) * time.Millisecond)
		if err := errors.Join(cmd.Process.Kill()); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		o := restoreOptions(home)
		if tail, err := ReadTail(o.Dir); err != nil {
			t.Fatalf("%d: %v %s", i, err, said.String())
		} else if !tail.Empty {
			after++
			if info, err := CheckSnapshot(t.Context(), filepath.Join(o.Dir, "member", "snap", "db"), CheckOptions{AllowNoHash: true}); err != nil || info.ConsistentIndex != 2 {
				t.Fatalf("%d: %+v, %v", i, info, err)
			}
			continue
		}
		before++
		if _, err := os.Lstat(o.Dir); err == nil {
			t.Fatalf("%d: a directory is there, and empty", i)
		}
		if tail, err := ReadTail(partial); err == nil && !tail.Empty {
			t.Fatalf("%d: what is unfinished looks like a data directory", i)
		}
		if _, err := Restore(t.Context(), o); err != nil {
			t.Fatalf("%d: the next one: %v", i, err)
		}
		nothingLeft(t, o.Dir)
	}
	t.Logf("killed %d restores before their end and %d after it", before, after)
	if before == 0 {
		t.Error("every restore was over before it was killed")
	}
}
