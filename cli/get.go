package cli

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
)

var getForms = []string{outTable, outWide, outJSON, outYAML, outName, outJSONPath}

type getOptions struct {
	all      bool
	selector string
	output   string
}

func getCommand(e *env) *cobra.Command {
	var o getOptions
	cmd := &cobra.Command{
		Use:   "get KIND [NAME...]",
		Short: "Show objects in a table, or as they are stored",
		Long: `Show one, several or all objects of a kind: clusters, members, hosts, tasks or
secrets. Kinds have short names (qec, qem, qeh, qet), and KIND/NAME works as well.

What -o yaml prints for one object can be edited and given to "quorate apply".`,
		Example: `  quorate get clusters
  quorate get members -o wide
  quorate get members -l quorate.io/cluster=playground
  quorate get cluster playground -o yaml > playground.yaml
  quorate get cluster playground -o jsonpath='{.status.endpoints[0]}'`,
		Args:              argsBetween(1, -1, "KIND"),
		ValidArgsFunction: e.completeObjects,
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.get(cmd, args, o)
		},
	}
	cmd.Flags().BoolVarP(&o.all, "all-namespaces", "A", false, "objects of all namespaces")
	cmd.Flags().StringVarP(&o.selector, "selector", "l", "", "labels that the objects must carry, such as a=b,c=d")
	outputFlag(cmd, &o.output, getForms...)
	return cmd
}

func (e *env) get(cmd *cobra.Command, args []string, o getOptions) error {
	if err := checkOutput(cmd, o.output, getForms...); err != nil {
		return err
	}
	labels, err := parseSelector(cmd, o.selector)
	if err != nil {
		return err
	}
	kind, found, err := e.targets(cmd, args)
	if err != nil {
		return err
	}
	if len(found) > 0 && (o.all || o.selector != "") {
		return usagef(cmd, "-A and -l choose among all objects, and names were given")
	}
	if slices.ContainsFunc(found, func(t target) bool { return t.kind.Kind != kind.Kind }) {
		return usagef(cmd, "name objects of one kind at a time")
	}
	c, err := e.connect()
	if err != nil {
		return err
	}
	objs, err := e.find(cmd.Context(), c, kind, found, store.ListOptions{Namespace: e.listNamespace(kind, o.all), Labels: labels})
	if err != nil {
		return err
	}
	if len(objs) == 0 && (o.output == outTable || o.output == outWide) {
		where := ""
		if kind.Namespaced && !o.all {
			where = " in namespace " + e.namespace
		}
		e.errorf("there are no %s%s\n", kind.Plural, where)
		return nil
	}
	return e.printObjects(kind, objs, shown{form: o.output, namespaces: o.all, single: len(found) == 1})
}

func (e *env) listNamespace(kind v1alpha1.Kind, all bool) string {
	if all || !kind.Namespaced {
		return ""
	}
	return e.namespace
}

// find reads the objects that are named, or else lists.
func (*env) find(ctx context.Context, c *remote.Client, kind v1alpha1.Kind, named []target, opts store.ListOptions) ([]v1alpha1.Object, error) {
	if len(named) == 0 {
		callCtx, cancel := call(ctx)
		defer cancel()
		return c.List(callCtx, kind, opts)
	}
	objs := make([]v1alpha1.Object, 0, len(named))
	for _, t := range named {
		obj, err := read(ctx, c, t)
		if err != nil {
			return nil, err
		}
		objs = append(objs, obj)
	}
	return objs, nil
}

// parseSelector reads a=b,c=d.
func parseSelector(cmd *cobra.Command, text string) (map[string]string, error) {
	if text == "" {
		return nil, nil //nolint:nilnil // no labels are asked for
	}
	labels := map[string]string{}
	for term := range strings.SplitSeq(text, ",") {
		k, v, ok := strings.Cut(term, "=")
		k, v = strings.TrimSpace(k), strings.TrimSpace(strings.TrimPrefix(v, "="))
		if !ok || k == "" || strings.HasSuffix(k, "!") {
			return nil, usagef(cmd, "--selector has the term %q: write LABEL=VALUE, and several with commas", term)
		}
		labels[k] = v
	}
	return labels, nil
}
