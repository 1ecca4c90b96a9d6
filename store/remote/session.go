package remote

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/quorate/quorate/store/remote/wire"
)

// WithToken returns a client that sends another token, such as a session's, over
// the same connections.
func (c *Client) WithToken(token string) *Client {
	other := *c
	other.token = token
	return &other
}

// LoginLink makes a one-time code by which a person logs in to the console with
// the caller's role. A ttl of 0 leaves its lifetime to the server; it is rounded up
// to seconds.
func (c *Client) LoginLink(ctx context.Context, ttl time.Duration) (wire.LoginLink, error) {
	var link wire.LoginLink
	if c.dryRun {
		return link, fmt.Errorf("make a log-in link: %w", errNoDryRun)
	}
	in := wire.LinkRequest{TTLSeconds: int64((ttl + time.Second - 1) / time.Second)}
	err := c.call(ctx, http.MethodPost, wire.PathLinks, nil, in, &link)
	return link, err
}

// Login begins a session by a one-time code, which is void from then on. The
// client's own token, if it has one, is not sent.
func (c *Client) Login(ctx context.Context, code string) (wire.Session, error) {
	return c.WithToken("").begin(ctx, wire.Login{Code: code})
}

// ExchangeToken begins a session in the name of the client's token.
func (c *Client) ExchangeToken(ctx context.Context) (wire.Session, error) {
	return c.begin(ctx, wire.Login{})
}

func (c *Client) begin(ctx context.Context, in wire.Login) (wire.Session, error) {
	var session wire.Session
	if c.dryRun {
		return session, fmt.Errorf("log in: %w", errNoDryRun)
	}
	err := c.call(ctx, http.MethodPost, wire.PathSessions, nil, in, &session)
	return session, err
}

// Logout ends the session whose token the client sends.
func (c *Client) Logout(ctx context.Context) error {
	if c.dryRun {
		return fmt.Errorf("log out: %w", errNoDryRun)
	}
	return c.call(ctx, http.MethodDelete, wire.PathSession, nil, nil, nil)
}

// WhoAmI returns whom the client's token stands for. Its own Token is empty.
func (c *Client) WhoAmI(ctx context.Context) (wire.Session, error) {
	var session wire.Session
	err := c.call(ctx, http.MethodGet, wire.PathSession, nil, nil, &session)
	return session, err
}
