package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/api/schema"
	"github.com/quorate/quorate/api/v1alpha1"
)

func explainCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "explain KIND[.FIELD...]",
		Short: "Explain a kind or a field: its type, default, and why",
		Long: `Explain what a kind or one of its fields is: type, default, the reason for the
default, limits, and the fields below it. It needs no server.`,
		Example: `  quorate explain etcdcluster
  quorate explain etcdcluster.spec.etcd.quotaBackend
  quorate explain qem.status`,
		Args: argsBetween(1, 1, "KIND"),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			var kinds []string
			for _, k := range v1alpha1.Kinds() {
				kinds = append(kinds, strings.ToLower(k.Kind))
			}
			return kinds, noFiles | cobra.ShellCompDirectiveNoSpace
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			kind, _, _ := strings.Cut(strings.Trim(args[0], "."), ".")
			if _, err := kindArg(cmd, kind); err != nil {
				return err
			}
			x, err := schema.Explain(args[0])
			if err != nil {
				return usagef(cmd, "%v: `quorate explain %s` lists what there is", err, explainable(args[0]))
			}
			return e.printExplanation(x)
		},
	}
}

// explainable is the longest beginning of a path that can be explained.
func explainable(path string) string {
	for i := strings.LastIndexByte(path, '.'); i > 0; i = strings.LastIndexByte(path, '.') {
		path = path[:i]
		if _, err := schema.Explain(path); err == nil {
			break
		}
	}
	return path
}

func (e *env) printExplanation(x schema.Explanation) error {
	path := x.Kind
	if x.Path != "" {
		path += "." + x.Path
	}
	need := ""
	if x.Required {
		need = ", required"
	}
	e.printf("%s (%s%s)\n  %s\n\n", path, x.Type, need, x.APIVersion)
	if x.Description != "" {
		e.printf("%s\n\n", indent(fold(x.Description, 78), 2))
	}
	list := func(name string, texts ...string) {
		for _, text := range texts {
			if text != "" {
				e.printf("  %-9s%s\n", name, strings.TrimLeft(indent(fold(text, 69), 11), " "))
				name = ""
			}
		}
	}
	list("Default", x.Default)
	list("Why", x.Why)
	list("One of", strings.Join(x.Enum, ", "))
	list("Limits", x.Limits...)
	list("Rules", x.Rules...)
	if len(x.Children) == 0 {
		return nil
	}
	e.printf("\n")
	g := grid{header: []string{"field", "type", "default", "description"}, wrap: []int{3}}
	for _, c := range x.Children {
		def := c.Default
		if c.Required {
			def = "(required)"
		}
		g.add(c.Name, c.Type, def, c.Summary)
	}
	return g.write(e.Out, width(e.Out))
}

// fold breaks text into lines of at most columns.
func fold(s string, columns int) string {
	var out strings.Builder
	for i, paragraph := range strings.Split(s, "\n\n") {
		if i > 0 {
			out.WriteString("\n\n")
		}
		at := 0
		for j, word := range strings.Fields(paragraph) {
			n := len([]rune(word))
			switch {
			case j > 0 && at+1+n > columns:
				out.WriteByte('\n')
				at = 0
			case j > 0:
				out.WriteByte(' ')
				at++
			}
			out.WriteString(word)
			at += n
		}
	}
	return out.String()
}
