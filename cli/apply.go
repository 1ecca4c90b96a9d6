package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/api/schema"
	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
)

// What apply did to an object.
const (
	wasCreated    = "created"
	wasConfigured = "configured"
	wasUnchanged  = "unchanged"
)

// maxConflicts is how often an apply begins again when others write the same object.
const maxConflicts = 10

var applyForms = []string{outTable, outName, outJSON, outYAML, outJSONPath}

type applyOptions struct {
	files  []string
	dryRun bool
	output string
}

// extensions are those that a directory is searched for.
var extensions = []string{".yaml", ".yml", ".json"}

// source is one object of a file.
type source struct {
	file string
	doc  schema.Document
}

func applyCommand(e *env) *cobra.Command {
	var o applyOptions
	cmd := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Create or change objects as files say",
		Long: `Bring objects to what files say. The file is merged as kubectl does: what it says
is set, what it said when last applied and says no longer is dropped, and what
others have set stays.

All files are read and checked before anything is written. An unknown or mistyped
field is an error that names its path. -f may be given several times and takes
directories; "-" is the standard input. "quorate diff" shows beforehand what would
change.`,
		Example: `  quorate apply -f playground.yaml
  quorate apply -f clusters/ --dry-run
  quorate apply -f playground.yaml -o yaml
  quorate get cluster playground -o yaml | quorate apply -f -`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(o.files) == 0 {
				return usagef(cmd, "-f is missing: the file or directory to apply, or - for the standard input")
			}
			return e.apply(cmd, o)
		},
	}
	filesFlag(cmd, &o.files, "file or directory to apply")
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "only have the server check it, and say what would be done")
	outputFlag(cmd, &o.output, applyForms...)
	return cmd
}

// filesFlag adds -f.
func filesFlag(cmd *cobra.Command, to *[]string, what string) {
	cmd.Flags().StringArrayVarP(to, "filename", "f", nil, what+"; - for the standard input")
}

func (e *env) apply(cmd *cobra.Command, o applyOptions) error {
	if err := checkOutput(cmd, o.output, applyForms...); err != nil {
		return err
	}
	sources, err := e.readSources(cmd, o.files)
	if err != nil {
		return err
	}
	c, err := e.connect()
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	// Everything is tried before anything is done, so that no half of it stays.
	if len(sources) > 1 && !o.dryRun {
		done := e.slowly(fmt.Sprintf("checking %d objects", len(sources)))
		err = e.applyAll(ctx, c.DryRun(), sources, nil)
		done()
		if err != nil {
			return fmt.Errorf("nothing was applied: %w", err)
		}
	}
	note := ""
	if o.dryRun {
		c, note = c.DryRun(), " (dry run)"
	}
	var applied []v1alpha1.Object
	err = e.applyAll(ctx, c, sources, func(obj v1alpha1.Object, what string) {
		applied = append(applied, obj)
		if o.output == outTable {
			e.printf("%s %s%s\n", label(v1alpha1.KindOf(obj), obj.GetName()), what, note)
		}
	})
	if o.output == outTable || len(applied) == 0 {
		return err
	}
	return errors.Join(err, e.printObjects(applied, shown{form: o.output, single: len(sources) == 1}))
}

func (*env) applyAll(ctx context.Context, c *remote.Client, sources []source, done func(obj v1alpha1.Object, what string)) error {
	var errs []error
	for _, s := range sources {
		obj, what, err := applyOne(ctx, c, s.doc)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %s: %w", s.file, label(v1alpha1.KindOf(s.doc.Object), s.doc.Object.GetName()), err))
			if errors.Is(err, store.ErrUnavailable) {
				break
			}
			continue
		}
		if done != nil {
			done(obj, what)
		}
	}
	return errors.Join(errs...)
}

// applyOne merges a document into what is stored, writes that, and returns it.
func applyOne(ctx context.Context, c *remote.Client, doc schema.Document) (v1alpha1.Object, string, error) {
	ctx, cancel := call(ctx)
	defer cancel()
	kind := v1alpha1.KindOf(doc.Object)
	for attempt := 1; ; attempt++ {
		live := kind.New()
		err := c.Get(ctx, store.KeyOf(doc.Object), live)
		missing := errors.Is(err, store.ErrNotFound)
		if err != nil && !missing {
			return nil, "", err
		}
		if missing {
			live = nil
		}
		obj, changed, err := schema.ThreeWay(live, doc)
		if err != nil {
			return nil, "", err
		}
		what := wasConfigured
		switch {
		case missing:
			what = wasCreated
			err = c.Create(ctx, obj)
		case !changed:
			return live, wasUnchanged, nil
		default:
			err = c.Update(ctx, obj)
		}
		lost := errors.Is(err, store.ErrExists) || errors.Is(err, store.ErrConflict)
		if lost && attempt < maxConflicts && !beingDeleted(live) {
			continue
		}
		if errors.Is(err, store.ErrConflict) && doc.Object.GetResourceVersion() != "" {
			err = fmt.Errorf("%w: its spec has changed since the file was made, if only by applying that file: get it anew, or take metadata.resourceVersion out of the file to merge into what is there", err)
		}
		return obj, what, err
	}
}

func beingDeleted(live v1alpha1.Object) bool {
	return live != nil && live.GetDeletionTimestamp() != nil
}

// readSources reads all files, and reports all that is wrong in them at once.
func (e *env) readSources(cmd *cobra.Command, files []string) ([]source, error) {
	paths, err := expand(files)
	if err != nil {
		return nil, err
	}
	var sources []source
	var errs []error
	for _, path := range paths {
		docs, err := e.readFile(cmd.Context(), path)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, d := range docs {
			if err := e.setNamespace(cmd, path, d.Object); err != nil {
				errs = append(errs, err)
				continue
			}
			sources = append(sources, source{file: path, doc: d})
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	if len(sources) == 0 {
		names := strings.ReplaceAll(", "+strings.Join(files, ", ")+",", ", -,", ", the standard input,")
		return nil, fmt.Errorf("there is no object in %s: %w", strings.Trim(names, ", "), store.ErrInvalid)
	}
	return sources, nil
}

// readFile reads the objects of one file.
func (e *env) readFile(ctx context.Context, path string) ([]schema.Document, error) {
	var data []byte
	var err error
	name := path
	if path == "-" {
		name = "standard input"
		data, err = readObjects(e.In)
	} else {
		data, err = readObjectFile(path)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	docs, err := schema.Decode(ctx, data)
	if invalid, ok := errors.AsType[*schema.Error](err); ok {
		return nil, &fileError{file: name, err: invalid}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return docs, nil
}

// maxObjects bounds what is read as objects: a device, or a backup named by mistake, would
// fill the memory.
const maxObjects = 64 << 20

func readObjectFile(path string) (data []byte, err error) {
	f, err := os.Open(path) //nolint:gosec // the file that a person named
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	return readObjects(f)
}

func readObjects(in io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(in, maxObjects+1))
	if len(data) > maxObjects {
		return nil, fmt.Errorf("it has more than %d MiB, which no objects have: name the file with the objects: %w", maxObjects>>20, store.ErrInvalid)
	}
	return data, err
}

// fileError puts the file before each thing that is wrong in it.
type fileError struct {
	file string
	err  *schema.Error
}

// Error is one line for each cause.
func (f *fileError) Error() string {
	lines := make([]string, len(f.err.Causes))
	for i, c := range f.err.Causes {
		lines[i] = f.file + ": " + c.String()
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the error of the schema.
func (f *fileError) Unwrap() error { return f.err }

// setNamespace puts an object into the namespace asked for, unless its file names
// one.
func (e *env) setNamespace(cmd *cobra.Command, file string, obj v1alpha1.Object) error {
	if !v1alpha1.KindOf(obj).Namespaced {
		return nil
	}
	switch has := obj.GetNamespace(); {
	case has == "":
		obj.SetNamespace(e.namespace)
	case cmd.Flags().Changed("namespace") && has != e.namespace:
		return fmt.Errorf("%s: %s has the namespace %s, and --namespace says %s, change one of them: %w", file,
			label(v1alpha1.KindOf(obj), obj.GetName()), has, e.namespace, store.ErrInvalid)
	}
	return nil
}

// expand replaces directories by the files in them, sorted.
func expand(files []string) ([]string, error) {
	var paths []string
	for _, file := range files {
		if file == "-" {
			paths = append(paths, file)
			continue
		}
		info, err := os.Stat(file)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		if !info.IsDir() {
			paths = append(paths, file)
			continue
		}
		entries, err := os.ReadDir(file)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		before := len(paths)
		for _, entry := range entries {
			if !entry.IsDir() && slices.Contains(extensions, filepath.Ext(entry.Name())) {
				paths = append(paths, filepath.Join(file, entry.Name()))
			}
		}
		if len(paths) == before {
			return nil, fmt.Errorf("there is no file in %s that ends with %s: %w", file, strings.Join(extensions, ", "), store.ErrInvalid)
		}
	}
	return paths, nil
}
