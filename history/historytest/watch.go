package historytest

import (
	"maps"
	"slices"
	"time"

	"github.com/quorate/quorate/history"
)

func (s *simulation) doLease(o *history.Operation) {
	o.Revision, s.applied[int(o.Endpoint[1]-'1')] = s.rev, s.rev
	switch o.Kind {
	case history.Compact:
		o.Revision = min(max(o.Revision, s.compact+1), s.rev)
		if o.Revision <= s.compact {
			o.Outcome, o.Error = history.Failed, "etcdserver: mvcc: required revision has been compacted"
			return
		}
		s.compact = o.Revision
	case history.LeaseGrant:
		o.Lease = 0x1000 + int64(s.order)
		s.leases[o.Lease] = &leaseState{id: o.Lease, ttl: o.TTL, keys: map[int]bool{}}
		s.renew(o.Lease)
		s.open = append(s.open, o.Lease)
		if len(s.open) > 8 {
			s.open = s.open[1:]
		}
	case history.LeaseRenew:
		l := s.leases[o.Lease]
		if l == nil {
			o.TTL = -1
			return
		}
		o.TTL = l.ttl
		s.renew(o.Lease)
	case history.LeaseTTL:
		l := s.leases[o.Lease]
		if l == nil {
			o.TTL = -1
			return
		}
		o.TTL = (l.expires - s.now) / int64(time.Second)
		o.TTL = max(o.TTL, 0) // etcd tells whole seconds
	case history.LeaseRevoke:
		if s.leases[o.Lease] == nil {
			if o.Outcome == history.OK {
				o.Outcome, o.Error = history.Failed, "etcdserver: requested lease not found"
			}
			return
		}
		s.end(o.Lease)
		o.Revision, s.applied[int(o.Endpoint[1]-'1')] = s.rev, s.rev
	default:
	}
}

func (s *simulation) renew(id int64) {
	l := s.leases[id]
	l.expires = s.now + l.ttl*int64(time.Second) + s.some()
	s.push(&pending{at: l.expires, lease: id})
}

// expire ends a lease, unless it was renewed meanwhile.
func (s *simulation) expire(id int64) {
	if l := s.leases[id]; l != nil && l.expires <= s.now {
		s.end(id)
	}
}

func (s *simulation) end(id int64) {
	l := s.leases[id]
	before := len(s.log)
	for _, k := range slices.Sorted(maps.Keys(l.keys)) {
		s.set(k, version{deleted: true})
	}
	if len(s.log) > before {
		s.rev++
	}
	delete(s.leases, id)
	s.open = slices.DeleteFunc(s.open, func(o int64) bool { return o == id })
}

// finish lets several watches see the log, and takes the members' hashes.
func (s *simulation) finish() *history.History {
	s.rev += 2 // somebody writes elsewhere, so that progress is told behind the last event
	all := func(w history.Watch) history.Watch {
		w.Key, w.End = Prefix, "/check0"
		return w
	}
	s.watch(all(history.Watch{Endpoint: "m1", Truth: true, StartRevision: firstRevision + 1}), 0)
	for _, m := range s.members {
		s.watch(all(history.Watch{Endpoint: m, PrevKV: true, Progress: true, StartRevision: firstRevision + 1}), 0)
	}
	s.watch(all(history.Watch{Endpoint: "m2", NoPut: true, StartRevision: firstRevision + 1}), 0)
	s.watch(all(history.Watch{Endpoint: "m3", NoDelete: true, Progress: true, StartRevision: firstRevision + 1}), 0)
	half := len(s.keys) / 2
	s.watch(history.Watch{Endpoint: "m1", Key: s.keys[0], End: s.keys[half]}, s.now/4)
	s.watch(history.Watch{Endpoint: "m2", Key: s.keys[0]}, s.now/3)
	s.watch(all(history.Watch{Endpoint: "m3", StartRevision: max(firstRevision+1, s.compact, (s.rev+firstRevision)/2)}), s.now)
	if s.compact > firstRevision+1 {
		s.h.Watches = append(s.h.Watches, all(history.Watch{
			ID: len(s.h.Watches) + 1, Client: 1000, Endpoint: "m1", StartRevision: firstRevision + 1,
			Responses: []history.WatchResponse{
				{At: s.now + 1, Revision: s.rev, Created: true},
				{At: s.now + 2, Revision: s.rev, Canceled: true, CompactRevision: s.compact, Error: "etcdserver: mvcc: required revision has been compacted"},
			},
		}))
	}
	for _, m := range s.members {
		s.h.Hashes = append(s.h.Hashes, history.Hash{Member: m, Revision: s.rev, CompactRevision: s.compact, Hash: 0x5eed5eed, At: s.now + 10})
	}
	return s.h
}

// watch delivers the log to one watch that was made at a time.
func (s *simulation) watch(w history.Watch, made int64) {
	w.ID, w.Client = len(s.h.Watches)+1, 1000+len(s.h.Watches)
	at := made
	now := int64(firstRevision) // the revision at which it was made
	for i := range s.log {
		if s.log[i].at <= made {
			now = s.log[i].rev
		}
	}
	if w.StartRevision > 0 && made == 0 {
		now = firstRevision
	}
	w.Responses = append(w.Responses, history.WatchResponse{At: at, Revision: now, Created: true})
	from := w.StartRevision
	if from == 0 {
		from = now + 1
	}
	var r history.WatchResponse
	room := 1
	send := func() {
		if len(r.Events) > 0 {
			r.At, r.Revision = at, r.Events[len(r.Events)-1].KV.ModRevision
			w.Responses = append(w.Responses, r)
		}
		r, room = history.WatchResponse{}, 1+s.rnd.IntN(4)
	}
	for i := range s.log {
		rec := &s.log[i]
		if rec.rev < from {
			continue
		}
		at = max(at, rec.at+s.some()/4)
		if e, ok := s.event(rec, &w); ok {
			r.Events = append(r.Events, e)
		}
		if i+1 < len(s.log) && s.log[i+1].rev == rec.rev {
			continue // a revision stays whole
		}
		if room--; room > 0 {
			continue
		}
		send()
		if w.Progress && s.rnd.IntN(20) == 0 {
			w.Responses = append(w.Responses, history.WatchResponse{At: at, Revision: rec.rev, Progress: true})
		}
	}
	send()
	w.Responses = append(w.Responses, history.WatchResponse{At: max(at, s.now) + 1, Revision: s.rev, Progress: true})
	s.h.Watches = append(s.h.Watches, w)
}

func (s *simulation) event(rec *record, w *history.Watch) (history.Event, bool) {
	key := s.keys[rec.key]
	switch {
	case w.End == "" && key != w.Key, w.End != "" && (key < w.Key || key >= w.End), w.NoPut && !rec.deleted, w.NoDelete && rec.deleted:
		return history.Event{}, false
	}
	e := history.Event{Deleted: rec.deleted, Create: !rec.deleted && rec.create == rec.version.rev, KV: history.KeyValue{Key: key, ModRevision: rec.rev}}
	if !rec.deleted {
		e.KV = s.kv(rec.key, &rec.version)
	}
	if w.PrevKV && rec.prev != nil {
		prev := s.kv(rec.key, rec.prev)
		e.PrevKV = &prev
	}
	return e, true
}
