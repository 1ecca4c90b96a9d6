// Package render_test executes what `quorate render` writes: each form, on machines with
// systemd, as its README says, until the cluster is healthy over TLS.
package render_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/cli"
	"github.com/quorate/quorate/test/nspawn"
)

// patience bounds what a test waits for.
const patience = 90 * time.Second

// TestMain lets the test binary be what Quorate's binary is, by its name.
func TestMain(m *testing.M) {
	if slices.Contains([]string{"quorate", "etcd", "etcdctl", "etcdutl"}, filepath.Base(os.Args[0])) {
		os.Exit(cli.Main(context.Background(), os.Args, cli.Stdio{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
	}
	os.Exit(m.Run())
}

// bench is where a test renders and what it runs.
type bench struct {
	t *testing.T
	// dir holds the binaries by their names, and what is rendered in out.
	dir, out string
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, dir: t.TempDir()}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"quorate", "etcd", "etcdctl"} {
		if err = os.Symlink(self, filepath.Join(b.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	b.out = filepath.Join(b.dir, "out")
	return b
}

const clusterFile = `apiVersion: quorate.io/v1alpha1
kind: EtcdCluster
metadata:
  name: db
spec:
  version: 3.7.3
`

// render renders the cluster, with what is added to its spec.
func (b *bench) render(form, hosts, spec string) string {
	b.t.Helper()
	file := filepath.Join(b.dir, "cluster.yaml")
	if err := os.WriteFile(file, []byte(clusterFile+spec), 0o600); err != nil {
		b.t.Fatal(err)
	}
	args := []string{"render", form, "-f", file, "-o", b.out}
	if hosts != "" {
		args = append(args, "--hosts", hosts)
	}
	return b.run(filepath.Join(b.dir, "quorate"), args...)
}

// run runs a command here.
func (b *bench) run(name string, args ...string) string {
	b.t.Helper()
	out, err := b.try(name, args...)
	if err != nil {
		b.t.Fatal(err)
	}
	return out
}

func (b *bench) try(name string, args ...string) (string, error) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 4*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = b.dir, append(os.Environ(), "ETCDCTL="+filepath.Join(b.dir, "etcdctl"), "QUORATE_DATA_DIR="+b.dir)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s %s: %w\n%s%s", name, strings.Join(args, " "), err, out, stderr.Bytes())
	}
	return string(out), err
}

// machines boots machines that have this binary as etcd and etcdctl.
func (b *bench) machines(o nspawn.Options, names ...string) []*nspawn.Machine {
	b.t.Helper()
	self, err := os.Executable()
	if err != nil {
		b.t.Fatal(err)
	}
	list := make([]*nspawn.Machine, 0, len(names))
	for _, name := range names {
		opts := o
		opts.Name = name
		if opts.Binds == nil {
			opts.Binds = map[string]string{"/usr/local/bin/etcd": self, "/usr/local/bin/etcdctl": self}
		}
		list = append(list, nspawn.New(b.t, opts))
	}
	return list
}

// hostsOf is what --hosts is told of machines.
func hostsOf(machines []*nspawn.Machine) string {
	list := make([]string, 0, len(machines))
	for _, m := range machines {
		list = append(list, m.Name+"="+m.Addr.String())
	}
	return strings.Join(list, ",")
}

// readme runs on each machine what README.md says for its host, word for word.
func (b *bench) readme(machines []*nspawn.Machine) {
	b.t.Helper()
	raw, err := os.ReadFile(filepath.Join(b.out, "README.md"))
	if err != nil {
		b.t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)## Install.*?```sh\n(.*?)```").FindSubmatch(raw)
	if block == nil {
		b.t.Fatalf("the README says nothing of how to install:\n%s", raw)
	}
	commands := map[string]string{}
	host := ""
	for line := range strings.Lines(string(block[1])) {
		if rest, ok := strings.CutPrefix(line, "# on "); ok {
			host = strings.Fields(rest)[0]
			continue
		}
		if !strings.HasPrefix(line, "#") {
			commands[host] += line
		}
	}
	for _, m := range machines {
		if commands[m.Name] == "" {
			b.t.Fatalf("the README says nothing for host %s:\n%s", m.Name, raw)
		}
		m.CopyDir(b.out, "/root/out")
		b.t.Logf("%s\n%s", m.Name, m.MustRun("sh", "-exc", "cd /root/out\n"+commands[m.Name]))
		m.MustRun("rm", "-rf", "/root/out")
	}
}

// healthy waits until every one of three members answers over TLS, and fails clients without a
// certificate.
func (b *bench) healthy() {
	const members = 3
	b.t.Helper()
	deadline := time.Now().Add(patience)
	check := filepath.Join(b.out, "healthcheck.sh")
	for {
		out, err := b.try(check)
		if err == nil && strings.Count(out, "true") == members {
			b.t.Logf("%s", out)
			break
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("the cluster is not healthy after %s: %v\n%s", patience, err, out)
		}
		pause()
	}
	b.run(check, "put", "hello", "world")
	if out := b.run(check, "get", "hello", "--print-value-only"); !strings.HasPrefix(out, "world") {
		b.t.Errorf("hello is %q, want world", out)
	}
	out := b.run(check, "member", "list")
	if n := strings.Count(out, "started"); n != members || strings.Contains(out, "http://") {
		b.t.Errorf("%d members have started, want %d, all of them over TLS:\n%s", n, members, out)
	}
	raw, err := os.ReadFile(check)
	if err != nil {
		b.t.Fatal(err)
	}
	endpoints := regexp.MustCompile(`--endpoints='([^']+)'`).FindSubmatch(raw)
	if out, err := b.try(filepath.Join(b.dir, "etcdctl"), "--endpoints="+string(endpoints[1]), "--cacert="+filepath.Join(b.out, "pki/ca.crt"), "--command-timeout=3s", "get", "hello"); err == nil {
		b.t.Errorf("a client without a certificate was let in: %s", out)
	}
}

// pause lies between two looks at what tells nobody when it changes.
func pause() { <-time.After(200 * time.Millisecond) }

// unchanged checks that rendering again changes not a byte, and no mode.
func (b *bench) unchanged(form, hosts string) {
	b.t.Helper()
	before := b.snapshot()
	if out := b.render(form, hosts, ""); !strings.Contains(out, " 0 files created, 0 updated, ") {
		b.t.Errorf("a second run says: %s", out)
	}
	after := b.snapshot()
	if len(before) == 0 || len(before) != len(after) {
		b.t.Fatalf("%d files before, %d after", len(before), len(after))
	}
	for name, was := range before {
		if after[name] != was {
			b.t.Errorf("a second run changed %s", name)
		}
		if strings.HasSuffix(name, ".key") && !strings.HasPrefix(was, "-rw------- ") {
			b.t.Errorf("%s has mode %s", name, strings.Fields(was)[0])
		}
	}
}

func (b *bench) snapshot() map[string]string {
	b.t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(b.out, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		data, err := os.ReadFile(path)
		files[path] = fmt.Sprintf("%s %s %s", info.Mode(), info.ModTime(), data)
		return err
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		b.t.Fatal(err)
	}
	return files
}
