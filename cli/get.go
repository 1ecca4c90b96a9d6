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
	watch    bool
	output   string
}

func getCommand(e *env) *cobra.Command {
	var o getOptions
	cmd := &cobra.Command{
		Use:   "get KIND[,KIND...] [NAME...]",
		Short: "Show objects in a table, or as they are stored",
		Long: `Show one, several or all objects of a kind: clusters, members, hosts, tasks or
secrets. Kinds have short names (qec, qem, qeh, qet), and KIND/NAME works as well.
Several kinds are parted by commas; "all" is all of them but secrets.

With -w it goes on with what changes: a row each in a table, and with -o json a line
each, {"type":"ADDED|MODIFIED|DELETED","object":{...}}, as Kubernetes writes them.

What -o yaml prints for one object can be edited and given to "quorate apply".`,
		Example: `  quorate get clusters
  quorate get clusters,members
  quorate get all -A
  quorate get members -o wide
  quorate get members -w
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
	cmd.Flags().BoolVarP(&o.watch, "watch", "w", false, "go on with what changes from now on")
	outputFlag(cmd, &o.output, getForms...)
	return cmd
}

// wanted is what a command asks for: objects by name, or all of some kinds.
type wanted struct {
	kinds []v1alpha1.Kind
	named []target
}

// wants reads KIND[,KIND...] [NAME...], or KIND/NAME....
func (e *env) wants(cmd *cobra.Command, args []string) (wanted, error) {
	if strings.Contains(args[0], "/") || len(args) > 1 && !strings.Contains(args[0], ",") {
		_, found, err := e.targets(cmd, args)
		w := wanted{named: found}
		for _, t := range found {
			if !slices.ContainsFunc(w.kinds, func(k v1alpha1.Kind) bool { return k.Kind == t.kind.Kind }) {
				w.kinds = append(w.kinds, t.kind)
			}
		}
		return w, err
	}
	kinds, err := kindList(cmd, args[0])
	if err == nil && len(args) > 1 {
		err = usagef(cmd, "%q is a name, and there are several kinds: write KIND/NAME for each object", args[1])
	}
	return wanted{kinds: kinds}, err
}

func (e *env) get(cmd *cobra.Command, args []string, o getOptions) error {
	if err := checkOutput(cmd, o.output, getForms...); err != nil {
		return err
	}
	labels, err := parseSelector(cmd, o.selector)
	if err != nil {
		return err
	}
	w, err := e.wants(cmd, args)
	if err != nil {
		return err
	}
	if len(w.named) > 0 && (o.all || o.selector != "") {
		return usagef(cmd, "-A and -l choose among all objects, and names were given")
	}
	if o.watch && len(w.kinds) > 1 {
		return usagef(cmd, "--watch shows one kind at a time, and %d were given", len(w.kinds))
	}
	c, err := e.connect()
	if err != nil {
		return err
	}
	s := shown{form: o.output, namespaces: o.all, single: len(w.named) == 1, labelled: len(w.kinds) > 1}
	if o.watch {
		return e.watch(cmd.Context(), c, w, store.ListOptions{Namespace: e.listNamespace(w.kinds[0], o.all), Labels: labels}, s)
	}
	objs, err := e.findAll(cmd.Context(), c, w, o.all, labels)
	if err != nil {
		return err
	}
	if len(objs) == 0 && (o.output == outTable || o.output == outWide) {
		e.errorf("%s\n", e.nothing(w.kinds, o.all))
		return nil
	}
	return e.printObjects(objs, s)
}

// findAll reads what is asked for, kind by kind.
func (e *env) findAll(ctx context.Context, c *remote.Client, w wanted, all bool, labels map[string]string) ([]v1alpha1.Object, error) {
	defer e.slowly("reading from " + c.Server())()
	var objs []v1alpha1.Object
	for _, kind := range w.kinds {
		found, err := e.find(ctx, c, kind, w.of(kind), store.ListOptions{Namespace: e.listNamespace(kind, all), Labels: labels})
		if err != nil {
			return nil, err
		}
		objs = append(objs, found...)
	}
	return objs, nil
}

// of are the named objects of a kind.
func (w wanted) of(kind v1alpha1.Kind) []target {
	return slices.DeleteFunc(slices.Clone(w.named), func(t target) bool { return t.kind.Kind != kind.Kind })
}

// nothing says that there is none of some kinds.
func (e *env) nothing(kinds []v1alpha1.Kind, all bool) string {
	names := make([]string, 0, len(kinds))
	namespaced := false
	for _, k := range kinds {
		names = append(names, k.Plural)
		namespaced = namespaced || k.Namespaced
	}
	text := "there are no " + strings.Join(names, ", ")
	if namespaced && !all {
		text += " in namespace " + e.namespace
	}
	return text
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
