package render_test

import (
	"bytes"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/quorate/quorate/test/nspawn"
)

// pod reads a manifest: a field that Kubernetes does not know is an error.
func (b *bench) pod(name string) (string, corev1.Pod) {
	b.t.Helper()
	file := filepath.Join(b.out, name, "etc/kubernetes/manifests/etcd.yaml")
	raw, err := os.ReadFile(file)
	if err != nil {
		b.t.Fatal(err)
	}
	var p corev1.Pod
	if err = yaml.UnmarshalStrict(raw, &p); err != nil {
		b.t.Fatalf("%s: %v", file, err)
	}
	return file, p
}

// The containers' commands form a cluster on three machines, whose directories are those
// that the Pods mount; the probes are asked as the kubelet asks them.
func TestRenderStaticPod(t *testing.T) {
	b := newBench(t)
	machines := b.machines(nspawn.Options{}, "cp1", "cp2", "cp3")
	hosts := hostsOf(machines)
	b.render("static-pod", hosts, "")
	b.unchanged("static-pod", hosts)
	b.readme(machines)
	for _, m := range machines {
		file, p := b.pod(m.Name)
		if p.Name != "etcd" || p.Namespace != "kube-system" || !p.Spec.HostNetwork || p.Spec.PriorityClassName != "system-node-critical" {
			t.Errorf("%s is not laid as kubeadm lays it: %+v", file, p.ObjectMeta)
		}
		m.MustRun("test", "-s", "/etc/kubernetes/manifests/etcd.yaml")
		c := p.Spec.Containers[0]
		var mounted []string
		for i, v := range c.VolumeMounts {
			// What is mounted stands at the same path on the node, so that the command runs
			// on the node as it would in the container.
			if host := p.Spec.Volumes[i].HostPath; p.Spec.Volumes[i].Name != v.Name || host.Path != v.MountPath {
				t.Errorf("%s: %s is mounted from %+v", file, v.MountPath, host)
			}
			mounted = append(mounted, v.MountPath+"/")
		}
		for _, arg := range c.Command {
			_, value, _ := strings.Cut(arg, "=")
			if path.IsAbs(value) && !within(value, mounted) {
				t.Errorf("%s: %s is in none of the mounts %v", file, arg, mounted)
			}
		}
		m.MustRun(append([]string{"systemd-run", "--unit", "etcd-pod", "/usr/local/bin/etcd"}, c.Command[1:]...)...)
	}
	b.healthy()
	for _, m := range machines {
		_, p := b.pod(m.Name)
		c := p.Spec.Containers[0]
		for _, probe := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
			url := fmt.Sprintf("http://%s:%d%s", probe.HTTPGet.Host, c.Ports[0].ContainerPort, probe.HTTPGet.Path)
			m.MustRun("python3", "-c", "import urllib.request as r; assert r.urlopen('"+url+"').status == 200")
		}
		// The certificates that kubeadm's own probes and kube-apiserver have work too.
		for _, pair := range []string{"/etc/kubernetes/pki/etcd/healthcheck-client", "/etc/kubernetes/pki/apiserver-etcd-client"} {
			m.MustRun("etcdctl", "--endpoints=https://127.0.0.1:2379", "--cacert=/etc/kubernetes/pki/etcd/ca.crt",
				"--cert="+pair+".crt", "--key="+pair+".key", "endpoint", "health")
		}
	}
	if _, p := b.pod("cp1"); p.Spec.Containers[0].Image != "registry.k8s.io/etcd:3.7.3-0" {
		t.Errorf("the image is %s", p.Spec.Containers[0].Image)
	}
	// kubectl reads it as a Pod, without a server.
	need(t, "kubectl")
	file, _ := b.pod("cp1")
	if out := b.run("kubectl", "label", "--local", "-f", file, "seen=yes", "-o", "name"); out != "pod/etcd\n" {
		t.Errorf("kubectl says %q", out)
	}
}

func within(name string, dirs []string) bool {
	for _, d := range dirs {
		if strings.HasPrefix(name+"/", d) {
			return true
		}
	}
	return false
}

// composed is what the tests read of a compose file.
type composed struct {
	Services map[string]struct {
		Command     []string
		Volumes     []string
		NetworkMode string                       `json:"network_mode"`
		Networks    map[string]map[string]string `json:"networks"`
		Healthcheck struct{ Test []string }
	}
	Volumes map[string]any
}

func (b *bench) composed(name string) composed {
	b.t.Helper()
	raw, err := os.ReadFile(filepath.Join(b.out, name))
	if err != nil {
		b.t.Fatal(err)
	}
	var c composed
	if err = yaml.Unmarshal(raw, &c); err != nil {
		b.t.Fatal(err)
	}
	return c
}

// loads has docker's own loader read a compose file against its schema, in which a field
// that it does not know is an error. That of `docker stack` knows no name, which compose
// itself has.
func (b *bench) loads(name string) {
	b.t.Helper()
	need(b.t, "docker")
	file := filepath.Join(b.out, name)
	raw, err := os.ReadFile(file)
	if err != nil {
		b.t.Fatal(err)
	}
	bare := filepath.Join(filepath.Dir(file), "stack.yaml")
	defer os.Remove(bare) //nolint:errcheck // the test's directory goes with it
	for text, want := range map[string]bool{string(raw): true, strings.Replace(string(raw), "restart:", "restrat:", 1): false} {
		_, rest, _ := strings.Cut(text, "\n")
		if err = os.WriteFile(bare, []byte("version: \"3.13\"\n"+rest), 0o600); err != nil {
			b.t.Fatal(err)
		}
		if out, err := b.try("docker", "stack", "config", "-c", bare); (err == nil) != want {
			b.t.Errorf("docker stack config on %s: %v\n%s", name, err, out)
		}
	}
}

// start runs the service of a member on a machine as its container would run: what is
// mounted lies at its path there, read-only where it is so.
func (b *bench) start(m *nspawn.Machine, c composed, dir, member string) {
	b.t.Helper()
	s := c.Services[member]
	args := []string{"systemd-run", "--unit", "etcd-service"}
	for _, v := range s.Volumes {
		parts := strings.Split(v, ":")
		if !strings.HasPrefix(parts[0], ".") {
			if _, ok := c.Volumes[parts[0]]; !ok {
				b.t.Errorf("%s mounts %s, which is declared nowhere", member, parts[0])
			}
			m.MustRun("mkdir", "-p", parts[1])
			continue
		}
		m.CopyDir(filepath.Join(b.out, dir, parts[0]), parts[1])
		if len(parts) == 3 && parts[2] == "ro" {
			args = append(args, "--property=ReadOnlyPaths="+parts[1])
		}
	}
	m.MustRun(append(append(args, "/usr/local/bin/etcd"), s.Command[1:]...)...)
}

// A compose file for each host, whose network the member uses.
func TestRenderCompose(t *testing.T) {
	b := newBench(t)
	machines := b.machines(nspawn.Options{}, "a", "b", "c")
	hosts := hostsOf(machines)
	b.render("compose", hosts, "")
	b.unchanged("compose", hosts)
	for i, m := range machines {
		member := fmt.Sprintf("db-%d", i)
		c := b.composed(member + "/compose.yaml")
		if mode := c.Services[member].NetworkMode; mode != "host" {
			t.Errorf("%s has the network %q", member, mode)
		}
		b.start(m, c, member, member)
	}
	b.healthy()
	for i, m := range machines {
		member := fmt.Sprintf("db-%d", i)
		test := b.composed(member + "/compose.yaml").Services[member].Healthcheck.Test
		if out := m.MustRun(test[1:]...); !strings.Contains(out, "is healthy") && !bytes.Contains([]byte(out), []byte("successfully")) {
			t.Errorf("the check of %s says %q", member, out)
		}
	}
	b.loads("db-0/compose.yaml")
}

// All members on one machine, in a network of their own: each container is played by a
// machine with the container's address.
func TestRenderComposeOnOneMachine(t *testing.T) {
	b := newBench(t)
	machines := b.machines(nspawn.Options{}, "a", "b", "c")
	b.render("compose", "", "")
	b.unchanged("compose", "")
	c := b.composed("compose.yaml")
	for i, m := range machines {
		member := fmt.Sprintf("db-%d", i)
		m.MustRun("ip", "address", "add", c.Services[member].Networks["etcd"]["ipv4_address"]+"/24", "dev", "host0")
		b.start(m, c, "", member)
	}
	// The network is theirs alone: a member is asked whether all of them are well.
	m := machines[0]
	m.CopyDir(filepath.Join(b.out, "pki"), "/root/out/pki")
	m.Copy(filepath.Join(b.out, "healthcheck.sh"), "/root/out/healthcheck.sh", 0o755)
	for attempt := 0; ; attempt++ {
		out, err := m.Run(t.Context(), "/root/out/healthcheck.sh")
		if err == nil && bytes.Count(out, []byte("true")) == 3 {
			break
		}
		if attempt == 100 {
			t.Fatalf("the cluster is not healthy: %v\n%s", err, out)
		}
		pause()
	}
	test := c.Services["db-2"].Healthcheck.Test
	machines[2].MustRun(test[1:]...)
	b.loads("compose.yaml")
}
