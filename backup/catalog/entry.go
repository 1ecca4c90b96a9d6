package catalog

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// State is what a point looks like from its store's listing and its manifest.
type State string

// The states.
const (
	// Complete: the manifest is intact and the data is there, in its size.
	Complete State = "Complete"
	// Partial: there is no manifest. It is being written, being deleted, or was left
	// over by a process that died.
	Partial State = "Partial"
	// Damaged: the manifest is broken or belongs elsewhere, or the data is missing or
	// has another size.
	Damaged State = "Damaged"
	// Newer: the manifest has a format that this Quorate can't read.
	Newer State = "Newer"
	// Unknown: the manifest could not be fetched, so nothing can be said.
	Unknown State = "Unknown"
)

// Verdict is what the proofs of a point say together.
type Verdict string

// The verdicts.
const (
	// Proven: the newest proof verified it.
	Proven Verdict = "Proven"
	// Failed: the newest proof failed.
	Failed Verdict = "Failed"
	// Unproven: there is no proof.
	Unproven Verdict = "Unproven"
	// Unclear: the newest proof can't be read, or is of other data. Not to be taken for
	// proven, nor for failed.
	Unclear Verdict = "Unclear"
)

// Entry is one point of a catalog.
type Entry struct {
	Ref Ref
	// Dir is the point's directory in the store, with a slash at its end.
	Dir   string
	State State
	// Err says what is wrong when State is Damaged, Newer or Unknown.
	Err error
	// Point is nil unless State is Complete, or Damaged with a manifest that is intact.
	Point *Point
	// Proofs are those of the point, newest first.
	Proofs []ProofEntry
	// Objects are all objects of the point, by name.
	Objects []Object
	// Modified is the newest of the objects, by the store's clock.
	Modified time.Time
}

// ProofEntry is one proof of a point.
type ProofEntry struct {
	// Name is that of the object, Time the one in it.
	Name string
	Time time.Time
	// Proof is nil when it can't be read; Err then says why.
	Proof *Proof
	Err   error
}

// Verdict says what the proofs make of the point. Only a Complete point is ever Proven.
func (e *Entry) Verdict() Verdict {
	if len(e.Proofs) == 0 {
		return Unproven
	}
	switch newest := e.Proofs[0]; {
	case newest.Proof == nil:
		return Unclear
	case newest.Proof.Result == ResultFailed:
		return Failed
	case e.State != Complete:
		return Unclear
	}
	return Proven
}

// Bytes is the size of all its objects in the store.
func (e *Entry) Bytes() int64 {
	var n int64
	for _, o := range e.Objects {
		n += o.Size
	}
	return n
}

// undecidable says why the point can't be judged now, and so must not be deleted: a
// document was not fetched, or is newer than this Quorate.
func (e *Entry) undecidable() error {
	if e.State == Unknown || e.State == Newer {
		return e.Err
	}
	for _, p := range e.Proofs {
		if p.Err != nil && !errors.Is(p.Err, ErrDamaged) {
			return p.Err
		}
	}
	return nil
}

// Ranks of how far a Complete point can be trusted.
const (
	rankNone    = iota // no proof, or the newest failed and none ever verified it
	rankUnclear        // a proof is damaged: it may have verified it
	rankOnce           // it was verified once, and that is not the newest proof
	rankProven
)

// rank orders Complete points by trust. The best point of a lineage is kept even if no
// point of it is Proven.
func (e *Entry) rank() int {
	if e.Verdict() == Proven {
		return rankProven
	}
	rank := rankNone
	for _, p := range e.Proofs {
		switch {
		case p.Proof == nil:
			rank = max(rank, rankUnclear)
		case p.Proof.Result == Verified:
			rank = rankOnce
		}
	}
	return rank
}

// stronger says whether e is to be kept rather than other: the more trusted, then the
// newer. It is a total order of the Complete points of a lineage, which is why pruners
// that delete a point only beside a stronger one can't delete the strongest.
func (e *Entry) stronger(other *Entry) bool {
	if a, b := e.rank(), other.rank(); a != b {
		return a > b
	}
	return e.Ref.compareAge(other.Ref) > 0
}

// assemble judges a point by its listing: state Partial, Damaged, or Unknown for one
// whose documents are still to be fetched.
func assemble(layout Layout, ref Ref, objects []Object) *Entry {
	slices.SortFunc(objects, func(a, b Object) int { return strings.Compare(a.Name, b.Name) })
	e := &Entry{Ref: ref, Dir: layout.dir(ref), State: Partial, Objects: objects}
	for _, o := range objects {
		if o.Modified.After(e.Modified) {
			e.Modified = o.Modified
		}
		file := strings.TrimPrefix(o.Name, e.Dir)
		if file == manifestFile {
			e.State, e.Err = Unknown, errors.New("not read yet")
		}
		if at, ok := proofTime(file); ok {
			e.Proofs = append(e.Proofs, ProofEntry{Name: o.Name, Time: at, Err: errors.New("not read yet")})
		}
	}
	slices.SortFunc(e.Proofs, func(a, b ProofEntry) int { return b.Time.Compare(a.Time) })
	return e
}

// object is the listing's line of a file of the point.
func (e *Entry) object(file string) (Object, bool) {
	i, ok := slices.BinarySearchFunc(e.Objects, e.Dir+file, func(o Object, name string) int { return strings.Compare(o.Name, name) })
	if !ok {
		return Object{}, false
	}
	return e.Objects[i], true
}

// hasData says whether anything of the data is there.
func (e *Entry) hasData() bool {
	return slices.ContainsFunc(e.Objects, func(o Object) bool {
		return strings.HasPrefix(strings.TrimPrefix(o.Name, e.Dir), dataPrefix)
	})
}

// setPoint takes in the manifest, or why there is none.
func (e *Entry) setPoint(p *Point, err error) {
	switch {
	case errors.Is(err, ErrNewer):
		e.State, e.Err = Newer, err
	case errors.Is(err, ErrDamaged):
		e.State, e.Err = Damaged, err
	case errors.Is(err, ErrNotFound):
		e.State, e.Err = Unknown, fmt.Errorf("manifest of %s was deleted while the catalog was read; read it again: %w", e.Ref.ID(), err)
	case err != nil:
		e.State, e.Err = Unknown, err
	case p.Ref().Compare(e.Ref) != 0:
		// Somebody copied or moved it. Under this name it would be counted, and pruned,
		// with the points of another cluster.
		e.State, e.Err = Damaged, fmt.Errorf("%w: it lies at %s, and its manifest is of %s", ErrDamaged, e.Dir, p.Ref())
	default:
		e.Point = p
		e.State, e.Err = Complete, nil
		data, ok := e.object(p.Object)
		switch {
		case !ok:
			e.State, e.Err = Damaged, fmt.Errorf("%w: its data %s is not in the store", ErrDamaged, e.Dir+p.Object)
		case data.Size != p.StoredSize:
			e.State, e.Err = Damaged, fmt.Errorf("%w: its data %s has %d bytes and was stored with %d", ErrDamaged, data.Name, data.Size, p.StoredSize)
		}
	}
}

// setProof takes in one proof, or why it can't be read. The manifest must be set.
func (e *Entry) setProof(i int, p *Proof, err error) {
	to := &e.Proofs[i]
	switch {
	case err != nil:
	case p.Point != e.Ref.ID():
		err = fmt.Errorf("%w: proof %s is of the point %s", ErrDamaged, to.Name, p.Point)
	case e.Point != nil && p.StoredSHA256 != e.Point.StoredSHA256:
		err = fmt.Errorf("%w: proof %s is of data with SHA-256 %s, and the point's has %s", ErrDamaged, to.Name, p.StoredSHA256, e.Point.StoredSHA256)
	case !p.Ended.Equal(to.Time):
		err = fmt.Errorf("%w: proof %s says that it ended at %s", ErrDamaged, to.Name, p.Ended.Format(time.RFC3339Nano))
	}
	to.Proof, to.Err = p, err
	if err != nil {
		to.Proof = nil
	}
}
