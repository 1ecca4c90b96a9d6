package host

import (
	"io/fs"
	"sync"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/datadir"
)

// errNoHome is fs.ErrNotExist to those who ask.
var errNoHome = fs.ErrNotExist

// markEvery is the least time between two marks of a member.
const markEvery = time.Second

// pendingMark is a reported position that is not believed yet.
type pendingMark struct {
	mu   sync.Mutex
	mark datadir.Mark
	at   time.Time
}

// Mark notes the term and the committed index that the member reports, for the
// data-directory law. Each is written once a later report has come, a second or
// more after it. Why: a follower reports entries as committed shortly before they
// are on its disk, and a kill at that moment must not make its directory look
// rolled back. The error is that of the identity file.
func (d *Driver) Mark(m *v1alpha1.EtcdMember, term, index int64) error {
	if err := named(m); err != nil {
		return err
	}
	if term < 0 || index < 0 {
		return nil
	}
	d.mu.Lock()
	p := d.marks[m.UID]
	if p == nil {
		p = &pendingMark{}
		d.marks[m.UID] = p
	}
	d.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if !p.at.IsZero() && now.Sub(p.at) < markEvery {
		return nil
	}
	old := p.mark
	p.mark, p.at = datadir.Mark{Term: uint64(term), Index: uint64(index)}, now
	if old == (datadir.Mark{}) {
		return nil
	}
	h := d.home(m)
	if there, err := exists(string(h)); !there || err != nil {
		return err
	}
	return h.ChangeIdentity(string(m.UID), m.Name, func(id *datadir.Identity) bool {
		return id.Advance(old.Term, old.Index)
	})
}
