package server_test

import (
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/server"
	"github.com/quorate/quorate/server/servertest"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
)

// hand is a clock that is moved by hand.
type hand struct{ offset atomic.Int64 }

func (h *hand) now() time.Time          { return time.Now().Add(time.Duration(h.offset.Load())) }
func (h *hand) advance(d time.Duration) { h.offset.Add(int64(d)) }

func withClock(t *testing.T) (*servertest.Fixture, *hand) {
	t.Helper()
	f, h := servertest.New(t, nil), &hand{}
	f.Server.SetWrongTime(10 * time.Millisecond)
	f.Server.SetNow(h.now)
	return f, h
}

// secrets are the names of the Secrets with a label.
func secrets(t *testing.T, f *servertest.Fixture, label string) []string {
	t.Helper()
	objs, err := f.Store.List(t.Context(), v1alpha1.KindSecret, store.ListOptions{
		Namespace: server.TokenNamespace, Labels: map[string]string{label: "true"},
	})
	fine(t, "list", err)
	var names []string
	for _, obj := range objs {
		names = append(names, obj.GetName())
	}
	return names
}

func anonymous(t *testing.T, f *servertest.Fixture) *remote.Client {
	t.Helper()
	c, err := remote.New(remote.Config{Server: f.URL}, remote.Options{Anonymous: true})
	fine(t, "make a client", err)
	t.Cleanup(c.Close)
	return c
}

func TestLogInByLink(t *testing.T) {
	f, clock := withClock(t)
	ctx := t.Context()
	viewer, stranger := f.Client(t, server.RoleViewer, "", remote.Options{}), anonymous(t, f)
	link, err := viewer.LoginLink(ctx, 0)
	fine(t, "LoginLink", err)
	if link.Path != "/login?code="+link.Code || len(link.Code) < 26 || time.Until(link.ExpiresAt).Round(time.Minute) != 15*time.Minute {
		t.Fatalf("the link is %+v", link)
	}
	for _, s := range secrets(t, f, server.LabelCode) {
		if strings.Contains(s, strings.ToLower(link.Code)) {
			t.Fatalf("the code stands in the name %s", s)
		}
	}
	session, err := stranger.Login(ctx, link.Code)
	fine(t, "Login", err)
	if session.Name != "viewer-1" || session.Role != "viewer" || time.Until(session.ExpiresAt).Round(time.Minute) != 12*time.Hour {
		t.Fatalf("the session is %+v", session)
	}
	if left := secrets(t, f, server.LabelCode); len(left) != 0 {
		t.Fatalf("the code is still there: %v", left)
	}
	if _, err = stranger.Login(ctx, link.Code); !errors.Is(err, store.ErrForbidden) {
		t.Fatalf("the code again: %v", err)
	}
	c := stranger.WithToken(session.Token)
	me, err := c.WhoAmI(ctx)
	if err != nil || me.Name != "viewer-1" || me.Role != "viewer" || !me.ExpiresAt.Equal(session.ExpiresAt) || me.Token != "" {
		t.Fatalf("WhoAmI: %+v, %v", me, err)
	}
	// It can do what a viewer can, and no more.
	if _, err = c.List(ctx, v1alpha1.KindCluster, store.ListOptions{}); err != nil {
		t.Errorf("list clusters: %v", err)
	}
	if err = c.Create(ctx, servertest.Cluster("prod", "c")); !errors.Is(err, store.ErrForbidden) || !strings.Contains(err.Error(), "viewer-1") {
		t.Errorf("create a cluster: %v", err)
	}
	// A session begins no other, or it would have no end.
	if _, err = c.ExchangeToken(ctx); !errors.Is(err, store.ErrForbidden) {
		t.Errorf("ExchangeToken: %v", err)
	}
	if _, err = c.LoginLink(ctx, 0); !errors.Is(err, store.ErrForbidden) {
		t.Errorf("LoginLink: %v", err)
	}
	clock.advance(12*time.Hour - time.Minute)
	if _, err = c.WhoAmI(ctx); err != nil {
		t.Fatalf("a minute before its end: %v", err)
	}
	clock.advance(time.Minute)
	if _, err = c.WhoAmI(ctx); !errors.Is(err, store.ErrForbidden) || !strings.Contains(err.Error(), "is not known here, or was revoked") {
		t.Fatalf("after its end: %v", err)
	}
	f.Server.Sweep(ctx)
	if left := secrets(t, f, server.LabelSession); len(left) != 0 {
		t.Fatalf("not swept: %v", left)
	}
	if kept := secrets(t, f, server.LabelToken); len(kept) != 1 || kept[0] != "viewer-1" {
		t.Fatalf("the tokens are %v", kept)
	}
}

// TestCodes: what is no good code gets one answer, which is that of an unknown
// token, and no session.
func TestCodes(t *testing.T) {
	f, clock := withClock(t)
	ctx := t.Context()
	token := f.Token(t, server.RoleAdmin, "")
	admin := f.ClientAt(t, f.URL, token, remote.Options{})
	for _, ttl := range []time.Duration{-time.Minute, 61 * time.Minute} {
		if _, err := admin.LoginLink(ctx, ttl); !errors.Is(err, store.ErrInvalid) || !strings.Contains(err.Error(), "ttlSeconds") {
			t.Errorf("LoginLink for %s: %v", ttl, err)
		}
	}
	old, err := admin.LoginLink(ctx, time.Hour)
	fine(t, "LoginLink", err)
	clock.advance(time.Hour)
	good, err := admin.LoginLink(ctx, time.Minute)
	fine(t, "LoginLink", err)
	if n := len(secrets(t, f, server.LabelCode)); n != 1 {
		t.Errorf("%d codes, and one is over", n)
	}
	_, unknown := ask(t, f, "quorate_nobody_"+strings.Repeat("0", 64), "GET", "/version", "")
	for _, code := range []string{old.Code, "x", strings.ToLower(good.Code), good.Code[1:], good.Code + "A", token, "../../etc"} {
		resp, st := ask(t, f, "", "POST", "/sessions", `{"code":"`+code+`"}`)
		if resp.StatusCode != http.StatusUnauthorized || st != unknown {
			t.Errorf("%s: %s %q", code, resp.Status, st.Message)
		}
	}
	// The last is a little too long. Of one that is much too long, the answer may be
	// lost with the connection.
	for _, body := range []string{"", "{", `{}`, `{"code":""}`, `{"code":1}`, `{"code":"` + strings.Repeat("a", 4500) + `"}`} {
		if resp, st := ask(t, f, "", "POST", "/sessions", body); resp.StatusCode != http.StatusUnauthorized || !strings.HasPrefix(st.Message, "no token was sent") {
			t.Errorf("%.20s: %s %q", body, resp.Status, st.Message)
		}
	}
	if resp, _ := ask(t, f, token, "POST", "/sessions", `{"code":"`+good.Code+`"}`); resp.StatusCode != http.StatusBadRequest {
		t.Errorf("a token and a code: %s", resp.Status)
	}
	if n := len(secrets(t, f, server.LabelSession)); n != 0 {
		t.Fatalf("%d sessions were made", n)
	}
	if _, err = anonymous(t, f).Login(ctx, good.Code); err != nil {
		t.Fatalf("the good code: %v", err)
	}
}

// TestCodeOnce: of many who redeem a code at once, one gets a session.
func TestCodeOnce(t *testing.T) {
	f, _ := withClock(t)
	admin := f.Client(t, server.RoleAdmin, "", remote.Options{})
	for range 5 {
		link, err := admin.LoginLink(t.Context(), 0)
		fine(t, "LoginLink", err)
		var wg sync.WaitGroup
		var got, refused atomic.Int64
		for range 12 {
			c := anonymous(t, f)
			wg.Go(func() {
				_, err := c.Login(t.Context(), link.Code)
				switch {
				case err == nil:
					got.Add(1)
				case errors.Is(err, store.ErrForbidden):
					refused.Add(1)
				default:
					t.Errorf("Login: %v", err)
				}
			})
		}
		wg.Wait()
		if got.Load() != 1 || refused.Load() != 11 {
			t.Fatalf("%d sessions, %d refused", got.Load(), refused.Load())
		}
	}
}

// TestGuessing: wrong codes wait, only so many at a time, and don't hold up a
// right one.
func TestGuessing(t *testing.T) {
	f := servertest.New(t, nil)
	f.Server.SetWrongTime(time.Hour)
	admin := f.Client(t, server.RoleAdmin, "", remote.Options{})
	link, err := admin.LoginLink(t.Context(), 0)
	fine(t, "LoginLink", err)
	for range 64 {
		conn := dial(t, f)
		_, err := conn.Write([]byte("POST /sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n\r\n{\"code\":\"x\"}"))
		fine(t, "guess", err)
	}
	eventually(t, "further guesses are turned away", func() bool {
		conn := dial(t, f)
		_, err := conn.Write([]byte("POST /sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n\r\n{\"code\":\"y\"}"))
		fine(t, "guess", err)
		fine(t, "set a deadline", conn.SetReadDeadline(time.Now().Add(time.Second)))
		head := make([]byte, 12)
		_, err = conn.Read(head)
		return err == nil && string(head) == "HTTP/1.1 429"
	})
	if _, err := anonymous(t, f).Login(t.Context(), link.Code); err != nil {
		t.Fatalf("the right code: %v", err)
	}
}

// TestSessionEnds: by logging out, and with the token in whose name it is.
func TestSessionEnds(t *testing.T) {
	f, _ := withClock(t)
	ctx := t.Context()
	plain, err := server.EnsureToken(ctx, f.Store, "ann", server.RoleAdmin, "")
	fine(t, "EnsureToken", err)
	ann := f.ClientAt(t, f.URL, plain, remote.Options{})
	begin := func() *remote.Client {
		t.Helper()
		session, failed := ann.ExchangeToken(ctx)
		fine(t, "ExchangeToken", failed)
		if session.Name != "ann" || session.Role != "admin" {
			t.Fatalf("the session is %+v", session)
		}
		c := ann.WithToken(session.Token)
		_, failed = c.WhoAmI(ctx)
		fine(t, "WhoAmI", failed)
		return c
	}
	over := func(c *remote.Client) bool {
		_, failed := c.WhoAmI(ctx)
		return errors.Is(failed, store.ErrForbidden)
	}
	one, two := begin(), begin()
	fine(t, "Logout", one.Logout(ctx))
	if !over(one) || over(two) {
		t.Fatal("logging out ended the wrong session")
	}
	if err = ann.Logout(ctx); !errors.Is(err, store.ErrInvalid) || !strings.Contains(err.Error(), "is no session") {
		t.Fatalf("Logout of a token: %v", err)
	}
	link, err := ann.LoginLink(ctx, 0)
	fine(t, "LoginLink", err)
	again, err := server.ResetToken(ctx, f.Store, "ann", server.RoleAdmin, "")
	fine(t, "ResetToken", err)
	eventually(t, "the session ends with its token", func() bool { return over(two) })
	if _, err = anonymous(t, f).Login(ctx, link.Code); !errors.Is(err, store.ErrForbidden) {
		t.Fatalf("a code of the token before: %v", err)
	}
	ann = ann.WithToken(again)
	three := begin()
	var secret v1alpha1.Secret
	fine(t, "get the token", f.Store.Get(ctx, store.Key{Namespace: server.TokenNamespace, Name: "ann"}, &secret))
	fine(t, "delete the token", ann.Delete(ctx, v1alpha1.KindSecret, store.KeyOf(&secret), store.Preconditions{UID: secret.UID}))
	eventually(t, "the session ends with its token", func() bool { return over(three) })
}

// TestSessionNames: no token can take the place of a session, nor an agent's token
// begin one.
func TestSessionNames(t *testing.T) {
	f, _ := withClock(t)
	for _, name := range []string{"session-x", "login-x"} {
		if _, err := server.EnsureToken(t.Context(), f.Store, name, server.RoleAdmin, ""); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("EnsureToken %s: %v", name, err)
		}
		if _, err := server.ResetToken(t.Context(), f.Store, name, server.RoleAdmin, ""); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("ResetToken %s: %v", name, err)
		}
	}
	agent := f.Client(t, server.RoleAgent, "h1", remote.Options{})
	if _, err := agent.ExchangeToken(t.Context()); !errors.Is(err, store.ErrForbidden) {
		t.Errorf("ExchangeToken as an agent: %v", err)
	}
	if _, err := agent.LoginLink(t.Context(), 0); !errors.Is(err, store.ErrForbidden) {
		t.Errorf("LoginLink as an agent: %v", err)
	}
	if me, err := agent.WhoAmI(t.Context()); err != nil || me.Role != "agent" || !me.ExpiresAt.IsZero() {
		t.Errorf("WhoAmI as an agent: %+v, %v", me, err)
	}
}

// TestManySessions: those of one token are bounded, and the oldest go first.
func TestManySessions(t *testing.T) {
	f, clock := withClock(t)
	admin := f.Client(t, server.RoleAdmin, "", remote.Options{})
	first, err := admin.ExchangeToken(t.Context())
	fine(t, "ExchangeToken", err)
	for range 100 {
		clock.advance(time.Second)
		_, err := admin.ExchangeToken(t.Context())
		fine(t, "ExchangeToken", err)
	}
	if n := len(secrets(t, f, server.LabelSession)); n != 100 {
		t.Fatalf("%d sessions", n)
	}
	eventually(t, "the oldest is over", func() bool {
		_, err := admin.WithToken(first.Token).WhoAmI(t.Context())
		return errors.Is(err, store.ErrForbidden)
	})
}
