package install

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// Auth says with which keys to log in. There are no passwords.
type Auth struct {
	// Identities are files with private keys. Without any they are the keys of
	// ssh-agent, and those of ssh's usual names in Home that need no passphrase.
	Identities []string
	// AgentSocket is $SSH_AUTH_SOCK; empty where no ssh-agent runs.
	AgentSocket string
	// Home is the user's ~/.ssh; empty: none.
	Home string
}

// usualIdentities are ssh's own, in its order.
var usualIdentities = []string{"id_ed25519", "id_ecdsa", "id_rsa"}

// signers returns the keys to log in with. Close what it returns once logged in.
func (a Auth) signers() (keys []ssh.Signer, closer io.Closer, err error) {
	closer = io.NopCloser(nil)
	var held []ssh.Signer
	if a.AgentSocket != "" {
		conn, dialErr := net.Dial("unix", a.AgentSocket) //nolint:noctx // a local socket, which answers at once or not at all
		switch {
		case dialErr == nil:
			closer = conn
			if held, err = agent.NewClient(conn).Signers(); err != nil {
				return nil, nil, errors.Join(fmt.Errorf("ask ssh-agent for its keys: %w: name a key file with --identity instead", err), conn.Close())
			}
		case len(a.Identities) == 0:
			// A socket that outlived its agent is common, and the files may do.
			held = nil
		}
	}
	if len(a.Identities) > 0 {
		for _, file := range a.Identities {
			key, keyErr := readKey(file, held)
			if keyErr != nil {
				return nil, nil, errors.Join(keyErr, closer.Close())
			}
			keys = append(keys, key)
		}
		return keys, closer, nil
	}
	keys = held
	for _, name := range usualIdentities {
		if a.Home == "" {
			break
		}
		key, keyErr := readKey(filepath.Join(a.Home, name), held)
		if keyErr == nil {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return nil, nil, errors.Join(fmt.Errorf("%w: there is no key to log in with: name one with --identity, or load one into ssh-agent with `ssh-add FILE`", ErrLogin), closer.Close())
	}
	return keys, closer, nil
}

// readKey reads a private key. One that is behind a passphrase is used through the
// ssh-agent that holds it.
func readKey(file string, held []ssh.Signer) (ssh.Signer, error) {
	raw, err := os.ReadFile(file) //nolint:gosec // the person names the key
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the key %s: %w: name another with --identity", file, fs.ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("the key: %w", err)
	}
	key, err := ssh.ParsePrivateKey(raw)
	if locked, ok := errors.AsType[*ssh.PassphraseMissingError](err); ok {
		for _, h := range held {
			if locked.PublicKey != nil && bytes.Equal(h.PublicKey().Marshal(), locked.PublicKey.Marshal()) {
				return h, nil
			}
		}
		return nil, fmt.Errorf("the key %s is behind a passphrase: load it into ssh-agent with `ssh-add %s`", file, file)
	}
	if err != nil {
		return nil, fmt.Errorf("the key %s can't be read: %w: give a private key in a form that ssh-keygen writes", file, err)
	}
	return key, nil
}
