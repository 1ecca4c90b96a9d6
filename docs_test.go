package quorate_test

import (
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

// elsewhere are top-level directories that documents name beside the layers.
const elsewhere = "docs test tools deploy .ci"

var (
	fence       = regexp.MustCompile("(?ms)^ *```[^\n]*\n(.*?)^ *```")
	codeSpan    = regexp.MustCompile("`([^`\n]+)`")
	link        = regexp.MustCompile(`\]\(([^()\s]+)\)`)
	heading     = regexp.MustCompile(`(?m)^#+ +(.+?) *$`)
	pathLike    = regexp.MustCompile(`^[A-Za-z0-9_.*-]+(/[A-Za-z0-9_.*-]*)*$`)
	makeUse     = regexp.MustCompile(`(?m)(?:^|[\s;&(])make +([a-z][a-z0-9-]*)`)
	makeTarget  = regexp.MustCompile(`(?m)^([a-z][a-z-]*):`)
	makeInclude = regexp.MustCompile(`(?m)^include +(\S+)$`)
	notSlug     = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

func TestDocsNameWhatExists(t *testing.T) {
	repo := os.DirFS(".")
	makefile, err := fs.ReadFile(repo, "Makefile")
	if err != nil {
		t.Fatal(err)
	}
	targets := makeTargets(repo, string(makefile))
	documents := 0
	for _, file := range files(t) {
		if path.Ext(file) != ".md" {
			continue
		}
		documents++
		text, err := fs.ReadFile(repo, file)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range docViolations(repo, file, string(text), targets) {
			t.Errorf("%s: %s", file, v)
		}
	}
	if documents == 0 {
		t.Fatal("no Markdown file was found: the test looks in the wrong place")
	}
}

// TestDocsViolations shows that TestDocsNameWhatExists can fail.
func TestDocsViolations(t *testing.T) {
	repo := fstest.MapFS{
		"README.md":          {Data: []byte("# Quorate\n## Where it is\n")},
		"docs/guide.md":      {Data: []byte("# Guide: A & b, `c`\n")},
		"store/store.go":     {Data: []byte("package store\n")},
		"store/etcd/e.go":    {Data: []byte("package etcd\n")},
		"docs/adr/0001-a.md": {Data: []byte("# A\n")},
	}
	targets := makeTargets(fstest.MapFS{"test/more.mk": {Data: []byte("more:\n")}}, "up: build\n\t@x\nprove-ground:\n\t@y\nVERSION := 1\ninclude test/more.mk\n")
	for _, tc := range []struct {
		name, text string
		want       []string
	}{
		{"paths that exist", "`store/store.go`, `store/`, `docs/adr/0001-*.md`, `store/*/e.go`, `README.md`", nil},
		{"a file that does not", "see `store/gone.go`", []string{"names store/gone.go, which does not exist"}},
		{"a directory that does not", "see `fleet/`", []string{"names fleet/, which does not exist"}},
		{"a pattern without a match", "`docs/adr/9*.md`", []string{"names docs/adr/9*.md, which does not exist"}},
		{"a Markdown file that does not", "`GONE.md`", []string{"names GONE.md, which does not exist"}},
		{"beside the document", "`guide.md`", nil},
		{"what is no path of ours", "`quorate.io/v1alpha1` `linux/amd64` `/var/lib/quorate` `store: x` `tls/server.key` `~/x`", nil},
		{"a word", "`store`", nil},
		{"targets that exist", "`make up` and `make prove-ground ONLY=x` make nothing else", nil},
		{"a target that does not", "`make down`", []string{"names make down, which the Makefile does not have"}},
		{"a target in a block", "```sh\ncd x && make down\n```", []string{"names make down, which the Makefile does not have"}},
		{"paths in a block are examples", "```\nstore/gone.go\n```", nil},
		{"links that resolve", "[a](../README.md) [b](../README.md#where-it-is) [c](#guide-a--b-c) [d](../docs/) [e](https://etcd.io/x)", nil},
		{"a link that does not", "[a](gone.md)", []string{"links to gone.md, which does not exist"}},
		{"a heading that does not", "[a](../README.md#gone)", []string{"links to ../README.md#gone, which has no such heading"}},
		{"a link out of the repository", "[a](../../x.md)", []string{"links to ../../x.md, which does not exist"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, docViolations(repo, "docs/guide.md", "# Guide: A & b, `c`\n"+tc.text+"\n", targets)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// docViolations says what a document names that does not exist.
func docViolations(repo fs.FS, file, text string, targets []string) []string {
	var found, code []string
	for _, m := range fence.FindAllStringSubmatch(text, -1) {
		code = append(code, m[1])
	}
	prose := fence.ReplaceAllString(text, "")
	for _, m := range codeSpan.FindAllStringSubmatch(prose, -1) {
		code = append(code, m[1])
		if name := m[1]; namesPath(name) && !exists(repo, name) && !exists(repo, path.Join(path.Dir(file), name)) {
			found = append(found, "names "+name+", which does not exist")
		}
	}
	for _, c := range code {
		for _, m := range makeUse.FindAllStringSubmatch(c, -1) {
			if !slices.Contains(targets, m[1]) {
				found = append(found, "names make "+m[1]+", which the Makefile does not have")
			}
		}
	}
	for _, m := range link.FindAllStringSubmatch(codeSpan.ReplaceAllString(prose, ""), -1) {
		if why := linkViolation(repo, file, text, m[1]); why != "" {
			found = append(found, "links to "+m[1]+", which "+why)
		}
	}
	return found
}

// linkViolation says why a link leads nowhere, or nothing. Links out of the
// repository are not followed.
func linkViolation(repo fs.FS, file, text, target string) string {
	if strings.Contains(target, ":") {
		return ""
	}
	to, anchor, _ := strings.Cut(target, "#")
	if to != "" {
		to = path.Join(path.Dir(file), to)
		if !exists(repo, to) {
			return "does not exist"
		}
		if anchor == "" {
			return ""
		}
		data, err := fs.ReadFile(repo, to)
		if err != nil {
			return "can't be read: " + err.Error()
		}
		text = string(data)
	}
	for _, h := range heading.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		if slug(h[1]) == anchor {
			return ""
		}
	}
	return "has no such heading"
}

// namesPath tells a path of the repository from other code: it begins with one of
// our directories, or ends as a source or Markdown file does.
func namesPath(code string) bool {
	if !pathLike.MatchString(code) {
		return false
	}
	if strings.Contains(code, "/") {
		_, isLayer := levels()[top(code)]
		return isLayer || within(top(code), elsewhere)
	}
	return slices.Contains([]string{".go", ".md"}, path.Ext(code)) && code != path.Ext(code)
}

func exists(repo fs.FS, name string) bool {
	name = path.Clean(name)
	if strings.Contains(name, "*") {
		matches, err := fs.Glob(repo, name)
		return err == nil && len(matches) > 0
	}
	_, err := fs.Stat(repo, name)
	return err == nil
}

func makeTargets(repo fs.FS, makefile string) []string {
	var targets []string
	for _, m := range makeInclude.FindAllStringSubmatch(makefile, -1) {
		if included, err := fs.ReadFile(repo, m[1]); err == nil {
			targets = append(targets, makeTargets(repo, string(included))...)
		}
	}
	for _, m := range makeTarget.FindAllStringSubmatch(makefile, -1) {
		targets = append(targets, m[1])
	}
	return targets
}

// slug is a heading's anchor as GitHub makes it.
func slug(heading string) string {
	return strings.ReplaceAll(notSlug.ReplaceAllString(strings.ToLower(heading), ""), " ", "-")
}
