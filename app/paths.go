// Package app is the composition root: it puts the parts together into the things
// that run for long (server, agent, member, and `up`, which is all of them), each
// with options in and an orderly end.
package app

import (
	"os"
	"path/filepath"
)

// DefaultDataDir is where Quorate keeps its files unless told otherwise:
// /var/lib/quorate for root, else quorate below the user's data directory.
func DefaultDataDir() string {
	if os.Geteuid() == 0 {
		return "/var/lib/quorate"
	}
	if dir := os.Getenv("XDG_DATA_HOME"); dir != "" {
		return filepath.Join(dir, "quorate")
	}
	if home, err := os.UserHomeDir(); err == nil {
		return filepath.Join(home, ".local", "share", "quorate")
	}
	return filepath.Join(os.TempDir(), "quorate")
}

// ClientConfigFile is the file in which a server tells its own user how to reach
// it, token included.
func ClientConfigFile(dataDir string) string { return filepath.Join(dataDir, "client.json") }

// paths below a data directory.
type paths string

func (p paths) join(elem ...string) string {
	return filepath.Join(append([]string{string(p)}, elem...)...)
}

// server is what the server alone uses.
func (p paths) server() string { return p.join("server") }

// store is the embedded etcd of the fleet's store.
func (p paths) store() string { return p.join("server", "store") }

// marker remembers that there was a store.
func (p paths) marker() string { return p.join("server", "store.marker") }

// sealingKey is the default keyring.
func (p paths) sealingKey() string { return p.join("server", "sealing.key") }

// tls holds the CA and the certificate that the server made for its API.
func (p paths) tls() string { return p.join("server", "tls") }

// releases holds etcd releases, for server and agent alike: they are found by
// digest, and never change.
func (p paths) releases() string { return p.join("releases") }

// agent is what the agent alone uses.
func (p paths) agent() string { return p.join("agent") }

// identity is how the agent proves which host it stands for, and joining the key with
// which it is about to join.
func (p paths) identity() string { return p.join("agent", "identity.json") }
func (p paths) joining() string  { return p.join("agent", "joining.json") }

// position is how far the agent has seen the store come.
func (p paths) position() string { return p.join("agent", "position.json") }

// agentConfig is how the agent of `up` reaches its server.
func (p paths) agentConfig() string { return p.join("agent", "client.json") }

// up names the process of `up`.
func (p paths) up() string { return p.join("up.json") }
