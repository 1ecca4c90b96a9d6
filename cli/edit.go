package cli

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/quorate/quorate/api/schema"
	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
)

// hashes stand for the values of a Secret where a person may look on.
func hashes(data map[string][]byte) map[string]any {
	m := make(map[string]any, len(data))
	for k, v := range data {
		sum := sha256.Sum256(v)
		m[k] = fmt.Sprintf("%d bytes, SHA-256 %s", len(v), hex.EncodeToString(sum[:8]))
	}
	return m
}

// editors are the variables that name an editor, first come.
var editors = []string{"QUORATE_EDITOR", "VISUAL", "EDITOR"}

func editCommand(e *env) *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "edit KIND NAME",
		Short: "Change an object in an editor",
		Long: `Open an object in an editor ($QUORATE_EDITOR, $VISUAL, $EDITOR, or vi), and store it
when the editor ends. A file that is not changed, or left empty, changes nothing.

What is invalid, or was meanwhile changed by others, is opened again with the reason
on top. Your text is never lost: when it can't be stored, the error says which file
has it.`,
		Example: `  quorate edit cluster playground
  quorate edit cluster/playground --dry-run`,
		Args:              argsBetween(1, 2, "KIND NAME"),
		ValidArgsFunction: e.completeOne,
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := e.oneTarget(cmd, args)
			if err != nil {
				return err
			}
			return e.edit(cmd.Context(), t, dryRun)
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only have the server check what you write")
	return cmd
}

// editing is one session in an editor.
type editing struct {
	e      *env
	c      *remote.Client
	target target
	live   v1alpha1.Object
	// file holds the text, and shown is what it was when the editor was opened last.
	file  string
	shown []byte
	note  string
}

func (e *env) edit(ctx context.Context, t target, dryRun bool) (err error) {
	c, err := e.connect()
	if err != nil {
		return err
	}
	if dryRun {
		c = c.DryRun()
	}
	live, err := read(ctx, c, t)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "quorate-edit-")
	if err != nil {
		return fmt.Errorf("edit %s: %w", t, err)
	}
	s := &editing{e: e, c: c, target: t, live: live, file: filepath.Join(dir, strings.ReplaceAll(t.String(), "/", "-")+".yaml")}
	if dryRun {
		s.note = " (dry run)"
	}
	keep, err := s.run(ctx)
	if keep {
		return fmt.Errorf("%w\nwhat you wrote is kept in %s", err, s.file)
	}
	return errors.Join(err, os.RemoveAll(dir))
}

// run opens the editor until what it leaves is stored or given up; keep says that
// the person's text is nowhere but in the file.
func (s *editing) run(ctx context.Context) (keep bool, err error) {
	text, err := editable(s.live)
	if err != nil {
		return false, err
	}
	if err = s.write(nil, text); err != nil {
		return false, err
	}
	var refused error
	for {
		if err = s.e.openEditor(ctx, s.file); err != nil {
			return refused != nil, err
		}
		raw, err := os.ReadFile(s.file)
		if err != nil {
			return false, fmt.Errorf("read what was written: %w", err)
		}
		body := withoutNote(raw)
		switch {
		case refused != nil && bytes.Equal(body, s.shown):
			// Left as it was shown: the person gives it up.
			return true, fmt.Errorf("%s is not changed: %w", s.target, refused)
		case len(bytes.TrimSpace(body)) == 0:
			s.e.printf("%s unchanged: the file was left empty\n", s.target)
			return false, nil
		case refused == nil && bytes.Equal(body, text):
			s.e.printf("%s unchanged\n", s.target)
			return false, nil
		}
		if refused = s.store(ctx, body); refused == nil {
			return false, nil
		}
		if errors.Is(refused, store.ErrUnavailable) || errors.Is(refused, store.ErrNotFound) || ctx.Err() != nil || !s.again(refused) {
			return true, refused
		}
		if err = s.write(refused, body); err != nil {
			return true, err
		}
	}
}

// again reports whether editing once more may help. What is not typed by a person
// is not repeated for ever.
func (*editing) again(err error) bool {
	return errors.Is(err, store.ErrInvalid) || errors.Is(err, schema.ErrInvalid) || errors.Is(err, store.ErrConflict)
}

// write fills the file: why the text was refused, as comments, and the text.
func (s *editing) write(refused error, text []byte) error {
	var out bytes.Buffer
	if refused != nil {
		out.WriteString(noteMark + " It was not stored:\n")
		for line := range strings.Lines(errorText(refused)) {
			out.WriteString(noteMark + "   " + strings.TrimSpace(line) + "\n")
		}
		out.WriteString(noteMark + " Put it right, or leave the file as it is to give up.\n")
	} else {
		out.WriteString(noteMark + " Edit " + s.target.String() + ", save, and leave the editor. Lines like this one are dropped.\n" +
			noteMark + " A file that is unchanged or empty changes nothing. Status can't be written.\n")
	}
	out.Write(text)
	s.shown = text
	return os.WriteFile(s.file, out.Bytes(), 0o600)
}

// noteMark begins the lines that are Quorate's own.
const noteMark = "#!"

func withoutNote(raw []byte) []byte {
	var out bytes.Buffer
	for line := range bytes.Lines(raw) {
		if !bytes.HasPrefix(line, []byte(noteMark)) {
			out.Write(line)
		}
	}
	return out.Bytes()
}

// editable is an object as a person edits it. It keeps the resourceVersion, so that
// what others write meanwhile is not undone.
func editable(obj v1alpha1.Object) ([]byte, error) {
	plain, ok := obj.DeepCopyObject().(v1alpha1.Object)
	if !ok {
		return nil, fmt.Errorf("%w: it can't be edited", store.ErrInvalid)
	}
	notes := plain.GetAnnotations()
	delete(notes, v1alpha1.AnnotationLastApplied)
	plain.SetAnnotations(notes)
	m, err := schema.Map(plain)
	if err != nil {
		return nil, err
	}
	delete(m, "status")
	return yaml.Marshal(m)
}

// store writes what the person has made of the object.
func (s *editing) store(ctx context.Context, body []byte) error {
	docs, err := schema.Decode(ctx, body)
	if err != nil {
		return err
	}
	if len(docs) != 1 || v1alpha1.KindOf(docs[0].Object).Kind != s.target.kind.Kind || docs[0].Object.GetName() != s.target.key.Name {
		return fmt.Errorf("the file must hold %s and nothing else: %w", s.target, store.ErrInvalid)
	}
	obj := docs[0].Object
	if got := obj.GetNamespace(); s.target.kind.Namespaced && got != s.target.key.Namespace {
		return fmt.Errorf("metadata.namespace is %q: an object can't be moved from namespace %s: %w", got, s.target.key.Namespace, store.ErrInvalid)
	}
	keepLastApplied(obj, s.live)
	ctx, cancel := call(ctx)
	defer cancel()
	if obj.GetUID() == "" {
		obj.SetUID(s.live.GetUID())
	}
	if obj.GetResourceVersion() == "" {
		obj.SetResourceVersion(s.live.GetResourceVersion())
	}
	for attempt := 1; ; attempt++ {
		err = s.c.Update(ctx, obj)
		if !errors.Is(err, store.ErrConflict) {
			break
		}
		onlyStatus, conflict := s.conflict(ctx, err)
		if !onlyStatus || attempt == maxConflicts {
			return conflict
		}
		obj.SetResourceVersion(s.live.GetResourceVersion())
	}
	if err != nil {
		return named(s.target, err)
	}
	s.e.printf("%s edited%s\n", s.target, s.note)
	return nil
}

// conflict finds what others have written meanwhile. A change of the status alone
// is no one's wish that could be lost.
func (s *editing) conflict(ctx context.Context, err error) (onlyStatus bool, _ error) {
	fresh, readErr := read(ctx, s.c, s.target)
	if readErr != nil {
		return false, readErr
	}
	now, readErr := asWritten(fresh)
	if readErr != nil {
		return false, readErr
	}
	was, readErr := asWritten(s.live)
	if readErr != nil {
		return false, readErr
	}
	if fresh.GetUID() != s.live.GetUID() {
		return false, fmt.Errorf("%s was deleted and made anew: %w", s.target, store.ErrNotFound)
	}
	s.live = fresh
	change, readErr := unified(was, now, "as you were shown it", "as it is now")
	if readErr != nil {
		return false, readErr
	}
	return now == was, fmt.Errorf("%s: %w: others have changed\n%sto write over that, take metadata.resourceVersion out of the file and save again", s.target, err, change)
}

// keepLastApplied keeps the note of what was applied, which is not shown.
func keepLastApplied(obj, live v1alpha1.Object) {
	was, ok := live.GetAnnotations()[v1alpha1.AnnotationLastApplied]
	if !ok {
		return
	}
	notes := obj.GetAnnotations()
	if notes == nil {
		notes = map[string]string{}
	}
	notes[v1alpha1.AnnotationLastApplied] = was
	obj.SetAnnotations(notes)
}

// openEditor runs the person's editor on a file.
func (e *env) openEditor(ctx context.Context, file string) error {
	command := ""
	for _, name := range editors {
		if v := os.Getenv(name); strings.TrimSpace(v) != "" {
			command = v
			break
		}
	}
	if command == "" {
		if !isTerminal(e.In) || !isTerminal(e.Out) {
			return fmt.Errorf("no editor is named, and there is no terminal for vi: name one in %s, or use `quorate apply`: %w", editors[0], store.ErrInvalid)
		}
		command = "vi"
	}
	// The variable may hold arguments: it is for a shell, as everywhere.
	cmd := exec.CommandContext(ctx, "sh", "-c", command+` "$1"`, "sh", file) //nolint:gosec // the editor that a person chose
	cmd.Stdin, cmd.Stdout, cmd.Stderr = e.In, e.Out, e.Err
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("the editor `%s` failed: %w: nothing was changed; name another in QUORATE_EDITOR", command, err)
	}
	return nil
}
