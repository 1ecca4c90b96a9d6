package install

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// defaultPort is that of SSH.
const defaultPort = 22

// Target is a machine as SSH reaches it.
type Target struct {
	User string
	// Host is a name or an IP address.
	Host string
	Port uint16
}

// ParseTarget reads ssh://user@host[:port]. Without a user it is defaultUser, as ssh
// does it.
func ParseTarget(text, defaultUser string) (Target, error) {
	const usage = "give it as ssh://user@host or ssh://user@host:port"
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "ssh" || u.Hostname() == "" {
		return Target{}, fmt.Errorf("the target is %q: %s", text, usage)
	}
	if _, set := u.User.Password(); set {
		return Target{}, fmt.Errorf("the target %s holds a password, which others could read: log in with a key (--identity, or ssh-agent), and %s", u.Redacted(), usage)
	}
	if (u.Path != "" && u.Path != "/") || u.RawQuery != "" || u.Fragment != "" {
		return Target{}, fmt.Errorf("the target %q has more than a user, a host and a port: %s", text, usage)
	}
	t := Target{User: u.User.Username(), Host: u.Hostname(), Port: defaultPort}
	if t.User == "" {
		t.User = defaultUser
	}
	// What begins with a dash or holds blanks is a mistake, or somebody's trick.
	if strings.HasPrefix(t.Host, "-") || strings.ContainsAny(t.User+t.Host, " \t\n'\"") {
		return Target{}, fmt.Errorf("the target is %q: %s", text, usage)
	}
	if t.User == "" {
		return Target{}, fmt.Errorf("the target %q names no user: %s", text, usage)
	}
	if p := u.Port(); p != "" {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return Target{}, fmt.Errorf("the target %q has the port %q: %s", text, p, usage)
		}
		t.Port = uint16(n)
	}
	return t, nil
}

// String is the target as ParseTarget reads it.
func (t Target) String() string {
	host := t.Host
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if t.Port != defaultPort {
		host += ":" + strconv.Itoa(int(t.Port))
	}
	return "ssh://" + t.User + "@" + host
}

// IsAt reports whether a target, as it was written down, is the same machine, whoever logs
// in there.
func (t Target) IsAt(written string) bool {
	other, err := ParseTarget(written, "nobody")
	return err == nil && other.addr() == t.addr()
}

// addr is host:port, as it is dialled.
func (t Target) addr() string { return net.JoinHostPort(t.Host, strconv.Itoa(int(t.Port))) }

// ip is the target's address; not valid where it is named by a name.
func (t Target) ip() netip.Addr {
	a, err := netip.ParseAddr(t.Host)
	if err != nil {
		return netip.Addr{}
	}
	return a.Unmap().WithZone("")
}
