package remote

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote/wire"
)

// AgentCertificate is what an agent proves by which host it stands for.
type AgentCertificate = wire.AgentCertificate

// CreateJoinToken makes a token by which the agent of that host joins, once, and
// returns when it expires. A ttl of 0 leaves its life to the server; it is rounded up
// to seconds. The token is empty in a dry run. store.ErrConflict where the server has no
// TLS; store.ErrForbidden to all but admins.
func (c *Client) CreateJoinToken(ctx context.Context, host string, ttl time.Duration) (token string, expires time.Time, err error) {
	key := store.Key{Name: host}
	path, err := itemPath("make a join token for", v1alpha1.KindHost, key, "jointoken")
	if err != nil {
		return "", time.Time{}, err
	}
	var made wire.JoinToken
	in := wire.JoinTokenRequest{TTLSeconds: int64((ttl + time.Second - 1) / time.Second)}
	err = c.call(ctx, http.MethodPost, path, c.changes(), in, &made)
	return made.Token, made.ExpiresAt, err
}

// Join gives a join token and a certificate request (PEM) to the server, and returns the
// certificate. The server is known by the CA of cfg or, where it names none, by what the
// token says of it. Repeating it with the same token and key is safe: an answer that was
// lost is given again. store.ErrForbidden when the token is refused.
func Join(ctx context.Context, cfg Config, o Options, host, token string, csr []byte) (AgentCertificate, error) {
	var got AgentCertificate
	token = strings.TrimSpace(token)
	parts, ok := wire.ParseJoinToken(token)
	if !ok {
		return got, fmt.Errorf("join as host %s: what was given is no join token: take one that `quorate host token %s` prints: %w", host, host, store.ErrInvalid)
	}
	if strings.HasPrefix(cfg.Server, "http://") {
		return got, fmt.Errorf("join as host %s: %s is not encrypted, and agents join by certificates: give the server's https URL: %w", host, cfg.Server, store.ErrInvalid)
	}
	cfg.Token, o.Anonymous, o.Certificate = "", true, nil
	if cfg.CA == "" && cfg.CAFile == "" && o.Transport == nil {
		o.Transport = transport(pinned(cfg.hostname(), parts.Pin))
	}
	c, err := New(cfg, o)
	if err != nil {
		return got, err
	}
	defer c.Close()
	if err = checkKey("join as", v1alpha1.KindHost, store.Key{Name: host}); err != nil {
		return got, err
	}
	err = c.call(ctx, http.MethodPost, wire.AgentPath(host, "join"), nil, wire.Join{Token: token, CSR: string(csr)}, &got)
	return got, err
}

// RenewAgent has the server sign a request (PEM) for the next certificate of the agent
// that asks. The one that it shows counts until the next is used first.
func (c *Client) RenewAgent(ctx context.Context, host string, csr []byte) (AgentCertificate, error) {
	var got AgentCertificate
	err := c.call(ctx, http.MethodPost, wire.AgentPath(host, "certificate"), nil, wire.Renewal{CSR: string(csr)}, &got)
	return got, err
}
