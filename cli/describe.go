package cli

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/quorate/quorate/api/schema"
	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
)

// Sizes of the lists in a description.
const (
	describedTasks  = 5
	describedEvents = 10
)

func describeCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "describe KIND NAME",
		Short: "Show an object with all that belongs to it",
		Long: `Show an object for people: what is wanted, what is seen, its conditions with their
reasons, its latest events, and for a cluster also its members, what is left to do,
and its latest tasks.`,
		Example: `  quorate describe cluster playground
  quorate describe member/playground-1
  quorate describe host localhost`,
		Args:              argsBetween(1, 2, "KIND NAME"),
		ValidArgsFunction: e.completeOne,
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := e.oneTarget(cmd, args)
			if err != nil {
				return err
			}
			c, err := e.connect()
			if err != nil {
				return err
			}
			return e.describe(cmd.Context(), c, t)
		},
	}
}

func (e *env) describe(ctx context.Context, c *remote.Client, t target) error {
	obj, err := read(ctx, c, t)
	if err != nil {
		return err
	}
	e.describeMeta(t, obj)
	if host, ok := obj.(*v1alpha1.EtcdHost); ok {
		err = e.describeHost(ctx, c, host)
	} else {
		err = e.describeFields(obj)
	}
	if err != nil {
		return err
	}
	if err = e.describeConditions(obj); err != nil {
		return err
	}
	opts := store.EventOptions{Namespace: t.key.Namespace, Kind: t.kind.Kind, Name: t.key.Name}
	if t.kind.Kind == v1alpha1.KindCluster.Kind {
		opts = store.EventOptions{Namespace: t.key.Namespace, Cluster: t.key.Name}
		if cluster, ok := obj.(*v1alpha1.EtcdCluster); ok && cluster.Observed() {
			err = e.describeObserved(ctx, c, t.key)
		} else {
			err = e.describeCluster(ctx, c, t.key)
		}
		if err != nil {
			return err
		}
	}
	events, err := recent(ctx, c, opts)
	if err != nil {
		return err
	}
	e.heading("Events")
	if len(events) == 0 {
		e.printf("  none\n")
		return nil
	}
	return e.indented(func(in *env) error { return in.printEvents(events[max(0, len(events)-describedEvents):]) })
}

func (e *env) describeMeta(t target, obj v1alpha1.Object) {
	line := func(name, value string) {
		if value != "" {
			e.printf("%-12s%s\n", name+":", value)
		}
	}
	line("Kind", t.kind.Kind)
	line("Name", obj.GetName())
	line("Namespace", obj.GetNamespace())
	line("Created", obj.GetCreationTimestamp().UTC().Format(time.RFC3339)+" ("+age(obj.GetCreationTimestamp().Time, time.Now())+" ago)")
	if d := obj.GetDeletionTimestamp(); d != nil {
		line("Deleting", "since "+d.UTC().Format(time.RFC3339)+", held by "+strings.Join(obj.GetFinalizers(), ", "))
	}
	line("UID", string(obj.GetUID()))
	line("Generation", strconv.FormatInt(obj.GetGeneration(), 10))
	line("Labels", pairs(obj.GetLabels()))
	annotations := maps.Clone(obj.GetAnnotations())
	delete(annotations, v1alpha1.AnnotationLastApplied)
	line("Annotations", pairs(annotations))
}

func pairs(m map[string]string) string {
	list := make([]string, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		list = append(list, k+"="+m[k])
	}
	return strings.Join(list, ", ")
}

// describeFields shows spec and status; of a Secret only the sizes of its values.
func (e *env) describeFields(obj v1alpha1.Object) error {
	if s, ok := obj.(*v1alpha1.Secret); ok {
		e.printf("%-12s%s\n", "Type:", s.Type)
		e.heading("Data")
		for _, k := range slices.Sorted(maps.Keys(s.Data)) {
			e.printf("  %s: %d bytes\n", k, len(s.Data[k]))
		}
		return nil
	}
	m, err := schema.Map(obj)
	if err != nil {
		return err
	}
	for _, part := range []string{"spec", "status"} {
		fields, ok := m[part].(map[string]any)
		if !ok {
			continue
		}
		delete(fields, "conditions")
		if len(fields) == 0 {
			continue
		}
		raw, err := yaml.Marshal(fields)
		if err != nil {
			return err
		}
		e.heading(strings.ToUpper(part[:1]) + part[1:])
		e.printf("%s", indent(string(raw), 2))
	}
	return nil
}

func (e *env) describeConditions(obj v1alpha1.Object) error {
	list := conditionsOf(obj)
	if len(list) == 0 {
		return nil
	}
	e.heading("Conditions")
	g := grid{header: []string{"type", "status", "since", "reason", "message"}}
	for _, c := range list {
		g.add(c.Type, string(c.Status), age(c.LastTransitionTime.Time, time.Now()), c.Reason, c.Message)
	}
	return e.indented(func(in *env) error { return g.write(in.Out, 0) })
}

func (e *env) describeCluster(ctx context.Context, c *remote.Client, key store.Key) error {
	members, err := membersOf(ctx, c, key)
	if err != nil {
		return err
	}
	e.heading("Members")
	objs := make([]v1alpha1.Object, len(members))
	for i, m := range members {
		objs[i] = m
	}
	if len(objs) == 0 {
		e.printf("  none\n")
	} else if err := e.indented(func(in *env) error { return in.printTable(v1alpha1.KindMember, objs, shown{form: outTable}) }); err != nil {
		return err
	}
	for _, m := range members {
		if m.Status.Message != "" {
			e.printf("  %s: %s\n", m.Name, m.Status.Message)
		}
	}
	if err := e.describePlan(ctx, c, key); err != nil {
		return err
	}
	return e.describeTasks(ctx, c, key)
}

// describeObserved shows the members of a cluster that others run as they answer now:
// there are no objects of them, and no plan.
func (e *env) describeObserved(ctx context.Context, c *remote.Client, key store.Key) error {
	v, err := viewOf(ctx, c, key)
	if err != nil {
		return err
	}
	e.heading("Members")
	return e.indented(func(in *env) error { return in.printCluster(false, false, v) })
}

func (e *env) describePlan(ctx context.Context, c *remote.Client, key store.Key) error {
	ctx, cancel := call(ctx)
	defer cancel()
	p, err := c.Plan(ctx, key)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	e.heading("Plan")
	if p.Held != "" {
		e.printf("  held (%s): %s\n", p.HeldReason, p.Held)
	}
	for i, s := range p.Steps {
		e.printf("  %d. %s %s: %s\n", i+1, s.Action, s.Member, s.Reason)
	}
	if len(p.Steps) == 0 && p.Held == "" {
		e.printf("  nothing to do\n")
	}
	return nil
}

func (e *env) describeTasks(ctx context.Context, c *remote.Client, key store.Key) error {
	tasks, err := listOf[*v1alpha1.EtcdTask](ctx, c, v1alpha1.KindTask, key)
	if err != nil || len(tasks) == 0 {
		return err
	}
	slices.SortFunc(tasks, func(a, b *v1alpha1.EtcdTask) int { return int(a.Spec.Number - b.Spec.Number) })
	e.heading("Latest tasks")
	g := grid{header: []string{"name", "action", "member", "phase", "age", "reason"}}
	for _, t := range tasks[max(0, len(tasks)-describedTasks):] {
		g.add(t.Name, string(t.Spec.Action), t.Spec.Member, string(t.Status.Phase), age(t.CreationTimestamp.Time, time.Now()), t.Spec.Reason)
	}
	return e.indented(func(in *env) error { return g.write(in.Out, 0) })
}

func (e *env) heading(name string) { e.printf("\n%s:\n", name) }

// indented runs f with an output that is shifted to the right.
func (e *env) indented(f func(in *env) error) error {
	var text strings.Builder
	in := *e
	in.Out = &text
	err := f(&in)
	e.printf("%s", indent(text.String(), 2))
	return err
}
