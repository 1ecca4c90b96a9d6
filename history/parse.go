package history

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// batchBytes of lines are parsed by one goroutine at a time.
const batchBytes = 1 << 20

// parser puts lines together to a history.
type parser struct {
	h       *History
	watches map[int]int // index by ID
	seen    interner
}

// batch is a run of lines, and what they say.
type batch struct {
	first int // number of the first line
	text  []byte
	ends  []int
	lines []line
	err   error // of line first + len(lines)
	done  chan struct{}
}

// rest reads all lines behind the first. Lines are parsed side by side and added in
// their order.
func (p *parser) rest(s *scanner) error {
	window := runtime.GOMAXPROCS(0) + 1
	pending := make(chan *batch, window)
	stop := make(chan struct{})
	var readErr error
	go func() {
		defer close(pending)
		for {
			b, err := readBatch(s)
			go b.parse()
			select {
			case pending <- b:
			case <-stop:
				return
			}
			if err != nil {
				readErr = err // seen by whoever sees pending closed
				return
			}
		}
	}()
	var failed error
	for b := range pending {
		<-b.done
		if failed == nil {
			if failed = p.add(b); failed != nil {
				close(stop)
			}
		}
	}
	if failed != nil {
		return failed
	}
	return p.ended(readErr, s.line)
}

// ended says what the end of the lines means.
func (p *parser) ended(err error, at int) error {
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, zstd.ErrMagicMismatch), errors.Is(err, errTail):
		p.h.Torn = fmt.Sprintf("the file ends in the middle, at line %d: its recorder did not come to an end", at)
		return nil
	default:
		return fmt.Errorf("line %d of the history can't be read: %w", at, err)
	}
}

// errTail marks a last line without its end.
var errTail = errors.New("the last line has no end")

func readBatch(s *scanner) (*batch, error) {
	b := &batch{first: s.line + 1, done: make(chan struct{})}
	for len(b.text) < batchBytes {
		text, err := s.next()
		if errors.Is(err, io.EOF) && len(text) > 0 {
			return b, errTail
		}
		if err != nil {
			return b, err
		}
		b.text = append(b.text, text...)
		b.ends = append(b.ends, len(b.text))
	}
	return b, nil
}

func (b *batch) parse() {
	defer close(b.done)
	b.lines = make([]line, 0, len(b.ends))
	from := 0
	seen := interner{}
	for _, end := range b.ends {
		var l line
		if err := parseLine(b.text[from:end], &l, seen); err != nil {
			b.err = fmt.Errorf("line %d of the history: %w", b.first+len(b.lines), err)
			return
		}
		b.lines = append(b.lines, l)
		from = end
	}
	b.text = nil
}

func parseLine(text []byte, l *line, seen interner) error {
	if err := decode(text, l, seen); err != nil {
		return err
	}
	set := 0
	for _, is := range []bool{l.Operation != nil, l.Watch != nil, l.Response != nil, l.Hash != nil, l.Initial != nil, l.Disturbance != nil} {
		if is {
			set++
		}
	}
	if set != 1 {
		return fmt.Errorf("it holds %d of op, watch, response, hash, initial and disturbance, and must hold one", set)
	}
	if l.Operation != nil {
		return l.Operation.valid()
	}
	return nil
}

// within refuses what lies outside the prefix: nothing is known of who writes there.
func (l *line) within(prefix string) error {
	end := prefixEnd(prefix)
	inside := func(key string) bool { return strings.HasPrefix(key, prefix) }
	outside := func(key string) error { return fmt.Errorf("%q lies outside the prefix %q", key, prefix) }
	switch {
	case l.Operation != nil:
		o := l.Operation
		for i := range o.If {
			if !inside(o.If[i].Key) {
				return outside(o.If[i].Key)
			}
		}
		for _, branch := range [2][]Request{o.Then, o.Else} {
			for i := range branch {
				switch q := &branch[i]; {
				case !inside(q.Key):
					return outside(q.Key)
				case q.End == "", end == "\x00":
				case q.End == "\x00" || q.End > end:
					return fmt.Errorf("a %s up to %q reaches beyond the prefix %q", q.Kind, q.End, prefix)
				}
			}
		}
	case l.Response != nil:
		for i := range l.Response.Events {
			if key := l.Response.Events[i].KV.Key; !inside(key) {
				return outside(key)
			}
		}
	case l.Initial != nil && !inside(l.Initial.Key):
		return outside(l.Initial.Key)
	}
	return nil
}

// valid refuses what can't be judged.
func (o *Operation) valid() error {
	switch o.Kind {
	case Put, Delete, Range:
		if len(o.Then) != 1 || o.Then[0].Kind != o.Kind {
			return fmt.Errorf("a %s has one request of its own kind in then", o.Kind)
		}
	case Txn, LeaseGrant, LeaseRevoke, LeaseRenew, LeaseTTL, Compact:
	default:
		return fmt.Errorf("%q is no kind of operation", o.Kind)
	}
	switch o.Outcome {
	case OK, Failed, Unknown:
	default:
		return fmt.Errorf("%q is no outcome: it is %s, %s or %s", o.Outcome, OK, Failed, Unknown)
	}
	switch {
	case o.Call < 0:
		return fmt.Errorf("it is called at %d, before the history began", o.Call)
	case o.Return < o.Call:
		return fmt.Errorf("it returns at %d, before its call at %d", o.Return, o.Call)
	case o.Outcome == OK && o.Return == Never:
		return errors.New("it was answered, and never returns")
	case o.Outcome == Unknown:
		o.Return = Never // when its client gave up says nothing
	}
	if err := o.validTxn(); err != nil {
		return err
	}
	return o.validAnswer()
}

// validTxn refuses requests and conditions of an unknown kind.
func (o *Operation) validTxn() error {
	for _, branch := range [2][]Request{o.Then, o.Else} {
		for i := range branch {
			switch branch[i].Kind {
			case Put, Delete, Range:
			default:
				return fmt.Errorf("%q is no kind of request: it is %s, %s or %s", branch[i].Kind, Put, Delete, Range)
			}
		}
	}
	for i := range o.If {
		d := &o.If[i]
		switch d.Field {
		case FieldValue, FieldVersion, FieldCreate, FieldMod, FieldLease:
		default:
			return fmt.Errorf("%q is nothing that a condition compares", d.Field)
		}
		switch d.Op {
		case "=", "!=", "<", ">":
		default:
			return fmt.Errorf("%q is no comparison: it is =, !=, < or >", d.Op)
		}
	}
	return nil
}

// validAnswer refuses an answer that says too little to be judged.
func (o *Operation) validAnswer() error {
	if o.Outcome != OK {
		return nil
	}
	if !o.isKV() {
		if o.Lease == 0 && o.Kind != Compact {
			return fmt.Errorf("an answered %s names its lease", o.Kind)
		}
		return nil
	}
	branch := o.branch()
	switch {
	case o.Revision <= 0:
		return fmt.Errorf("an answered %s has the revision of its answer, and this has %d", o.Kind, o.Revision)
	case len(o.Results) > len(branch):
		return fmt.Errorf("it holds %d results of %d requests", len(o.Results), len(branch))
	}
	for i := len(o.Results); i < len(branch); i++ {
		if branch[i].Kind != Put || branch[i].PrevKV {
			return fmt.Errorf("the result of its %s is missing", branch[i].Kind)
		}
	}
	return nil
}

func (p *parser) add(b *batch) error {
	for i := range b.lines {
		l := &b.lines[i]
		if err := l.within(p.h.Meta.Prefix); err != nil {
			return fmt.Errorf("line %d of the history: %w", b.first+i, err)
		}
		switch {
		case l.Operation != nil:
			p.seen.operation(l.Operation)
			p.h.Operations = append(p.h.Operations, *l.Operation)
		case l.Watch != nil:
			if _, twice := p.watches[l.Watch.ID]; twice {
				return fmt.Errorf("line %d of the history: watch %d is there twice", b.first+i, l.Watch.ID)
			}
			p.watches[l.Watch.ID] = len(p.h.Watches)
			p.h.Watches = append(p.h.Watches, *l.Watch)
		case l.Response != nil:
			w, known := p.watches[l.Response.Watch]
			if !known {
				return fmt.Errorf("line %d of the history: a response to watch %d, which is not there before it", b.first+i, l.Response.Watch)
			}
			all := p.h.Watches[w].Responses
			if n := len(all); n > 0 && all[n-1].At > l.Response.At {
				return fmt.Errorf("line %d of the history: a response to watch %d at %d, behind one at %d", b.first+i, l.Response.Watch, l.Response.At, all[n-1].At)
			}
			p.seen.response(&l.Response.WatchResponse)
			p.h.Watches[w].Responses = append(all, l.Response.WatchResponse) //nolint:gocritic // all are these
		case l.Hash != nil:
			p.h.Hashes = append(p.h.Hashes, *l.Hash)
		case l.Initial != nil:
			p.h.Initial = append(p.h.Initial, *l.Initial)
		case l.Disturbance != nil:
			p.h.Meta.Disturbances = append(p.h.Meta.Disturbances, *l.Disturbance)
		}
	}
	b.lines = nil
	return b.err
}

// interner keeps one copy of each text: a value is written once and read often.
type interner map[string]string

func (in interner) text(s *string) {
	if *s == "" {
		return
	}
	if kept, ok := in[*s]; ok {
		*s = kept
		return
	}
	in[*s] = *s
}

func (in interner) operation(o *Operation) {
	in.text(&o.Endpoint)
	in.text((*string)(&o.Kind))
	in.text((*string)(&o.Outcome))
	in.text(&o.Error)
	for i := range o.If {
		c := &o.If[i]
		in.text(&c.Key)
		in.text(&c.Value)
		in.text(&c.Op)
		in.text((*string)(&c.Field))
	}
	for _, branch := range [][]Request{o.Then, o.Else} {
		for i := range branch {
			in.text((*string)(&branch[i].Kind))
			in.text(&branch[i].Key)
			in.text(&branch[i].End)
			in.text(&branch[i].Value)
		}
	}
	for i := range o.Results {
		for j := range o.Results[i].KVs {
			in.keyValue(&o.Results[i].KVs[j])
		}
	}
}

func (in interner) response(r *WatchResponse) {
	in.text(&r.Error)
	for i := range r.Events {
		in.keyValue(&r.Events[i].KV)
		if r.Events[i].PrevKV != nil {
			in.keyValue(r.Events[i].PrevKV)
		}
	}
}

func (in interner) keyValue(kv *KeyValue) {
	in.text(&kv.Key)
	in.text(&kv.Value)
}
