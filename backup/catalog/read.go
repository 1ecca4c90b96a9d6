package catalog

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// defaultParallel is how many documents are fetched at once: 10,000 points with a proof
// each, at 20 ms a fetch, then take some 7 seconds.
const defaultParallel = 64

// maxExamples bounds what is told of objects that are not ours.
const maxExamples = 10

// Filter says which points are wanted. The zero value wants all.
type Filter struct {
	// Clusters are compared as a whole. None means all.
	Clusters []Cluster
	// ClusterID, if not 0, is the only one wanted.
	ClusterID ID
}

// ReadOptions are how to read a catalog. The zero value reads all.
type ReadOptions struct {
	Filter Filter
	// Parallel is how many documents are fetched at once, 64 if 0.
	Parallel int
	// Cache, if not nil, saves fetching what an earlier Read has fetched.
	Cache *Cache
}

// Catalog is what a store holds.
type Catalog struct {
	// Entries are in the order of Ref.Compare.
	Entries []Entry
	// Foreign counts objects below the layout's prefix that are no part of a point.
	// They are left alone. Examples are up to ten of their names.
	Foreign  int
	Examples []string
}

// Cache holds documents by name, size and time of change. Manifests and proofs are
// written once, so what it holds is never stale. The zero value is ready; it may be
// used by several goroutines, for one store.
type Cache struct {
	mu   sync.Mutex
	docs map[docKey]any
}

type docKey struct {
	name     string
	size     int64
	modified int64
}

// maxCached is when a Cache begins anew: some 400 MB of documents.
const maxCached = 200_000

func (c *Cache) get(o Object) (any, bool) {
	if c == nil {
		return nil, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	doc, ok := c.docs[docKey{o.Name, o.Size, o.Modified.UnixNano()}]
	return doc, ok
}

func (c *Cache) put(o Object, doc any) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.docs == nil || len(c.docs) >= maxCached {
		c.docs = map[docKey]any{}
	}
	c.docs[docKey{o.Name, o.Size, o.Modified.UnixNano()}] = doc
}

// Read makes the catalog from the store alone. It fails only if the store can't be
// listed or ctx ends: what is wrong with one point, or could not be fetched of it, is
// told in its entry.
func Read(ctx context.Context, objects Objects, layout Layout, opts ReadOptions) (*Catalog, error) {
	prefixes := []string{layout.Prefix()}
	if len(opts.Filter.Clusters) > 0 {
		prefixes = nil
		for _, c := range opts.Filter.Clusters {
			prefixes = append(prefixes, layout.ClusterPrefix(c))
		}
		slices.Sort(prefixes)
		prefixes = slices.Compact(prefixes)
	}
	l := lister{layout: layout, id: opts.Filter.ClusterID, points: map[string]*listed{}}
	for _, p := range prefixes {
		if err := objects.List(ctx, p, l.add); err != nil {
			return nil, fmt.Errorf("list the backups below %s: %w", p, err)
		}
	}
	entries := l.entries()
	r := reader{objects: objects, cache: opts.Cache, parallel: opts.Parallel}
	if err := r.fill(ctx, entries); err != nil {
		return nil, fmt.Errorf("read the manifests below %s: %w", layout.Prefix(), err)
	}
	cat := &Catalog{Entries: make([]Entry, len(entries)), Foreign: l.foreign, Examples: l.examples}
	for i, e := range entries {
		cat.Entries[i] = *e
	}
	return cat, nil
}

// Find returns the points whose ID is text, or whose nonce it is.
func (c *Catalog) Find(text string) []Entry {
	var found []Entry
	for i := range c.Entries {
		if e := &c.Entries[i]; e.Ref.ID() == text || e.Ref.Nonce == text {
			found = append(found, *e)
		}
	}
	return found
}

// Lineages returns the entries of each lineage, in the order of Ref.Compare. They are
// parts of Entries.
func (c *Catalog) Lineages() [][]Entry {
	var all [][]Entry
	from := 0
	for i := range c.Entries {
		if i+1 == len(c.Entries) || c.Entries[i+1].Ref.Lineage != c.Entries[i].Ref.Lineage {
			all = append(all, c.Entries[from:i+1:i+1])
			from = i + 1
		}
	}
	return all
}

// Newest returns the newest Complete point of a lineage's entries, nil if there is none.
func Newest(lineage []Entry) *Entry {
	return newest(lineage, func(e *Entry) bool { return e.State == Complete })
}

// NewestProven returns the newest Proven point of a lineage's entries, nil if there is
// none.
func NewestProven(lineage []Entry) *Entry {
	return newest(lineage, func(e *Entry) bool { return e.Verdict() == Proven })
}

func newest(lineage []Entry, fits func(*Entry) bool) *Entry {
	var found *Entry
	for i := range lineage {
		if e := &lineage[i]; fits(e) && (found == nil || e.Ref.Compare(found.Ref) > 0) {
			found = e
		}
	}
	return found
}

// lister sorts a listing into points.
type lister struct {
	layout   Layout
	id       ID
	points   map[string]*listed
	foreign  int
	examples []string
}

type listed struct {
	ref     Ref
	objects []Object
}

func (l *lister) add(o Object) error {
	ref, file, ok := l.layout.Parse(o.Name)
	if !ok {
		if strings.HasPrefix(o.Name, l.layout.clock()) {
			return nil
		}
		l.foreign++
		if len(l.examples) < maxExamples {
			l.examples = append(l.examples, o.Name)
		}
		return nil
	}
	if l.id != 0 && ref.ClusterID != l.id {
		return nil
	}
	dir := strings.TrimSuffix(o.Name, file)
	p := l.points[dir]
	if p == nil {
		p = &listed{ref: ref}
		l.points[dir] = p
	}
	p.objects = append(p.objects, o)
	return nil
}

func (l *lister) entries() []*Entry {
	entries := make([]*Entry, 0, len(l.points))
	for _, p := range l.points {
		entries = append(entries, assemble(l.layout, p.ref, p.objects))
	}
	slices.SortFunc(entries, func(a, b *Entry) int { return a.Ref.Compare(b.Ref) })
	return entries
}

// reader fetches documents.
type reader struct {
	objects  Objects
	cache    *Cache
	parallel int
}

// fill fetches manifests and proofs of the entries. Its error is that of ctx.
func (r *reader) fill(ctx context.Context, entries []*Entry) error {
	workers := r.parallel
	if workers <= 0 {
		workers = defaultParallel
	}
	next := make(chan *Entry)
	var wg sync.WaitGroup
	for range min(workers, len(entries)) {
		wg.Go(func() {
			for e := range next {
				r.fillOne(ctx, e)
			}
		})
	}
	for _, e := range entries {
		// A partial point without proofs has nothing to fetch.
		if e.State == Partial && len(e.Proofs) == 0 {
			continue
		}
		select {
		case next <- e:
		case <-ctx.Done():
		}
	}
	close(next)
	wg.Wait()
	return ctx.Err()
}

func (r *reader) fillOne(ctx context.Context, e *Entry) {
	if o, ok := e.object(manifestFile); ok {
		e.setPoint(fetch(ctx, r, o, DecodePoint))
	}
	for i := range e.Proofs {
		o, _ := e.object(strings.TrimPrefix(e.Proofs[i].Name, e.Dir))
		p, err := fetch(ctx, r, o, DecodeProof)
		e.setProof(i, p, err)
	}
}

// fetch returns a decoded document. The answer is shared with the cache, and must not
// be changed.
func fetch[T any](ctx context.Context, r *reader, o Object, decode func([]byte) (*T, error)) (*T, error) {
	if doc, ok := r.cache.get(o); ok {
		if doc, same := doc.(*T); same {
			return doc, nil
		}
	}
	if o.Size > maxDocument {
		return nil, fmt.Errorf("%w: %s has %d bytes, and such documents have at most %d", ErrDamaged, o.Name, o.Size, maxDocument)
	}
	data, err := r.objects.Get(ctx, o.Name)
	if err != nil {
		return nil, fmt.Errorf("fetch %s: %w", o.Name, err)
	}
	doc, err := decode(data)
	if err != nil {
		// Not cached: the damage may have come on the way.
		return nil, fmt.Errorf("%s: %w", o.Name, err)
	}
	r.cache.put(o, doc)
	return doc, nil
}

// look reads one point as it is now. A point of which nothing is left is Partial
// without objects.
func (r *reader) look(ctx context.Context, layout Layout, ref Ref) (*Entry, error) {
	dir := layout.dir(ref)
	var objects []Object
	err := r.objects.List(ctx, dir, func(o Object) error {
		// A person's file may lie there too.
		if ref2, _, ok := layout.Parse(o.Name); ok && ref2.Compare(ref) == 0 {
			objects = append(objects, o)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	e := assemble(layout, ref, objects)
	r.fillOne(ctx, e)
	return e, ctx.Err()
}

// storeClock asks the store for its time: it writes a small object and looks when the
// store says that was.
func storeClock(ctx context.Context, objects Objects, layout Layout) (time.Time, error) {
	name := layout.clock() + "now"
	if err := objects.Put(ctx, name, []byte("The time of this object is what pruning compares leftovers with.\n")); err != nil {
		return time.Time{}, fmt.Errorf("write %s to learn the store's time: %w", name, err)
	}
	var at time.Time
	err := objects.List(ctx, layout.clock(), func(o Object) error {
		if o.Name == name {
			at = o.Modified
		}
		return nil
	})
	if err == nil && at.IsZero() {
		err = ErrNotFound
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("look at %s to learn the store's time: %w", name, err)
	}
	return at, nil
}
