package render_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/test/nspawn"
)

func need(t *testing.T, tool string) {
	t.Helper()
	if _, err := exec.LookPath(tool); err != nil {
		t.Skipf("SKIPPED: %s is missing", tool)
	}
}

// Three machines with systemd, installed as the README says, come back after a reboot and
// a power cut.
func TestRenderSystemd(t *testing.T) {
	b := newBench(t)
	machines := b.machines(nspawn.Options{}, "a", "b", "c")
	b.render("systemd", hostsOf(machines), "")
	b.unchanged("systemd", hostsOf(machines))
	b.readme(machines)
	b.healthy()
	for _, m := range machines {
		if out := m.MustRun("systemctl", "show", "etcd", "-p", "ActiveState,User,NRestarts", "--value"); strings.Join(strings.Fields(out), " ") != "0 etcd active" &&
			strings.Join(strings.Fields(out), " ") != "etcd 0 active" {
			t.Errorf("the unit on %s is %q", m.Name, out)
		}
		if out := m.MustRun("stat", "-c", "%a %U:%G", "/etc/etcd/pki/server.key", "/var/lib/etcd"); out != "640 root:etcd\n700 etcd:etcd\n" {
			t.Errorf("on %s, the key and the data have %q", m.Name, out)
		}
	}
	if out, err := machines[0].Run(t.Context(), "systemd-analyze", "verify", "/etc/systemd/system/etcd.service"); err != nil {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	machines[0].Reboot()
	machines[1].Cut()
	machines[1].Start()
	b.healthy()
}

// Three members on one machine have units, ports and paths of their own.
func TestRenderSystemdOnOneMachine(t *testing.T) {
	b := newBench(t)
	m := b.machines(nspawn.Options{}, "a")[0]
	hosts := "a=" + m.Addr.String() + ",b=" + m.Addr.String() + ",c=" + m.Addr.String()
	b.render("systemd", hosts, "")
	m.CopyDir(b.out, "/root/out")
	for _, member := range []string{"db-0", "db-1", "db-2"} {
		m.MustRun("cp", "-rT", "/root/out/"+member, "/")
	}
	m.MustRun("systemd-sysusers", "etcd.conf")
	m.MustRun("systemd-tmpfiles", "--create", "etcd-db-0.conf", "etcd-db-1.conf", "etcd-db-2.conf")
	m.MustRun("systemctl", "daemon-reload")
	m.MustRun("systemctl", "enable", "--now", "etcd-db-0", "etcd-db-1", "etcd-db-2")
	b.healthy()
}

// Debian's supervisord runs the members, and starts one again that was killed.
func TestRenderSupervisord(t *testing.T) {
	b := newBench(t)
	machines := b.machines(nspawn.Options{}, "a", "b", "c")
	for _, m := range machines {
		m.MustRun("systemctl", "enable", "--now", "supervisor")
	}
	b.render("supervisord", hostsOf(machines), "")
	b.unchanged("supervisord", hostsOf(machines))
	b.readme(machines)
	b.healthy()
	m := machines[2]
	running := func() string {
		t.Helper()
		// It is STARTING for startsecs, whatever etcd says.
		for deadline := time.Now().Add(patience); ; pause() {
			out, err := m.Run(t.Context(), "supervisorctl", "status")
			if pid := regexp.MustCompile(`^etcd +RUNNING +pid (\d+),`).FindSubmatch(out); pid != nil {
				return string(pid[1])
			}
			if time.Now().After(deadline) {
				t.Fatalf("supervisorctl says %q (%v)", out, err)
			}
		}
	}
	pid := running()
	m.MustRun("kill", "-KILL", pid)
	b.healthy()
	if running() == pid {
		t.Error("the member was not killed")
	}
	if out := m.MustRun("tail", "-n", "1", "/var/log/etcd/etcd.log"); !strings.HasPrefix(out, "{") {
		t.Errorf("the log ends with %q", out)
	}
	if out := m.MustRun("sh", "-c", "ps -o user= -C etcd"); strings.TrimSpace(out) != "etcd" {
		t.Errorf("etcd runs as %q", out)
	}
}

// The playbook makes a cluster; a second run changes nothing; a changed file restarts the
// members one at a time.
func TestRenderAnsible(t *testing.T) {
	need(t, "ansible-playbook")
	need(t, "ssh")
	b := newBench(t)
	key := filepath.Join(b.dir, "id")
	b.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
	public, err := os.ReadFile(key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	// The executable is copied by the playbook.
	machines := b.machines(nspawn.Options{AuthorizedKeys: string(public), Binds: map[string]string{}}, "a", "b", "c")
	var known strings.Builder
	for _, m := range machines {
		known.WriteString(m.Addr.String() + " " + m.HostKey + "\n")
	}
	knownHosts := filepath.Join(b.dir, "known_hosts")
	if err = os.WriteFile(knownHosts, []byte(known.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("ANSIBLE_HOME", filepath.Join(b.dir, "ansible"))
	t.Setenv("ANSIBLE_LOCAL_TEMP", filepath.Join(b.dir, "ansible"))
	t.Setenv("ANSIBLE_NOCOLOR", "1")
	t.Setenv("ANSIBLE_PIPELINING", "1") // else most of the time goes into logging in
	t.Setenv("ANSIBLE_SSH_CONTROL_PATH_DIR", filepath.Join(b.dir, "c"))
	hosts := hostsOf(machines)
	b.render("ansible", hosts, "")
	play := func() map[string]string {
		t.Helper()
		begin := time.Now()
		out := b.run("ansible-playbook", "-i", filepath.Join(b.out, "inventory.yml"), filepath.Join(b.out, "site.yml"),
			"-u", "root", "--private-key", key, "-e", "etcd_binary="+filepath.Join(b.dir, "etcd"),
			"--ssh-common-args", "-o UserKnownHostsFile="+knownHosts+" -o StrictHostKeyChecking=yes")
		t.Logf("the playbook ran for %s", time.Since(begin).Round(time.Second))
		changed := map[string]string{}
		for _, line := range regexp.MustCompile(`(?m)^(db-\d) +: ok=\d+ +changed=(\d+)`).FindAllStringSubmatch(out, -1) {
			changed[line[1]] = line[2]
		}
		if len(changed) != 3 {
			t.Fatalf("the playbook says of hosts %v:\n%s", changed, out)
		}
		return changed
	}
	if changed := play(); changed["db-0"] == "0" {
		t.Errorf("the first run changed nothing: %v", changed)
	}
	b.healthy()
	b.unchanged("ansible", hosts)
	for host, changed := range play() {
		if changed != "0" {
			t.Errorf("the second run changed %s on %s", changed, host)
		}
	}

	started := func(m *nspawn.Machine) string {
		return strings.TrimSpace(m.MustRun("systemctl", "show", "etcd", "-p", "ActiveEnterTimestampMonotonic", "--value"))
	}
	var before []string
	for _, m := range machines {
		before = append(before, started(m))
	}
	b.render("ansible", hosts, "  etcd:\n    snapshotCount: 5000\n")
	play()
	last := ""
	for i, m := range machines {
		now := started(m)
		if now == before[i] {
			t.Errorf("the member on %s was not restarted after its file changed", m.Name)
		}
		if out := m.MustRun("grep", "snapshot-count", "/etc/etcd/etcd.conf.yml"); out != "snapshot-count: 5000\n" {
			t.Errorf("the file on %s has %q", m.Name, out)
		}
		if len(now) < len(last) || len(now) == len(last) && now < last {
			t.Errorf("the members were not restarted one after the other: %s at %s, the one before at %s", m.Name, now, last)
		}
		last = now
	}
	b.healthy()
	if out := b.run(filepath.Join(b.out, "healthcheck.sh"), "get", "hello", "--print-value-only"); !strings.HasPrefix(out, "world") {
		t.Errorf("hello is %q after the restarts, want world", out)
	}
}
