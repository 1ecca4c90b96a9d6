package install_test

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/hosts/install"
	"github.com/quorate/quorate/hosts/provider"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/test/slow"
)

var loopback = netip.MustParseAddr("127.0.0.1")

// steps are the names of those that were needed.
func steps(r install.Result) []string {
	var names []string
	for _, s := range r.Steps {
		names = append(names, s.Name)
	}
	return names
}

func (s *server) host(t *testing.T, name string) *v1alpha1.EtcdHost {
	t.Helper()
	h := &v1alpha1.EtcdHost{}
	must(t, s.client.Get(t.Context(), store.Key{Name: name}, h))
	return h
}

func isReady(h *v1alpha1.EtcdHost) bool {
	c := v1alpha1.FindCondition(h.Status.Conditions, v1alpha1.ConditionReady)
	return c != nil && c.Status == v1alpha1.True
}

// complete checks a machine that is a host, by what lies there.
func (h *sshHost) complete(s *server, o install.Options) {
	h.t.Helper()
	if got := h.run("sha256sum < /usr/local/bin/quorate"); !strings.HasPrefix(got, o.Binary.SHA256) {
		h.t.Errorf("the program there is %s, not %s", got, o.Binary.SHA256)
	}
	if got := h.run("stat -c '%a %U' /usr/local/bin/quorate /var/lib/quorate /etc/quorate"); got != "755 root\n700 root\n755 root" {
		h.t.Errorf("the modes are\n%s", got)
	}
	if got := h.run("ls -A /etc/quorate; ls -A /usr/local/bin"); got != "host.json\nstart-agent\nquorate" {
		h.t.Errorf("there are more or fewer files:\n%s", got)
	}
	host := s.host(h.t, o.Name)
	if !isReady(host) || host.Status.AgentVersion != o.Binary.Version || host.Spec.Address != "127.0.0.1" {
		h.t.Errorf("the host is %+v", host)
	}
	if got, want := host.Annotations[v1alpha1.AnnotationSSHHostKey], line(h.hostKey); got != want {
		h.t.Errorf("the host key that is remembered is %q, not %q", got, want)
	}
}

// TestHostAddTwice: a machine becomes a host, the same again changes nothing, another
// version takes the place of the program, and an older one is refused.
func TestHostAddTwice(t *testing.T) {
	h := newHost(t, hostOptions{})
	s := newServer(t, loopback)
	o := h.options(s, "v9.1.0")
	o.Zone, o.Pool, o.Labels = "a", "fast", map[string]string{"rack": "r1"}

	dry := o
	dry.DryRun = true
	r, err := install.Install(t.Context(), dry)
	must(t, err)
	want := []string{"register", "directories", "binary", "configuration", "token", "start", "join", "clean-up"}
	if !slices.Equal(steps(r), want) || r.Change != install.Added || h.state() != "" {
		t.Fatalf("a dry run: %+v\n%s", r, h.state())
	}
	if err = s.client.Get(t.Context(), store.Key{Name: o.Name}, &v1alpha1.EtcdHost{}); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("a dry run made a host: %v", err)
	}

	r, err = install.Install(t.Context(), o)
	must(t, err)
	if !slices.Equal(steps(r), want) || r.Change != install.Added {
		t.Fatalf("%+v", r)
	}
	h.complete(s, o)
	if host := s.host(t, o.Name); host.Spec.Zone != "a" || host.Spec.Pool != "fast" || host.Labels["rack"] != "r1" {
		t.Errorf("the host is %+v", host)
	}
	before, pid := h.state(), h.run("cat /run/quorate-agent.pid")

	r, err = install.Install(t.Context(), o)
	must(t, err)
	if len(r.Steps) != 0 || r.Change != install.Unchanged || h.state() != before || h.run("cat /run/quorate-agent.pid") != pid {
		t.Fatalf("the same again: %+v\n%s\n%s", r, before, h.state())
	}

	next := h.options(s, "v9.2.0")
	r, err = install.Install(t.Context(), next)
	must(t, err)
	if !slices.Equal(steps(r), []string{"binary", "start", "join"}) || r.Change != install.Upgraded || r.Previous != "v9.1.0" {
		t.Fatalf("another version: %+v", r)
	}
	h.complete(s, next)
	if h.run("cat /run/quorate-agent.pid") == pid {
		t.Error("the agent was not started anew")
	}

	before = h.state()
	_, err = install.Install(t.Context(), o)
	if !errors.Is(err, install.ErrUnfit) || !strings.Contains(err.Error(), "v9.2.0, which is newer than v9.1.0") || h.state() != before {
		t.Fatalf("an older version: %v", err)
	}

	// What was changed by others is put right, and nothing else.
	h.run("rm /etc/quorate/start-agent; kill $(cat /run/quorate-agent.pid)")
	r, err = install.Install(t.Context(), next)
	must(t, err)
	if r.Change != install.Repaired || slices.Contains(steps(r), "token") || slices.Contains(steps(r), "binary") {
		t.Fatalf("a repair: %+v", r)
	}
	h.complete(s, next)
}

// TestHostAddServers: a machine belongs to one server, and moves on purpose alone.
func TestHostAddServers(t *testing.T) {
	slow.Only(t)
	h := newHost(t, hostOptions{})
	s, other := newServer(t, loopback), newServer(t, loopback)
	_, err := install.Install(t.Context(), h.options(s, "v9.1.0"))
	must(t, err)

	o, before := h.options(other, "v9.1.0"), h.state()
	_, err = install.Install(t.Context(), o)
	if !errors.Is(err, install.ErrUnfit) || !strings.Contains(err.Error(), s.url) || !strings.Contains(err.Error(), "--rejoin") || h.state() != before {
		t.Fatalf("it joins another server: %v", err)
	}
	o.Rejoin = true
	_, err = install.Install(t.Context(), o)
	must(t, err)
	h.complete(other, o)

	// A host that was removed on the server joins anew.
	host := other.host(t, o.Name)
	must(t, other.client.Delete(t.Context(), v1alpha1.KindHost, store.KeyOf(host), store.Preconditions{UID: host.UID}))
	o.Rejoin = false
	r, err := install.Install(t.Context(), o)
	must(t, err)
	if !slices.Contains(steps(r), "token") {
		t.Fatalf("after a removal: %+v", r)
	}
	h.complete(other, o)

	// Uninstalled, nothing but data is left, twice; and the machine can become a host again.
	for _, want := range []install.Change{install.Removed, install.Unchanged} {
		r, err = install.Uninstall(t.Context(), o)
		must(t, err)
		if r.Change != want || h.state() != "" {
			t.Fatalf("uninstalled: %+v\n%s", r, h.state())
		}
	}
	// The machine has process IDs of its own: what is listed is its alone.
	if got := h.run("ls -l /run/quorate-agent.pid /proc/[0-9]*/exe 2>/dev/null | grep quorate; exit 0"); got != "" {
		t.Errorf("it has left: %s", got)
	}
	o = h.options(s, "v9.1.0")
	o.Name = "again"
	_, err = install.Install(t.Context(), o)
	must(t, err)
	h.complete(s, o)
	must(t, os.MkdirAll(filepath.Join(h.dir, "lib/quorate/members/default.a-1.12345678"), 0o700))
	if _, err = install.Uninstall(t.Context(), o); !errors.Is(err, install.ErrUnfit) || !strings.Contains(err.Error(), "1 members") {
		t.Errorf("uninstalled under a member: %v", err)
	}
	h.complete(s, o)
}

// TestHostAddKeys: a wrong key is refused, as is a host key that is not known or is not
// the one that is.
func TestHostAddKeys(t *testing.T) {
	h := newHost(t, hostOptions{})
	s := newServer(t, loopback)
	base := h.options(s, "v9.1.0")
	base.DryRun = true
	stranger, strangerKey := key(t)
	known := filepath.Join(t.TempDir(), "ssh", "known_hosts")

	refused := func(what string, o install.Options, class error, texts ...string) {
		t.Helper()
		_, err := install.Install(t.Context(), o)
		if !errors.Is(err, class) {
			t.Fatalf("%s: %v", what, err)
		}
		for _, text := range texts {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("%s: the text lacks %q: %v", what, text, err)
			}
		}
	}
	o := base
	o.Auth.Identities = []string{stranger}
	refused("a wrong key", o, install.ErrLogin, ssh.FingerprintSHA256(strangerKey), "authorized_keys", "--identity")
	o = base
	o.Auth = install.Auth{}
	refused("no key", o, install.ErrLogin, "ssh-add")
	o = base
	o.HostKeys = install.HostKeys{Pin: ssh.FingerprintSHA256(strangerKey)}
	refused("another pin", o, install.ErrHostKey, ssh.FingerprintSHA256(h.hostKey), ssh.FingerprintSHA256(strangerKey))
	o = base
	o.HostKeys = install.HostKeys{File: known}
	refused("an unknown key", o, install.ErrHostKey, "--host-key "+ssh.FingerprintSHA256(h.hostKey), "--accept-new-host-key")
	if _, err := os.Stat(known); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a key that was refused was recorded: %v", err)
	}

	o.HostKeys.AcceptNew = true
	_, err := install.Install(t.Context(), o)
	must(t, err)
	recorded, err := os.ReadFile(known)
	must(t, err)
	if want := "[127.0.0.1]:" + h.port + " " + line(h.hostKey) + "\n"; string(recorded) != want {
		t.Errorf("recorded %q, not %q", recorded, want)
	}
	o.HostKeys.AcceptNew = false
	_, err = install.Install(t.Context(), o)
	must(t, err)

	// Another key than the known one is refused, also where new ones are taken.
	must(t, os.WriteFile(known, []byte("[127.0.0.1]:"+h.port+" "+line(strangerKey)), 0o600))
	o.HostKeys.AcceptNew = true
	refused("a changed key", o, install.ErrHostKey, "HAS CHANGED", ssh.FingerprintSHA256(strangerKey), known, "ssh-keygen -f")
	must(t, os.WriteFile(known, []byte("@revoked * "+line(h.hostKey)+"\n"), 0o600))
	refused("a revoked key", o, install.ErrHostKey, "revoked")

	// What the server remembers goes before the known hosts.
	must(t, os.WriteFile(known, []byte("[127.0.0.1]:"+h.port+" "+line(h.hostKey)+"\n"), 0o600))
	host := &v1alpha1.EtcdHost{}
	host.Name, host.Spec.Address = o.Name, "127.0.0.1"
	host.Annotations = map[string]string{v1alpha1.AnnotationSSHHostKey: line(strangerKey), v1alpha1.AnnotationSSHTarget: o.Target.String()}
	must(t, s.client.Create(t.Context(), host))
	refused("a key that the server remembers otherwise", o, install.ErrHostKey, "HAS CHANGED", "when it became a host")
	o.Name = ""
	refused("the same, by the target", o, install.ErrHostKey, "HAS CHANGED")
	o.Name = base.Name
	o.HostKeys.Pin = ssh.FingerprintSHA256(h.hostKey)
	_, err = install.Install(t.Context(), o)
	must(t, err)
	if h.state() != "" {
		t.Errorf("something was changed:\n%s", h.state())
	}
}

// TestHostAddPreconditions: what is in the way is said before anything is changed.
func TestHostAddPreconditions(t *testing.T) {
	h := newHost(t, hostOptions{localSize: "20m"})
	s := newServer(t, loopback)
	for _, tc := range []struct {
		what   string
		change func(*install.Options)
		want   []string
	}{
		{"no sudo", func(o *install.Options) { o.Target = h.target("plain") }, []string{"user plain", "not root", "no sudo"}},
		{"no systemd", func(o *install.Options) { o.WithoutSystemd = false }, []string{"no systemd", "--without-systemd"}},
		{"a full disk", func(*install.Options) {}, []string{"/usr/local has", "make room"}},
		{"another platform", func(o *install.Options) { o.Binary.Platform = "linux/arm64" }, []string{"linux/amd64", "--binary"}},
		{"no address", func(o *install.Options) { o.Target.Host = "localhost" }, []string{"--address is missing", "127.0.0.1"}},
		{"an address of others", func(o *install.Options) { o.Address = "192.0.2.7" }, []string{"192.0.2.7 is no address", "127.0.0.1"}},
	} {
		o := h.options(s, "v9.1.0")
		tc.change(&o)
		_, err := install.Install(t.Context(), o)
		if !errors.Is(err, install.ErrUnfit) {
			t.Errorf("%s: %v", tc.what, err)
			continue
		}
		for _, text := range tc.want {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("%s: the text lacks %q: %v", tc.what, text, err)
			}
		}
		if h.state() != "" {
			t.Fatalf("%s: something was changed:\n%s", tc.what, h.state())
		}
	}
	hosts, err := s.client.List(t.Context(), v1alpha1.KindHost, store.ListOptions{})
	if err != nil || len(hosts) != 0 {
		t.Errorf("%d hosts, %v", len(hosts), err)
	}
}

// TestHostAddDiskFills: the disk fills while the program is on its way.
func TestHostAddDiskFills(t *testing.T) {
	slow.Only(t)
	o := install.Options{Binary: binary(t, "v9.1.0")}
	h := newHost(t, hostOptions{localSize: strconv.FormatInt(o.Binary.Size+18<<20, 10)})
	s := newServer(t, loopback)
	o = h.options(s, "v9.1.0")
	var once sync.Once
	o.Progress = func(p install.Progress) {
		if p.Step == "binary" && strings.Contains(p.Text, "sent") {
			once.Do(func() { h.run("head -c 60000000 /dev/zero > /usr/local/ballast || true") })
		}
	}
	_, err := install.Install(t.Context(), o)
	var at *install.StepError
	if !errors.As(err, &at) || at.Step != "binary" || !slices.Contains(at.Done, "directories") || !strings.Contains(err.Error(), "No space left") {
		t.Fatalf("on a disk that fills: %v", err)
	}
	if got := h.run("ls -A /usr/local/bin"); got != "" {
		t.Errorf("it left %s", got)
	}
	h.run("rm /usr/local/ballast")
	o.Progress = nil
	_, err = install.Install(t.Context(), o)
	must(t, err)
	h.complete(s, o)
}

// cutting dials, and cuts the connection once so many bytes more went in either direction.
type cutting struct {
	left  atomic.Int64
	armed atomic.Bool
}

// arm cuts the connection after so many bytes from now on.
func (c *cutting) arm(after int64) {
	c.left.Store(after)
	c.armed.Store(true)
}

func (c *cutting) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &cutConn{Conn: conn, by: c}, nil
}

type cutConn struct {
	net.Conn
	by *cutting
}

var errCut = errors.New("cut off by the test")

func (c *cutConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err == nil && c.by.armed.Load() && c.by.left.Add(-int64(n)) < 0 {
		return 0, errors.Join(errCut, c.Close())
	}
	return n, err
}

func (c *cutConn) Write(p []byte) (int, error) {
	if !c.by.armed.Load() {
		return c.Conn.Write(p)
	}
	left := c.by.left.Add(-int64(len(p)))
	if left >= 0 {
		return c.Conn.Write(p)
	}
	// The last packet goes out in part, as it may.
	n, _ := c.Conn.Write(p[:max(0, int64(len(p))+left)]) // it is cut off anyway
	return n, errors.Join(errCut, c.Close())
}

// TestHostAddBroken: the connection breaks at any point. Nothing half done is at the place
// of anything, and the same again completes it.
func TestHostAddBroken(t *testing.T) {
	s := newServer(t, loopback)
	size := binary(t, "v9.1.0").Size
	want := ""
	for _, tc := range []struct {
		step  string
		after int64
	}{
		{"connect", 1000},
		{"check", 700},
		{"directories", 300},
		{"binary", 300},
		{"binary", size / 2},
		{"binary", size + 500},
		{"configuration", 600},
		{"configuration", 3500},
		{"token", 500},
		{"token", 1800},
		{"start", 300},
		{"start", 1200},
		{"clean-up", 300},
	} {
		h := newHost(t, hostOptions{})
		o := h.options(s, "v9.1.0")
		cut := &cutting{}
		o.Dial = cut.dial
		o.Progress = func(p install.Progress) {
			if p.Step == tc.step && !cut.armed.Load() {
				cut.arm(tc.after)
			}
		}
		what := fmt.Sprintf("cut %d bytes after the begin of %s", tc.after, tc.step)
		_, err := install.Install(t.Context(), o)
		if !errors.Is(err, install.ErrUnreachable) {
			t.Fatalf("%s: %v", what, err)
		}
		if at, ok := errors.AsType[*install.StepError](err); ok {
			what += ", in " + at.Step
			if !strings.Contains(err.Error(), "Repeat the same command") {
				t.Errorf("%s: %v", what, err)
			}
		}
		t.Log(what)
		if raw, readErr := os.ReadFile(h.there("/usr/local/bin/quorate")); readErr == nil && int64(len(raw)) != size {
			t.Fatalf("%s: %d of %d bytes lie at the place of the program", what, len(raw), size)
		}
		if info, statErr := os.Stat(h.there("/etc/quorate/join.token")); statErr == nil && info.Mode().Perm() != 0o600 {
			t.Errorf("%s: the token has the mode %v", what, info.Mode())
		}
		// What the broken upload left is removed by the machine itself.
		poll(t, what+": nothing half done lies there", func() error {
			if got := h.state(); strings.Contains(got, ".upload.") {
				return errors.New(got)
			}
			return nil
		})
		o.Dial, o.Progress = nil, nil
		if _, err = install.Install(t.Context(), o); err != nil {
			t.Fatalf("%s, and repeated: %v", what, err)
		}
		h.complete(s, o)
		got := strings.ReplaceAll(h.state(), h.port, "PORT")
		if want == "" {
			want = got
		}
		if got != want {
			t.Errorf("%s, and repeated: it ends in\n%s, not\n%s", what, got, want)
		}
		h.off()
	}
}

// TestHostAddCommand: the command says what it did, in text and as JSON, and takes the next
// of a list.
func TestHostAddCommand(t *testing.T) {
	a, b, c := newHost(t, hostOptions{}), newHost(t, hostOptions{}), newHost(t, hostOptions{})
	s := newServer(t, loopback)
	out, errs, code := s.cli(t, "v9.1.0", "host", "add", a.target("root").String(), "--identity", a.identity, "--without-systemd")
	if code != 2 || !strings.Contains(errs, "--server-url is missing") {
		t.Fatalf("exit %d: %s%s", code, out, errs)
	}
	flags := []string{"--server-url", s.url, "--without-systemd"}
	out, errs, code = s.cli(t, "v9.1.0", append([]string{"host", "add", a.target("root").String(), "--identity", a.identity, "--name", "a"}, flags...)...)
	if code != 4 || !strings.Contains(errs, "--accept-new-host-key") {
		t.Fatalf("exit %d: %s%s", code, out, errs)
	}

	var list strings.Builder
	list.WriteString("hosts:\n")
	keys := []string{}
	for i, h := range []*sshHost{a, b, c} {
		fmt.Fprintf(&list, "- name: %c\n  ssh: %s\n  zone: z%d\n  hostKey: %s\n", 'a'+i, h.target("root"), i/2, ssh.FingerprintSHA256(h.hostKey))
		keys = append(keys, "--identity", h.identity)
	}
	file := filepath.Join(t.TempDir(), "hosts.yaml")
	must(t, os.WriteFile(file, []byte(list.String()), 0o600))
	flags = append(append(flags, keys...), "--from", file)
	add := func(more ...string) (results []install.Result) {
		t.Helper()
		text, said, exit := s.cli(t, "v9.1.0", append(append([]string{"host", "add", "-o", "json"}, flags...), more...)...)
		if exit != 0 {
			t.Fatalf("exit %d: %s", exit, said)
		}
		must(t, json.Unmarshal([]byte(text), &results))
		return results
	}
	if r := add("--count", "1", "--zone", "z0"); len(r) != 1 || r[0].Host != "a" || r[0].Change != install.Added {
		t.Fatalf("the first: %+v", r)
	}
	if r := add("--count", "1", "--zone", "z0"); len(r) != 1 || r[0].Host != "b" {
		t.Fatalf("the second: %+v", r)
	}
	out, errs, code = s.cli(t, "v9.1.0", append(append([]string{"host", "add"}, flags...), "--count", "1", "--zone", "z0")...)
	if code != 3 || !strings.Contains(errs, "no machine is free") {
		t.Fatalf("exit %d: %s%s", code, out, errs)
	}
	r := add()
	var changes []string
	for _, one := range r {
		changes = append(changes, one.Host+" "+string(one.Change))
	}
	if want := []string{"a Unchanged", "b Unchanged", "c Added"}; !slices.Equal(changes, want) {
		t.Fatalf("all: %q", changes)
	}
	for _, name := range []string{"a", "b", "c"} {
		if h := s.host(t, name); !isReady(h) {
			t.Errorf("%+v", h)
		}
	}

	// A host that was added by SSH is taken off its machine the same way.
	out, errs, code = s.cli(t, "v9.1.0", "host", "remove", "c", "--uninstall", "--identity", c.identity, "--dry-run")
	if code != 0 || !strings.Contains(out, "host/c would be uninstalled") || c.state() == "" {
		t.Fatalf("exit %d: %s%s", code, out, errs)
	}
	out, errs, code = s.cli(t, "v9.1.0", "host", "remove", "c", "--uninstall", "--identity", c.identity, "--yes")
	if code != 0 || !strings.Contains(out, "host/c uninstalled") || !strings.Contains(out, "removed") || c.state() != "" {
		t.Fatalf("exit %d: %s%s\n%s", code, out, errs, c.state())
	}
	if err := s.client.Get(t.Context(), store.Key{Name: "c"}, &v1alpha1.EtcdHost{}); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("host c is still there: %v", err)
	}
	machines, err := provider.ParseList([]byte(list.String()), "root")
	must(t, err)
	p := &provider.SSH{Machines: machines[:1], Options: install.Options{Fleet: s.client, Auth: install.Auth{Identities: []string{a.identity}}}}
	if err = p.Delete(t.Context(), "b"); !errors.Is(err, provider.ErrUnknown) {
		t.Errorf("a machine of others: %v", err)
	}
	if must(t, p.Delete(t.Context(), "a")); a.state() != "" {
		t.Errorf("it left\n%s", a.state())
	}
}

// TestHostAddAgent: keys come from ssh-agent, also for a key file behind a passphrase.
func TestHostAddAgent(t *testing.T) {
	h := newHost(t, hostOptions{})
	s := newServer(t, loopback)
	raw, err := os.ReadFile(h.identity)
	must(t, err)
	private, err := ssh.ParseRawPrivateKey(raw)
	must(t, err)
	ring := agent.NewKeyring()
	must(t, ring.Add(agent.AddedKey{PrivateKey: private}))
	socket := filepath.Join(t.TempDir(), "agent")
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
	must(t, err)
	t.Cleanup(func() { _ = ln.Close() }) // the end of the test is the end of its use
	go func() {
		for {
			conn, acceptErr := ln.Accept()
			if acceptErr != nil {
				return
			}
			go func() { _ = agent.ServeAgent(ring, conn) }() // it ends with the connection
		}
	}()
	key, ok := private.(*ed25519.PrivateKey)
	if !ok {
		t.Fatalf("the key is a %T", private)
	}
	block, err := ssh.MarshalPrivateKeyWithPassphrase(*key, "", []byte("open sesame"))
	must(t, err)
	locked := filepath.Join(t.TempDir(), "locked")
	must(t, os.WriteFile(locked, pem.EncodeToMemory(block), 0o600))

	o := h.options(s, "v9.1.0")
	o.DryRun = true
	for _, auth := range []install.Auth{{AgentSocket: socket}, {AgentSocket: socket, Identities: []string{locked}}} {
		o.Auth = auth
		if _, err = install.Install(t.Context(), o); err != nil {
			t.Errorf("%+v: %v", auth, err)
		}
	}
	o.Auth = install.Auth{Identities: []string{locked}}
	if _, err = install.Install(t.Context(), o); err == nil || !strings.Contains(err.Error(), "ssh-add "+locked) {
		t.Errorf("a key behind a passphrase: %v", err)
	}
}

// silent is a connection that the network drops without a word.
type silent struct {
	net.Conn
	dropped <-chan struct{}
	closed  chan struct{}
	once    sync.Once
}

func (s *silent) Write(p []byte) (int, error) {
	select {
	case <-s.dropped:
		return len(p), nil
	default:
		return s.Conn.Write(p)
	}
}

func (s *silent) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	select {
	case <-s.dropped:
		<-s.closed
		return 0, net.ErrClosed
	default:
		return n, err
	}
}

func (s *silent) Close() error {
	s.once.Do(func() { close(s.closed) })
	return s.Conn.Close()
}

// TestHostAddSilence: a connection that falls silent in the middle is given up.
func TestHostAddSilence(t *testing.T) {
	h := newHost(t, hostOptions{})
	s := newServer(t, loopback)
	o := h.options(s, "v9.1.0")
	dropped := make(chan struct{})
	drop := sync.OnceFunc(func() { close(dropped) })
	o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &silent{Conn: conn, dropped: dropped, closed: make(chan struct{})}, nil
	}
	o.Progress = func(p install.Progress) {
		if p.Step == "binary" && strings.Contains(p.Text, "sent") {
			drop()
		}
	}
	begun := time.Now()
	_, err := install.Install(t.Context(), o)
	var at *install.StepError
	if !errors.As(err, &at) || at.Step != "binary" || !errors.Is(err, install.ErrUnreachable) {
		t.Fatalf("in silence: %v", err)
	}
	t.Logf("given up after %s", time.Since(begun).Round(time.Second))
	o.Dial, o.Progress = nil, nil
	_, err = install.Install(t.Context(), o)
	must(t, err)
	h.complete(s, o)
}
