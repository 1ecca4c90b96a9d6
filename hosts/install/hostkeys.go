package install

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// HostKeys say which key a machine must have. The first of them that is set decides.
type HostKeys struct {
	// Pin is the fingerprint that a person has read on the machine: SHA256:…
	Pin string
	// Remembered is the key that the machine had when it became a host, in the form of
	// authorized_keys.
	Remembered string
	// File is a known_hosts file, as ssh has it. It need not exist.
	File string
	// AcceptNew takes a key that File does not know, and adds it there.
	AcceptNew bool
}

// keyGroups are the kinds of keys, best first. Of each the server has one key at most,
// so that a fingerprint is looked for in each by itself.
var keyGroups = [][]string{
	{ssh.KeyAlgoED25519},
	{ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521},
	{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256},
}

// checker decides about the key of one machine.
type checker struct {
	HostKeys
	target Target
	file   ssh.HostKeyCallback
	// seen is the key that was accepted, or shown last.
	seen ssh.PublicKey
	// remembered is Remembered, parsed.
	remembered ssh.PublicKey
}

func newChecker(t Target, k HostKeys) (*checker, error) {
	c := &checker{HostKeys: k, target: t}
	if k.Pin != "" && (!strings.HasPrefix(k.Pin, "SHA256:") || len(k.Pin) < len("SHA256:")+40) {
		return nil, fmt.Errorf("--host-key is %q: give a fingerprint such as SHA256:… as `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` prints it on the machine", k.Pin)
	}
	if k.Remembered != "" {
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(k.Remembered))
		if err != nil {
			return nil, fmt.Errorf("the host key that is remembered of %s can't be read: %w: give --host-key with the fingerprint instead", t, err)
		}
		c.remembered = key
	}
	if k.File == "" {
		return c, nil
	}
	check, err := knownhosts.New(k.File)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("read the known hosts: %w: mend the line, or name another file with --known-hosts", err)
	default:
		c.file = check
	}
	return c, nil
}

// tries are the algorithms to ask the machine for, one list for each connection.
func (c *checker) tries() [][]string {
	if c.Pin != "" {
		return keyGroups
	}
	// The kinds that are known go first, so that a machine with several keys shows the
	// one that can be checked.
	var known []string
	if c.remembered != nil {
		known = append(known, c.remembered.Type())
	} else if c.file != nil {
		if unknown, ok := errors.AsType[*knownhosts.KeyError](c.file(c.target.addr(), &net.TCPAddr{IP: net.IPv4zero}, noKey{})); ok {
			for _, k := range unknown.Want {
				known = append(known, k.Key.Type())
			}
		}
	}
	var first, rest []string
	for _, group := range keyGroups {
		for _, algorithm := range group {
			if slices.Contains(known, keyType(algorithm)) {
				first = append(first, algorithm)
			} else {
				rest = append(rest, algorithm)
			}
		}
	}
	return [][]string{append(first, rest...)}
}

// keyType is the type of the keys that an algorithm signs with.
func keyType(algorithm string) string {
	if algorithm == ssh.KeyAlgoRSASHA256 || algorithm == ssh.KeyAlgoRSASHA512 {
		return ssh.KeyAlgoRSA
	}
	return algorithm
}

// noKey is no machine's key: a known_hosts file answers it with those it knows.
type noKey struct{}

func (noKey) Type() string                        { return "none" }
func (noKey) Marshal() []byte                     { return nil }
func (noKey) Verify([]byte, *ssh.Signature) error { return errors.New("it is no key") }

// check is the callback of a handshake.
func (c *checker) check(address string, remote net.Addr, key ssh.PublicKey) error {
	c.seen = key
	switch {
	case c.Pin != "":
		if ssh.FingerprintSHA256(key) != c.Pin {
			return fmt.Errorf("%w: %s has the key %s, and --host-key says %s", ErrHostKey, c.target, fingerprint(key), c.Pin)
		}
		return nil
	case c.remembered != nil:
		if !bytes.Equal(key.Marshal(), c.remembered.Marshal()) {
			return changed(c.target, key, "it had "+fingerprint(c.remembered)+" when it became a host", "")
		}
		return nil
	}
	var unknown *knownhosts.KeyError
	var err error = &knownhosts.KeyError{}
	if c.file != nil {
		err = c.file(address, remote, key)
	}
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &unknown):
		return fmt.Errorf("%w: %s: %w", ErrHostKey, c.target, err)
	case len(unknown.Want) > 0:
		want := unknown.Want[0]
		return changed(c.target, key, fmt.Sprintf("%s knows it with %s (line %d)", want.Filename, fingerprint(want.Key), want.Line),
			fmt.Sprintf("take the old key off with `ssh-keygen -f %s -R '%s'`, and ", want.Filename, knownhosts.Normalize(c.target.addr())))
	case !c.AcceptNew || c.File == "":
		return fmt.Errorf("%w: nothing is known of the key of %s, which is %s: compare it with what `ssh-keygen -lf` prints on the machine, and give --host-key %s; --accept-new-host-key takes it unseen and adds it to the known hosts",
			ErrHostKey, c.target, fingerprint(key), ssh.FingerprintSHA256(key))
	}
	return nil
}

// changed is what must not be overlooked: another machine may be answering.
func changed(t Target, key ssh.PublicKey, was, undo string) error {
	return fmt.Errorf("%w: THE HOST KEY OF %s HAS CHANGED: it shows %s, and %s. Somebody may stand between you and the machine. Nothing was sent to it. If it was installed anew: %sgive --host-key with the fingerprint that `ssh-keygen -lf` prints on the machine",
		ErrHostKey, t, fingerprint(key), was, undo)
}

// fingerprint is a key for people, such as ED25519 SHA256:47DEQ….
func fingerprint(key ssh.PublicKey) string {
	kind := strings.ToUpper(strings.TrimPrefix(key.Type(), "ssh-"))
	if name, _, ok := strings.Cut(strings.TrimPrefix(key.Type(), "ecdsa-"), "-"); ok && strings.HasPrefix(key.Type(), "ecdsa-") && name != "" {
		kind = "ECDSA"
	}
	return kind + " " + ssh.FingerprintSHA256(key)
}

// record adds the accepted key to the known hosts, if it is new there and was asked to
// be taken.
func (c *checker) record() error {
	if c.Pin != "" || c.remembered != nil || !c.AcceptNew || c.File == "" {
		return nil
	}
	if c.file != nil && c.file(c.target.addr(), &net.TCPAddr{IP: net.IPv4zero}, c.seen) == nil {
		return nil
	}
	return appendLine(c.File, knownhosts.Line([]string{knownhosts.Normalize(c.target.addr())}, c.seen))
}

// appendLine adds a line to a known_hosts file, whose last line may lack its end. It is
// one write, since others may add theirs at the same time.
func appendLine(file, line string) (err error) {
	fail := func(err error) error {
		return fmt.Errorf("remember the host key in %s: %w: name another file with --known-hosts, or give --host-key", file, err)
	}
	if err = os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fail(err)
	}
	f, err := os.OpenFile(file, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600) //nolint:gosec // the person's own file
	if err != nil {
		return fail(err)
	}
	defer func() {
		if closeErr := f.Close(); err == nil && closeErr != nil {
			err = fail(closeErr)
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return fail(err)
	}
	text := line + "\n"
	if info.Size() > 0 {
		last := make([]byte, 1)
		if _, err = f.ReadAt(last, info.Size()-1); err != nil {
			return fail(err)
		}
		if last[0] != '\n' {
			text = "\n" + text
		}
	}
	if _, err = f.WriteString(text); err != nil {
		return fail(err)
	}
	return nil
}

// authorized is a key in the form of authorized_keys, without its end of line.
func authorized(key ssh.PublicKey) string {
	return strings.TrimSuffix(string(ssh.MarshalAuthorizedKey(key)), "\n")
}
