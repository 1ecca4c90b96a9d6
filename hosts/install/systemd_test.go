package install_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/hosts/install"
	"github.com/quorate/quorate/internal/version"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/test/nspawn"
)

// TestHostAddSystemd: a Debian with systemd becomes a host by one command; again changes
// nothing, another version is put in the place of the program while a member goes on, and
// the agent comes back after a boot. Users go through sudo; those who may not are refused.
func TestHostAddSystemd(t *testing.T) {
	identity, public := key(t)
	m := nspawn.New(t, nspawn.Options{Name: "db1", AuthorizedKeys: line(public) + "\n"})
	s := newServer(t, m.Gateway())
	known := filepath.Join(t.TempDir(), "known_hosts")
	must(t, os.WriteFile(known, []byte(m.Addr.String()+" "+m.HostKey+"\n"), 0o600))
	add := func(program, user string, more ...string) (string, string, int) {
		t.Helper()
		args := []string{"host", "add", "ssh://" + user + "@" + m.Addr.String(), "--identity", identity, "--known-hosts", known}
		return s.cli(t, program, append(args, more...)...)
	}

	out, errs, code := add("v9.1.0", "root", "--zone", "a")
	if code != 0 || !strings.Contains(out, "host/db1 added at "+m.Addr.String()) {
		t.Fatalf("exit %d: %s%s", code, out, errs)
	}
	if h := s.host(t, "db1"); !isReady(h) || h.Spec.Zone != "a" || h.Annotations[v1alpha1.AnnotationSSHHostKey] != m.HostKey {
		t.Fatalf("the host is %+v", h)
	}
	unit := func(property string) string {
		return strings.TrimSpace(m.MustRun("systemctl", "show", "-p", property, "--value", install.UnitName))
	}
	for property, want := range map[string]string{
		"ActiveState": "active", "UnitFileState": "enabled", "KillMode": "process", "Restart": "always", "NRestarts": "0",
	} {
		if got := unit(property); got != want {
			t.Errorf("%s is %s, not %s", property, got, want)
		}
	}
	if got := m.MustRun("ls", "-A", "/etc/quorate"); got != "host.json\n" && got != "host.json" {
		t.Errorf("in /etc/quorate is %q", got)
	}
	agent := unit("MainPID")
	out, errs, code = add("v9.1.0", "root")
	if code != 0 || !strings.Contains(out, "host/db1 unchanged") || unit("MainPID") != agent {
		t.Fatalf("again: exit %d: %s%s", code, out, errs)
	}

	// A member, which goes on while the agent is upgraded.
	cluster := &v1alpha1.EtcdCluster{}
	cluster.Namespace, cluster.Name = "default", "one"
	cluster.Spec.Replicas, cluster.Spec.Version = 1, version.Etcd()
	must(t, s.client.Create(t.Context(), cluster))
	member := func() *v1alpha1.EtcdMember {
		members, err := s.client.List(t.Context(), v1alpha1.KindMember, store.ListOptions{})
		must(t, err)
		for _, obj := range members {
			if got, ok := obj.(*v1alpha1.EtcdMember); ok && got.Status.Process != nil {
				return got
			}
		}
		return nil
	}
	poll(t, "the member serves", func() error {
		c := &v1alpha1.EtcdCluster{}
		must(t, s.client.Get(t.Context(), store.KeyOf(cluster), c))
		if a := v1alpha1.FindCondition(c.Status.Conditions, v1alpha1.ConditionAvailable); a == nil || a.Status != v1alpha1.True || member() == nil {
			return errors.New(c.Status.Ready)
		}
		return nil
	})
	before := member().Status.Process.PID

	m.MustRun("useradd", "-m", "-s", "/bin/bash", "ops")
	m.MustRun("useradd", "-m", "-s", "/bin/bash", "plain")
	for _, user := range []string{"ops", "plain"} {
		m.MustRun("sh", "-c", "mkdir -p /home/"+user+"/.ssh; cp /root/.ssh/authorized_keys /home/"+user+"/.ssh/; chown -R "+user+": /home/"+user)
	}
	m.MustRun("sh", "-c", "echo 'ops ALL=(root) NOPASSWD: ALL' > /etc/sudoers.d/ops; chmod 440 /etc/sudoers.d/ops")
	out, errs, code = add("v9.2.0", "plain", "--name", "db1")
	if code != 4 || !strings.Contains(errs, "may not become root without a password") || !strings.Contains(errs, "NOPASSWD") {
		t.Fatalf("without sudo: exit %d: %s%s", code, out, errs)
	}
	if unit("MainPID") != agent {
		t.Error("the agent was touched")
	}
	out, errs, code = add("v9.2.0", "ops", "--name", "db1")
	if code != 0 || !strings.Contains(out, "host/db1 upgraded from v9.1.0 to v9.2.0") {
		t.Fatalf("by sudo: exit %d: %s%s", code, out, errs)
	}
	if h := s.host(t, "db1"); h.Status.AgentVersion != "v9.2.0" || unit("MainPID") == agent {
		t.Errorf("the host is %+v", h)
	}
	if got := member(); got == nil || got.Status.Process.PID != before {
		t.Errorf("etcd was process %d, and is %+v", before, got)
	}
	if _, err := m.Run(t.Context(), "test", "-d", "/proc/"+strconv.FormatInt(before, 10)); err != nil {
		t.Errorf("etcd does not run any more: %v", err)
	}

	// With a member there nothing is taken off.
	target, err := install.ParseTarget("ssh://root@"+m.Addr.String(), "")
	must(t, err)
	opts := install.Options{
		Target: target, Auth: install.Auth{Identities: []string{identity}}, HostKeys: install.HostKeys{File: known}, Fleet: s.client, Name: "db1",
	}
	if _, err = install.Uninstall(t.Context(), opts); !errors.Is(err, install.ErrUnfit) || unit("ActiveState") != "active" {
		t.Errorf("uninstalled under a member: %v", err)
	}

	m.Reboot()
	poll(t, "the agent is back after a boot", func() error {
		if state := unit("ActiveState"); state != "active" {
			return errors.New(state)
		}
		return nil
	})
	out, errs, code = add("v9.2.0", "root")
	if code != 0 || !strings.Contains(out, "host/db1 unchanged") {
		t.Fatalf("after a boot: exit %d: %s%s", code, out, errs)
	}

	// A machine that answers with another key is not the one that was added.
	m.MustRun("sh", "-c", "rm -f /etc/ssh/ssh_host_*; ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key; systemctl restart ssh")
	must(t, os.WriteFile(known, nil, 0o600))
	out, errs, code = add("v9.2.0", "root", "--accept-new-host-key")
	if code != 4 || !strings.Contains(errs, "HAS CHANGED") {
		t.Fatalf("another host key: exit %d: %s%s", code, out, errs)
	}
	fresh, _, _, _, err := ssh.ParseAuthorizedKey([]byte(m.MustRun("cat", "/etc/ssh/ssh_host_ed25519_key.pub")))
	must(t, err)
	out, errs, code = add("v9.2.0", "root", "--host-key", ssh.FingerprintSHA256(fresh))
	if code != 0 || s.host(t, "db1").Annotations[v1alpha1.AnnotationSSHHostKey] != line(fresh) {
		t.Fatalf("the new key, pinned: exit %d: %s%s", code, out, errs)
	}
}

// TestHostAddSystemdUninstall: nothing but data is left of an agent that was taken off.
func TestHostAddSystemdUninstall(t *testing.T) {
	identity, public := key(t)
	m := nspawn.New(t, nspawn.Options{Name: "db2", AuthorizedKeys: line(public) + "\n"})
	s := newServer(t, m.Gateway())
	target, err := install.ParseTarget("ssh://root@"+m.Addr.String(), "")
	must(t, err)
	hostKey, _, _, _, err := ssh.ParseAuthorizedKey([]byte(m.HostKey))
	must(t, err)
	o := install.Options{
		Target: target, Auth: install.Auth{Identities: []string{identity}}, HostKeys: install.HostKeys{Pin: ssh.FingerprintSHA256(hostKey)},
		Fleet: s.client, Binary: binary(t, "v9.1.0"), ServerURL: s.url,
	}
	r, err := install.Install(t.Context(), o)
	must(t, err)
	if r.Host != "db2" || r.Address != m.Addr.String() || !slices.Contains(steps(r), "token") {
		t.Fatalf("%+v", r)
	}
	for _, want := range []install.Change{install.Removed, install.Unchanged} {
		r, err = install.Uninstall(t.Context(), o)
		must(t, err)
		if r.Change != want {
			t.Errorf("uninstalled: %+v", r)
		}
	}
	left := m.MustRun("sh", "-c", "ls -d /etc/quorate /usr/local/bin/quorate /etc/systemd/system/quorate-agent.service /var/lib/quorate/agent/identity.json 2>/dev/null; systemctl is-active quorate-agent; exit 0")
	if strings.TrimSpace(left) != "inactive" {
		t.Errorf("it left %s", left)
	}
	if _, err = m.Run(t.Context(), "test", "-d", "/var/lib/quorate"); err != nil {
		t.Errorf("the data directory is gone: %v", err)
	}
}
