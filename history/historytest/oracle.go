package historytest

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/quorate/quorate/history"
)

// Linearizable says by porcupine alone, with a model of etcd of its own, whether a
// small history of keys and transactions is linearizable. Of the truth watch it takes
// what each revision changed, and not when. It knows of no leases and serializable
// reads. An error means that it took too long.
func Linearizable(h *history.History) (bool, error) {
	var calls []porcupine.Operation
	for i := range h.Operations {
		o := &h.Operations[i]
		if o.Outcome == history.Failed {
			continue
		}
		calls = append(calls, porcupine.Operation{ClientId: o.Client, Input: o, Output: o, Call: o.Call, Return: o.Return})
	}
	t := changesOf{}
	for _, e := range truth(h) {
		if t[e.KV.ModRevision] == nil {
			t[e.KV.ModRevision] = map[string]string{}
		}
		t[e.KV.ModRevision][e.KV.Key] = what(e.Deleted, e.KV.Value)
	}
	end := &history.Operation{Outcome: history.OK}
	calls = append(calls, porcupine.Operation{Input: end, Return: history.Never}) // nothing is left to happen
	model := porcupine.Model{
		Init:  func() any { return world{rev: h.Meta.StartRevision} },
		Step:  func(state, input, _ any) (bool, any) { return t.step(state.(world), input.(*history.Operation)) }, //nolint:errcheck,forcetypeassert // nothing else is put in
		Equal: func(a, b any) bool { return a.(world).equal(b.(world)) },                                          //nolint:errcheck,forcetypeassert // nothing else is put in
	}
	switch porcupine.CheckOperationsTimeout(model, calls, oracleTime) {
	case porcupine.Ok:
		return true, nil
	case porcupine.Illegal:
		return false, nil
	default:
		return false, fmt.Errorf("porcupine did not end in %s", oracleTime)
	}
}

const oracleTime = 20 * time.Second

// world is the whole keyspace at a revision. A step makes a new one.
type world struct {
	rev  int64
	keys map[string]history.KeyValue
}

func (w world) equal(other world) bool { return w.rev == other.rev && maps.Equal(w.keys, other.keys) }

// changesOf is what each revision changed, by key.
type changesOf map[int64]map[string]string

func what(deleted bool, value string) string {
	if deleted {
		return "deleted"
	}
	return "put " + value
}

// next is the first revision behind another that changed something; 0 if none did.
func (t changesOf) next(rev int64) int64 {
	var first int64
	for r := range t {
		if r > rev && (first == 0 || r < first) {
			first = r
		}
	}
	return first
}

// step is one operation on the world; false if it can't have been answered so. An
// operation without an answer may also not happen.
func (t changesOf) step(w world, o *history.Operation) (bool, world) {
	following := t.next(w.rev)
	if o.Kind == "" {
		return following == 0, w
	}
	held := !slices.ContainsFunc(o.If, func(d history.Condition) bool { return !w.satisfies(d) })
	requests := o.Then
	if !held {
		requests = o.Else
	}
	next, results, done := w.perform(requests, following)
	happens := len(done) == 0 || maps.Equal(done, t[following])
	if len(done) > 0 {
		next.rev = following
	}
	if o.Outcome == history.Unknown {
		if happens {
			return true, next
		}
		return true, w
	}
	if len(done) == 0 { // somebody may have written elsewhere
		if o.Revision < w.rev || following > 0 && o.Revision >= following {
			return false, w
		}
		next.rev = o.Revision
	}
	if !happens || o.Revision != next.rev || o.Kind == history.Txn && o.Succeeded != held || len(results) != len(o.Results) {
		return false, w
	}
	for i := range results {
		a, b := results[i], o.Results[i]
		if a.Count != b.Count || a.More != b.More || a.Deleted != b.Deleted || !slices.Equal(a.KVs, b.KVs) {
			return false, w
		}
	}
	return true, next
}

// perform does requests at a revision, and says what it changed.
func (w world) perform(requests []history.Request, rev int64) (world, []history.Result, map[string]string) {
	next := world{w.rev, maps.Clone(w.keys)}
	if next.keys == nil {
		next.keys = map[string]history.KeyValue{}
	}
	done := map[string]string{}
	var results []history.Result
	for _, q := range requests {
		var res history.Result
		var found []history.KeyValue
		for _, key := range slices.Sorted(maps.Keys(next.keys)) {
			if key == q.Key || q.End != "" && key >= q.Key && key < q.End {
				found = append(found, next.keys[key])
			}
		}
		switch q.Kind {
		case history.Put:
			kv := history.KeyValue{Key: q.Key, Value: q.Value, Version: 1, CreateRevision: rev, ModRevision: rev, Lease: q.Lease}
			if len(found) == 1 {
				kv.Version, kv.CreateRevision = found[0].Version+1, found[0].CreateRevision
			}
			next.keys[q.Key] = kv
			done[q.Key] = what(false, q.Value)
		case history.Delete:
			for _, kv := range found {
				delete(next.keys, kv.Key)
				done[kv.Key] = what(true, "")
			}
			res.Deleted = int64(len(found))
		default:
			res.Count, res.KVs = int64(len(found)), found
			if q.Limit > 0 && res.Count > q.Limit {
				res.KVs, res.More = found[:q.Limit], true
			}
		}
		results = append(results, res)
	}
	return next, results, done
}

func (w world) satisfies(d history.Condition) bool {
	kv, there := w.keys[d.Key]
	var way int
	switch d.Field {
	case history.FieldValue:
		if !there {
			return false
		}
		way = strings.Compare(kv.Value, d.Value)
	case history.FieldVersion:
		way = int(kv.Version - d.Number)
	case history.FieldCreate:
		way = int(kv.CreateRevision - d.Number)
	case history.FieldMod:
		way = int(kv.ModRevision - d.Number)
	default:
		way = int(kv.Lease - d.Number)
	}
	return d.Op == "=" && way == 0 || d.Op == "!=" && way != 0 || d.Op == "<" && way < 0 || d.Op == ">" && way > 0
}

// GenerateSmall makes a correct history of about n operations that Linearizable can
// judge: keys and transactions alone, and nobody writing elsewhere. It has a truth
// watch.
func GenerateSmall(seed uint64, n, clients int) *history.History {
	s := newSimulation(seed, n, max(clients, 1))
	s.small = true
	s.keys = s.keys[:4]
	s.run(n)
	s.watch(history.Watch{Key: Prefix, End: "/check0", Truth: true, StartRevision: firstRevision + 1}, 0)
	return s.h
}

// Scramble edits one answer at random, so that the history is broken as a rule, but
// not always. It says what it did.
func Scramble(h *history.History, seed uint64) string {
	rnd := rand.New(rand.NewPCG(seed, 9)) //nolint:gosec // the same for the same seed
	var answered []int
	for i := range h.Operations {
		if h.Operations[i].Outcome == history.OK {
			answered = append(answered, i)
		}
	}
	for {
		i := answered[rnd.IntN(len(answered))]
		o := &h.Operations[i]
		j := answered[rnd.IntN(len(answered))]
		what := ""
		switch rnd.IntN(6) {
		case 0:
			o.Revision += int64(1 - 2*rnd.IntN(2))
			what = "revision"
		case 1:
			if o.Kind == history.Txn && len(o.If) > 0 && len(o.Then) == len(o.Else) {
				o.Succeeded = !o.Succeeded
				what = "outcome"
			}
		case 2:
			for r := range o.Results {
				if kvs := o.Results[r].KVs; len(kvs) > 0 {
					kvs = slices.Clone(kvs)
					kvs[0].Version++
					o.Results[r].KVs = kvs
					what = "version"
				}
			}
		case 3:
			for r := range o.Results {
				if len(o.Results[r].KVs) > 0 {
					o.Results[r].KVs, o.Results[r].Count = o.Results[r].KVs[1:], o.Results[r].Count-1
					what = "a key less"
					break
				}
			}
		case 4:
			length := o.Return - o.Call
			o.Call = h.Operations[j].Call
			o.Return = o.Call + length
			what = "time"
		default:
			if o.Kind == history.Delete {
				o.Results[0].Deleted++
				what = "deleted"
			}
		}
		if what != "" {
			return fmt.Sprintf("%s of operation %d: %s", what, i, o)
		}
	}
}
