package catalog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Outcome is what Prune did about one point that was to be deleted.
type Outcome string

// The outcomes.
const (
	// Deleted: all objects of the point are gone.
	Deleted Outcome = "Deleted"
	// WouldDelete: it passed all checks, and this is a dry run.
	WouldDelete Outcome = "WouldDelete"
	// Spared: a look just before found something else than what the decision was made
	// of. The next prune decides anew.
	Spared Outcome = "Spared"
	// Locked: the store refused, since an object is locked.
	Locked Outcome = "Locked"
	// NotDeleted: the store failed. The next prune goes on where this one stopped.
	NotDeleted Outcome = "NotDeleted"
)

// PruneStep is what became of one point.
type PruneStep struct {
	Ref     Ref
	Outcome Outcome
	// Why is the decision's reason when it was deleted, or what was in the way.
	Why string
	// Err is set when Outcome is Locked or NotDeleted.
	Err error
	// Objects and Bytes are what was freed, or would be.
	Objects int
	Bytes   int64
}

// Pruned is what Prune did: a step for each decision that deletes, in the order of
// Ref.Compare.
type Pruned struct {
	Steps []PruneStep
}

// Count is how many steps had an outcome, and the bytes that they freed or would.
func (p *Pruned) Count(o Outcome) (n int, size int64) {
	for _, s := range p.Steps {
		if s.Outcome == o {
			n++
			size += s.Bytes
		}
	}
	return n, size
}

// PruneOptions are how to prune.
type PruneOptions struct {
	// DryRun checks everything and deletes nothing. It writes nothing either, so the
	// age of leftovers is by Now and not by the store's clock.
	DryRun bool
	// Now is the time of a dry run.
	Now time.Time
	// Parallel is how many lineages are pruned at once, 8 if 0. Within a lineage points
	// are deleted one by one, the oldest first.
	Parallel int
	// Progress, if not nil, is told of each step, one at a time.
	Progress func(PruneStep)
	// Busy, if not nil, says whether a point is known to be being written.
	Busy func(Ref) bool
}

// Prune deletes the points that decisions delete. It may be killed at any moment: the
// manifest goes first, so that what is left is no point, and the next Read, Decide and
// Prune end with what one undisturbed run would have left, leftovers once they are
// LeftoverAge old.
//
// Nothing is believed that was read before. Just before a point is deleted it is looked
// at again, and spared if a manifest or a proof has come or gone, or changed its
// verdict. And it is deleted only while the store shows two others of its lineage: a
// newer Complete one, and one that is stronger: more trusted, or as trusted and newer.
// They may be one. Since stronger is a total order, no number of pruners with other
// policies and older catalogs can delete the strongest point between them, which is the
// newest proven one, and a proof that fails meanwhile stops the deletion of what it made
// the last. A proof that fails between this look and the deletion, which follows at
// once, comes too late; no store offers more.
//
// A point that can't be deleted doesn't stop the others. The error joins those of
// NotDeleted steps, or is that of ctx; locked points are no error. What was done until
// then is returned with it. It wraps ErrPolicy for a dry run without Now.
func Prune(ctx context.Context, objects Objects, layout Layout, decisions []Decision, opts PruneOptions) (*Pruned, error) {
	if opts.DryRun && opts.Now.IsZero() {
		return nil, fmt.Errorf("%w: the present time is not given", ErrPolicy)
	}
	byLineage := map[Lineage][]Decision{}
	for _, d := range decisions {
		byLineage[d.Entry.Ref.Lineage] = append(byLineage[d.Entry.Ref.Lineage], d)
	}
	p := &pruner{objects: objects, layout: layout, opts: opts}
	parallel := opts.Parallel
	if parallel <= 0 {
		parallel = 8
	}
	slots := make(chan struct{}, parallel)
	var wg sync.WaitGroup
	lineages := make([]Lineage, 0, len(byLineage))
	for l := range byLineage {
		lineages = append(lineages, l)
	}
	slices.SortFunc(lineages, compareLineages)
	for _, l := range lineages {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			p.lineage(ctx, l, byLineage[l])
		})
	}
	wg.Wait()
	slices.SortFunc(p.done.Steps, func(a, b PruneStep) int { return a.Ref.Compare(b.Ref) })
	if err := ctx.Err(); err != nil {
		return &p.done, fmt.Errorf("prune backups below %s: %w", layout.Prefix(), err)
	}
	var failed []error
	for _, s := range p.done.Steps {
		if s.Outcome == NotDeleted {
			failed = append(failed, fmt.Errorf("delete backup %s: %w", s.Ref, s.Err))
		}
	}
	return &p.done, errors.Join(failed...)
}

// pruner is one run of Prune.
type pruner struct {
	objects Objects
	layout  Layout
	opts    PruneOptions

	clockOnce sync.Once
	clockAt   time.Time // by the store
	clockErr  error
	clockRead time.Time // by this host, for the time since

	mu   sync.Mutex
	done Pruned
}

// tell notes a step. Progress is called with the lock held, one at a time.
func (p *pruner) tell(s PruneStep) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done.Steps = append(p.done.Steps, s)
	if p.opts.Progress != nil {
		p.opts.Progress(s)
	}
}

// now is the time by the store's clock.
func (p *pruner) now(ctx context.Context) (time.Time, error) {
	if p.opts.DryRun {
		return p.opts.Now, nil
	}
	p.clockOnce.Do(func() {
		p.clockRead = time.Now()
		p.clockAt, p.clockErr = storeClock(ctx, p.objects, p.layout)
	})
	return p.clockAt.Add(time.Since(p.clockRead)), p.clockErr
}

// lineage prunes one lineage, the oldest point first.
func (p *pruner) lineage(ctx context.Context, l Lineage, decisions []Decision) {
	decisions = slices.Clone(decisions)
	slices.SortFunc(decisions, func(a, b Decision) int { return a.Entry.Ref.Compare(b.Entry.Ref) })
	// The cache is of this lineage and run: what it holds was fetched moments ago, and
	// listings are always made anew.
	g := guards{lineage: l, layout: p.layout, reader: reader{objects: p.objects, cache: &Cache{}}}
	var kept []Entry
	for _, d := range decisions {
		if d.Keep {
			kept = append(kept, d.Entry)
		}
	}
	g.choose(kept)
	for _, d := range decisions {
		if d.Keep {
			continue
		}
		if ctx.Err() != nil {
			return
		}
		p.tell(p.point(ctx, &g, &d))
	}
}

// point deletes one point, if that is still right.
func (p *pruner) point(ctx context.Context, g *guards, d *Decision) PruneStep {
	step := PruneStep{Ref: d.Entry.Ref}
	if len(d.Reasons) > 0 {
		step.Why = d.Reasons[0].Text
	}
	now, err := g.look(ctx, d.Entry.Ref)
	if err != nil {
		return step.failed(err)
	}
	why, err := p.changed(ctx, &d.Entry, now)
	// A leftover with a proof was a point once: it goes only beside a point.
	if err == nil && why == "" && (now.State != Partial || len(now.Proofs) > 0 && now.hasData()) {
		why, err = g.hold(ctx, now)
	}
	switch {
	case err != nil:
		return step.failed(err)
	case why != "":
		step.Outcome, step.Why = Spared, why
		return step
	}
	if p.opts.DryRun {
		step.Outcome, step.Objects, step.Bytes = WouldDelete, len(now.Objects), now.Bytes()
		return step
	}
	for _, o := range inOrder(now) {
		if err := p.objects.Delete(ctx, o.Name); err != nil && !errors.Is(err, ErrNotFound) {
			return step.failed(err)
		}
		step.Objects++
		step.Bytes += o.Size
	}
	step.Outcome = Deleted
	return step
}

// changed says why a point is not what the decision was made of.
func (p *pruner) changed(ctx context.Context, was, now *Entry) (why string, err error) {
	if p.opts.Busy != nil && p.opts.Busy(was.Ref) {
		return "it is being written", nil
	}
	switch {
	case now.State == Unknown:
		return "", now.Err
	case now.State == Partial && was.State != Partial:
		// A manifest never comes back: somebody died deleting it, or is at it now. What
		// is left has no use.
		return "", nil
	case now.State != was.State:
		return fmt.Sprintf("it was %s, and now it is %s", was.State, now.State), nil
	case now.State == Partial:
		at, err := p.now(ctx)
		if err != nil {
			return "", err
		}
		if age := at.Sub(now.Modified); age <= LeftoverAge && len(now.Objects) > 0 {
			return fmt.Sprintf("without a manifest, and by the store's clock its last change was %s ago: it may be in writing", round(age)), nil
		}
		return "", nil
	}
	if err := now.undecidable(); err != nil {
		return "", err
	}
	if len(now.Proofs) != len(was.Proofs) || now.Verdict() != was.Verdict() || now.rank() != was.rank() {
		return fmt.Sprintf("it was %s with %d proofs, and now it is %s with %d", was.Verdict(), len(was.Proofs), now.Verdict(), len(now.Proofs)), nil
	}
	return "", nil
}

// failed notes why a point is still there, or part of it.
func (s PruneStep) failed(err error) PruneStep {
	s.Outcome, s.Err, s.Why = NotDeleted, err, err.Error()
	if errors.Is(err, ErrLocked) {
		s.Outcome = Locked
	}
	return s
}

// inOrder are a point's objects as they are deleted: the manifest, so that there is no
// point any more, what is beside it, the data, and the proofs at last.
func inOrder(e *Entry) []Object {
	order := func(o Object) int {
		switch file := strings.TrimPrefix(o.Name, e.Dir); {
		case file == manifestFile:
			return 0
		case strings.HasPrefix(file, besidePrefix):
			return 1
		case strings.HasPrefix(file, dataPrefix):
			return 2
		default:
			return 3
		}
	}
	objects := slices.Clone(e.Objects)
	slices.SortStableFunc(objects, func(a, b Object) int { return order(a) - order(b) })
	return objects
}

// guards are the points of a lineage without which none of it is deleted.
type guards struct {
	lineage Lineage
	layout  Layout
	reader  reader

	newest, strongest *Entry // nil if the lineage has no Complete point
}

// choose takes the newest and the strongest of some entries.
func (g *guards) choose(entries []Entry) {
	g.newest, g.strongest = nil, nil
	for i := range entries {
		e := &entries[i]
		if e.State != Complete {
			continue
		}
		if g.newest == nil || e.Ref.compareAge(g.newest.Ref) > 0 {
			g.newest = e
		}
		if g.strongest == nil || e.stronger(g.strongest) {
			g.strongest = e
		}
	}
}

func (g *guards) look(ctx context.Context, ref Ref) (*Entry, error) {
	return g.reader.look(ctx, g.layout, ref)
}

// hold looks at the guards again and says why they don't allow victim to be deleted. If
// those of the decisions have changed, it reads the lineage anew for better ones.
func (g *guards) hold(ctx context.Context, victim *Entry) (why string, err error) {
	why, err = g.check(ctx, victim)
	if why == "" || err != nil {
		return why, err
	}
	cat, err := Read(ctx, g.reader.objects, g.layout, ReadOptions{
		Filter: Filter{Clusters: []Cluster{g.lineage.Cluster}, ClusterID: g.lineage.ClusterID},
		Cache:  g.reader.cache,
	})
	if err != nil {
		return "", err
	}
	g.choose(slices.DeleteFunc(cat.Entries, func(e Entry) bool { return e.Ref.Lineage != g.lineage }))
	return g.check(ctx, victim)
}

// check looks at the guards in the store.
func (g *guards) check(ctx context.Context, victim *Entry) (why string, err error) {
	if g.newest == nil {
		return "its lineage has no other complete point now", nil
	}
	newest, err := g.look(ctx, g.newest.Ref)
	if err != nil {
		return "", err
	}
	if newest.State != Complete || victim.State != Partial && newest.Ref.compareAge(victim.Ref) <= 0 {
		return "its lineage has no newer complete point now", nil
	}
	strongest := newest
	if g.strongest.Ref.Compare(g.newest.Ref) != 0 {
		if strongest, err = g.look(ctx, g.strongest.Ref); err != nil {
			return "", err
		}
	}
	if victim.State == Complete && (strongest.State != Complete || !strongest.stronger(victim)) {
		return fmt.Sprintf("it is %s, and its lineage has no newer point now that can be trusted as much", victim.Verdict()), nil
	}
	if victim.State == Damaged && (strongest.Verdict() != Proven || strongest.Ref.compareAge(victim.Ref) <= 0) {
		return "it is damaged, and its lineage has no newer proven point now", nil
	}
	return "", nil
}
