package remote

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"

	"github.com/quorate/quorate/internal/atomicfile"
)

// Config says how to reach a server. It holds a token: its file is kept from
// others.
type Config struct {
	// Server is its URL, such as https://quorate.example.com:7379. Plain http is
	// refused unless the host is a loopback address.
	Server string `json:"server"`
	// Token is sent with every request.
	Token string `json:"token"`
	// CA holds the roots to trust in PEM, instead of the system's.
	CA string `json:"ca,omitempty"`
	// CAFile names a file that holds them; CA goes before it.
	CAFile string `json:"caFile,omitempty"`
}

// LoadConfig reads the file at path. It refuses one that others may read.
func LoadConfig(path string) (Config, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Config{}, fmt.Errorf("read how to reach the server: %w: start one with `quorate up`, or give --server and a token", err)
	}
	if err != nil {
		return Config{}, fmt.Errorf("read how to reach the server: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return Config{}, fmt.Errorf("%s holds a token and has the mode %04o, so that others may read it: run `chmod 600 %s`", path, mode, path)
	}
	raw, err := os.ReadFile(path) //nolint:gosec // the caller names its own file
	if err != nil {
		return Config{}, fmt.Errorf("read how to reach the server: %w", err)
	}
	var cfg Config
	if err := json.Unmarshal(raw, &cfg); err != nil {
		return Config{}, fmt.Errorf("%s is damaged: %w: write it anew with the server's URL and a token", path, err)
	}
	return cfg, nil
}

// Save writes the file at path, for its owner alone.
func (c Config) Save(path string) error {
	raw, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return fmt.Errorf("save how to reach the server: %w", err)
	}
	if err := atomicfile.Write(path, append(raw, '\n'), 0o600); err != nil {
		return fmt.Errorf("save how to reach the server: %w", err)
	}
	return nil
}

// hostname of the server, without its port.
func (c Config) hostname() string {
	u, err := url.Parse(c.Server)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

// roots returns the PEM of the roots to trust; nil means the system's.
func (c Config) roots() ([]byte, error) {
	if c.CA != "" || c.CAFile == "" {
		return []byte(c.CA), nil
	}
	raw, err := os.ReadFile(c.CAFile)
	if err != nil {
		return nil, fmt.Errorf("read the server's CA: %w", err)
	}
	return raw, nil
}
