package render

import (
	"bytes"
	"embed"
	"fmt"
	"io/fs"
	"net/netip"
	"path"
	"slices"
	"strings"
	"text/template"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/driver/host/cgroup"
	"github.com/quorate/quorate/etcd"
)

// files are templates by the name of what they become, and the Ansible role as it is.
//
//go:embed files
var files embed.FS

// one is what a template of a single member reads.
type one struct {
	*Rendering
	M *Member
}

// template adds a file made from a template; m is nil for what belongs to all members.
func (r *Rendering) template(from, to string, mode fs.FileMode, m *Member) error {
	text, err := files.ReadFile(path.Join("files", from+".tmpl"))
	if err != nil {
		return err
	}
	parsed, err := template.New(from).Option("missingkey=error").Parse(string(text))
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err = parsed.Execute(&out, one{r, m}); err != nil {
		return fmt.Errorf("write %s: %w", to, err)
	}
	r.add(to, mode, out.Bytes())
	return nil
}

// onHostTemplate adds a file made from a template at an absolute path of a member's host.
func (r *Rendering) onHostTemplate(m *Member, from, to string) error {
	return r.template(from, path.Join(m.Dir, to), 0o644, m)
}

// systemd renders the unit, with the user it runs as and who may read its keys.
func (r *Rendering) systemd(m *Member) error {
	for _, f := range []struct{ from, to string }{
		{"etcd.service", "/etc/systemd/system/" + m.Unit + ".service"},
		{"sysusers.conf", "/etc/sysusers.d/etcd.conf"},
		{"tmpfiles.conf", "/etc/tmpfiles.d/" + m.Unit + ".conf"},
	} {
		if err := r.onHostTemplate(m, f.from, f.to); err != nil {
			return err
		}
	}
	return nil
}

// Share is what a member's unit says of its part of the host, as the units of members
// that Quorate runs say it. What BestEffort members may use together while Guaranteed
// ones are beside them is left out: it takes somebody who sees which others are there.
func (r *Rendering) Share() cgroup.Weights {
	want := r.cluster.Spec.Resources
	w := cgroup.WeightsOf(r.cluster.Spec.Class, v1alpha1.Resources{CPU: want.CPU, Memory: want.Memory})
	if w.Class != v1alpha1.ClassBestEffort {
		// Its unit stands beside all others of the host, which have this unless they say
		// otherwise: etcd is not to come behind them.
		const other = 100
		w.CPU = max(w.CPU, other)
	}
	return w
}

func (r *Rendering) supervisord(m *Member) error {
	return r.onHostTemplate(m, "supervisord.conf", "/etc/supervisor/conf.d/"+m.Unit+".conf")
}

// LogSize and LogFiles are how much of its log a member keeps where etcd does not rotate
// it itself.
func (r *Rendering) LogSize() string {
	return fmt.Sprintf("%dMB", max(1, r.cluster.Spec.Etcd.Logging.MaxSize))
}

// LogFiles beside the one that is written.
func (r *Rendering) LogFiles() int32 { return max(1, r.cluster.Spec.Etcd.Logging.MaxBackups) }

// probes says whether etcd of this version serves /livez and /readyz.
func probes(version string) bool {
	var patch int
	_, err := fmt.Sscanf(version, "3.5.%d", &patch)
	return etcd.Minor(version) >= 6 || err == nil && patch >= 11
}

// staticPod renders the manifest as kubeadm lays it.
func (r *Rendering) staticPod(m *Member) error {
	args, err := etcd.Flags(r.Version, m.flags)
	if err != nil {
		return err
	}
	slices.Sort(args) // as kubeadm has them, so that two manifests can be compared
	probe := func(path string, failures, delay, period int) map[string]any {
		p := map[string]any{
			"httpGet":          map[string]any{"host": "127.0.0.1", "path": path, "port": "probe-port", "scheme": "HTTP"},
			"failureThreshold": failures, "periodSeconds": period, "timeoutSeconds": 15,
		}
		if delay > 0 {
			p["initialDelaySeconds"] = delay
		}
		return p
	}
	hostPath := func(name, dir string) map[string]any {
		return map[string]any{"name": name, "hostPath": map[string]any{"path": dir, "type": "DirectoryOrCreate"}}
	}
	mounts := []any{map[string]any{"name": "etcd-data", "mountPath": m.DataDir}}
	volumes := []any{hostPath("etcd-data", m.DataDir)}
	if r.TLS {
		mounts = append(mounts, map[string]any{"name": "etcd-certs", "mountPath": m.PKIDir})
		volumes = append(volumes, hostPath("etcd-certs", m.PKIDir))
	}
	const nodeCritical = 2000001000
	pod := map[string]any{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": map[string]any{
			"name": "etcd", "namespace": "kube-system",
			"annotations": map[string]string{"kubeadm.kubernetes.io/etcd.advertise-client-urls": m.ClientURL()},
			"labels":      map[string]string{"component": "etcd", "tier": "control-plane"},
		},
		"spec": map[string]any{
			"containers": []any{map[string]any{
				"name": "etcd", "image": r.Image, "imagePullPolicy": "IfNotPresent",
				"command":        append([]string{"etcd"}, args...),
				"livenessProbe":  probe(m.live, 8, 10, 10),
				"readinessProbe": probe(m.ready, 3, 0, 1),
				"startupProbe":   probe(m.ready, 24, 10, 10),
				"ports":          []any{map[string]any{"containerPort": m.Ports.Metrics, "name": "probe-port", "protocol": "TCP"}},
				"resources":      map[string]any{"requests": requests(r.cluster.Spec.Resources)},
				"volumeMounts":   mounts,
			}},
			"hostNetwork": true, "priority": nodeCritical, "priorityClassName": "system-node-critical",
			"securityContext": map[string]any{"seccompProfile": map[string]any{"type": "RuntimeDefault"}},
			"volumes":         volumes,
		},
		"status": map[string]any{},
	}
	return r.yamlFile(path.Join(m.Dir, m.ConfigDir, "etcd.yaml"), "", pod)
}

func requests(want v1alpha1.MemberResources) map[string]string {
	list := map[string]string{}
	if !want.CPU.IsZero() {
		list["cpu"] = want.CPU.String()
	}
	if !want.Memory.IsZero() {
		list["memory"] = want.Memory.String()
	}
	return list
}

// ownNetwork are the addresses of members that share a machine, in a network of their own.
func ownNetwork(c *v1alpha1.EtcdCluster) []Host {
	hosts := make([]Host, 0, c.Spec.Replicas)
	for i := range c.Spec.Replicas {
		hosts = append(hosts, Host{
			Name: fmt.Sprintf("%s-%d", c.Name, i),
			Addr: netip.AddrFrom4([4]byte{10, 211, 79, byte(10 + i)}),
		})
	}
	return hosts
}

// network that compose makes for members that share a machine.
const network = "10.211.79.0/24"

// compose renders services: of all members, or of the one on a host.
func (r *Rendering) compose(name string, members []*Member) error {
	services, volumes := map[string]any{}, map[string]any{}
	for i, m := range members {
		here := "." // the directory of the file is the member's own
		if r.OneHost {
			here = "./" + m.Dir
		}
		check := []string{"CMD", "etcdctl", "--endpoints=" + m.localURL()}
		if r.TLS {
			check = append(check, "--cacert="+m.flags.TLS.CA, "--cert="+m.flags.TLS.ServerCert, "--key="+m.flags.TLS.ServerKey)
		}
		mounts := []string{here + m.ConfigDir + ":" + m.ConfigDir + ":ro", m.Name + "-data:" + path.Dir(m.DataDir)}
		if r.TLS && !r.OwnCerts {
			mounts = append(mounts, r.FilesDir+":"+r.FilesDir+":ro")
		}
		service := map[string]any{
			"image": r.Image, "container_name": m.Name, "hostname": m.Name,
			"command": []string{"etcd", "--config-file=" + m.Config},
			"restart": "unless-stopped", "stop_grace_period": "30s", "volumes": mounts,
			"ulimits":     map[string]any{"nofile": 65536},
			"healthcheck": map[string]any{"test": append(check, "endpoint", "health"), "interval": "10s", "timeout": "15s", "retries": 3, "start_period": "30s"},
			"logging": map[string]any{"driver": "json-file", "options": map[string]string{
				"max-size": strings.TrimSuffix(r.LogSize(), "B"), "max-file": decimal(r.LogFiles() + 1),
			}},
		}
		if r.OneHost {
			service["networks"] = map[string]any{"etcd": map[string]string{"ipv4_address": m.Addr.String()}}
			const step = 10
			service["ports"] = []string{"127.0.0.1:" + decimal(m.Ports.Client+int32(step*i)) + ":" + decimal(m.Ports.Client)}
		} else {
			service["network_mode"] = "host"
			delete(service, "hostname") // it is the host's
		}
		services[m.Name], volumes[m.Name+"-data"] = service, map[string]any{}
	}
	project := r.Name
	if !r.OneHost {
		project = members[0].Name // two members of a host must not be one project's
	}
	file := map[string]any{"name": project, "services": services, "volumes": volumes}
	if r.OneHost {
		file["networks"] = map[string]any{"etcd": map[string]any{
			"ipam": map[string]any{"config": []any{map[string]string{"subnet": network}}},
		}}
	}
	return r.yamlFile(name, "", file)
}

// localURL is where the member's own host reaches it as a client.
func (m *Member) localURL() string {
	local := m.flags
	local.Address = "127.0.0.1"
	if m.Addr.IsLoopback() {
		local.Address = m.Addr.String()
	}
	return local.ClientURL()
}

// ansible renders the inventory and the playbook; the role is the same for all clusters.
func (r *Rendering) ansible() error {
	hosts := map[string]any{}
	for _, m := range r.Members {
		hosts[m.Name] = map[string]any{
			"ansible_host": m.Addr.String(), "etcd_unit": m.Unit,
			"etcd_config_dir": m.ConfigDir, "etcd_ready_url": m.ReadyURL(),
		}
	}
	inventory := map[string]any{"all": map[string]any{"children": map[string]any{"etcd": map[string]any{
		"hosts": hosts, "vars": map[string]any{"etcd_version": r.Version},
	}}}}
	if err := r.yamlFile("inventory.yml", "Say how to log in with -u, or with ansible_user here.\n", inventory); err != nil {
		return err
	}
	role, err := fs.Sub(files, "files/ansible")
	if err != nil {
		return err
	}
	return fs.WalkDir(role, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(role, name)
		r.add(name, 0o644, data)
		return err
	})
}
