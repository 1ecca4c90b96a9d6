package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

var shellBlock = regexp.MustCompile("(?ms)^ *```sh\n(.*?)^ *```")

// edits are comments of the README that tell the reader to edit a file, and what that
// reader does.
var edits = map[string]string{
	"# edit spec.etcd.snapshotCount in playground.yaml": `sed -i -E 's/^( +snapshotCount: ).*/\15000/' playground.yaml`,
	"# 编辑 playground.yaml 中的 spec.etcd.snapshotCount":   `sed -i -E 's/^( +snapshotCount: ).*/\15000/' playground.yaml`,
}

// step is a command of a document.
type step struct {
	// line as it stands there.
	line string
	// foreground says that it runs until Ctrl-C.
	foreground bool
	// edit is done in place of a comment.
	edit string
}

// steps finds the commands of a document in order, all of them.
func steps(markdown string) ([]step, error) {
	var all []step
	for _, block := range shellBlock.FindAllStringSubmatch(markdown, -1) {
		for line := range strings.Lines(block[1]) {
			line = strings.TrimSpace(line)
			switch {
			case line == "":
			case strings.HasSuffix(line, `\`):
				return nil, fmt.Errorf("%q goes on in the next line, which can't be run alone", line)
			case strings.HasPrefix(line, "#"):
				edit, ok := edits[line]
				if !ok {
					return nil, fmt.Errorf("%q is a comment that no one knows how to follow", line)
				}
				all = append(all, step{line: line, edit: edit})
			default:
				all = append(all, step{line: line, foreground: isForeground(line)})
			}
		}
	}
	if len(all) == 0 {
		return nil, errors.New("the document has no commands")
	}
	return all, nil
}

func isForeground(line string) bool {
	fields := strings.Fields(line)
	return len(fields) >= 2 && (fields[0] == "make" || strings.HasSuffix(fields[0], "bin/quorate")) && fields[1] == "up"
}

func proveReadme(ctx context.Context, e *env) (string, error) { return e.readme(ctx, "README.md") }

func proveReadmeChinese(ctx context.Context, e *env) (string, error) {
	return e.readme(ctx, "README.zh-CN.md")
}

// readme does what a document says, in a clean clone.
func (e *env) readme(ctx context.Context, file string) (string, error) {
	dir, note, err := e.clone(ctx)
	if err != nil {
		return "", err
	}
	raw, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return "", err
	}
	all, err := steps(string(raw))
	if err != nil {
		return "", err
	}
	// Where data and temporary files go is all that is not as a new user has it.
	tmp, err := e.mkdir("tmp")
	if err != nil {
		return "", err
	}
	more := []string{"QUORATE_DATA_DIR=" + filepath.Join(e.dir, "data"), "TMPDIR=" + tmp}
	var running *up
	foreground := 0
	for _, s := range all {
		switch {
		case s.edit != "":
			if _, err = e.sh(ctx, dir, s.edit, more...); err != nil {
				return "", err
			}
		case s.foreground:
			if err = stopRunning(ctx, running); err != nil {
				return "", err
			}
			foreground++
			running, err = e.up(ctx, how{bin: "bin/quorate", cwd: dir, dir: e.dir, command: []string{"sh", "-c", s.line}, env: more})
			if err != nil {
				return "", fmt.Errorf("%s: %w", s.line, err)
			}
		default:
			if _, err := e.sh(ctx, dir, s.line, more...); err != nil {
				return "", fmt.Errorf("the README's command: %w", err)
			}
		}
	}
	if err := stopRunning(ctx, running); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s; %d commands ran word for word, %d of them until Ctrl-C; none was left out", note, len(all), foreground), nil
}

func stopRunning(ctx context.Context, u *up) error {
	if u == nil {
		return nil
	}
	if _, err := u.ctrlC(ctx); err != nil {
		return err
	}
	return u.gone()
}
