package web

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote/wire"
)

// sessionCookie carries the session's token. Scripts can't read it, and other
// sites' pages don't send it.
const sessionCookie = "quorate_session"

type loginData struct {
	frame

	Code, Next string
	// Failed is the key of what to say of the attempt before.
	Failed string
}

// loginPage never redeems a code by itself: programs that look ahead at links
// would use it up. Its form is sent by a button, or by the page's script.
func (c *console) loginPage(v *visit) error {
	q := v.r.URL.Query()
	return c.pages.render(v, http.StatusOK, "login", loginData{
		frame: c.frame(v, "login", ""), Code: q.Get("code"), Next: localPath(q.Get("next")),
	})
}

// login redeems a code, or exchanges a token for a session.
func (c *console) login(v *visit) error {
	ctx, cancel := v.bounded()
	defer cancel()
	next := localPath(v.r.PostFormValue("next"))
	token, code := strings.TrimSpace(v.r.PostFormValue("token")), v.r.PostFormValue("code")
	if token == "" && code == "" {
		return c.refuseLogin(v, next, "login.empty")
	}
	api, err := c.connect(token)
	if err != nil {
		return err
	}
	defer api.Close()
	var session wire.Session
	if code != "" {
		session, err = api.Login(ctx, code)
	} else {
		session, err = api.ExchangeToken(ctx)
	}
	switch {
	case code != "" && errors.Is(err, store.ErrForbidden):
		return c.refuseLogin(v, next, "login.codeRefused")
	case errors.Is(err, store.ErrForbidden):
		return c.refuseLogin(v, next, "login.tokenRefused")
	case err != nil:
		return err
	}
	http.SetCookie(v, &http.Cookie{ //nolint:gosec // Secure wherever the connection is
		Name: sessionCookie, Value: session.Token, Path: "/", Expires: session.ExpiresAt,
		HttpOnly: true, Secure: v.r.TLS != nil, SameSite: http.SameSiteStrictMode,
	})
	// A strict cookie is not sent along a chain of redirects that another site began,
	// which is how a link in a chat arrives: the next page is fetched by this one.
	return c.pages.render(v, http.StatusOK, "login/welcome", loginData{frame: c.frame(v, "login", ""), Next: next})
}

func (c *console) refuseLogin(v *visit, next, why string) error {
	return c.pages.render(v, http.StatusUnauthorized, "login", loginData{frame: c.frame(v, "login", ""), Next: next, Failed: why})
}

func (v *visit) dropSession() {
	http.SetCookie(v, &http.Cookie{ //nolint:gosec // Secure wherever the connection is
		Name: sessionCookie, Path: "/", MaxAge: -1, HttpOnly: true, Secure: v.r.TLS != nil, SameSite: http.SameSiteStrictMode,
	})
}

// logout ends the session here and at the server.
func (c *console) logout(v *visit) error {
	ctx, cancel := v.bounded()
	defer cancel()
	v.dropSession()
	if err := v.api.Logout(ctx); err != nil && !errors.Is(err, store.ErrForbidden) {
		return err
	}
	return v.redirect("/login")
}

type settingsData struct {
	frame

	Session wire.Session
	Version string
	Console string
}

// settingsPage says who one is and what one looks at.
func (c *console) settingsPage(v *visit) error {
	ctx, cancel := v.bounded()
	defer cancel()
	d := settingsData{frame: c.frame(v, "settings", "").with("quorate version"), Console: c.opts.Version}
	var err error
	if d.Session, err = v.api.WhoAmI(ctx); err != nil {
		return err
	}
	if d.Version, err = v.api.Version(ctx); err != nil {
		return err
	}
	return c.pages.render(v, http.StatusOK, "settings", d)
}

// passOn asks the API in the visitor's name for its own description, which a
// browser can't send a token for.
func (c *console) passOn(v *visit) error {
	ctx, cancel := context.WithTimeout(v.r.Context(), pageTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, apiURL+v.r.URL.EscapedPath(), http.NoBody)
	if err != nil {
		return fmt.Errorf("%w: %w", errNoPage, err)
	}
	cookie, err := v.r.Cookie(sessionCookie)
	if err != nil {
		return c.toLogin(v)
	}
	req.Header.Set("Authorization", "Bearer "+cookie.Value)
	resp, err := c.opts.Transport.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	}
	defer func() { _ = resp.Body.Close() }() // all that was wanted has been read
	if resp.StatusCode == http.StatusUnauthorized {
		v.dropSession()
		return c.toLogin(v)
	}
	v.Header().Set("Content-Type", resp.Header.Get("Content-Type"))
	v.WriteHeader(resp.StatusCode)
	_, err = io.Copy(v, resp.Body)
	return err
}

// lifted takes off the deadlines of a request that streams, and returns what gives
// each piece a fresh one.
func lifted(w http.ResponseWriter) (flush func() error) {
	const stall = 15 * time.Second
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Time{}) // a connection without deadlines, as in tests, has none to lift
	return func() error {
		_ = control.SetWriteDeadline(time.Now().Add(stall))
		return control.Flush()
	}
}
