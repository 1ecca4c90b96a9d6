package cli

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/quorate/quorate/api/schema"
	"github.com/quorate/quorate/api/v1alpha1"
)

// Forms of output.
const (
	outTable    = "table"
	outWide     = "wide"
	outJSON     = "json"
	outYAML     = "yaml"
	outName     = "name"
	outJSONPath = "jsonpath="
)

// outputFlag adds -o with the forms that the command has; the first is the default.
func outputFlag(cmd *cobra.Command, to *string, forms ...string) {
	cmd.Flags().StringVarP(to, "output", "o", forms[0], "form of the output: "+strings.Join(forms, ", "))
	complete(cmd, "output", forms...)
}

// checkOutput refuses an unknown form before anything is done.
func checkOutput(cmd *cobra.Command, form string, forms ...string) error {
	if slices.Contains(forms, outJSONPath) && strings.HasPrefix(form, outJSONPath) {
		if form != outJSONPath {
			return nil
		}
		return usagef(cmd, "--output jsonpath= wants a template, such as jsonpath='{.status.ready}'")
	}
	if slices.Contains(forms, form) {
		return nil
	}
	return usagef(cmd, "--output is %q: use one of %s", form, strings.Join(forms, ", "))
}

// printValue writes v as JSON or YAML.
func (e *env) printValue(form string, v any) error {
	var raw []byte
	var err error
	if form == outYAML {
		raw, err = yaml.Marshal(v)
	} else {
		raw, err = json.MarshalIndent(v, "", "  ")
		raw = append(raw, '\n')
	}
	if err != nil {
		return fmt.Errorf("write as %s: %w", form, err)
	}
	_, err = e.Out.Write(raw)
	return err
}

// shown says how objects are printed.
type shown struct {
	form string
	// namespaces adds a column.
	namespaces bool
	// single prints an object by itself rather than in a List.
	single bool
	// labelled puts the kind before each name.
	labelled bool
}

// printObjects writes objects; those of one kind stand together.
func (e *env) printObjects(objs []v1alpha1.Object, s shown) error {
	switch {
	case s.form == outName:
		for _, o := range objs {
			e.printf("%s\n", label(v1alpha1.KindOf(o), o.GetName()))
		}
		return nil
	case s.form == outJSON, s.form == outYAML:
		return e.printStructured(objs, s)
	case strings.HasPrefix(s.form, outJSONPath):
		template := strings.TrimPrefix(s.form, outJSONPath)
		var text string
		var err error
		if s.single {
			text, err = schema.JSONPath(objs[0], template)
		} else {
			text, err = schema.JSONPathList(objs, template)
		}
		if err != nil {
			return &usageError{command: "quorate get", text: err.Error()}
		}
		e.printf("%s\n", strings.TrimSuffix(text, "\n"))
		return nil
	}
	kinds, of := groups(objs)
	for i, kind := range kinds {
		if i > 0 {
			e.printf("\n")
		}
		if err := e.printTable(kind, of[kind.Kind], s); err != nil {
			return err
		}
	}
	return nil
}

// groups sorts objects by kind, in the order in which the kinds first come.
func groups(objs []v1alpha1.Object) (kinds []v1alpha1.Kind, of map[string][]v1alpha1.Object) {
	of = map[string][]v1alpha1.Object{}
	for _, obj := range objs {
		kind := v1alpha1.KindOf(obj)
		if _, ok := of[kind.Kind]; !ok {
			kinds = append(kinds, kind)
		}
		of[kind.Kind] = append(of[kind.Kind], obj)
	}
	return kinds, of
}

func (e *env) printStructured(objs []v1alpha1.Object, s shown) error {
	var v any
	var err error
	if s.single {
		v, err = schema.Map(objs[0])
	} else {
		v, err = schema.List(objs)
	}
	if err != nil {
		return err
	}
	return e.printValue(s.form, v)
}

func (e *env) printTable(kind v1alpha1.Kind, objs []v1alpha1.Object, s shown) error {
	g, err := tableOf(kind, objs, s)
	if err != nil {
		return err
	}
	return g.write(e.Out, 0)
}

// tableOf is the table of objects of one kind.
func tableOf(kind v1alpha1.Kind, objs []v1alpha1.Object, s shown) (grid, error) {
	columns, err := tableColumns(kind, s.form == outWide)
	g := grid{}
	if err != nil {
		return g, err
	}
	if s.namespaces && kind.Namespaced {
		g.header = append(g.header, "namespace")
	}
	g.header = append(g.header, "name")
	for _, c := range columns {
		if c.Type == "date" {
			g.ages = append(g.ages, len(g.header))
		}
		g.header = append(g.header, c.Name)
	}
	now := time.Now()
	for _, o := range objs {
		cells, err := schema.EvalColumns(o, columns)
		if err != nil {
			return g, err
		}
		for i, c := range columns {
			if c.Type == "date" {
				cells[i] = ageOf(cells[i], now)
			}
		}
		name := o.GetName()
		if s.labelled {
			name = label(kind, name)
		}
		r := []string{name}
		if s.namespaces && kind.Namespaced {
			r = []string{o.GetNamespace(), name}
		}
		g.add(append(r, cells...)...)
	}
	return g, nil
}

// ageOf is how long ago a time in RFC 3339 was.
func ageOf(stamp string, now time.Time) string {
	t, err := time.Parse(time.RFC3339, stamp)
	if err != nil {
		return stamp
	}
	return age(t, now)
}

// wide are the columns that `-o wide` adds to those of the CRD.
var wide = map[string][]schema.Column{
	v1alpha1.KindCluster.Kind: {
		{Name: "Cluster ID", JSONPath: ".status.clusterID"},
		{Name: "TLS", JSONPath: ".spec.tls.mode"},
		{Name: "Endpoints", JSONPath: ".status.endpoints[*]"},
	},
	v1alpha1.KindMember.Kind: {
		{Name: "Member ID", JSONPath: ".spec.memberID"},
		{Name: "Peer URL", JSONPath: ".status.peerURL"},
		{Name: "Data directory", JSONPath: ".status.dataDir"},
		{Name: "Message", JSONPath: ".status.message"},
	},
	v1alpha1.KindHost.Kind: {
		{Name: "Zone", JSONPath: ".spec.zone"},
		{Name: "Unschedulable", JSONPath: ".spec.unschedulable"},
		{Name: "Boot ID", JSONPath: ".status.bootID"},
	},
	v1alpha1.KindTask.Kind: {
		{Name: "Acted", JSONPath: ".status.actedAt"},
		{Name: "Finished", JSONPath: ".status.finishedAt"},
		{Name: "Message", JSONPath: ".status.message"},
	},
	v1alpha1.KindBackup.Kind: {
		{Name: "Member", JSONPath: ".status.source.member"},
		{Name: "Stored", JSONPath: ".status.storedSize"},
		{Name: "Finished", JSONPath: ".status.finishedAt"},
	},
	v1alpha1.KindRestore.Kind: {
		{Name: "Revision", JSONPath: ".status.revision"},
		{Name: "Took (ms)", JSONPath: ".status.tookMilliseconds"},
		{Name: "Finished", JSONPath: ".status.finishedAt"},
	},
}

func tableColumns(kind v1alpha1.Kind, all bool) ([]schema.Column, error) {
	columns, err := schema.Columns(kind)
	if err != nil {
		return nil, err
	}
	if all {
		return append(columns, wide[kind.Kind]...), nil
	}
	return slices.DeleteFunc(columns, func(c schema.Column) bool { return c.Wide }), nil
}
