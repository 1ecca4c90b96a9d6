package install_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/quorate/quorate/hosts/install"
	"github.com/quorate/quorate/store/remote"
	"github.com/quorate/quorate/test/build"
	"github.com/quorate/quorate/test/freeport"
)

// patience bounds what a test waits for.
const patience = 90 * time.Second

// programs are real builds of this repository, of two versions.
var programs struct {
	sync.Mutex
	dir  string
	path map[string]string
}

func TestMain(m *testing.M) {
	code := m.Run()
	if programs.dir != "" {
		_ = os.RemoveAll(programs.dir)
	}
	os.Exit(code)
}

// program builds quorate of a version, once.
func program(t *testing.T, version string) string {
	t.Helper()
	programs.Lock()
	defer programs.Unlock()
	if path := programs.path[version]; path != "" {
		return path
	}
	if programs.dir == "" {
		dir, err := os.MkdirTemp("", "quorate-install") //nolint:usetesting // it is for all tests
		must(t, err)
		programs.dir, programs.path = dir, map[string]string{}
	}
	path := filepath.Join(programs.dir, version, "quorate")
	build.Quorate(t, path, version)
	programs.path[version] = path
	return path
}

func binary(t *testing.T, version string) install.Binary {
	t.Helper()
	b, err := install.OpenBinary(program(t, version))
	must(t, err)
	b.Version = version
	return b
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// server is a real server with TLS.
type server struct {
	url    string
	dir    string
	client *remote.Client
}

// newServer starts a server that listens on the address.
func newServer(t *testing.T, addr netip.Addr) *server {
	t.Helper()
	s := &server{dir: t.TempDir()}
	listen := net.JoinHostPort(addr.String(), freeport.Port(t))
	s.url = "https://" + listen
	log, err := os.Create(filepath.Join(t.TempDir(), "server.log"))
	must(t, err)
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), program(t, "v9.1.0"), "server", "--listen", listen, "--tls-self-made", "--data-dir", s.dir)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // Wait tells
		_ = cmd.Wait()                          // it was told to end
		_ = log.Close()                         // nobody reads it any more
		if t.Failed() {
			raw, _ := os.ReadFile(log.Name())
			t.Logf("the server's log:\n%s", raw[max(0, len(raw)-6000):])
		}
	})
	poll(t, "the server serves", func() error {
		cfg, err := remote.LoadConfig(filepath.Join(s.dir, "client.json"))
		if err != nil {
			return err
		}
		if s.client, err = remote.New(cfg, remote.Options{}); err != nil {
			return err
		}
		_, err = s.client.Version(t.Context())
		return err
	})
	return s
}

// poll waits until what it tries succeeds.
func poll(t *testing.T, what string, try func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s: %v", what, patience, err)
		}
		<-tick.C
	}
}

// key makes a key pair: the file of the private half, and the public one.
func key(t *testing.T) (file string, public ssh.PublicKey) {
	t.Helper()
	pub, private, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	block, err := ssh.MarshalPrivateKey(private, "")
	must(t, err)
	file = filepath.Join(t.TempDir(), "key")
	must(t, os.WriteFile(file, pem.EncodeToMemory(block), 0o600))
	public, err = ssh.NewPublicKey(pub)
	must(t, err)
	return file, public
}

func line(k ssh.PublicKey) string { return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k))) }

// sshHost is a machine made by a real sshd in a mount and process namespace of its own:
// what an installation writes lies in a directory of the test. It has no systemd, no sudo
// and this machine's network.
type sshHost struct {
	t    *testing.T
	port string
	// dir holds its directories: local (/usr/local), etc, lib, log.
	dir string
	// identity lets in root and the user plain.
	identity string
	hostKey  ssh.PublicKey
	// off ends the machine before the test does.
	off func()
}

// hostOptions of an sshHost.
type hostOptions struct {
	// localSize of the file system at /usr/local, such as 20m; a directory without.
	localSize string
}

func newHost(t *testing.T, o hostOptions) *sshHost {
	t.Helper()
	for _, tool := range []string{"/usr/sbin/sshd", "/usr/bin/unshare"} {
		if _, err := os.Stat(tool); err != nil {
			t.Skipf("SKIPPED: %v: install openssh-server and util-linux", err)
		}
	}
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: a machine in namespaces needs root")
	}
	h := &sshHost{t: t, port: freeport.Port(t), dir: t.TempDir()}
	for _, d := range []string{"local/bin", "etc", "lib", "log", "ssh", "home"} {
		must(t, os.MkdirAll(filepath.Join(h.dir, d), 0o755))
	}
	// The user plain reads its authorized keys below here.
	for d := h.dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		must(t, os.Chmod(d, 0o755))
	}
	var public ssh.PublicKey
	h.identity, public = key(t)
	h.newHostKey()
	h.write("ssh/authorized", line(public)+"\n")
	must(t, os.Chmod(filepath.Join(h.dir, "ssh/authorized"), 0o644)) // the user plain reads it too
	h.write("ssh/config", strings.Join([]string{
		"Port " + h.port, "ListenAddress 127.0.0.1", "HostKey " + h.dir + "/ssh/host", "AuthorizedKeysFile " + h.dir + "/ssh/authorized",
		"PidFile none", "UsePAM no", "PasswordAuthentication no", "KbdInteractiveAuthentication no", "StrictModes no", "PermitRootLogin yes",
		"MaxStartups 100", "LogLevel VERBOSE",
	}, "\n")+"\n")
	local := "mount --bind " + h.dir + "/local /usr/local"
	if o.localSize != "" {
		local = "mount -t tmpfs -o size=" + o.localSize + " full " + h.dir + "/local && mkdir " + h.dir + "/local/bin && mount --rbind " + h.dir + "/local /usr/local"
	}
	h.boot(local)
	return h
}

func (h *sshHost) write(name, text string) {
	h.t.Helper()
	must(h.t, os.WriteFile(filepath.Join(h.dir, name), []byte(text), 0o600))
}

// newHostKey gives the machine another key, which the next start takes up.
func (h *sshHost) newHostKey() {
	h.t.Helper()
	file, public := key(h.t)
	raw, err := os.ReadFile(file)
	must(h.t, err)
	h.write("ssh/host", string(raw))
	h.hostKey = public
}

// boot starts sshd; all that it starts ends with the test.
func (h *sshHost) boot(local string) {
	h.t.Helper()
	script := strings.Join([]string{
		"set -e", local, h.overlay("etc", "/etc"), "rm -rf /etc/quorate", "mount --bind " + h.dir + "/lib /var/lib", "mount --bind " + h.dir + "/log /var/log",
		// What this machine's root has in its start-up files is not what is tested.
		"sed -i 's#^\\(root:[^:]*:0:0:[^:]*\\):[^:]*:#\\1:/run:#' /etc/passwd",
		"echo 'plain:x:4242:4242::/tmp:/bin/sh' >> /etc/passwd", "echo 'plain:*:19000:0:99999:7:::' >> /etc/shadow",
		"mount -t tmpfs run /run", "mkdir -p /run/sshd",
		"/usr/sbin/sshd -D -e -f " + h.dir + "/ssh/config &", "wait",
	}, "\n")
	cmd := exec.CommandContext(context.WithoutCancel(h.t.Context()), "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private", "/bin/sh", "-c", script)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	log, err := os.Create(filepath.Join(h.dir, "sshd.log"))
	must(h.t, err)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(h.t, cmd.Start())
	h.off = sync.OnceFunc(func() {
		_ = cmd.Process.Kill() // Wait tells
		_ = cmd.Wait()         // it was killed
		_ = log.Close()        // what was logged is read by name
	})
	h.t.Cleanup(func() {
		h.off()
		if h.t.Failed() {
			raw, _ := os.ReadFile(log.Name())
			h.t.Logf("sshd's log:\n%s", raw[max(0, len(raw)-3000):])
		}
	})
	poll(h.t, "sshd listens", func() error {
		c, err := (&net.Dialer{}).DialContext(h.t.Context(), "tcp", "127.0.0.1:"+h.port)
		if err == nil {
			err = c.Close()
		}
		return err
	})
}

// overlay mounts an upper layer over a directory of this machine, so that what is written
// there is the test's.
func (h *sshHost) overlay(name, over string) string {
	upper, work := filepath.Join(h.dir, name), filepath.Join(h.dir, name+".work")
	must(h.t, os.MkdirAll(work, 0o755))
	return fmt.Sprintf("mount -t overlay overlay -o lowerdir=%s,upperdir=%s,workdir=%s %s", over, upper, work, over)
}

func (h *sshHost) target(userName string) install.Target {
	h.t.Helper()
	t, err := install.ParseTarget("ssh://"+userName+"@127.0.0.1:"+h.port, "")
	must(h.t, err)
	return t
}

// options to install the machine as a host of the server.
func (h *sshHost) options(s *server, version string) install.Options {
	h.t.Helper()
	return install.Options{
		Target: h.target("root"), Auth: install.Auth{Identities: []string{h.identity}},
		HostKeys: install.HostKeys{Pin: ssh.FingerprintSHA256(h.hostKey)},
		Name:     "db-" + h.port, Binary: binary(h.t, version), ServerURL: s.url, Fleet: s.client,
		WithoutSystemd: true, Timeout: patience, Progress: func(p install.Progress) { h.t.Logf("%s: %s", p.Step, p.Text) },
	}
}

// there is a path of the machine as this one sees it.
func (h *sshHost) there(path string) string {
	for prefix, dir := range map[string]string{"/usr/local": "local", "/etc": "etc", "/var/lib": "lib", "/var/log": "log"} {
		if rest, ok := strings.CutPrefix(path, prefix+"/"); ok {
			return filepath.Join(h.dir, dir, rest)
		}
	}
	h.t.Fatalf("%s is not kept by the test", path)
	return ""
}

// run runs a command on the machine by ssh itself.
func (h *sshHost) run(script string) string {
	h.t.Helper()
	cmd := exec.CommandContext(h.t.Context(), "ssh", "-i", h.identity, "-p", h.port, "-o", "StrictHostKeyChecking=no",
		"-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "IdentitiesOnly=yes", "-F", "none", "root@127.0.0.1", script)
	out, err := cmd.CombinedOutput()
	if err != nil {
		h.t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return strings.TrimSpace(string(out))
}

// state is what an installation is to leave: each file with its mode and sum. What an
// agent writes while it runs is left out.
func (h *sshHost) state() string {
	h.t.Helper()
	var b strings.Builder
	for _, path := range []string{"/usr/local/bin", "/etc/quorate"} {
		entries, err := os.ReadDir(h.there(path))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		must(h.t, err)
		for _, e := range entries {
			info, err := e.Info()
			must(h.t, err)
			fmt.Fprintf(&b, "%s/%s %v %d\n", path, e.Name(), info.Mode(), info.Size())
		}
	}
	return b.String()
}

// cli runs the command line against the server.
func (s *server) cli(t *testing.T, version string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program(t, version), append([]string{"--data-dir", s.dir}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	home := t.TempDir()
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "NO_COLOR=1"}
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	t.Logf("quorate %s: exit %d\n%s%s", strings.Join(args, " "), cmd.ProcessState.ExitCode(), out.String(), errs.String())
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}
