package quorate_test

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"unicode"

	"github.com/google/go-cmp/cmp"
)

// chinese ends the name of a page's twin.
const chinese = ".zh-CN.md"

// linkTo is a link to a Markdown file, without what it names there.
var linkTo = regexp.MustCompile(`\]\(([^)#:]+\.md)(?:#[^)]*)?\)`)

// TestDocsTwins: what a user reads first stands in both languages, and both say the
// same commands.
func TestDocsTwins(t *testing.T) {
	repo := os.DirFS(".")
	pages := taskPages(t, repo)
	if len(pages) < 2 {
		t.Fatalf("only %v were found: the test looks in the wrong place", pages)
	}
	for _, page := range pages {
		for _, v := range twinViolations(repo, page) {
			t.Errorf("%s: %s", page, v)
		}
	}
}

// taskPages are the pages that need a twin: README.md, and all of docs/guide.
func taskPages(t *testing.T, repo fs.FS) []string {
	t.Helper()
	guides, err := fs.Glob(repo, "docs/guide/*.md")
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(append([]string{"README.md"}, guides...), func(p string) bool { return strings.HasSuffix(p, chinese) })
}

// TestDocsTwinViolations shows that TestDocsTwins can fail.
func TestDocsTwinViolations(t *testing.T) {
	const page = "# A\n## B\n```sh\n# edit it\nrun\n```\n[中文](a.zh-CN.md)\n"
	for _, tc := range []struct {
		name, twin string
		want       []string
	}{
		{"right", "# 甲\n## 乙\n```sh\n# 编辑\nrun\n```\n[English](a.md)\n", nil},
		{"missing", "", []string{"has no twin a.zh-CN.md"}},
		{"a section left out", "# 甲\n```sh\nrun\n```\n[English](a.md)\n", []string{"has 2 headings, and its twin 1"}},
		{"other commands", "# 甲\n## 乙\n```sh\nwalk\n```\n[English](a.md)\n", []string{"has other commands than its twin: run; walk"}},
		{"not translated", "# A\n## B\n```sh\nrun\n```\n[English](a.md)\n", []string{"has a twin that is not in Chinese"}},
		{"a link to the other language", "# 甲\n## 乙\n```sh\nrun\n```\n[English](a.md)\n[丙](c.md) [丁](d.md#e)\n", []string{"has a twin that links to c.md, which is there in Chinese: c.zh-CN.md"}},
		{"no way back", "# 甲\n## 乙\n```sh\nrun\n```\n", []string{"is not linked to its twin and back"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			repo := fstest.MapFS{"a.md": {Data: []byte(page)}, "c.md": {}, "c.zh-CN.md": {}, "d.md": {}}
			if tc.twin != "" {
				repo["a.zh-CN.md"] = &fstest.MapFile{Data: []byte(tc.twin)}
			}
			if diff := cmp.Diff(tc.want, twinViolations(repo, "a.md")); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// twinViolations says in what a page and its twin differ that they must not.
func twinViolations(repo fs.FS, page string) []string {
	twin := strings.TrimSuffix(page, ".md") + chinese
	read := func(name string) string {
		data, _ := fs.ReadFile(repo, name) // one that is missing is empty
		return string(data)
	}
	english, other := read(page), read(twin)
	if other == "" {
		return []string{"has no twin " + path.Base(twin)}
	}
	var found []string
	a, b := len(heading.FindAllString(fence.ReplaceAllString(english, ""), -1)), len(heading.FindAllString(fence.ReplaceAllString(other, ""), -1))
	if a != b {
		found = append(found, fmt.Sprintf("has %d headings, and its twin %d", a, b))
	}
	if here, there := commandsOf(english), commandsOf(other); here != there {
		found = append(found, "has other commands than its twin: "+here+"; "+there)
	}
	if !strings.ContainsFunc(fence.ReplaceAllString(other, ""), func(r rune) bool { return unicode.Is(unicode.Han, r) && r != '中' && r != '文' }) {
		found = append(found, "has a twin that is not in Chinese")
	}
	if !strings.Contains(english, "]("+path.Base(twin)+")") || !strings.Contains(other, "]("+path.Base(page)+")") {
		found = append(found, "is not linked to its twin and back")
	}
	for _, m := range linkTo.FindAllStringSubmatch(other, -1) {
		target := strings.TrimSuffix(m[1], ".md") + chinese
		if m[1] == path.Base(page) || strings.HasSuffix(m[1], chinese) {
			continue
		}
		if _, err := fs.Stat(repo, path.Join(path.Dir(page), target)); err == nil {
			found = append(found, "has a twin that links to "+m[1]+", which is there in Chinese: "+target)
		}
	}
	return found
}

// commandsOf are the lines of a document's code blocks, without comments, which are
// translated.
func commandsOf(text string) string {
	var lines []string
	for _, m := range fence.FindAllStringSubmatch(text, -1) {
		for line := range strings.Lines(m[1]) {
			code, _, _ := strings.Cut(strings.TrimSpace(line), "# ")
			if code = strings.TrimSpace(code); code != "" {
				lines = append(lines, code)
			}
		}
	}
	return strings.Join(lines, " ")
}
