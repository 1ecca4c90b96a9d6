package web

import (
	"io/fs"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// groups of keys that are put together from a value of the API; the values are
// listed where the API lists them, so a group counts as used as a whole.
var groups = []string{
	"state", "role", "phase", "taskPhase", "action", "condition", "tls", "deletion", "alarm", "sessionRole",
	"page", "tag", "language", "languageShort", "do", "ask", "what", "age", "theme",
}

var (
	keyCall  = regexp.MustCompile(`\b(tn?) "([a-zA-Z.0-9]+)"`)
	quoted   = regexp.MustCompile(`"([a-zA-Z]+\.[a-zA-Z.0-9]+)"`)
	action_  = regexp.MustCompile(`(?s){{.*?}}`)
	tag      = regexp.MustCompile(`(?s)<[^>]*>`)
	spoken   = regexp.MustCompile(`\b(?:title|placeholder|aria-label|alt)="([^"]*)"`)
	letters  = regexp.MustCompile(`\p{L}{2,}`)
	holes    = regexp.MustCompile(`\{\d\}`)
	technics = regexp.MustCompile(`https?://[^\s"&<]+|-----[A-Z ]+-----|quorate_|openapi\.json|(?:info|warn|error)\+|[248]Gi|16Gi|pid|&#10;`)
)

func templatesByName(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	files, err := fs.Glob(templateFiles, "templates/*.html")
	if err != nil || len(files) == 0 {
		t.Fatalf("templates: %v", err)
	}
	for _, file := range files {
		raw, err := templateFiles.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		found[path.Base(file)] = string(raw)
	}
	return found
}

func words(t *testing.T, lang string) catalog {
	t.Helper()
	c, err := loadCatalog(lang)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestCatalogsAgree: every language has the same keys, with the same arguments.
func TestCatalogsAgree(t *testing.T) {
	first := words(t, langs[0])
	for _, lang := range langs[1:] {
		other := words(t, lang)
		for key, text := range first {
			has, ok := other[key]
			if !ok {
				t.Errorf("%s has no words for %q", lang, key)
				continue
			}
			want, got := holes.FindAllString(text, -1), holes.FindAllString(has, -1)
			slices.Sort(want)
			slices.Sort(got)
			one := strings.HasSuffix(key, ".one") // may say the number as a word
			if !one && !slices.Equal(slices.Compact(want), slices.Compact(got)) {
				t.Errorf("%s: %q takes %v, and in %s %v", key, text, want, lang, got)
			}
		}
		for key := range other {
			if _, ok := first[key]; !ok {
				t.Errorf("%s has words for %q, and %s has none", lang, key, langs[0])
			}
		}
	}
}

// TestWordsAreUsed: no key is missing, and none is left over.
func TestWordsAreUsed(t *testing.T) {
	have := words(t, langs[0])
	used := map[string]bool{}
	for name, text := range templatesByName(t) {
		for _, m := range keyCall.FindAllStringSubmatch(text, -1) {
			keys := []string{m[2]}
			if m[1] == "tn" {
				keys = []string{m[2] + ".one", m[2] + ".other"}
			}
			for _, key := range keys {
				used[key] = true
				if _, ok := have[key]; !ok {
					t.Errorf("%s asks for %q, which no language has", name, key)
				}
			}
		}
	}
	sources, err := fs.Glob(os.DirFS("."), "*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range sources {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range quoted.FindAllStringSubmatch(string(raw), -1) {
			used[m[1]] = true
		}
	}
	for _, key := range slices.Sorted(maps.Keys(have)) {
		group, _, _ := strings.Cut(key, ".")
		if !used[key] && !slices.Contains(groups, group) {
			t.Errorf("%q has words that nothing asks for: remove them", key)
		}
	}
}

// TestTemplatesHoldNoWords: what is read stands in the catalogue, in every language.
func TestTemplatesHoldNoWords(t *testing.T) {
	for name, text := range templatesByName(t) {
		for _, found := range hardCoded(text) {
			t.Errorf("%s says %q by itself: put it into every file in locale", name, found)
		}
	}
}

// TestHardCoded shows that TestTemplatesHoldNoWords can fail.
func TestHardCoded(t *testing.T) {
	for text, want := range map[string]int{
		`<p>{{t "a.b"}}</p>`:                 0,
		`<p>Hello {{.Name}}</p>`:             1,
		`<input placeholder="Type here">`:    2,
		`<input aria-label="{{t "x"}}">`:     0,
		`<p title="{{.A}} of {{.B}}">·</p>`:  1,
		`<a href="/somewhere">{{.Name}}</a>`: 0,
		`<option>8Gi</option>`:               0,
		`<p>状态</p>`:                          1,
	} {
		if got := hardCoded(text); len(got) != want {
			t.Errorf("%s: %v, want %d", text, got, want)
		}
	}
}

func hardCoded(text string) []string {
	text = action_.ReplaceAllString(text, "")
	text = technics.ReplaceAllString(text, "")
	var said []string
	for _, m := range spoken.FindAllStringSubmatch(text, -1) {
		said = append(said, letters.FindAllString(m[1], -1)...)
	}
	return append(said, letters.FindAllString(tag.ReplaceAllString(text, " "), -1)...)
}
