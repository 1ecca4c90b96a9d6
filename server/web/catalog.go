package web

import (
	"embed"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// langs are the languages that there are words in; the first is the default.
var langs = []string{"en", "zh"}

//go:embed locale/*.json
var localeFiles embed.FS

// catalog holds the words of one language by key. {0}, {1} … stand for arguments.
type catalog map[string]string

func isLang(name string) bool { return slices.Contains(langs, name) }

func loadCatalog(lang string) (catalog, error) {
	raw, err := localeFiles.ReadFile("locale/" + lang + ".json")
	if err != nil {
		return nil, fmt.Errorf("words of the console: %w", err)
	}
	c := catalog{}
	if err := json.Unmarshal(raw, &c); err != nil {
		return nil, fmt.Errorf("words of the console in %s: %w", lang, err)
	}
	return c, nil
}

// text returns the words of a key with its arguments filled in.
func (c catalog) text(key string, args ...any) (string, error) {
	words, ok := c[key]
	if !ok {
		return "", fmt.Errorf("the console has no words for %q: add them to every file in locale", key)
	}
	if len(args) == 0 {
		return words, nil
	}
	pairs := make([]string, 0, 2*len(args))
	for i, a := range args {
		pairs = append(pairs, "{"+strconv.Itoa(i)+"}", fmt.Sprint(a))
	}
	return strings.NewReplacer(pairs...).Replace(words), nil
}

// count is text with n as its first argument; one thing has words of its own.
func (c catalog) count(key string, n int, args ...any) (string, error) {
	form := ".other"
	if n == 1 {
		form = ".one"
	}
	return c.text(key+form, append([]any{n}, args...)...)
}

// word returns the words for a value of the API, and the value where there are
// none: a newer server may know more.
func (c catalog) word(group string, value any) string {
	key := fmt.Sprint(value)
	if group != "" {
		key = group + "." + key
	}
	if words, ok := c[key]; ok {
		return words
	}
	_, last, _ := strings.Cut(key, ".")
	return last
}
