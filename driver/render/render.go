// Package render writes what people run themselves for a cluster: units, static Pods,
// compose files, supervisord programs and an Ansible role, each with etcd's
// configuration, certificates, and a README that says how to install and verify it.
//
//	r, err := render.New(render.Options{Cluster: c, Form: render.Systemd, Hosts: hosts, Token: token})
//	r.Files                              // by path, none of them secret
//	certs, err := r.Certificates(…)      // keys are made once, and kept afterwards
//
// New is pure: the same options give the same bytes. What etcd is told comes from the
// facts of package etcd, so that a member rendered here and one that Quorate runs are
// configured alike. Tree keeps a rendering in a directory.
package render

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/etcd"
)

// ErrRender says that a cluster can't be rendered as asked, and what to change.
var ErrRender = errors.New("nothing was rendered")

// Form is what a cluster is rendered for.
type Form string

// The forms.
const (
	Systemd     Form = "systemd"
	Supervisord Form = "supervisord"
	StaticPod   Form = "static-pod"
	Compose     Form = "compose"
	Ansible     Form = "ansible"
)

// Forms are all forms.
var Forms = []Form{Systemd, Supervisord, StaticPod, Compose, Ansible}

// Host is where a member stands.
type Host struct {
	Name string
	Addr netip.Addr
}

// Options say what to render.
type Options struct {
	// Cluster has its defaults and is valid.
	Cluster *v1alpha1.EtcdCluster
	Form    Form
	// Hosts of the members, in their order. None, with Compose alone, puts all members on
	// one machine, in a network of their own.
	Hosts []Host
	// Token is etcd's initial-cluster-token: fresh for each cluster formed.
	Token string
	// Image of the containers; etcd's own of the cluster's version if empty.
	Image string
}

// File is one file of a rendering.
type File struct {
	// Path is relative, with slashes.
	Path string
	Mode fs.FileMode
	Data []byte
}

// Rendering is what a cluster becomes.
type Rendering struct {
	// Cluster is NAMESPACE/NAME.
	Cluster string
	Form    Form
	// Files are in the order of their paths. No certificates are among them.
	Files []File
	// Leaves are the certificates that Certificates makes.
	Leaves []Leaf

	// What the templates read.
	Name      string
	Version   string
	Image     string
	Members   []*Member
	TLS       bool
	OwnCerts  bool
	Shared    bool
	OneHost   bool
	Endpoints string
	FilesDir  string

	cluster *v1alpha1.EtcdCluster
}

// Member is one member of a rendering.
type Member struct {
	Name, Host string
	Addr       netip.Addr
	Ports      v1alpha1.Ports
	// Dir holds what belongs onto the member's host, by its path there.
	Dir string
	// Unit is the name of its unit or program: etcd, or etcd-MEMBER where hosts are shared.
	Unit string
	// ConfigDir, DataDir and PKIDir are on its host.
	ConfigDir, DataDir, PKIDir string
	// Config is etcd.conf.yml on its host.
	Config string

	flags etcd.MemberFlags
	// live and ready are the paths that say so at MetricsURL.
	live, ready string
}

// ClientURL is where clients connect.
func (m *Member) ClientURL() string { return m.flags.ClientURL() }

// PeerURL is where peers connect.
func (m *Member) PeerURL() string { return m.flags.PeerURL() }

// MetricsURL serves /metrics on the host itself.
func (m *Member) MetricsURL() string { return m.flags.MetricsURL() }

// ReadyURL says on the host itself, without certificates, whether the member serves.
func (m *Member) ReadyURL() string { return m.MetricsURL() + m.ready }

var goodHost = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$`)

// Refuse says why a cluster has no rendering. New calls it.
func Refuse(c *v1alpha1.EtcdCluster) error {
	fail := func(format string, args ...any) error {
		return fmt.Errorf("cluster %s: %w: %s", c.Name, ErrRender, fmt.Sprintf(format, args...))
	}
	switch mode := c.Spec.Formation.Mode; {
	case c.Observed():
		return fail("management is Observe: it is run by others already")
	case c.Spec.RestoreName != "":
		return fail("restoreName makes its members from a backup, which takes a server; make data directories with `quorate restore`")
	case mode == v1alpha1.FormationSequential || mode == v1alpha1.FormationDiscovery:
		return fail("formation.mode %s takes a server that watches over it; set formation.mode Static or DNS", mode)
	}
	return nil
}

// New renders a cluster. ErrRender, or etcd.ErrFlags, says why it can't be.
func New(o Options) (*Rendering, error) {
	c := o.Cluster
	if err := Refuse(c); err != nil {
		return nil, err
	}
	r := &Rendering{
		Cluster: c.Namespace + "/" + c.Name, Form: o.Form, Name: c.Name, Version: c.Spec.Version, cluster: c,
		TLS: c.Spec.TLS.Mode != v1alpha1.TLSDisabled, Image: o.Image, FilesDir: c.Spec.TLS.FilesDir,
	}
	r.OwnCerts = r.TLS && c.Spec.TLS.Mode != v1alpha1.TLSFiles
	hosts := o.Hosts
	if len(hosts) == 0 && o.Form == Compose {
		r.OneHost = true
		hosts = ownNetwork(c)
	}
	if err := r.place(hosts); err != nil {
		return nil, fmt.Errorf("cluster %s: %w", c.Name, err)
	}
	r.bootstrap(o.Token)
	if r.Image == "" {
		r.Image = "quay.io/coreos/etcd:v" + r.Version
		if r.Form == StaticPod {
			r.Image = "registry.k8s.io/etcd:" + r.Version + "-0"
		}
	}
	for _, m := range r.Members {
		if err := r.member(m); err != nil {
			return nil, err
		}
	}
	if err := r.common(); err != nil {
		return nil, err
	}
	slices.SortFunc(r.Files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return r, nil
}

// place gives each member a host, ports and paths.
func (r *Rendering) place(hosts []Host) error {
	replicas := int(r.cluster.Spec.Replicas)
	if len(hosts) != replicas {
		return fmt.Errorf("%w: it has %d members, and %d hosts are named: name one for each member, in their order, such as --hosts a=10.0.0.1,b=10.0.0.2", ErrRender, replicas, len(hosts))
	}
	seen, used := map[string]bool{}, map[netip.Addr]int32{}
	loopback := 0
	for i, h := range hosts {
		h.Addr = h.Addr.Unmap() // ::ffff:10.0.0.1 is 10.0.0.1, and shares its ports
		if h.Addr.IsLoopback() {
			loopback++
		}
		switch {
		case !goodHost.MatchString(h.Name):
			return fmt.Errorf("%w: host %q: a name holds lower-case letters, digits, dots and dashes", ErrRender, h.Name)
		case seen[h.Name]:
			return fmt.Errorf("%w: host %s is named twice: give each member's host a name of its own, which may be of the same address", ErrRender, h.Name)
		case !h.Addr.IsValid() || h.Addr.IsUnspecified() || h.Addr.IsMulticast() || h.Addr.IsLinkLocalUnicast() || h.Addr.Zone() != "":
			return fmt.Errorf("%w: host %s: its address must be the one that the others reach it at", ErrRender, h.Name)
		case used[h.Addr] > 0:
			r.Shared = true
		}
		seen[h.Name] = true
		m := &Member{Name: fmt.Sprintf("%s-%d", r.Name, i), Host: h.Name, Addr: h.Addr}
		if r.Form == StaticPod {
			m.Name = h.Name // kubeadm finds a node's member by the node's name
		}
		m.Dir = m.Name
		const etcdPort, step = 2379, 10
		first := etcdPort + step*used[h.Addr]
		m.Ports = v1alpha1.Ports{Client: first, Peer: first + 1, Metrics: first + 2}
		if p := r.cluster.Spec.Ports; p != nil {
			if used[h.Addr] > 0 {
				return fmt.Errorf("%w: %s is the address of two members, which can't both have the ports of spec.ports: leave ports out, or give each an address", ErrRender, h.Addr)
			}
			m.Ports = chosen(*p, m.Ports)
		}
		used[h.Addr]++
		r.Members = append(r.Members, m)
	}
	if loopback > 0 && loopback < replicas {
		return fmt.Errorf("%w: some hosts have an address of this machine alone (127.0.0.1 and the like), which the members on the others can't reach: give each the address that the others reach it at", ErrRender)
	}
	if r.Shared && r.Form == StaticPod {
		return fmt.Errorf("%w: a node has one static Pod of etcd: give each member an address of its own", ErrRender)
	}
	for _, m := range r.Members {
		r.paths(m)
	}
	return nil
}

// chosen are the ports of the spec, and for those that it leaves open, etcd's own.
func chosen(p, otherwise v1alpha1.Ports) v1alpha1.Ports {
	for _, port := range []struct {
		to   *int32
		from int32
	}{{&p.Client, otherwise.Client}, {&p.Peer, otherwise.Peer}, {&p.Metrics, otherwise.Metrics}} {
		if *port.to == 0 {
			*port.to = port.from
		}
	}
	return p
}

// paths are where operators are used to finding things; where members share a host, each
// has its own below.
func (r *Rendering) paths(m *Member) {
	m.Unit, m.ConfigDir, m.DataDir = "etcd", "/etc/etcd", "/var/lib/etcd/default.etcd"
	if r.Shared {
		m.Unit += "-" + m.Name
		m.ConfigDir, m.DataDir = path.Join(m.ConfigDir, m.Name), "/var/lib/etcd/"+m.Name+".etcd"
	}
	m.PKIDir = path.Join(m.ConfigDir, "pki")
	if r.Form == StaticPod {
		m.ConfigDir, m.PKIDir, m.DataDir = "/etc/kubernetes/manifests", "/etc/kubernetes/pki/etcd", "/var/lib/etcd"
	}
	if r.Form == Ansible {
		m.Dir = path.Join("members", m.Name)
	}
	if !r.OwnCerts {
		m.PKIDir = r.FilesDir
	}
	m.live, m.ready = "/livez", "/readyz"
	if !probes(r.Version) {
		m.live, m.ready = "/health?serializable=true", "/health"
	}
	m.Config = path.Join(m.ConfigDir, "etcd.conf.yml")
}

// bootstrap tells each member of all.
func (r *Rendering) bootstrap(token string) {
	b := &v1alpha1.Bootstrap{State: v1alpha1.BootstrapNew, Token: token}
	if r.cluster.Spec.Formation.Mode == v1alpha1.FormationDNS {
		b.DNS = r.cluster.Spec.Formation.DNS
	}
	urls := make([]string, 0, len(r.Members))
	for _, m := range r.Members {
		m.flags = etcd.MemberFlags{
			Name: m.Name, DataDir: m.DataDir, Address: m.Addr.String(), Ports: m.Ports, Bootstrap: b,
			Config: r.cluster.Spec.Etcd, LogFile: etcd.LogStderr,
			// Members that share a host would meet at 127.0.0.1 only by their ports, which differ.
			Loopback: true,
		}
		if r.TLS {
			in := func(name string) string { return path.Join(m.PKIDir, name) }
			m.flags.TLS = &etcd.MemberTLS{
				CA: in("ca.crt"), ServerCert: in("server.crt"), ServerKey: in("server.key"),
				PeerCert: in("peer.crt"), PeerKey: in("peer.key"),
			}
		}
		b.InitialCluster = append(b.InitialCluster, v1alpha1.Peer{Name: m.Name, URL: m.PeerURL()})
		urls = append(urls, m.ClientURL())
	}
	r.Endpoints = strings.Join(urls, ",")
}

// member renders what belongs onto one member's host.
func (r *Rendering) member(m *Member) error {
	if r.OwnCerts {
		r.leaves(m)
	}
	if r.Form == StaticPod {
		return r.staticPod(m)
	}
	conf, err := etcd.ConfigFile(r.Version, m.flags)
	if err != nil {
		return err
	}
	head := fmt.Sprintf("# etcd %s, member %s of cluster %s.\n# initial-cluster and what else begins with initial- counts until the member has joined, and never after.\n", r.Version, m.Name, r.Name)
	r.onHost(m, m.Config, 0o644, append([]byte(head), conf...))
	switch r.Form {
	case Systemd, Ansible:
		return r.systemd(m)
	case Supervisord:
		return r.supervisord(m)
	case Compose:
		if !r.OneHost {
			return r.compose(path.Join(m.Dir, "compose.yaml"), []*Member{m})
		}
	case StaticPod:
	}
	return nil
}

// common renders what belongs to all members.
func (r *Rendering) common() error {
	if r.OneHost {
		if err := r.compose("compose.yaml", r.Members); err != nil {
			return err
		}
	}
	if r.Form == Ansible {
		if err := r.ansible(); err != nil {
			return err
		}
	}
	if err := r.template("healthcheck.sh", "healthcheck.sh", 0o755, nil); err != nil {
		return err
	}
	return r.template("README.md", "README.md", 0o644, nil)
}

func (r *Rendering) add(name string, mode fs.FileMode, data []byte) {
	r.Files = append(r.Files, File{Path: name, Mode: mode, Data: data})
}

// onHost adds a file that belongs at an absolute path of the member's host.
func (r *Rendering) onHost(m *Member, name string, mode fs.FileMode, data []byte) {
	r.add(path.Join(m.Dir, name), mode, data)
}

// yamlFile adds a value as YAML, with a comment before it.
func (r *Rendering) yamlFile(name, comment string, v any) error {
	raw, err := yaml.Marshal(v)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	var text bytes.Buffer
	for line := range strings.Lines(comment) {
		text.WriteString("# " + line)
	}
	text.Write(raw)
	r.add(name, 0o644, text.Bytes())
	return nil
}

func decimal(n int32) string { return strconv.Itoa(int(n)) }
