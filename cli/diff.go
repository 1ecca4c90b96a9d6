package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pmezard/go-difflib/difflib"
	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/quorate/quorate/api/schema"
	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
)

// diffContext is how many equal lines are shown around a difference.
const diffContext = 3

func diffCommand(e *env) *cobra.Command {
	var files []string
	cmd := &cobra.Command{
		Use:   "diff -f FILE",
		Short: "Show what applying files would change",
		Long: `Show what "quorate apply" would change about what is stored, as a unified diff. The
files are merged, completed with defaults and checked by the server as if they were
applied; nothing is written. Status is left out, and of Secrets only a hash of each
value is shown.

It ends with exit code 7 when there is a difference, and 0 when there is none.`,
		Example: `  quorate diff -f playground.yaml
  quorate get cluster playground -o yaml | quorate diff -f -`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(files) == 0 {
				return usagef(cmd, "-f is missing: the file or directory to compare, or - for the standard input")
			}
			return e.diff(cmd, files)
		},
	}
	filesFlag(cmd, &files, "file or directory to compare")
	return cmd
}

func (e *env) diff(cmd *cobra.Command, files []string) error {
	sources, err := e.readSources(cmd, files)
	if err != nil {
		return err
	}
	c, err := e.connect()
	if err != nil {
		return err
	}
	differs := false
	for _, s := range sources {
		text, err := differenceOf(cmd.Context(), c, s)
		if err != nil {
			return fmt.Errorf("%s: %s: %w", s.file, label(v1alpha1.KindOf(s.doc.Object), s.doc.Object.GetName()), err)
		}
		differs = differs || text != ""
		e.printDiff(text)
	}
	if differs {
		return errDiffers
	}
	return nil
}

// differenceOf is what applying a document would change.
func differenceOf(ctx context.Context, c *remote.Client, s source) (string, error) {
	ctx, cancel := call(ctx)
	defer cancel()
	kind, key := v1alpha1.KindOf(s.doc.Object), store.KeyOf(s.doc.Object)
	live := kind.New()
	err := c.Get(ctx, key, live)
	if errors.Is(err, store.ErrNotFound) {
		live = nil
	} else if err != nil {
		return "", err
	}
	// The server completes and checks what it is given, and says what it would store.
	after, _, err := applyOne(ctx, c.DryRun(), s.doc)
	if err != nil {
		return "", err
	}
	before := ""
	if live != nil {
		if before, err = asWritten(live); err != nil {
			return "", err
		}
	}
	text, err := asWritten(after)
	if err != nil {
		return "", err
	}
	name := label(kind, key.Name)
	if key.Namespace != "" && key.Namespace != defaultNamespace {
		name += " in namespace " + key.Namespace
	}
	from := name + " as it is stored"
	if live == nil {
		from = name + ", which does not exist"
	}
	return unified(before, text, from, name+" as "+s.file+" would make it")
}

// asWritten is an object as YAML, without what only the server writes.
func asWritten(obj v1alpha1.Object) (string, error) {
	m, err := schema.Map(obj)
	if err != nil {
		return "", err
	}
	delete(m, "status")
	if meta, ok := m["metadata"].(map[string]any); ok {
		for _, k := range []string{"resourceVersion", "generation", "uid", "creationTimestamp", "managedFields"} {
			delete(meta, k)
		}
		if notes, ok := meta["annotations"].(map[string]any); ok {
			delete(notes, v1alpha1.AnnotationLastApplied)
			delete(notes, v1alpha1.AnnotationAppliedFrom)
			if len(notes) == 0 {
				delete(meta, "annotations")
			}
		}
	}
	if secret, ok := obj.(*v1alpha1.Secret); ok {
		m["data"] = hashes(secret.Data)
	}
	raw, err := yaml.Marshal(m)
	return string(raw), err
}

// unified is the difference between two texts; empty where there is none.
func unified(before, after, from, to string) (string, error) {
	if before == after {
		return "", nil
	}
	return difflib.GetUnifiedDiffString(difflib.UnifiedDiff{
		A: slices.Collect(strings.Lines(before)), B: slices.Collect(strings.Lines(after)), FromFile: from, ToFile: to, Context: diffContext,
	})
}

// printDiff colours a unified diff line by line, where that may be.
func (e *env) printDiff(text string) {
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "--- "), strings.HasPrefix(line, "+++ "):
			line = e.painted(bold, line)
		case strings.HasPrefix(line, "@@"):
			line = e.painted(cyan, line)
		case strings.HasPrefix(line, "+"):
			line = e.painted(green, line)
		case strings.HasPrefix(line, "-"):
			line = e.painted(red, line)
		}
		e.printf("%s\n", line)
	}
}
