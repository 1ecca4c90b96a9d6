package web

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
)

//go:embed templates/*.html
var templateFiles embed.FS

//go:embed static
var staticFiles embed.FS

// shared are the templates that every page is built from.
var shared = []string{"templates/layout.html", "templates/parts.html"}

// pages holds every page in every language.
type pages struct {
	sets  map[string]map[string]*template.Template
	words map[string]catalog
}

func loadPages() (*pages, error) {
	p := &pages{sets: map[string]map[string]*template.Template{}, words: map[string]catalog{}}
	names, err := fs.Glob(templateFiles, "templates/*.html")
	if err != nil {
		return nil, err
	}
	for _, lang := range langs {
		words, err := loadCatalog(lang)
		if err != nil {
			return nil, err
		}
		base, err := template.New("layout").Funcs(functions(words)).ParseFS(templateFiles, shared...)
		if err != nil {
			return nil, fmt.Errorf("templates of the console: %w", err)
		}
		p.words[lang] = words
		p.sets[lang] = map[string]*template.Template{}
		for _, file := range names {
			name := strings.TrimSuffix(path.Base(file), ".html")
			if file == shared[0] || file == shared[1] {
				continue
			}
			set, err := base.Clone()
			if err == nil {
				set, err = set.ParseFS(templateFiles, file)
			}
			if err != nil {
				return nil, fmt.Errorf("template %s of the console: %w", name, err)
			}
			p.sets[lang][name] = set
		}
	}
	return p, nil
}

// functions are those that templates call.
func functions(words catalog) template.FuncMap {
	return template.FuncMap{
		"t":       words.text,
		"tn":      words.count,
		"word":    words.word,
		"part":    func(m v1alpha1.MemberView) string { return words.word("", part(&m)) },
		"sign":    signOf,
		"ago":     func(at any) (string, error) { return words.phrase("age.ago", at, time.Now()) },
		"lasting": func(at any) (string, error) { return words.phrase("age.for", at, time.Now()) },
		"until":   func(at any) (string, error) { return words.until(at, time.Now()) },
		"bytes":   bytesText,
		"number":  numberText,
		"ms":      millisText,
		"age":     func(at any) string { return words.age(at, time.Now()) },
		"stamp":   stampText,
		"clock":   func(at any) string { return clockText(at, time.Now()) },
		"signal":  signalText,
		"short":   shortText,
		"args":    arguments,
		"share":   share,
		"int":     func(n int64) int { return int(n) },
		"langs":   func() []string { return langs },
	}
}

// render writes a page, or with "page/part" a fragment of it. It is put together
// before anything is sent, so that a failure is not half a page.
func (p *pages) render(v *visit, code int, name string, data any) error {
	text, err := p.text(v.look.Lang, name, data)
	if err != nil {
		return err
	}
	v.Header().Set("Content-Type", "text/html; charset=utf-8")
	v.WriteHeader(code)
	_, _ = v.Write(text) // who has gone does not read it, nor a page about that
	return nil
}

func (p *pages) text(lang, name string, data any) ([]byte, error) {
	set, part, fragment := strings.Cut(name, "/")
	if !fragment {
		part = "layout"
	}
	tmpl, ok := p.sets[lang][set]
	if !ok {
		return nil, fmt.Errorf("the console has no page %q", set)
	}
	var b bytes.Buffer
	if err := tmpl.ExecuteTemplate(&b, part, data); err != nil {
		return nil, fmt.Errorf("page %s: %w", name, err)
	}
	return b.Bytes(), nil
}

// static serves the console's own files. They change with the binary only, so a
// browser asks whether they did.
func (c *console) static() http.Handler {
	files := http.FileServerFS(staticFiles)
	began := time.Now().UTC().Format(http.TimeFormat)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/") {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Cache-Control", "no-cache")
		w.Header().Set("Last-Modified", began)
		if since := r.Header.Get("If-Modified-Since"); since == began {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		files.ServeHTTP(w, r)
	})
}

// frame is what the layout of every page needs.
type frame struct {
	// Page is its name, and Title what stands in the window.
	Page, Title string
	Lang, Theme string
	// Path leads back here; Known says that there is a session.
	Path  string
	Known bool
	// Command does on the command line what the page shows.
	Command string
}

// frame describes a page. Its title is a key of the catalogue, or the name of what
// the page is about.
func (c *console) frame(v *visit, name, title string) frame {
	if title == "" {
		title = c.pages.words[v.look.Lang].word("page", name)
	}
	return frame{
		Page: name, Title: title, Lang: v.look.Lang, Theme: v.look.Theme,
		Path: v.r.URL.RequestURI(), Known: v.api != nil,
	}
}

// Section is the page of the bar at the top that this one lies below; "" for none.
func (f frame) Section() string {
	switch f.Page {
	case "cluster", "member", "create", "edit", "import":
		return "fleet"
	case "host":
		return "hosts"
	}
	return ""
}

// with returns the frame with its command.
func (f frame) with(command string) frame {
	f.Command = command
	return f
}

// arguments makes a map of pairs, for templates within templates.
func arguments(pairs ...any) (map[string]any, error) {
	if len(pairs)%2 != 0 {
		return nil, fmt.Errorf("args takes pairs, and was given %d things", len(pairs))
	}
	m := map[string]any{}
	for i := 0; i < len(pairs); i += 2 {
		m[fmt.Sprint(pairs[i])] = pairs[i+1]
	}
	return m, nil
}
