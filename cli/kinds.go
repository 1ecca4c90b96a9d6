package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
)

// target is an object that an argument names.
type target struct {
	kind v1alpha1.Kind
	key  store.Key
}

// String is kind/name.
func (t target) String() string { return label(t.kind, t.key.Name) }

// label names an object as `-o name` does.
func label(kind v1alpha1.Kind, name string) string {
	return strings.ToLower(kind.Kind) + "/" + name
}

// kindArg finds the kind that an argument names.
func kindArg(cmd *cobra.Command, text string) (v1alpha1.Kind, error) {
	kind, ok := v1alpha1.KindNamed(text)
	if !ok {
		return kind, usagef(cmd, "there is no kind %q: use one of %s", text, strings.Join(kindNames(), ", "))
	}
	return kind, nil
}

// kindNames are the names that are easiest to type.
func kindNames() []string {
	names := make([]string, 0, len(v1alpha1.Kinds()))
	for _, k := range v1alpha1.Kinds() {
		name := k.Plural
		if len(k.ShortNames) > 0 {
			name = k.ShortNames[len(k.ShortNames)-1]
		}
		names = append(names, name)
	}
	return names
}

// groupAll stands for all kinds that belong to clusters, as kubectl's does for its
// own: Secrets must be asked for by name.
const groupAll = "all"

// kindList reads KIND[,KIND...] or all.
func kindList(cmd *cobra.Command, text string) ([]v1alpha1.Kind, error) {
	if strings.EqualFold(text, groupAll) {
		return slices.DeleteFunc(v1alpha1.Kinds(), func(k v1alpha1.Kind) bool { return k.Kind == v1alpha1.KindSecret.Kind }), nil
	}
	var kinds []v1alpha1.Kind
	for name := range strings.SplitSeq(text, ",") {
		kind, err := kindArg(cmd, strings.TrimSpace(name))
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(kinds, func(k v1alpha1.Kind) bool { return k.Kind == kind.Kind }) {
			kinds = append(kinds, kind)
		}
	}
	return kinds, nil
}

// targets reads KIND NAME…, or KIND/NAME…, where no name may mean all.
func (e *env) targets(cmd *cobra.Command, args []string) (kind v1alpha1.Kind, found []target, err error) {
	if !strings.Contains(args[0], "/") {
		if kind, err = kindArg(cmd, args[0]); err != nil {
			return kind, nil, err
		}
		for _, name := range args[1:] {
			if strings.Contains(name, "/") {
				return kind, nil, usagef(cmd, "%q is no name: write %s NAME…, or KIND/NAME…", name, args[0])
			}
			found = append(found, e.target(kind, name))
		}
		return kind, found, nil
	}
	for _, arg := range args {
		kindName, name, ok := strings.Cut(arg, "/")
		if !ok || name == "" {
			return kind, nil, usagef(cmd, "%q is not KIND/NAME", arg)
		}
		if kind, err = kindArg(cmd, kindName); err != nil {
			return kind, nil, err
		}
		found = append(found, e.target(kind, name))
	}
	return kind, found, nil
}

// oneTarget reads KIND NAME or KIND/NAME.
func (e *env) oneTarget(cmd *cobra.Command, args []string) (target, error) {
	_, found, err := e.targets(cmd, args)
	if err != nil {
		return target{}, err
	}
	if len(found) != 1 {
		return target{}, usagef(cmd, "name one object: KIND NAME, or KIND/NAME")
	}
	return found[0], nil
}

func (e *env) target(kind v1alpha1.Kind, name string) target {
	t := target{kind: kind, key: store.Key{Name: name}}
	if kind.Namespaced {
		t.key.Namespace = e.namespace
	}
	return t
}

// cluster is the key of a cluster that an argument names.
func (e *env) cluster(name string) store.Key {
	name = strings.TrimPrefix(name, "cluster/")
	return e.target(v1alpha1.KindCluster, strings.TrimPrefix(name, "etcdcluster/")).key
}

// read gets an object.
func read(ctx context.Context, c *remote.Client, t target) (v1alpha1.Object, error) {
	ctx, cancel := call(ctx)
	defer cancel()
	obj := t.kind.New()
	if err := c.Get(ctx, t.key, obj); err != nil {
		return nil, named(t, err)
	}
	return obj, nil
}

func readCluster(ctx context.Context, c *remote.Client, key store.Key) (*v1alpha1.EtcdCluster, error) {
	ctx, cancel := call(ctx)
	defer cancel()
	cluster := &v1alpha1.EtcdCluster{}
	if err := c.Get(ctx, key, cluster); err != nil {
		return nil, named(target{v1alpha1.KindCluster, key}, err)
	}
	return cluster, nil
}

// membersOf lists the members of a cluster.
func membersOf(ctx context.Context, c *remote.Client, cluster store.Key) ([]*v1alpha1.EtcdMember, error) {
	return listOf[*v1alpha1.EtcdMember](ctx, c, v1alpha1.KindMember, cluster)
}

// listOf lists what belongs to a cluster.
func listOf[T v1alpha1.Object](ctx context.Context, c *remote.Client, kind v1alpha1.Kind, cluster store.Key) ([]T, error) {
	ctx, cancel := call(ctx)
	defer cancel()
	objs, err := c.List(ctx, kind, store.ListOptions{
		Namespace: cluster.Namespace, Labels: map[string]string{v1alpha1.LabelCluster: cluster.Name},
	})
	if err != nil {
		return nil, err
	}
	list := make([]T, 0, len(objs))
	for _, obj := range objs {
		if o, ok := obj.(T); ok {
			list = append(list, o)
		}
	}
	return list, nil
}

// named puts the object before the cause, and the next step behind a missing one.
func named(t target, err error) error {
	if errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrStale) || errors.Is(err, context.Canceled) {
		return err
	}
	if errors.Is(err, store.ErrNotFound) {
		where := ""
		if t.kind.Namespaced {
			where = " in namespace " + t.key.Namespace
		}
		list := t.kind.Plural
		if len(t.kind.ShortNames) > 0 {
			list = t.kind.ShortNames[len(t.kind.ShortNames)-1]
		}
		return fmt.Errorf("%s: %w%s: `quorate get %s%s` lists what there is", t, store.ErrNotFound, where, list, allNamespaces(t.kind))
	}
	return fmt.Errorf("%s: %w", t, err)
}

func allNamespaces(kind v1alpha1.Kind) string {
	if kind.Namespaced {
		return " -A"
	}
	return ""
}

// age is a duration as tables show it.
func age(since, now time.Time) string {
	if since.IsZero() {
		return "-"
	}
	d := max(now.Sub(since), 0)
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 10*time.Minute:
		return fmt.Sprintf("%dm%ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 3*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours())/24)
}
