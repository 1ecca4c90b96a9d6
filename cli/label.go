package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
)

type labelOptions struct {
	overwrite bool
	all       bool
	selector  string
	dryRun    bool
}

func labelCommand(e *env) *cobra.Command {
	var o labelOptions
	cmd := &cobra.Command{
		Use:   "label KIND NAME... LABEL=VALUE|LABEL-...",
		Short: "Set and remove labels of objects",
		Long: `Set labels (LABEL=VALUE) and remove them (LABEL-). A label that has another value is
left alone, unless --overwrite is given. Objects are chosen by name, by the labels
they have (-l), or all of a namespace (--all).

Nothing but the labels is written, whatever others change at the same time. Labels
that begin with quorate.io/ are Quorate's own, and are refused.`,
		Example: `  quorate label cluster playground team=storage
  quorate label cluster/playground team=platform tier=test --overwrite
  quorate label clusters --all checked=yes
  quorate label clusters -l team=platform checked-
  quorate label cluster playground team- --dry-run`,
		Args:              argsBetween(1, -1, "KIND NAME LABEL=VALUE"),
		ValidArgsFunction: e.completeObjects,
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.label(cmd, args, o)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.overwrite, "overwrite", false, "replace labels that have another value")
	f.BoolVar(&o.all, "all", false, "all objects of the kind in the namespace")
	f.StringVarP(&o.selector, "selector", "l", "", "labels that the objects must carry, such as a=b,c=d")
	f.BoolVar(&o.dryRun, "dry-run", false, "only have the server check it, and say what would be done")
	return cmd
}

// labelChange is what is to become of labels.
type labelChange struct {
	set       map[string]string
	remove    []string
	overwrite bool
}

var (
	labelName  = regexp.MustCompile(`^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$`)
	labelValue = regexp.MustCompile(`^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$`)
)

// parseLabels takes LABEL=VALUE and LABEL- off the end of the arguments.
func parseLabels(cmd *cobra.Command, args []string, overwrite bool) (rest []string, ch labelChange, err error) {
	ch = labelChange{set: map[string]string{}, overwrite: overwrite}
	for i, arg := range args {
		name, value, sets := strings.Cut(arg, "=")
		// A name never ends with a dash, so this can only remove.
		removed, removes := strings.CutSuffix(arg, "-")
		switch {
		case sets && !labelName.MatchString(name):
			return nil, ch, usagef(cmd, "%q is no name of a label: use letters, digits, dashes, dots and at most one slash", name)
		case sets && !labelValue.MatchString(value):
			return nil, ch, usagef(cmd, "%q is no value of a label: use at most 63 letters, digits, dashes, underscores and dots", value)
		case sets:
			ch.set[name] = value
		case removes && i > 0:
			ch.remove = append(ch.remove, removed)
			name = removed
		case len(ch.set)+len(ch.remove) > 0:
			return nil, ch, usagef(cmd, "%q stands behind the labels: name the objects first", arg)
		default:
			rest = append(rest, arg)
			continue
		}
		if strings.HasPrefix(name, v1alpha1.Group+"/") {
			return nil, ch, usagef(cmd, "the label %s is Quorate's own: choose another name", name)
		}
		if _, both := ch.set[name]; both && slices.Contains(ch.remove, name) {
			return nil, ch, usagef(cmd, "the label %s is to be set and removed: leave one of them out", name)
		}
	}
	if len(ch.set)+len(ch.remove) == 0 {
		return nil, ch, usagef(cmd, "LABEL=VALUE or LABEL- is missing")
	}
	return rest, ch, nil
}

func (e *env) label(cmd *cobra.Command, args []string, o labelOptions) error {
	rest, ch, err := parseLabels(cmd, args, o.overwrite)
	if err != nil {
		return err
	}
	carry, err := parseSelector(cmd, o.selector)
	if err != nil {
		return err
	}
	if len(rest) == 0 {
		return usagef(cmd, "KIND is missing: what to label")
	}
	kind, found, err := e.targets(cmd, rest)
	if err != nil {
		return err
	}
	switch choose := o.all || o.selector != ""; {
	case len(found) == 0 && !choose:
		return usagef(cmd, "name the objects to label, or choose them with -l or --all")
	case len(found) > 0 && choose:
		return usagef(cmd, "-l and --all choose among all objects, and names were given")
	}
	c, err := e.connect()
	if err != nil {
		return err
	}
	note := ""
	if o.dryRun {
		c, note = c.DryRun(), " (dry run)"
	}
	if len(found) == 0 {
		objs, err := e.find(cmd.Context(), c, kind, nil, store.ListOptions{Namespace: e.listNamespace(kind, false), Labels: carry})
		if err != nil {
			return err
		}
		for _, obj := range objs {
			found = append(found, target{kind, store.KeyOf(obj)})
		}
		if len(found) == 0 {
			e.errorf("%s that -l or --all would choose: nothing was labelled\n", e.nothing([]v1alpha1.Kind{kind}, false))
		}
	}
	var errs []error
	for _, t := range found {
		changed, err := labelOne(cmd.Context(), c, t, ch)
		switch {
		case err != nil:
			errs = append(errs, named(t, err))
		case changed:
			e.printf("%s labelled%s\n", t, note)
		default:
			e.printf("%s unchanged%s\n", t, note)
		}
	}
	return errors.Join(errs...)
}

// labelOne changes the labels of an object as it is now.
func labelOne(ctx context.Context, c *remote.Client, t target, ch labelChange) (changed bool, err error) {
	ctx, cancel := call(ctx)
	defer cancel()
	err = store.Mutate(ctx, c, t.key, t.kind.New(), func(obj v1alpha1.Object) (bool, error) {
		labels, refused := ch.apply(obj.GetLabels())
		changed = refused == nil && !maps.Equal(labels, obj.GetLabels())
		obj.SetLabels(labels)
		return changed, refused
	})
	return changed, err
}

// apply returns the labels as they are to be.
func (ch labelChange) apply(has map[string]string) (map[string]string, error) {
	labels := maps.Clone(has)
	if labels == nil {
		labels = map[string]string{}
	}
	for _, name := range slices.Sorted(maps.Keys(ch.set)) {
		if was, ok := labels[name]; ok && was != ch.set[name] && !ch.overwrite {
			return nil, fmt.Errorf("the label %s is %q already, and not %q: give --overwrite to replace it: %w", name, was, ch.set[name], store.ErrForbidden)
		}
		labels[name] = ch.set[name]
	}
	for _, name := range ch.remove {
		delete(labels, name)
	}
	return labels, nil
}
