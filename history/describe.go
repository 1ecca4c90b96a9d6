package history

import (
	"fmt"
	"strings"
	"time"
)

// longText is where a value is cut.
const longText = 40

func clipped(s string) string {
	if len(s) <= longText {
		return s
	}
	return s[:longText-1] + "…"
}

// at is a time of the history.
func at(t int64) string {
	if t == Never {
		return "never"
	}
	return fmt.Sprintf("%.6f s", time.Duration(t).Seconds())
}

// String says in a line what was asked and answered.
func (o *Operation) String() string {
	var b strings.Builder
	b.WriteString(o.asked())
	b.WriteString(" → ")
	b.WriteString(o.answered())
	return b.String()
}

func (o *Operation) asked() string {
	switch o.Kind {
	case Put, Delete, Range:
		if len(o.Then) == 0 {
			return string(o.Kind)
		}
		s := o.Then[0].String()
		if o.Serializable {
			s += " (serializable)"
		}
		return s
	case Txn:
		var b strings.Builder
		b.WriteString("txn")
		for i := range o.If {
			b.WriteString(map[bool]string{true: " if ", false: " and "}[i == 0] + o.If[i].String())
		}
		b.WriteString(" then " + requests(o.Then))
		if len(o.Else) > 0 {
			b.WriteString(" else " + requests(o.Else))
		}
		return b.String()
	case LeaseGrant:
		return fmt.Sprintf("lease grant for %d s", o.TTL)
	case LeaseRevoke, LeaseRenew, LeaseTTL:
		return fmt.Sprintf("%s %x", strings.ReplaceAll(string(o.Kind), "-", " "), o.Lease)
	case Compact:
		return fmt.Sprintf("compact at %d", o.Revision)
	default:
		return string(o.Kind)
	}
}

func requests(rs []Request) string {
	if len(rs) == 0 {
		return "nothing"
	}
	parts := make([]string, len(rs))
	for i := range rs {
		parts[i] = rs[i].String()
	}
	return strings.Join(parts, ", ")
}

func (o *Operation) answered() string {
	switch o.Outcome {
	case Unknown:
		return "unknown: " + clipped(o.Error)
	case Failed:
		return "refused: " + clipped(o.Error)
	case OK:
	}
	switch o.Kind {
	case LeaseGrant:
		return fmt.Sprintf("lease %x", o.Lease)
	case LeaseRenew, LeaseTTL:
		return fmt.Sprintf("%d s left", o.TTL)
	case LeaseRevoke, Compact:
		return "done"
	case Put, Delete, Range, Txn:
	}
	var parts []string
	if o.Kind == Txn {
		parts = append(parts, map[bool]string{true: "then", false: "else"}[o.Succeeded])
	}
	for i := range o.Results {
		if s := o.Results[i].describe(o.request(i)); s != "" {
			parts = append(parts, s)
		}
	}
	return strings.Join(append(parts, fmt.Sprintf("at %d", o.Revision)), " ")
}

// branch is what was asked for and came true.
func (o *Operation) branch() []Request {
	if o.Kind == Txn && !o.Succeeded {
		return o.Else
	}
	return o.Then
}

func (o *Operation) request(i int) *Request {
	if b := o.branch(); i < len(b) {
		return &b[i]
	}
	return &Request{}
}

const shownKVs = 4

func (r *Result) describe(q *Request) string {
	switch q.Kind {
	case Delete:
		return fmt.Sprintf("%d deleted", r.Deleted)
	case Range:
		parts := make([]string, 0, shownKVs+1)
		for i := range r.KVs {
			if i == shownKVs {
				parts = append(parts, fmt.Sprintf("… %d in all", r.Count))
				break
			}
			parts = append(parts, r.KVs[i].String())
		}
		if len(parts) == 0 {
			return fmt.Sprintf("nothing of %d", r.Count)
		}
		return strings.Join(parts, ", ")
	default:
		return ""
	}
}

// String is the request in a few words.
func (q *Request) String() string {
	s := string(q.Kind) + " " + q.Key
	if q.End != "" {
		s += "…" + strings.ReplaceAll(q.End, "\x00", "∞")
	}
	switch q.Kind {
	case Put:
		s += "=" + clipped(q.Value)
		if q.Lease != 0 {
			s += fmt.Sprintf(" lease %x", q.Lease)
		}
	case Range:
		if q.Limit > 0 {
			s += fmt.Sprintf(" limit %d", q.Limit)
		}
		if q.Revision > 0 {
			s += fmt.Sprintf(" at %d", q.Revision)
		}
	default:
	}
	return s
}

// String is the condition as one would write it.
func (d *Condition) String() string {
	if d.Field == FieldValue {
		return fmt.Sprintf("%s %s %s", d.Key, d.Op, clipped(d.Value))
	}
	return fmt.Sprintf("%s(%s) %s %d", d.Field, d.Key, d.Op, d.Number)
}

// String is a key with its value and where it comes from.
func (kv *KeyValue) String() string {
	return fmt.Sprintf("%s=%s @%d v%d", kv.Key, clipped(kv.Value), kv.ModRevision, kv.Version)
}

// String is an event in a few words.
func (e *Event) String() string {
	if e.Deleted {
		return fmt.Sprintf("delete %s @%d", e.KV.Key, e.KV.ModRevision)
	}
	return "put " + e.KV.String()
}

// says is one line of evidence: an operation with who asked, whom, and when.
func (c *checker) says(i int32) string {
	o := &c.h.Operations[i]
	to := ""
	if o.Endpoint != "" {
		to = " of " + o.Endpoint
	}
	return fmt.Sprintf("operation %d, client %d%s, %s to %s: %s", i, o.Client, to, at(o.Call), at(o.Return), o)
}

func (c *checker) watchSays(w, r int, e *Event) string {
	watch := &c.h.Watches[w]
	what := ""
	if e != nil {
		what = ": " + e.String()
	}
	return fmt.Sprintf("watch %d of client %d, response %d at %s%s", watch.ID, watch.Client, r, at(watch.Responses[r].At), what)
}
