package app

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/quorate/quorate/internal/atomicfile"
	"github.com/quorate/quorate/internal/backoff"
	"github.com/quorate/quorate/pki"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
	"github.com/quorate/quorate/store/remote/wire"
)

// identityFile is what an agent that has joined keeps: one file, replaced atomically, so
// that key and certificate never come apart.
type identityFile struct {
	// Host is the EtcdHost that the certificate names.
	Host string `json:"host"`
	// Server is its URL.
	Server string `json:"server"`
	// JoinToken is the ID of the join token that was used: another one means to join anew.
	JoinToken string `json:"joinToken,omitempty"`
	// Key and Certificate in PEM; the key was made on this host.
	Key         string `json:"key"`
	Certificate string `json:"certificate"`
	// Issued is when the certificate came, by this host's clock.
	Issued time.Time `json:"issued"`
	// ServerCA holds the roots by which the server is known; empty for the system's.
	ServerCA string `json:"serverCA,omitempty"`
}

// joiningFile is the key with which an agent is about to join. It is kept until the
// certificate is there: with the same key, an answer that was lost is given again.
type joiningFile struct {
	JoinToken string `json:"joinToken"`
	Key       string `json:"key"`
}

// identity proves which host an agent stands for.
type identity struct {
	paths paths
	log   *slog.Logger
	// host, server and caFile are what the agent was started with; caFile goes before
	// what the server says of itself.
	host, server, caFile string

	mu   sync.Mutex
	file identityFile
	pair *tls.Certificate
}

// loadIdentity reads what an earlier agent has left; nil where there is nothing.
func loadIdentity(p paths) (*identityFile, error) {
	raw, err := os.ReadFile(p.identity())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // that there is none is an answer
	}
	if err != nil {
		return nil, fmt.Errorf("read the agent's certificate: %w", err)
	}
	var f identityFile
	if err := json.Unmarshal(raw, &f); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w: remove it and join anew, with a token of `quorate host token NAME`", p.identity(), err)
	}
	return &f, nil
}

// take makes f what the agent shows from now on.
func (i *identity) take(f identityFile) error {
	pair, err := tls.X509KeyPair([]byte(f.Certificate), []byte(f.Key))
	if err != nil {
		return fmt.Errorf("the certificate in %s: %w: remove the file and join anew, with a token of `quorate host token %s`", i.paths.identity(), err, i.host)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.file, i.pair = f, &pair
	return nil
}

// save writes f, and takes it.
func (i *identity) save(f identityFile) error {
	raw, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return err
	}
	if err := atomicfile.Write(i.paths.identity(), append(raw, '\n'), 0o600); err != nil {
		return fmt.Errorf("keep the agent's certificate: %w", err)
	}
	return i.take(f)
}

// certificate is what the agent shows to the server.
func (i *identity) certificate() (*tls.Certificate, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.pair == nil {
		return &tls.Certificate{}, nil
	}
	return i.pair, nil
}

// roots are those by which the agent knows the server; nil for the system's.
func (i *identity) roots() (*x509.CertPool, error) {
	i.mu.Lock()
	text := i.file.ServerCA
	i.mu.Unlock()
	if i.caFile != "" {
		raw, err := os.ReadFile(i.caFile)
		if err != nil {
			return nil, fmt.Errorf("read the server's CA: %w", err)
		}
		text = string(raw)
	}
	if text == "" {
		return nil, nil //nolint:nilnil // the system's
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(text)) {
		return nil, errors.New("the server's CA holds no certificate: give it in PEM")
	}
	return pool, nil
}

// openIdentity finds how the agent proves its host: with the certificate that it has, or
// with one that it joins for. It returns nil where the agent uses a token of the server
// instead.
func openIdentity(p paths, opts *AgentOptions) (*identity, error) {
	known, err := loadIdentity(p)
	if err != nil {
		return nil, err
	}
	if opts.JoinToken == "" && (opts.Client.Token != "" || known == nil) {
		return nil, nil //nolint:nilnil // a token is used
	}
	if opts.Client.Server == "" && known != nil {
		opts.Client.Server = known.Server
	}
	if opts.Client.Server == "" {
		return nil, fmt.Errorf("join as host %s: the server is missing: give its URL with --server", opts.Host)
	}
	i := &identity{paths: p, log: opts.Logger, host: opts.Host, server: opts.Client.Server, caFile: opts.Client.CAFile}
	if known == nil || known.Host != opts.Host {
		if opts.JoinToken == "" {
			return nil, fmt.Errorf("this agent has joined as host %s, and was started as host %s: start it with --host %s, or join anew with a token of `quorate host token %s`",
				known.Host, opts.Host, known.Host, opts.Host)
		}
		return i, nil
	}
	parts, ok := wire.ParseJoinToken(opts.JoinToken)
	if ok && parts.ID != known.JoinToken {
		return i, nil // a new token: whoever gave it wants to join anew
	}
	return i, i.take(*known)
}

// client talks to the server as the agent; i is nil where it uses a token.
func (i *identity) client(cfg remote.Config, o remote.Options) (*remote.Client, error) {
	if i != nil {
		cfg.Token = ""
		if strings.HasPrefix(cfg.Server, "http://") {
			return nil, fmt.Errorf("join as host %s: %s is not encrypted, and agents join by certificates: give the server's https URL", i.host, cfg.Server)
		}
		o.Certificate, o.Roots = i.certificate, i.roots
	}
	return remote.New(cfg, o)
}

// enroll joins, unless the agent has a certificate, and keeps it fresh from then on until
// ctx ends. I is nil where the agent uses a token.
func (i *identity) enroll(ctx context.Context, client *remote.Client, token string) error {
	if i == nil {
		return nil
	}
	i.mu.Lock()
	has := i.pair != nil
	i.mu.Unlock()
	if !has {
		if err := i.join(ctx, token); err != nil {
			return err
		}
	}
	go i.keep(ctx, client)
	return nil
}

// join joins until the agent has a certificate. It gives up when the token is refused.
func (i *identity) join(ctx context.Context, token string) error {
	parts, ok := wire.ParseJoinToken(token)
	if !ok {
		return fmt.Errorf("join as host %s: what was given is no join token: take one that `quorate host token %s` prints: %w", i.host, i.host, store.ErrInvalid)
	}
	key, err := i.joiningKey(parts.ID)
	if err != nil {
		return err
	}
	csr, err := pki.NewRequest(key, "")
	if err != nil {
		return err
	}
	retry := backoff.Backoff{Min: 200 * time.Millisecond, Max: 10 * time.Second, Jitter: 0.3}
	for {
		got, err := remote.Join(ctx, remote.Config{Server: i.server, CAFile: i.caFile}, remote.Options{Logger: i.log}, i.host, token, csr)
		if err == nil {
			return i.joined(parts.ID, key, got)
		}
		if !errors.Is(err, store.ErrUnavailable) || ctx.Err() != nil {
			return fmt.Errorf("join as host %s: %w", i.host, err)
		}
		i.log.WarnContext(ctx, "joining again", slog.String("host", i.host), slog.Any("error", err))
		if backoff.Sleep(ctx, retry.Next()) != nil {
			return fmt.Errorf("join as host %s: %w", i.host, err)
		}
	}
}

func (i *identity) joined(token string, key []byte, got remote.AgentCertificate) error {
	err := i.save(identityFile{
		Host: i.host, Server: i.server, JoinToken: token, Key: string(key), Certificate: got.Certificate, ServerCA: got.ServerCA, Issued: time.Now(),
	})
	if err != nil {
		return err
	}
	if err := os.Remove(i.paths.joining()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	i.log.Info("joined", slog.String("host", i.host), slog.String("server", i.server), slog.Time("certificate_until", got.NotAfter))
	return nil
}

// joiningKey makes the key to join with, or finds the one of a join that was broken off.
func (i *identity) joiningKey(token string) ([]byte, error) {
	var f joiningFile
	raw, err := os.ReadFile(i.paths.joining())
	if err == nil && json.Unmarshal(raw, &f) == nil && f.JoinToken == token {
		return []byte(f.Key), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the key to join with: %w", err)
	}
	key, err := pki.NewKey()
	if err != nil {
		return nil, err
	}
	if raw, err = json.Marshal(joiningFile{JoinToken: token, Key: string(key)}); err != nil {
		return nil, err
	}
	if err = atomicfile.Write(i.paths.joining(), raw, 0o600); err != nil {
		return nil, fmt.Errorf("keep the key to join with: %w", err)
	}
	return key, nil
}

// renewAt is when two thirds of the certificate's life are over. It began when the
// certificate came: certificates are dated back.
func (i *identity) renewAt() time.Time {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.file.Issued.Add(i.pair.Leaf.NotAfter.Sub(i.file.Issued) * 2 / 3)
}

// keep renews the certificate in time until ctx ends.
func (i *identity) keep(ctx context.Context, client *remote.Client) {
	retry := backoff.Backoff{Min: time.Second, Max: 10 * time.Minute, Jitter: 0.5}
	for {
		// Not more often than that, whatever the clocks say.
		if backoff.Sleep(ctx, max(time.Until(i.renewAt()), time.Second)) != nil {
			return
		}
		until, err := i.renew(ctx, client)
		if err == nil {
			retry.Reset()
			i.log.InfoContext(ctx, "certificate renewed", slog.String("host", i.host), slog.Time("until", until))
			continue
		}
		if ctx.Err() == nil {
			i.log.WarnContext(ctx, "certificate not renewed, trying again", slog.String("host", i.host), slog.Any("error", err))
		}
		if backoff.Sleep(ctx, retry.Next()) != nil {
			return
		}
	}
}

// renew asks for the next certificate, with a new key.
func (i *identity) renew(ctx context.Context, client *remote.Client) (time.Time, error) {
	key, err := pki.NewKey()
	if err != nil {
		return time.Time{}, err
	}
	csr, err := pki.NewRequest(key, "")
	if err != nil {
		return time.Time{}, err
	}
	got, err := client.RenewAgent(ctx, i.host, csr)
	if err != nil {
		return time.Time{}, err
	}
	i.mu.Lock()
	next := i.file
	i.mu.Unlock()
	next.Key, next.Certificate, next.ServerCA, next.Issued = string(key), got.Certificate, got.ServerCA, time.Now()
	if err = i.save(next); err != nil {
		return time.Time{}, err
	}
	// The connections that stand were made with the one before.
	client.Reconnect()
	return got.NotAfter, nil
}

// HasJoined reports whether an agent with that data directory has joined a server.
func HasJoined(dataDir string) bool {
	_, err := os.Stat(paths(dataDir).identity())
	return err == nil
}

// readJoinToken reads the file with the join token. Once the agent has joined, the file
// may be gone.
func (o *AgentOptions) readJoinToken() error {
	if o.JoinTokenFile == "" {
		return nil
	}
	raw, err := os.ReadFile(o.JoinTokenFile)
	if errors.Is(err, fs.ErrNotExist) && HasJoined(o.DataDir) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the join token (--join-token-file): %w", err)
	}
	o.JoinToken = strings.TrimSpace(string(raw))
	return nil
}
