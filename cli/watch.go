package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/quorate/quorate/api/schema"
	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
)

// Types of a watch's lines, as Kubernetes calls them.
const (
	watchAdded    = "ADDED"
	watchModified = "MODIFIED"
	watchDeleted  = "DELETED"
)

// watching prints the objects of a kind as they change.
type watching struct {
	e    *env
	kind v1alpha1.Kind
	// names are those asked for; nil for all.
	names  map[store.Key]bool
	labels map[string]string
	shown  shown
	// last is what was printed of each object.
	last map[store.Key]v1alpha1.Object
	// rows are those of a table as they were printed, without ages.
	rows map[store.Key]string
	// widths of the table's columns, once its header is printed.
	widths []int
}

// watch prints what there is, and then what changes, until ctx ends.
func (e *env) watch(ctx context.Context, c *remote.Client, asked wanted, opts store.ListOptions, s shown) error {
	w := &watching{e: e, kind: asked.kinds[0], labels: opts.Labels, shown: s, last: map[store.Key]v1alpha1.Object{}, rows: map[store.Key]string{}}
	namespace := opts.Namespace
	if len(asked.named) > 0 {
		w.names = map[store.Key]bool{}
		for _, t := range asked.named {
			w.names[t.key] = true
			namespace = t.key.Namespace
		}
	}
	// Who can't be reached, or isn't there, is told at once; later it is waited out.
	objs, err := e.find(ctx, c, w.kind, asked.named, opts)
	if err != nil {
		return err
	}
	if err = w.first(objs); err != nil {
		return err
	}
	for key := range c.Watch(ctx, w.kind, namespace) {
		if w.names != nil && !w.names[key] {
			continue
		}
		obj, err := look(ctx, c, target{w.kind, key})
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // Ctrl-C is how watching ends
		case errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrStale):
			continue // the watch tells of every key again once it stands
		case err != nil:
			return err
		}
		if err = w.seen(key, obj); err != nil {
			return err
		}
	}
	return nil
}

// first prints what there is to begin with.
func (w *watching) first(objs []v1alpha1.Object) error {
	for _, obj := range objs {
		w.last[store.KeyOf(obj)] = obj
	}
	if w.table() && len(objs) > 0 {
		g, err := tableOf(w.kind, objs, w.shown)
		if err != nil {
			return err
		}
		w.widths = g.widths()
		for i, obj := range objs {
			w.rows[store.KeyOf(obj)] = g.lasting(i)
		}
		return g.write(w.e.Out, 0)
	}
	for _, obj := range objs {
		if err := w.print(watchAdded, obj); err != nil {
			return err
		}
	}
	return nil
}

func (w *watching) table() bool { return w.shown.form == outTable || w.shown.form == outWide }

// seen prints an object if it is not as it was printed before; nil when it is gone.
func (w *watching) seen(key store.Key, obj v1alpha1.Object) error {
	before, known := w.last[key]
	if obj != nil && !carries(obj.GetLabels(), w.labels) {
		obj = nil
	}
	switch {
	case obj == nil && !known:
		return nil
	case obj == nil:
		delete(w.last, key)
		return w.print(watchDeleted, before)
	case known && before.GetUID() == obj.GetUID() && before.GetResourceVersion() == obj.GetResourceVersion():
		return nil
	}
	w.last[key] = obj
	if known {
		return w.print(watchModified, obj)
	}
	return w.print(watchAdded, obj)
}

// carries reports whether labels hold all that are wanted.
func carries(labels, wanted map[string]string) bool {
	for k, v := range wanted {
		if has, ok := labels[k]; !ok || has != v {
			return false
		}
	}
	return true
}

func (w *watching) print(what string, obj v1alpha1.Object) error {
	switch {
	case w.shown.form == outName:
		w.e.printf("%s\n", label(w.kind, obj.GetName()))
		return nil
	case strings.HasPrefix(w.shown.form, outJSONPath):
		one := w.shown
		one.single = true
		return w.e.printObjects([]v1alpha1.Object{obj}, one)
	case w.table():
		return w.printRow(what, obj)
	}
	m, err := schema.Map(obj)
	if err != nil {
		return err
	}
	event := struct {
		Type   string         `json:"type"`
		Object map[string]any `json:"object"`
	}{what, m}
	write, begin, end := json.Marshal, "", "\n"
	if w.shown.form == outYAML {
		write, begin, end = yaml.Marshal, "---\n", ""
	}
	raw, err := write(event)
	if err == nil {
		w.e.printf("%s%s%s", begin, raw, end)
	}
	return err
}

// printRow prints a row below those before, as wide as they are.
func (w *watching) printRow(what string, obj v1alpha1.Object) error {
	g, err := tableOf(w.kind, []v1alpha1.Object{obj}, w.shown)
	if err != nil {
		return err
	}
	// What no column shows is no change of a row.
	key, now := store.KeyOf(obj), g.lasting(0)
	if what == watchModified && w.rows[key] == now {
		return nil
	}
	w.rows[key] = now
	if what == watchDeleted {
		delete(w.rows, key)
		row := g.rows[0]
		for i := range row {
			if i > 0 && strings.EqualFold(g.header[i-1], "name") {
				row = append(row[:i], "deleted")
				break
			}
		}
		g.rows[0] = row
	}
	if w.widths == nil {
		w.widths = g.widths()
		w.e.printf("%s\n", padded(upper(g.header), w.widths))
	}
	w.e.printf("%s\n", padded(g.rows[0], w.widths))
	return nil
}

func upper(header []string) []string {
	list := make([]string, len(header))
	for i, h := range header {
		list[i] = strings.ToUpper(h)
	}
	return list
}

// padded is a row whose cells stand in columns of those widths.
func padded(cells []string, widths []int) string {
	var out strings.Builder
	for i, c := range cells {
		if c == "" {
			c = "-"
		}
		fmt.Fprintf(&out, "%-*s   ", widths[i], c)
	}
	return strings.TrimRight(out.String(), " ")
}
