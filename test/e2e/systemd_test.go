package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/test/build"
	"github.com/quorate/quorate/test/nspawn"
	"github.com/quorate/quorate/test/slow"
)

const systemdPatience = 90 * time.Second

// systemdCluster is what is applied; its class is changed while it runs.
const systemdCluster = `apiVersion: quorate.io/v1alpha1
kind: EtcdCluster
metadata: {name: boot, namespace: default}
spec:
  version: %s
  replicas: 3
  class: %s
  resources: {cpu: 250m, memory: 256Mi}
  tls: {mode: Disabled}
`

// systemdHost is a machine with server and agent as units, and a cluster on it.
type systemdHost struct {
	t *testing.T
	m *nspawn.Machine
}

// TestSystemdMembers: on a host with systemd every supervisor is a unit of its own.
// Members outlive the agent's end, its upgrade and their supervisor's, and come back by
// themselves after a boot.
func TestSystemdMembers(t *testing.T) {
	slow.Only(t)
	if err := nspawn.Available(); err != nil {
		t.Skip("SKIPPED:", err)
	}
	first, second := buildQuorate(t, "v9.0.1"), buildQuorate(t, "v9.0.2")
	h := &systemdHost{t: t, m: nspawn.New(t, nspawn.Options{Name: "db1"})}
	h.install(first)
	h.apply("Burstable")
	before := h.awaitRunning()
	h.put("before", "the reboot")

	t.Run("sessions become units", func(t *testing.T) {
		if s := h.host().Status.Supervision; s != v1alpha1.SupervisionSession {
			t.Fatalf("the host says supervision %q", s)
		}
		h.m.MustRun("systemctl", "stop", "quorate-agent.service")
		h.agent("/usr/local/bin/quorate")
		h.m.MustRun("systemctl", "start", "quorate-agent.service")
		h.eventually(t, "the supervisors are units", func() (bool, string) {
			said := h.m.MustRun("systemctl", "show", "--value", "-p", "ActiveState", unitOf(before[0]), unitOf(before[1]), unitOf(before[2]))
			return strings.Count(said, "active") == 3 && !strings.Contains(said, "inactive"), said
		})
		h.eventually(t, "each etcd is in the group of its unit", func() (bool, string) {
			before = h.same(t, before)
			for _, m := range before {
				group := h.m.MustRun("cat", fmt.Sprintf("/proc/%d/cgroup", m.Status.Process.PID))
				if !strings.Contains(group, unitOf(m)) {
					return false, group + h.m.MustRun("journalctl", "-u", "quorate-agent", "-o", "cat", "--no-pager", "--lines=20")
				}
			}
			return true, ""
		})
	})
	t.Run("units", func(t *testing.T) { h.units(t, before) })
	t.Run("agent killed and restarted", func(t *testing.T) {
		h.m.MustRun("systemctl", "kill", "--signal=KILL", "quorate-agent.service")
		h.m.MustRun("systemctl", "restart", "quorate-agent.service")
		h.same(t, before)
	})
	t.Run("upgrade", func(t *testing.T) {
		h.m.Copy(second, "/usr/local/bin/quorate.new", 0o755)
		h.m.MustRun("mv", "/usr/local/bin/quorate.new", "/usr/local/bin/quorate")
		h.m.MustRun("systemctl", "restart", "quorate-server.service", "quorate-agent.service")
		h.eventually(t, "the new agent reports", func() (bool, string) {
			out, err := h.try("quorate", "get", "host", "db1", "-o", "jsonpath={.status.agentVersion}")
			return strings.TrimSpace(out) == "v9.0.2", fmt.Sprint(out, err)
		})
		h.same(t, before)
	})
	t.Run("supervisor killed", func(t *testing.T) {
		unit := unitOf(before[0])
		h.m.MustRun("systemctl", "kill", "--kill-whom=main", "--signal=KILL", unit)
		h.eventually(t, "systemd starts it again", func() (bool, string) {
			pid := h.property(unit, "MainPID")
			return pid != "0" && pid != strconv.FormatInt(before[0].Status.Process.SupervisorPID, 10), "main process " + pid
		})
		h.same(t, before)
	})
	t.Run("class changed while it runs", func(t *testing.T) {
		h.apply("BestEffort")
		h.eventually(t, "the weights change", func() (bool, string) {
			got := h.property(unitOf(before[0]), "CPUWeight") + " " + h.property(unitOf(before[0]), "MemoryMax")
			return got == "1 1073741824", got
		})
		h.same(t, before)
	})
	t.Run("stopped by hand", func(t *testing.T) {
		unit := unitOf(before[1])
		h.m.MustRun("systemctl", "stop", unit)
		h.eventually(t, "the agent starts it again", func() (bool, string) {
			state := h.property(unit, "ActiveState")
			return state == "active", state
		})
		h.awaitRunning()
	})
	t.Run("reboot without agent and server", func(t *testing.T) {
		h.m.MustRun("systemctl", "disable", "quorate-agent.service", "quorate-server.service")
		h.m.Reboot()
		if got := h.get("before"); got != "the reboot" {
			t.Errorf("after the boot it says %q", got)
		}
		for _, unit := range []string{"quorate-agent.service", "quorate-server.service"} {
			if state := h.property(unit, "ActiveState"); state != "inactive" {
				t.Errorf("%s is %s: the members did not come back by themselves", unit, state)
			}
		}
		h.m.MustRun("systemctl", "enable", "--now", "quorate-server.service", "quorate-agent.service")
		h.put("after", "it")
		after := h.awaitRunning()
		for i := range after {
			if after[i].Status.Process.Restarts == 0 && after[i].Status.LastExit == nil {
				t.Errorf("%s: %+v", after[i].Name, after[i].Status)
			}
		}
	})
	t.Run("deleted", func(t *testing.T) {
		h.quorate("delete", "cluster", "boot", "--yes")
		h.eventually(t, "the units are gone", func() (bool, string) {
			left := strings.TrimSpace(h.m.MustRun("sh", "-c", "ls /etc/systemd/system /etc/systemd/system/multi-user.target.wants | grep quorate-member || true"))
			return left == "", left
		})
	})
}

func buildQuorate(t *testing.T, version string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "quorate")
	build.Quorate(t, file, version)
	return file
}

// install makes server and agent units of the machine, and joins it.
func (h *systemdHost) install(binary string) {
	h.t.Helper()
	h.m.Copy(binary, "/usr/local/bin/quorate", 0o755)
	h.write("/etc/systemd/system/quorate-server.service", "[Service]\nExecStart=/usr/local/bin/quorate server\nRestart=always\n[Install]\nWantedBy=multi-user.target\n")
	// At first one that does not see systemd, as agents were before they made units.
	h.write("/usr/local/bin/blind", "#!/bin/sh\nmount -t tmpfs none /run/systemd && exec /usr/local/bin/quorate \"$@\"\n")
	h.m.MustRun("chmod", "755", "/usr/local/bin/blind")
	h.agent("/usr/bin/unshare -m /usr/local/bin/blind")
	h.m.MustRun("systemctl", "enable", "--now", "quorate-server.service")
	h.eventually(h.t, "the server answers", func() (bool, string) {
		out, err := h.try("quorate", "get", "hosts")
		return err == nil, fmt.Sprint(out, err)
	})
	h.m.MustRun("systemctl", "enable", "--now", "quorate-agent.service")
	h.eventually(h.t, "the host is reported", func() (bool, string) {
		out, err := h.try("quorate", "get", "host", "db1", "-o", "json")
		return err == nil, fmt.Sprint(out, err)
	})
}

// agent writes the unit of the agent. Its own group ends with it only where members have
// units: that of one that is blind holds their sessions.
func (h *systemdHost) agent(command string) {
	h.t.Helper()
	mode := "control-group"
	if strings.Contains(command, "blind") {
		mode = "process"
	}
	h.write("/etc/systemd/system/quorate-agent.service",
		"[Unit]\nAfter=quorate-server.service\n[Service]\nExecStart="+command+" agent --host db1 --address "+h.m.Addr.String()+
			"\nRestart=always\nRestartSec=1\nKillMode="+mode+"\n[Install]\nWantedBy=multi-user.target\n")
	h.m.MustRun("systemctl", "daemon-reload")
}

// units checks what systemd was told.
func (h *systemdHost) units(t *testing.T, members []*v1alpha1.EtcdMember) {
	t.Helper()
	host := h.host()
	if host.Status.Supervision != v1alpha1.SupervisionSystemd {
		t.Errorf("the host says supervision %q", host.Status.Supervision)
	}
	t.Logf("the machine's control groups: %s", host.Status.Cgroups)
	for _, m := range members {
		unit := unitOf(m)
		for name, want := range map[string]string{
			"ActiveState": "active", "UnitFileState": "enabled", "Restart": "on-failure", "KillMode": "process", "OOMPolicy": "continue",
			"LimitNOFILE": "1048576", "Slice": "quorate.slice", "CPUWeight": "50", "IOWeight": "200", "MemoryMax": "infinity",
			"MemoryLow": "268435456", "OOMScoreAdjust": "-300", "StandardOutput": "journal", "MainPID": strconv.FormatInt(m.Status.Process.SupervisorPID, 10),
		} {
			if got := h.property(unit, name); got != want {
				t.Errorf("%s: %s=%s, want %s", unit, name, got, want)
			}
		}
		if group := h.m.MustRun("cat", fmt.Sprintf("/proc/%d/cgroup", m.Status.Process.PID)); !strings.Contains(group, unit) {
			t.Errorf("the etcd of %s is not in its unit's group:\n%s", m.Name, group)
		}
		if log := h.m.MustRun("journalctl", "-u", unit, "-o", "cat", "--no-pager"); !strings.Contains(log, "adopted etcd") {
			t.Errorf("the journal of %s says %q", unit, log)
		}
		if log, err := h.try("quorate", "logs", m.Name, "--source", "supervisor"); err != nil || !strings.Contains(log, "etcd") {
			t.Errorf("quorate logs says %q, %v", log, err)
		}
	}
}

func (h *systemdHost) write(path, text string) {
	h.t.Helper()
	file := filepath.Join(h.t.TempDir(), "file")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
	h.m.Copy(file, path, 0o644)
}

func (h *systemdHost) try(argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), systemdPatience)
	defer cancel()
	out, err := h.m.Run(ctx, argv...)
	return string(out), err
}

func (h *systemdHost) quorate(args ...string) string {
	h.t.Helper()
	return h.m.MustRun(append([]string{"quorate"}, args...)...)
}

func (h *systemdHost) property(unit, name string) string {
	return strings.TrimSpace(h.m.MustRun("systemctl", "show", "--value", "-p", name, unit))
}

func (h *systemdHost) eventually(t *testing.T, what string, ask func() (bool, string)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), systemdPatience)
	defer cancel()
	every := time.NewTicker(200 * time.Millisecond)
	defer every.Stop()
	for {
		ok, said := ask()
		if ok {
			return
		}
		select {
		case <-every.C:
		case <-ctx.Done():
			t.Fatalf("%s: not within %s: %s", what, systemdPatience, said)
		}
	}
}

func (h *systemdHost) apply(class string) {
	h.t.Helper()
	h.write("/root/boot.yaml", fmt.Sprintf(systemdCluster, "3.7.3", class))
	h.eventually(h.t, "the server takes it", func() (bool, string) {
		out, err := h.try("quorate", "apply", "-f", "/root/boot.yaml")
		return err == nil, fmt.Sprint(out, err)
	})
}

func (h *systemdHost) host() *v1alpha1.EtcdHost {
	h.t.Helper()
	var host v1alpha1.EtcdHost
	if err := json.Unmarshal([]byte(h.quorate("get", "host", "db1", "-o", "json")), &host); err != nil {
		h.t.Fatal(err)
	}
	return &host
}

func (h *systemdHost) members() []*v1alpha1.EtcdMember {
	h.t.Helper()
	out, err := h.try("quorate", "get", "members", "-o", "json")
	if err != nil {
		return nil // the server is being started
	}
	var list v1alpha1.EtcdMemberList
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		h.t.Fatalf("%v: %s", err, out)
	}
	all := make([]*v1alpha1.EtcdMember, 0, len(list.Items))
	for i := range list.Items {
		all = append(all, &list.Items[i])
	}
	return all
}

// awaitRunning waits until three members run under their supervisors.
func (h *systemdHost) awaitRunning() []*v1alpha1.EtcdMember {
	h.t.Helper()
	var all []*v1alpha1.EtcdMember
	h.eventually(h.t, "three members run", func() (bool, string) {
		all = h.members()
		running := 0
		var said []string
		for _, m := range all {
			said = append(said, m.Name, string(m.Status.Phase), m.Status.Message)
			if p := m.Status.Process; p != nil && m.Status.Phase == v1alpha1.MemberRunning && p.SupervisorPID != 0 {
				if _, err := h.try("test", "-d", fmt.Sprintf("/proc/%d", p.PID)); err == nil {
					running++
				}
			}
		}
		return running == 3, strings.Join(said, " ")
	})
	return all
}

// same fails unless the very same etcds run, and the cluster serves. It returns them as
// they are now.
func (h *systemdHost) same(t *testing.T, before []*v1alpha1.EtcdMember) []*v1alpha1.EtcdMember {
	t.Helper()
	now := h.awaitRunning()
	for i, m := range now {
		if m.Status.Process.PID != before[i].Status.Process.PID || m.Status.Process.Restarts != before[i].Status.Process.Restarts {
			t.Fatalf("%s: etcd was process %d, and is %d", m.Name, before[i].Status.Process.PID, m.Status.Process.PID)
		}
	}
	if got := h.get("before"); got != "the reboot" {
		t.Errorf("it says %q", got)
	}
	return now
}

func unitOf(m *v1alpha1.EtcdMember) string {
	return "quorate-member-" + filepath.Base(filepath.Dir(m.Status.DataDir)) + ".service"
}

func (h *systemdHost) client() *clientv3.Client {
	h.t.Helper()
	var urls []string
	for _, port := range []int{2379, 2389, 2399} {
		urls = append(urls, fmt.Sprintf("http://%s:%d", h.m.Addr, port))
	}
	c, err := clientv3.New(clientv3.Config{Endpoints: urls, Logger: zap.NewNop(), DialTimeout: 5 * time.Second})
	if err != nil {
		h.t.Fatal(err)
	}
	return c
}

func (h *systemdHost) put(key, value string) {
	h.t.Helper()
	c := h.client()
	defer func() { _ = c.Close() }()
	ctx, cancel := context.WithTimeout(context.Background(), systemdPatience)
	defer cancel()
	if _, err := c.Put(ctx, key, value); err != nil {
		h.t.Fatal(err)
	}
}

func (h *systemdHost) get(key string) string {
	h.t.Helper()
	c := h.client()
	defer func() { _ = c.Close() }()
	ctx, cancel := context.WithTimeout(context.Background(), systemdPatience)
	defer cancel()
	r, err := c.Get(ctx, key)
	if err != nil || len(r.Kvs) == 0 {
		h.t.Fatalf("get %s: %v, %v", key, r, err)
	}
	return string(r.Kvs[0].Value)
}
