package render

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/quorate/quorate/internal/atomicfile"
)

// markerFile tells that a directory holds a rendering, and what it wrote there.
const markerFile = ".quorate-render.json"

// marker is what the tree remembers of itself.
type marker struct {
	Cluster string `json:"cluster"`
	Form    Form   `json:"form"`
	// Token is the cluster's for good: one made anew would be another cluster's.
	Token string `json:"token"`
	// Files are what was written, by path: the SHA-256 of each. While a write is under
	// way, of the old and of the new.
	Files map[string][]string `json:"files"`
}

// Tree is a directory that holds a rendering, or will.
type Tree struct {
	Dir   string
	Token string

	was marker
}

// Change is what Write does to a file.
type Change struct {
	Path string `json:"path"`
	// Action is created, updated or unchanged.
	Action string `json:"action"`
	Mode   string `json:"mode"`
}

// The actions.
const (
	Created   = "created"
	Updated   = "updated"
	Unchanged = "unchanged"
)

// OpenTree looks at a directory, which need not be there. ErrRender when it holds
// something else, or the rendering of another cluster or form.
func OpenTree(dir, cluster string, form Form) (*Tree, error) {
	t := &Tree{Dir: dir, was: marker{Cluster: cluster, Form: form, Files: map[string][]string{}}}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w; name a directory", ErrRender, err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, markerFile)) //nolint:gosec // the directory that a person named
	switch {
	case errors.Is(err, fs.ErrNotExist) && len(entries) > 0:
		return nil, fmt.Errorf("%w: %s holds other things (%s): name a directory that is empty or not there yet", ErrRender, dir, entries[0].Name())
	case errors.Is(err, fs.ErrNotExist):
		t.Token, err = NewToken(cluster)
		return t, err
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrRender, err)
	}
	if err = json.Unmarshal(raw, &t.was); err != nil || t.was.Token == "" {
		return nil, fmt.Errorf("%w: %s can't be read (%w): put it back from a copy, or name another directory", ErrRender, filepath.Join(dir, markerFile), err)
	}
	if t.was.Cluster != cluster || t.was.Form != form {
		return nil, fmt.Errorf("%w: %s holds cluster %s as %s: name another directory for %s as %s", ErrRender, dir, t.was.Cluster, t.was.Form, cluster, form)
	}
	t.Token = t.was.Token
	return t, nil
}

// NewToken makes an initial-cluster-token.
func NewToken(cluster string) (string, error) {
	const random = 8
	raw := make([]byte, random)
	if _, err := rand.Read(raw); err != nil {
		return "", err
	}
	return cluster[strings.LastIndex(cluster, "/")+1:] + "-" + hex.EncodeToString(raw), nil
}

// Read returns what the tree holds at a path, with slashes.
func (t *Tree) Read(path string) ([]byte, error) {
	return os.ReadFile(filepath.Join(t.Dir, filepath.FromSlash(path)))
}

func sum(data []byte) string {
	s := sha256.Sum256(data)
	return hex.EncodeToString(s[:])
}

// Plan says what writing the files would do. ErrRender when it would overwrite what
// somebody else has written or changed.
func (t *Tree) Plan(files []File) ([]Change, error) {
	changes := make([]Change, 0, len(files))
	var edited []string
	for _, f := range files {
		c := Change{Path: f.Path, Action: Created, Mode: fmt.Sprintf("%04o", f.Mode)}
		have, err := t.Read(f.Path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return nil, fmt.Errorf("%w: %w", ErrRender, err)
		case string(have) == string(f.Data):
			c.Action = Unchanged
		case !slices.Contains(t.was.Files[f.Path], sum(have)):
			edited = append(edited, f.Path)
		default:
			c.Action = Updated
		}
		changes = append(changes, c)
	}
	if len(edited) > 0 {
		return nil, fmt.Errorf("%w: in %s somebody else has written %s: move that away, or say in the cluster's file what was changed there", ErrRender, t.Dir, strings.Join(edited, ", "))
	}
	return changes, nil
}

// Write brings the directory to hold the files. What is there and no longer wanted stays.
// A write that broke off half-way is finished by the next.
func (t *Tree) Write(files []File) ([]Change, error) {
	changes, err := t.Plan(files)
	if err != nil {
		return nil, err
	}
	next := marker{Cluster: t.was.Cluster, Form: t.was.Form, Token: t.Token, Files: map[string][]string{}}
	begun := next
	begun.Files = map[string][]string{}
	for name, sums := range t.was.Files {
		begun.Files[name], next.Files[name] = sums, sums
	}
	work := false
	for i, f := range files {
		work = work || changes[i].Action != Unchanged
		next.Files[f.Path] = []string{sum(f.Data)}
		begun.Files[f.Path] = append(slices.Clone(t.was.Files[f.Path]), sum(f.Data))
	}
	if err = os.MkdirAll(t.Dir, 0o755); err != nil { //nolint:gosec // secrets are guarded by the modes of their files
		return nil, err
	}
	if work {
		if err = t.mark(begun); err != nil {
			return nil, err
		}
	}
	for i, f := range files {
		name := filepath.Join(t.Dir, filepath.FromSlash(f.Path))
		if changes[i].Action == Unchanged {
			// A key that became readable for others is closed again.
			if err = os.Chmod(name, f.Mode); err != nil {
				return nil, err
			}
			continue
		}
		if err = os.MkdirAll(filepath.Dir(name), 0o755); err != nil { //nolint:gosec // as above
			return nil, err
		}
		if err = atomicfile.Write(name, f.Data, f.Mode); err != nil {
			return nil, err
		}
	}
	if err = t.mark(next); err != nil {
		return nil, err
	}
	t.was = next
	return changes, nil
}

func (t *Tree) mark(m marker) error {
	raw, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	raw = append(raw, '\n')
	name := filepath.Join(t.Dir, markerFile)
	if have, err := t.Read(markerFile); err == nil && string(have) == string(raw) {
		return nil
	}
	return atomicfile.Write(name, raw, 0o644)
}
