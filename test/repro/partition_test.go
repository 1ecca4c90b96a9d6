package repro_test

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/quorate/quorate/history"
	"github.com/quorate/quorate/test/netlab"
)

// watchOverSnapshot has a watch at a member that gets a snapshot, when the watch has
// already delivered changes: it must not deliver them again (#15271).
func watchOverSnapshot(s *stage) {
	network := s.partitioned(labOptions{})
	c, behind := s.client(s.Members[0]), s.Members[2]
	w := s.resume(behind, s.start+1)
	s.awaits(w, s.put(c, "k"))
	s.helped(network, behind)
	s.awaits(w, s.put(c, "last"))
}

// watchAheadOfSnapshot has a watch at a member that gets a snapshot, when the watch
// begins at a revision behind that of the snapshot. It must not begin earlier
// (#20221).
func watchAheadOfSnapshot(s *stage) {
	network := s.partitioned(labOptions{})
	c, behind := s.client(s.Members[0]), s.Members[2]
	s.put(c, "k")
	s.read(s.client(behind))
	var w watching
	var beyond int64
	last := s.helped(network, behind, func() error {
		beyond = s.read(c) + entries/5
		w = s.resume(behind, beyond)
		return nil
	})
	for ; last < beyond; last++ {
		s.put(c, "k")
	}
	s.awaits(w, s.put(c, "last"))
}

// permissionsInSnapshot adds a user while a member is cut off, which then gets users
// and roles by a snapshot: it must permit what the others permit (#14571).
func permissionsInSnapshot(s *stage) {
	network := s.partitioned(labOptions{auth: true})
	c, behind := s.client(s.Members[0]), s.Members[2]
	s.put(c, "k")
	s.read(s.client(behind))
	auth := c.Etcd().Auth
	s.helped(network, behind,
		func() error { _, err := auth.RoleAdd(s.ctx, "writer"); return err },
		func() error {
			_, err := auth.RoleGrantPermission(s.ctx, "writer", prefix, prefixEnd, clientv3.PermissionType(clientv3.PermReadWrite))
			return err
		},
		func() error { _, err := auth.UserAdd(s.ctx, "alice", password); return err },
		func() error { _, err := auth.UserGrantRole(s.ctx, "alice", "writer"); return err },
	)
	s.User = "alice"
	alice := s.client(s.Members[0])
	s.User = "root"
	for i := range 5 {
		s.put(alice, fmt.Sprint("k", i))
	}
	for i := range 10 {
		s.put(c, fmt.Sprint("k", i))
	}
	for _, m := range s.Members {
		s.read(s.client(m))
	}
}

// entries are more than the log keeps for a member that is behind.
const entries = 6400

// partitioned starts three members on hosts of their own.
func (s *stage) partitioned(o labOptions) *netlab.Lab {
	s.t.Helper()
	network, err := netlab.New(netlab.Options{Hosts: []netlab.HostSpec{{Name: "m1"}, {Name: "m2"}, {Name: "m3"}}})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := network.Close(); err != nil {
			s.t.Error(err)
		}
	})
	o.members, o.hosts, o.flags = 3, network.Hosts(), []string{"--snapshot-count=100"}
	s.cluster(o)
	return network
}

// helped cuts a member off until the others can help it by a snapshot alone, and
// returns their revision. The steps are done meanwhile.
func (s *stage) helped(network *netlab.Lab, m *member, steps ...func() error) int64 {
	s.t.Helper()
	if err := network.Isolate(m.Host.Name); err != nil {
		s.t.Fatal(err)
	}
	s.until("the others have a leader", s.Members[0].Ask)
	c := s.client(s.Members[0])
	for i := range 20 {
		s.put(c, fmt.Sprint("k", i))
	}
	// What is on its way to it yet comes when it is back: hundreds of entries. The
	// steps come behind them, and the snapshot behind the steps.
	s.fill(entries)
	s.each(steps...)
	s.fill(entries / 10)
	if err := network.Heal(); err != nil {
		s.t.Fatal(err)
	}
	s.until(m.Name+" has what the others have", func(ctx context.Context) error {
		// An etcd that got a snapshot takes no proposal, not even a login, before it has
		// applied an entry that comes behind the snapshot.
		if _, err := c.Etcd().Put(ctx, "/beside/entry", ""); err != nil {
			return err
		}
		return m.Ask(ctx)
	})
	s.logged(m, "applied snapshot")
	return s.read(c)
}

// fill makes entries of the log, beside the prefix.
func (s *stage) fill(count int) {
	s.t.Helper()
	const writers = 32
	var all sync.WaitGroup
	failed := make(chan error, writers)
	for w := range writers {
		c := s.client(s.Members[w%2])
		all.Go(func() {
			for i := range count / writers {
				if _, err := c.Etcd().Put(s.ctx, "/beside/"+strconv.Itoa(w), strconv.Itoa(i)); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	all.Wait()
	close(failed)
	if err := <-failed; err != nil {
		s.t.Fatal(err)
	}
}

// watching is a watch that the recorder does not keep.
type watching struct {
	created   chan struct{}
	delivered chan int64
}

// resume watches at a member that may have no leader, which the recorder's watches do
// not bear. It is in the history when the stage is judged.
func (s *stage) resume(m *member, from int64) watching {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.ctx)
	c := m.Dial()
	id := 1000 + len(s.more)
	w := history.Watch{ID: id, Client: id, Endpoint: m.Client, Key: prefix, End: prefixEnd, StartRevision: from}
	told, done := watching{make(chan struct{}), make(chan int64, 2*entries)}, make(chan struct{})
	go func() {
		defer close(done)
		for r := range c.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(from), clientv3.WithCreatedNotify()) {
			w.Responses = append(w.Responses, responseOf(s.rec.Now(), r))
			if r.Created {
				close(told.created)
			}
			for _, e := range r.Events {
				told.delivered <- e.Kv.ModRevision
			}
		}
	}()
	s.more = append(s.more, sync.OnceValue(func() history.Watch {
		cancel()
		<-done
		_ = c.Close()
		return w
	}))
	s.t.Cleanup(func() { _ = s.more[id-1000]() })
	select {
	case <-told.created:
	case <-time.After(patience):
		s.t.Fatalf("the watch at %s was not created", m.Name)
	}
	return told
}

// awaits that a watch delivers a revision.
func (s *stage) awaits(w watching, revision int64) {
	s.t.Helper()
	late := time.After(patience)
	for {
		select {
		case r := <-w.delivered:
			if r == revision {
				return
			}
		case <-late:
			s.t.Fatalf("the watch did not deliver revision %d", revision)
		}
	}
}

func responseOf(at int64, r clientv3.WatchResponse) history.WatchResponse {
	resp := history.WatchResponse{
		At: at, Revision: r.Header.Revision, Created: r.Created, Canceled: r.Canceled, CompactRevision: r.CompactRevision,
		Progress: r.IsProgressNotify(),
	}
	for _, e := range r.Events {
		resp.Events = append(resp.Events, history.Event{
			Deleted: e.Type == clientv3.EventTypeDelete, Create: e.IsCreate(),
			KV: history.KeyValue{
				Key: string(e.Kv.Key), Value: string(e.Kv.Value), Version: e.Kv.Version,
				CreateRevision: e.Kv.CreateRevision, ModRevision: e.Kv.ModRevision, Lease: e.Kv.Lease,
			},
		})
	}
	return resp
}
