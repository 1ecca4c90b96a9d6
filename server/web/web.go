// Package web is the console: pages for people, made from what the API says.
//
// It is a client like the command line. Whatever it shows or does goes through
// store/remote with the visitor's own session as bearer, so there is one place
// that decides who may do what, and one model. It keeps nothing: a page that is
// reloaded, here or from another replica, shows the same.
//
// Pages are rendered here and kept fresh in two ways: fragments that htmx asks for
// again, and one event stream per page that says when to ask. Nothing is loaded
// from elsewhere, and nothing runs that is not a file of its own (see the policy in
// headers).
package web

import (
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/quorate/quorate/store/remote"
)

const (
	// maxForm bounds what a form may send, in bytes.
	maxForm = 1 << 20
	// pageTime bounds how long a page may take to put together.
	pageTime = 10 * time.Second
	// firstTime is how long a new page waits for members to answer; what they say
	// later comes with its next look.
	firstTime = 1200 * time.Millisecond
)

// Options of a console.
type Options struct {
	// Transport reaches the API. Required.
	Transport http.RoundTripper
	// Version of Quorate, for the page about it.
	Version string
	// Done is closed when the server is about to end: streams end at once, for their
	// readers come back. Default: never.
	Done <-chan struct{}
	// Logger. Default: none.
	Logger *slog.Logger
}

// console serves the pages.
type console struct {
	opts  Options
	log   *slog.Logger
	pages *pages
}

// New makes a console.
func New(o Options) (http.Handler, error) {
	if o.Transport == nil {
		return nil, errors.New("web: the option Transport is missing: give a way to the API")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	p, err := loadPages()
	if err != nil {
		return nil, err
	}
	c := &console{opts: o, log: o.Logger, pages: p}
	return c.handler(), nil
}

// apiURL stands for the API in the requests that go through Options.Transport.
const apiURL = "http://127.0.0.1"

// connect makes a client that sends the token; an empty one is for logging in.
func (c *console) connect(token string) (*remote.Client, error) {
	return remote.New(remote.Config{Server: apiURL, Token: token},
		remote.Options{Transport: c.opts.Transport, Anonymous: token == "", Logger: c.log})
}

// handler puts the routes behind what holds for all of them.
func (c *console) handler() http.Handler {
	mux := http.NewServeMux()
	for pattern, h := range c.open() {
		mux.Handle(pattern, c.visit(h))
	}
	for pattern, h := range c.closed() {
		mux.Handle(pattern, c.visit(c.known(h)))
	}
	mux.Handle("GET /static/", c.static())
	mux.Handle("GET /favicon.ico", http.RedirectHandler("/static/favicon.svg", http.StatusMovedPermanently))
	mux.Handle("/", c.visit(c.known(func(*visit) error { return errNoPage })))
	return headers(http.NewCrossOriginProtection().Handler(mux))
}

// page answers one request.
type page func(v *visit) error

// open are the routes that need no session.
func (c *console) open() map[string]page {
	return map[string]page{
		"GET /login":  c.loginPage,
		"POST /login": c.login,
		"POST /look":  c.setLook,
	}
}

// closed are the routes that need one.
func (c *console) closed() map[string]page {
	const (
		cluster = "/clusters/{namespace}/{name}"
		member  = "/members/{namespace}/{name}"
	)
	return map[string]page{
		"POST /logout":                     c.logout,
		"GET /{$}":                         c.fleetPage,
		"GET /fleet/rows":                  c.fleetRows,
		"GET /stream":                      c.stream,
		"GET " + cluster:                   c.clusterPage,
		"GET " + cluster + "/live":         c.clusterLive,
		"GET " + cluster + "/do/{action}":  c.actionDialog,
		"POST " + cluster + "/do/{action}": c.act,
		"POST " + cluster + "/accept":      c.accept,
		"POST " + cluster + "/kill":        c.killLeader,
		"GET " + cluster + "/edit":         c.editPage,
		"POST " + cluster + "/edit":        c.edit,
		"GET " + member:                    c.memberPage,
		"GET " + member + "/live":          c.memberLive,
		"GET " + member + "/log":           c.memberLog,
		"GET /hosts":                       c.hostsPage,
		"GET /hosts/{name}":                c.hostPage,
		"POST /hosts/{name}/schedule":      c.schedule,
		"GET /tasks":                       c.tasksPage,
		"GET /activity":                    c.activityPage,
		"GET /new":                         c.createPage,
		"POST /new":                        c.create,
		"GET /import":                      c.importPage,
		"POST /import":                     c.importCluster,
		"GET /settings":                    c.settingsPage,
		"GET /docs":                        c.passOn,
		"GET /docs/":                       c.passOn,
		"GET /openapi.json":                c.passOn,
	}
}

// headers adds what every answer carries. The policy lets a page load nothing but
// this server's own files, so that text which slips through as markup runs nothing.
func headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy",
			"default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}
