package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

const (
	// dialTime bounds the TCP connection, and handshakeTime all of the login.
	dialTime      = 10 * time.Second
	handshakeTime = 20 * time.Second
	// aliveEvery is how often the other end is asked whether it is there; aliveTime is
	// how long it may take to answer. A connection that is cut off without a word would
	// else be waited on for ever.
	aliveEvery = 5 * time.Second
	aliveTime  = 20 * time.Second
	// mostOutput of a script is kept: they print facts and errors, no data.
	mostOutput = 256 << 10
)

// Dialer opens TCP connections; nil is the network's own.
type Dialer func(ctx context.Context, network, address string) (net.Conn, error)

// conn is a login on a machine.
type conn struct {
	client *ssh.Client
	target Target
	// key is the machine's host key, which was accepted.
	key ssh.PublicKey
	// root is set where the user is root; others go through sudo.
	root bool
}

// dial logs in. The host key is decided about before anything is sent.
func dial(ctx context.Context, t Target, a Auth, k HostKeys, d Dialer) (*conn, error) {
	check, err := newChecker(t, k)
	if err != nil {
		return nil, err
	}
	keys, closeKeys, err := a.signers()
	if err != nil {
		return nil, err
	}
	defer closeKeys.Close() //nolint:errcheck // the agent's socket was only read
	if d == nil {
		d = (&net.Dialer{Timeout: dialTime, KeepAlive: 15 * time.Second}).DialContext
	}
	var refused error // says which key the machine has
	for _, algorithms := range check.tries() {
		client, dialErr := handshake(ctx, t, keys, check, algorithms, d)
		if dialErr == nil {
			if err = check.record(); err != nil {
				return nil, errors.Join(err, client.Close())
			}
			go alive(ctx, client)
			return &conn{client: client, target: t, key: check.seen}, nil
		}
		// The machine may have the key of the pin under another algorithm.
		if err = dialErr; !errors.Is(err, ErrHostKey) {
			return nil, err
		}
		var none *ssh.AlgorithmNegotiationError
		if refused == nil || !errors.As(err, &none) {
			refused = err
		}
	}
	return nil, refused
}

func handshake(ctx context.Context, t Target, keys []ssh.Signer, check *checker, algorithms []string, d Dialer) (*ssh.Client, error) {
	raw, err := d(ctx, "tcp", t.addr())
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w: is sshd running there, and is the port right?", ErrUnreachable, t, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() }) // what hangs on it ends
	defer stop()
	if err = raw.SetDeadline(time.Now().Add(handshakeTime)); err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	c, channels, requests, err := ssh.NewClientConn(raw, t.addr(), &ssh.ClientConfig{
		User:              t.User,
		Auth:              []ssh.AuthMethod{ssh.PublicKeys(keys...)},
		HostKeyCallback:   check.check,
		HostKeyAlgorithms: algorithms,
		ClientVersion:     "SSH-2.0-quorate",
	})
	if err != nil {
		return nil, errors.Join(handshakeError(t, keys, check, err), ignoreClosed(raw.Close()))
	}
	if err = raw.SetDeadline(time.Time{}); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return ssh.NewClient(c, channels, requests), nil
}

// handshakeError says which part of the login failed.
func handshakeError(t Target, keys []ssh.Signer, check *checker, err error) error {
	var none *ssh.AlgorithmNegotiationError
	switch {
	case errors.Is(err, ErrHostKey):
		return err
	case errors.As(err, &none) && check.Pin != "":
		return fmt.Errorf("%w: %s has no key %s: %w", ErrHostKey, t, check.Pin, err)
	case strings.Contains(err.Error(), "unable to authenticate"), strings.Contains(err.Error(), "too many authentication failures"):
		var tried []string
		for _, k := range keys {
			tried = append(tried, fingerprint(k.PublicKey()))
		}
		return fmt.Errorf("%w: %s lets nobody in with %s: name the right key with --identity, or add its public half to %s's authorized_keys on the machine",
			ErrLogin, t, strings.Join(tried, ", "), t.User)
	}
	return fmt.Errorf("%w: %s: %w", ErrUnreachable, t, err)
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// alive closes the client once the other end does not answer any more, or ctx ends.
func alive(ctx context.Context, client *ssh.Client) {
	gone := make(chan struct{})
	go func() {
		_ = client.Wait() // its error is that of whoever uses the client
		close(gone)
	}()
	tick := time.NewTicker(aliveEvery)
	defer tick.Stop()
	for {
		select {
		case <-gone:
			return
		case <-ctx.Done():
			_ = client.Close()
			return
		case <-tick.C:
		}
		answered := make(chan struct{})
		go func() {
			_, _, _ = client.SendRequest("keepalive@openssh.com", true, nil) // any answer will do
			close(answered)
		}()
		limit := time.NewTimer(aliveTime)
		select {
		case <-answered:
		case <-gone:
		case <-limit.C:
			_ = client.Close()
		case <-ctx.Done():
		}
		limit.Stop()
	}
}

func (c *conn) Close() error { return ignoreClosed(c.client.Close()) }

// scriptError is a script that ended with an error.
type scriptError struct {
	// code is its exit code.
	code int
	// text is the end of what it said on stderr.
	text string
}

// Error is what the script said.
func (e *scriptError) Error() string {
	if e.text == "" {
		return fmt.Sprintf("the machine's shell ended with code %d and said nothing", e.code)
	}
	return e.text
}

// asUser runs a script as the user that logged in; see asRoot.
func (c *conn) asUser(ctx context.Context, script string, stdin io.Reader) (string, error) {
	return c.run(ctx, "/bin/sh -c "+quote(script), stdin)
}

// asRoot runs a script of a POSIX shell as root and returns what it prints. Scripts hold
// no backslash, since the login shell may be one that takes it for an escape between
// single quotes.
func (c *conn) asRoot(ctx context.Context, script string, stdin io.Reader) (string, error) {
	command := "/bin/sh -c " + quote(script)
	if !c.root {
		command = "sudo -n -- " + command
	}
	return c.run(ctx, command, stdin)
}

func (c *conn) run(ctx context.Context, command string, stdin io.Reader) (string, error) {
	lost := func(err error) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("%w: the connection to %s broke: %w", ErrUnreachable, c.target, err)
	}
	s, err := c.client.NewSession()
	if err != nil {
		return "", lost(err)
	}
	defer s.Close() //nolint:errcheck // Wait has said how it ended
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	var out, errs kept
	s.Stdout, s.Stderr = &out, &errs
	if stdin != nil {
		s.Stdin = stdin
	}
	if err = s.Run(command); err == nil {
		return out.String(), nil
	}
	var exit *ssh.ExitError
	if !errors.As(err, &exit) || exit.Signal() != "" {
		return out.String(), lost(err)
	}
	return out.String(), &scriptError{code: exit.ExitStatus(), text: lastLines(errs.String(), 4)}
}

// kept holds the first mostOutput bytes of what is written to it.
type kept struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (t *kept) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if room := mostOutput - t.b.Len(); room > 0 {
		t.b.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

// String is what was kept.
func (t *kept) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.String()
}

// lastLines are the last lines of a text that hold anything, in one line.
func lastLines(text string, n int) string {
	var lines []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines[max(0, len(lines)-n):], "; ")
}

// quote is a word for any login shell: what stands between single quotes is taken as it
// is by all of them.
func quote(word string) string {
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
