package quorate_test

import (
	"bytes"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// maxLines is where a file has more than one job.
const maxLines = 800

var (
	// textFiles are those that a person reads, by extension or name.
	textFiles = []string{".go", ".md", ".mod", ".sum", ".yml", ".yaml", ".txtar", ".sh", "Makefile", "run", "LICENSE"}

	leftover = regexp.MustCompile(`\b(TODO|FIXME)\b`)
)

func TestFiles(t *testing.T) {
	for _, file := range files(t) {
		if !slices.Contains(textFiles, path.Ext(file)) && !slices.Contains(textFiles, path.Base(file)) {
			continue
		}
		data, err := os.ReadFile(file)
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		for _, v := range fileViolations(file, data) {
			t.Errorf("%s: %s", file, v)
		}
	}
}

// TestFileViolations shows that TestFiles can fail.
func TestFileViolations(t *testing.T) {
	long := []byte(strings.Repeat("// line\n", maxLines+1))
	leftoverComment := []byte("package a // TO" + "DO: later\n")
	for _, tc := range []struct {
		name, file string
		data       []byte
		want       []string
	}{
		{"right", "store/store.go", []byte("package store\n"), nil},
		{"empty", "api/empty.yaml", nil, []string{"is empty"}},
		{"no newline", "README.md", []byte("text"), []string{"does not end with a newline"}},
		{"two newlines", "README.md", []byte("text\n\n"), []string{"ends with an empty line"}},
		{"carriage return", "README.md", []byte("text\r\n"), []string{"has carriage returns"}},
		{"at the cap", "a/a.go", long[len("// line\n"):], nil},
		{"too long", "a/a.go", long, []string{"has 801 lines, more than 800: split it by job"}},
		{"too long a test", "a/a_test.go", long, []string{"has 801 lines, more than 800: split it by job"}},
		{"long, but generated", "a/zz_generated.deepcopy.go", long, nil},
		{"long, but not Go", "go.sum", long, nil},
		{"left over", "a/a.go", leftoverComment, []string{"says TO" + "DO: do it, or open an issue"}},
		{"left over in a test", "a/a_test.go", leftoverComment, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, fileViolations(tc.file, tc.data)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// fileViolations says what is wrong with a text file.
func fileViolations(file string, data []byte) []string {
	if len(data) == 0 {
		return []string{"is empty"}
	}
	var found []string
	switch {
	case !bytes.HasSuffix(data, []byte("\n")):
		found = append(found, "does not end with a newline")
	case bytes.HasSuffix(data, []byte("\n\n")):
		found = append(found, "ends with an empty line")
	}
	if bytes.Contains(data, []byte("\r\n")) {
		found = append(found, "has carriage returns")
	}
	if path.Ext(file) != ".go" || strings.HasPrefix(path.Base(file), "zz_generated") {
		return found
	}
	if n := bytes.Count(data, []byte("\n")); n > maxLines {
		found = append(found, "has "+strconv.Itoa(n)+" lines, more than "+strconv.Itoa(maxLines)+": split it by job")
	}
	if word := leftover.Find(data); word != nil && !strings.HasSuffix(file, "_test.go") {
		found = append(found, "says "+string(word)+": do it, or open an issue")
	}
	return found
}
