package history

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"unicode/utf8"
)

// errPlain marks a line that is not written as the Writer writes it. It may still be
// right: encoding/json decides, which takes four times as long.
var errPlain = errors.New("not plain")

// cursor reads the JSON that the Writer writes: no spaces, no null, known names.
type cursor struct {
	b    []byte
	i    int
	seen interner
}

func (c *cursor) is(ch byte) bool {
	if c.i < len(c.b) && c.b[c.i] == ch {
		c.i++
		return true
	}
	return false
}

// object calls field with each name, at its value.
func (c *cursor) object(field func(name []byte) error) error {
	if !c.is('{') {
		return errPlain
	}
	if c.is('}') {
		return nil
	}
	for {
		name, err := c.raw()
		if err != nil || !c.is(':') {
			return errPlain
		}
		if err = field(name); err != nil {
			return err
		}
		if c.is('}') {
			return nil
		}
		if !c.is(',') {
			return errPlain
		}
	}
}

// list reads an array; one reads its next element.
func list[T any](c *cursor, to *[]T, one func(*T) error) error {
	if !c.is('[') {
		return errPlain
	}
	all := make([]T, 0, 1)
	for {
		var t T
		if err := one(&t); err != nil {
			return err
		}
		all = append(all, t)
		if c.is(']') {
			*to = all
			return nil
		}
		if !c.is(',') {
			return errPlain
		}
	}
}

// raw is a string without escapes.
func (c *cursor) raw() ([]byte, error) {
	if !c.is('"') {
		return nil, errPlain
	}
	from := c.i
	for ; c.i < len(c.b); c.i++ {
		switch ch := c.b[c.i]; {
		case ch == '"':
			c.i++
			return c.b[from : c.i-1], nil
		case ch == '\\' || ch < ' ':
			return nil, errPlain
		}
	}
	return nil, errPlain
}

func (c *cursor) text(to *string) error {
	raw, err := c.raw()
	if err != nil {
		return err
	}
	if kept, ok := c.seen[string(raw)]; ok {
		*to = kept
		return nil
	}
	if !utf8.Valid(raw) {
		return errPlain
	}
	*to = string(raw)
	c.seen[*to] = *to
	return nil
}

func (c *cursor) number(to *int64) error {
	from := c.i
	for c.i < len(c.b) && (c.b[c.i] >= '0' && c.b[c.i] <= '9' || c.b[c.i] == '-') {
		c.i++
	}
	digits := c.b[from:c.i]
	if len(digits) > 1 && (digits[0] == '0' || digits[0] == '-' && digits[1] == '0') { // no JSON
		return errPlain
	}
	n, err := strconv.ParseInt(string(digits), 10, 64)
	if err != nil {
		return errPlain
	}
	*to = n
	return nil
}

func (c *cursor) count(to *int) error {
	var n int64
	err := c.number(&n)
	*to = int(n)
	return err
}

func (c *cursor) truth(to *bool) error {
	const word = "true" // false is left out
	if c.i+len(word) > len(c.b) || string(c.b[c.i:c.i+len(word)]) != word {
		return errPlain
	}
	c.i += len(word)
	*to = true
	return nil
}

// plain reads a line with an operation or a response, which most are.
func (l *line) plain(b []byte, seen interner) error {
	c := &cursor{b: b, seen: seen}
	err := c.object(func(name []byte) error {
		switch string(name) {
		case "op":
			l.Operation = &Operation{}
			return c.operation(l.Operation)
		case "response":
			l.Response = &responseLine{}
			return c.response(l.Response)
		default:
			return errPlain
		}
	})
	if err == nil && c.i != len(b) {
		return errPlain
	}
	return err
}

func (c *cursor) operation(o *Operation) error {
	return c.object(func(name []byte) error {
		switch string(name) {
		case "client":
			return c.count(&o.Client)
		case "endpoint":
			return c.text(&o.Endpoint)
		case "call":
			return c.number(&o.Call)
		case "return":
			return c.number(&o.Return)
		case "kind":
			return c.text((*string)(&o.Kind))
		case "outcome":
			return c.text((*string)(&o.Outcome))
		case "error":
			return c.text(&o.Error)
		case "if":
			return list(c, &o.If, c.condition)
		case "then":
			return list(c, &o.Then, c.request)
		case "else":
			return list(c, &o.Else, c.request)
		case "serializable":
			return c.truth(&o.Serializable)
		case "revision":
			return c.number(&o.Revision)
		case "succeeded":
			return c.truth(&o.Succeeded)
		case "results":
			return list(c, &o.Results, c.result)
		case "lease":
			return c.number(&o.Lease)
		case "ttl":
			return c.number(&o.TTL)
		default:
			return errPlain
		}
	})
}

func (c *cursor) condition(d *Condition) error {
	return c.object(func(name []byte) error {
		switch string(name) {
		case "key":
			return c.text(&d.Key)
		case "field":
			return c.text((*string)(&d.Field))
		case "op":
			return c.text(&d.Op)
		case "value":
			return c.text(&d.Value)
		case "number":
			return c.number(&d.Number)
		default:
			return errPlain
		}
	})
}

func (c *cursor) request(q *Request) error {
	return c.object(func(name []byte) error {
		switch string(name) {
		case "kind":
			return c.text((*string)(&q.Kind))
		case "key":
			return c.text(&q.Key)
		case "end":
			return c.text(&q.End)
		case "value":
			return c.text(&q.Value)
		case "lease":
			return c.number(&q.Lease)
		case "limit":
			return c.number(&q.Limit)
		case "revision":
			return c.number(&q.Revision)
		case "prevKV":
			return c.truth(&q.PrevKV)
		default:
			return errPlain
		}
	})
}

func (c *cursor) result(r *Result) error {
	return c.object(func(name []byte) error {
		switch string(name) {
		case "kvs":
			return list(c, &r.KVs, c.keyValue)
		case "count":
			return c.number(&r.Count)
		case "more":
			return c.truth(&r.More)
		case "deleted":
			return c.number(&r.Deleted)
		default:
			return errPlain
		}
	})
}

func (c *cursor) keyValue(kv *KeyValue) error {
	return c.object(func(name []byte) error {
		switch string(name) {
		case "key":
			return c.text(&kv.Key)
		case "value":
			return c.text(&kv.Value)
		case "version":
			return c.number(&kv.Version)
		case "create":
			return c.number(&kv.CreateRevision)
		case "mod":
			return c.number(&kv.ModRevision)
		case "lease":
			return c.number(&kv.Lease)
		default:
			return errPlain
		}
	})
}

func (c *cursor) response(r *responseLine) error {
	return c.object(func(name []byte) error {
		switch string(name) {
		case "id":
			return c.count(&r.Watch)
		case "at":
			return c.number(&r.At)
		case "revision":
			return c.number(&r.Revision)
		case "created":
			return c.truth(&r.Created)
		case "progress":
			return c.truth(&r.Progress)
		case "fragment":
			return c.truth(&r.Fragment)
		case "canceled":
			return c.truth(&r.Canceled)
		case "compactRevision":
			return c.number(&r.CompactRevision)
		case "error":
			return c.text(&r.Error)
		case "events":
			return list(c, &r.Events, c.event)
		default:
			return errPlain
		}
	})
}

func (c *cursor) event(e *Event) error {
	return c.object(func(name []byte) error {
		switch string(name) {
		case "deleted":
			return c.truth(&e.Deleted)
		case "isCreate":
			return c.truth(&e.Create)
		case "kv":
			return c.keyValue(&e.KV)
		case "prev":
			e.PrevKV = &KeyValue{}
			return c.keyValue(e.PrevKV)
		default:
			return errPlain
		}
	})
}

// decode reads a line in whichever way it is written.
func decode(text []byte, l *line, seen interner) error {
	if l.plain(text, seen) == nil {
		return nil
	}
	*l = line{}
	return strict(text, l)
}

// strict refuses names that this version does not know: who leaves out half of what was
// asked for judges something else.
func strict(text []byte, to any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(to); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more follows its end")
	}
	return nil
}
