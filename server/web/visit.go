package web

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
	"github.com/quorate/quorate/store/remote/wire"
)

// errNoPage: nothing is at that address.
var errNoPage = errors.New("there is no such page")

// visit is one request with who makes it and how they want it shown.
type visit struct {
	http.ResponseWriter

	r    *http.Request
	look look
	// api speaks for the visitor; nil on pages that need no session.
	api *remote.Client
}

// Unwrap serves http.ResponseController.
func (v *visit) Unwrap() http.ResponseWriter { return v.ResponseWriter }

// htmx reports whether a fragment was asked for by a page that stands.
func (v *visit) htmx() bool { return v.r.Header.Get("HX-Request") == "true" }

// key is the object that the path names.
func (v *visit) key() store.Key {
	return store.Key{Namespace: v.r.PathValue("namespace"), Name: v.r.PathValue("name")}
}

// redirect leads to another page; a fragment's page goes there as a whole.
func (v *visit) redirect(to string) error {
	if v.htmx() {
		v.Header().Set("HX-Redirect", to)
		v.WriteHeader(http.StatusNoContent)
		return nil
	}
	http.Redirect(v, v.r, to, http.StatusSeeOther)
	return nil
}

// visit prepares a request: its form is bounded, and what went wrong becomes a page.
func (c *console) visit(h page) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		v := &visit{ResponseWriter: w, r: r, look: lookOf(w, r)}
		if err := h(v); err != nil {
			c.fail(v, err) //nolint:contextcheck // the visit carries its request
		}
	})
}

// known lets only visitors with a session through.
func (c *console) known(h page) page {
	return func(v *visit) error {
		cookie, err := v.r.Cookie(sessionCookie)
		if err != nil || cookie.Value == "" {
			return c.toLogin(v)
		}
		if v.api, err = c.connect(cookie.Value); err != nil {
			return err
		}
		defer v.api.Close()
		return h(v)
	}
}

// bounded gives a page's questions to the API a common end.
func (v *visit) bounded() (context.Context, context.CancelFunc) {
	return context.WithTimeout(v.r.Context(), pageTime)
}

// toLogin leads to the log-in page, and from there back.
func (c *console) toLogin(v *visit) error {
	query := url.Values{}
	if v.r.Method == http.MethodGet && !v.htmx() && v.r.URL.Path != "/" {
		query.Set("next", v.r.URL.RequestURI())
	}
	to := "/login"
	if len(query) > 0 {
		to += "?" + query.Encode()
	}
	return v.redirect(to)
}

// fail shows what went wrong, in the page's own frame.
func (c *console) fail(v *visit, err error) {
	code := codeOf(err)
	if code == http.StatusUnauthorized {
		v.dropSession()
		_ = c.toLogin(v) // a redirect is written, and does not fail
		return
	}
	if code >= http.StatusInternalServerError {
		c.log.WarnContext(v.r.Context(), "page failed", slog.String("path", v.r.URL.Path), slog.Any("error", err))
	}
	name := "error"
	if v.htmx() {
		name = "error/notice"
	}
	message := err.Error()
	if errors.Is(err, errNoPage) {
		message = "" // the word says it all
	}
	data := errorData{frame: c.frame(v, "error", ""), Code: code, Message: message, Word: errorWord(code)}
	if renderErr := c.pages.render(v, code, name, data); renderErr != nil {
		c.log.WarnContext(v.r.Context(), "page of an error failed", slog.Any("error", renderErr))
	}
}

type errorData struct {
	frame

	Code    int
	Word    string
	Message string
}

// codeOf is the HTTP code of an error.
func codeOf(err error) int {
	if errors.Is(err, errNoPage) {
		return http.StatusNotFound
	}
	if st, ok := errors.AsType[*wire.Status](err); ok {
		return st.Code
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return http.StatusRequestEntityTooLarge
	}
	if code, _, ok := wire.CodeOf(err); ok {
		return code
	}
	return http.StatusInternalServerError
}

func errorWord(code int) string {
	switch {
	case code == http.StatusNotFound:
		return "error.notFound"
	case code == http.StatusForbidden:
		return "error.forbidden"
	case code == http.StatusServiceUnavailable || code == http.StatusGatewayTimeout:
		return "error.unavailable"
	case code < http.StatusInternalServerError:
		return "error.refused"
	}
	return "error.failed"
}

// look is how a visitor wants pages shown.
type look struct {
	Lang  string
	Theme string
}

const (
	langCookie  = "quorate_lang"
	themeCookie = "quorate_theme"
	lookKept    = 365 * 24 * time.Hour
)

// lookOf reads the look from the query, cookies and the browser's languages, in
// this order. A language in the query is remembered.
func lookOf(w http.ResponseWriter, r *http.Request) look {
	l := look{}
	if cookie, err := r.Cookie(themeCookie); err == nil && (cookie.Value == "light" || cookie.Value == "dark") {
		l.Theme = cookie.Value
	}
	if asked := r.URL.Query().Get("lang"); isLang(asked) {
		setLookCookie(w, r, langCookie, asked)
		l.Lang = asked
		return l
	}
	if cookie, err := r.Cookie(langCookie); err == nil && isLang(cookie.Value) {
		l.Lang = cookie.Value
		return l
	}
	l.Lang = preferred(r.Header.Get("Accept-Language"))
	return l
}

// preferred is the first language of the header that there are words in. Browsers
// send them in order, so weights are not read.
func preferred(header string) string {
	for part := range strings.SplitSeq(header, ",") {
		tag, _, _ := strings.Cut(part, ";")
		base, _, _ := strings.Cut(strings.TrimSpace(tag), "-")
		if isLang(strings.ToLower(base)) {
			return strings.ToLower(base)
		}
	}
	return langs[0]
}

func setLookCookie(w http.ResponseWriter, r *http.Request, name, value string) {
	http.SetCookie(w, &http.Cookie{ //nolint:gosec // Secure wherever the connection is
		Name: name, Value: value, Path: "/", MaxAge: int(lookKept / time.Second),
		HttpOnly: true, Secure: r.TLS != nil, SameSite: http.SameSiteLaxMode,
	})
}

// setLook remembers a language or a theme and returns to the page.
func (*console) setLook(v *visit) error {
	if lang := v.r.PostFormValue("lang"); isLang(lang) {
		setLookCookie(v, v.r, langCookie, lang)
	}
	switch theme := v.r.PostFormValue("theme"); theme {
	case "light", "dark", "auto":
		setLookCookie(v, v.r, themeCookie, theme)
	}
	return v.redirect(localPath(v.r.PostFormValue("next")))
}

// localPath is a path of this server, whatever was given: a link must not lead
// elsewhere.
func localPath(to string) string {
	u, err := url.Parse(to)
	if err != nil || u.IsAbs() || u.Host != "" || !strings.HasPrefix(u.Path, "/") ||
		strings.HasPrefix(to, "//") || strings.ContainsAny(to, "\\\r\n") {
		return "/"
	}
	// The language in the query would win over what was just chosen.
	query := u.Query()
	query.Del("lang")
	u.RawQuery = query.Encode()
	return u.RequestURI()
}
