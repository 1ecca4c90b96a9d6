package render

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/quorate/quorate/api/schema"
	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/etcd"
	"github.com/quorate/quorate/pki"
	"github.com/quorate/quorate/test/etcdlab"
	"github.com/quorate/quorate/test/freeport"
)

func TestMain(m *testing.M) { etcdlab.Main(m) }

const day = 24 * time.Hour

// cluster is one with its defaults, and three members.
func cluster(t *testing.T, edit func(*v1alpha1.EtcdClusterSpec)) *v1alpha1.EtcdCluster {
	t.Helper()
	c := &v1alpha1.EtcdCluster{
		ObjectMeta: metav1.ObjectMeta{Name: "db", Namespace: "default"},
		Spec:       v1alpha1.EtcdClusterSpec{Version: "3.7.3"},
	}
	if edit != nil {
		edit(&c.Spec)
	}
	if err := schema.Default(c); err != nil {
		t.Fatal(err)
	}
	return c
}

func hosts(addresses ...string) []Host {
	list := make([]Host, 0, len(addresses))
	for i, a := range addresses {
		list = append(list, Host{Name: string(rune('a' + i)), Addr: netip.MustParseAddr(a)})
	}
	return list
}

func three() []Host { return hosts("10.0.0.1", "10.0.0.2", "10.0.0.3") }

func mustNew(t *testing.T, o Options) *Rendering {
	t.Helper()
	o.Token = "token"
	r, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func contents(r *Rendering) map[string]string {
	all := map[string]string{}
	for _, f := range r.Files {
		all[f.Path] = string(f.Data)
	}
	return all
}

// Each form of each version and TLS mode can be rendered, the same each time.
func TestRenderAllForms(t *testing.T) {
	for _, form := range Forms {
		for _, version := range []string{"3.5.2", "3.5.35", "3.6.16", "3.7.3"} {
			for _, mode := range []v1alpha1.TLSMode{v1alpha1.TLSGenerated, v1alpha1.TLSFiles, v1alpha1.TLSDisabled} {
				c := cluster(t, func(s *v1alpha1.EtcdClusterSpec) {
					s.Version, s.TLS.Mode = version, mode
					if mode == v1alpha1.TLSFiles {
						s.TLS.FilesDir = "/srv/tls"
					}
				})
				o := Options{Cluster: c, Form: form, Hosts: three()}
				r := mustNew(t, o)
				all := contents(r)
				if diff := cmp.Diff(all, contents(mustNew(t, o))); diff != "" {
					t.Errorf("%s %s %s: twice the same gives another (-1 +2):\n%s", form, version, mode, diff)
				}
				scheme := "https://"
				if mode == v1alpha1.TLSDisabled {
					scheme = "http://"
				}
				text := strings.Join(sortedValues(all), "\n")
				for _, want := range []string{scheme + "10.0.0.1:2379", scheme + "10.0.0.3:2380", "http://127.0.0.1:2381"} {
					if !strings.Contains(text, want) {
						t.Errorf("%s %s %s: %s is nowhere", form, version, mode, want)
					}
				}
				if has := strings.Contains(text, "/srv/tls/server.key"); has != (mode == v1alpha1.TLSFiles) {
					t.Errorf("%s %s %s: names the files of the hosts: %t", form, version, mode, has)
				}
				if (len(r.Leaves) > 0) != (mode == v1alpha1.TLSGenerated) {
					t.Errorf("%s %s %s: %d certificates", form, version, mode, len(r.Leaves))
				}
				// /livez and /readyz came with 3.5.11.
				if has := strings.Contains(text, "/readyz"); has != (version != "3.5.2") {
					t.Errorf("%s %s: names /readyz: %t", form, version, has)
				}
				if strings.Contains(text, "<no value>") || strings.Contains(text, "{{.") {
					t.Errorf("%s: a template was not filled in:\n%s", form, text)
				}
			}
		}
	}
}

func sortedValues(m map[string]string) []string {
	list := make([]string, 0, len(m))
	for _, v := range m {
		list = append(list, v)
	}
	slices.Sort(list)
	return list
}

func TestRenderRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		edit  func(*v1alpha1.EtcdClusterSpec)
		form  Form
		hosts []Host
		want  string
	}{
		"observed":       {edit: func(s *v1alpha1.EtcdClusterSpec) { s.Management = v1alpha1.ManagementObserve }, want: "run by others"},
		"restored":       {edit: func(s *v1alpha1.EtcdClusterSpec) { s.RestoreName = "r" }, want: "quorate restore"},
		"sequential":     {edit: func(s *v1alpha1.EtcdClusterSpec) { s.Formation.Mode = v1alpha1.FormationSequential }, want: "Static"},
		"discovery":      {edit: func(s *v1alpha1.EtcdClusterSpec) { s.Formation.Mode = v1alpha1.FormationDiscovery }, want: "Static"},
		"too few":        {hosts: hosts("10.0.0.1"), want: "3 members, and 1 hosts"},
		"no hosts":       {hosts: []Host{}, want: "3 members, and 0 hosts"},
		"name twice":     {hosts: append(hosts("10.0.0.1", "10.0.0.2"), Host{"a", netip.MustParseAddr("10.0.0.3")}), want: "named twice"},
		"bad name":       {hosts: append(hosts("10.0.0.1", "10.0.0.2"), Host{"../c", netip.MustParseAddr("10.0.0.3")}), want: "lower-case"},
		"any address":    {hosts: hosts("10.0.0.1", "10.0.0.2", "0.0.0.0"), want: "reach it"},
		"ports twice":    {hosts: hosts("10.0.0.1", "10.0.0.1", "10.0.0.2"), edit: func(s *v1alpha1.EtcdClusterSpec) { s.Ports = &v1alpha1.Ports{Client: 4001} }, want: "spec.ports"},
		"two Pods":       {form: StaticPod, hosts: hosts("10.0.0.1", "10.0.0.1", "10.0.0.2"), want: "one static Pod"},
		"unknown minor":  {edit: func(s *v1alpha1.EtcdClusterSpec) { s.Version = "3.4.1" }, want: "3.5, 3.6 and 3.7"},
		"3.5 and lonely": {edit: func(s *v1alpha1.EtcdClusterSpec) { s.Replicas = 1 }, want: "1 members, and 3 hosts"},
	} {
		o := Options{Cluster: cluster(t, tc.edit), Form: Systemd, Hosts: three(), Token: "token"}
		if tc.form != "" {
			o.Form = tc.form
		}
		if tc.hosts != nil {
			o.Hosts = tc.hosts
		}
		_, err := New(o)
		if !errors.Is(err, ErrRender) && !errors.Is(err, etcd.ErrFlags) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
}

// Members that share an address share neither ports nor paths.
// TestRenderServiceClass: a unit has its class's share of the host, as the units of
// members that Quorate runs have it, and only BestEffort comes behind other units.
func TestRenderServiceClass(t *testing.T) {
	for class, want := range map[v1alpha1.ServiceClass][]string{
		v1alpha1.ClassGuaranteed: {"CPUWeight=4000\n", "IOWeight=1000\n", "OOMScoreAdjust=-900\n", "IOSchedulingPriority=0\n", "MemoryLow=4294967296\n"},
		v1alpha1.ClassBurstable:  {"CPUWeight=400\n", "IOWeight=200\n", "OOMScoreAdjust=-300\n", "MemoryLow=4294967296\n"},
		v1alpha1.ClassBestEffort: {"CPUWeight=1\n", "IOWeight=10\n", "OOMScoreAdjust=700\n", "MemoryMax=17179869184\n"},
	} {
		c := cluster(t, func(s *v1alpha1.EtcdClusterSpec) {
			s.Class = class
			s.Resources.CPU, s.Resources.Memory = resource.MustParse("2"), resource.MustParse("4Gi")
		})
		unit := contents(mustNew(t, Options{Cluster: c, Form: Systemd, Hosts: three()}))["db-0/etc/systemd/system/etcd.service"]
		for _, line := range want {
			if !strings.Contains(unit, line) {
				t.Errorf("%s: the unit lacks %q:\n%s", class, line, unit)
			}
		}
		if strings.Contains(unit, "MemoryMax") != (class == v1alpha1.ClassBestEffort) {
			t.Errorf("%s: a limit of memory:\n%s", class, unit)
		}
	}
	small := contents(mustNew(t, Options{Cluster: cluster(t, nil), Form: Ansible, Hosts: three()}))
	if unit := small["members/db-0/etc/systemd/system/etcd.service"]; !strings.Contains(unit, "CPUWeight=100\n") {
		t.Errorf("a small etcd comes behind other units:\n%s", unit)
	}
}

func TestRenderSharedHost(t *testing.T) {
	for _, form := range []Form{Systemd, Supervisord, Compose, Ansible} {
		r := mustNew(t, Options{Cluster: cluster(t, nil), Form: form, Hosts: hosts("10.0.0.1", "10.0.0.1", "10.0.0.1")})
		seen := map[any]string{}
		for _, m := range r.Members {
			for _, v := range []any{m.Ports.Client, m.Ports.Peer, m.Ports.Metrics, m.Unit, m.ConfigDir, m.DataDir} {
				if other := seen[v]; other != "" {
					t.Errorf("%s: %s and %s share %v", form, other, m.Name, v)
				}
				seen[v] = m.Name
			}
		}
	}
}

func TestRenderIPv6(t *testing.T) {
	r := mustNew(t, Options{Cluster: cluster(t, nil), Form: Systemd, Hosts: hosts("fd00::1", "fd00::2", "fd00::3")})
	if got := r.Members[0].PeerURL(); got != "https://[fd00::1]:2380" {
		t.Errorf("the peer URL is %s", got)
	}
}

// render writes a cluster into a tree, as the command does.
func render(t *testing.T, dir string, ca *pki.CA, now time.Time, list []Host) ([]Change, error) {
	t.Helper()
	tree, err := OpenTree(dir, "default/db", Systemd)
	if err != nil {
		return nil, err
	}
	r, err := New(Options{Cluster: cluster(t, nil), Form: Systemd, Hosts: list, Token: tree.Token})
	if err != nil {
		return nil, err
	}
	certs, err := r.Certificates(Signing{CA: ca, Read: tree.Read, Validity: 90 * day, Now: now})
	if err != nil {
		return nil, err
	}
	return tree.Write(append(r.Files, certs...))
}

func tally(changes []Change) map[string]int {
	count := map[string]int{}
	for _, c := range changes {
		count[c.Action]++
	}
	return count
}

func read(t *testing.T, dir, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestRenderTreeKeepsKeys(t *testing.T) {
	dir, now := filepath.Join(t.TempDir(), "out"), time.Now()
	first, err := render(t, dir, nil, now, three())
	if err != nil {
		t.Fatal(err)
	}
	second, err := render(t, dir, nil, now.Add(time.Hour), three())
	if err != nil {
		t.Fatal(err)
	}
	if got := tally(second); got[Unchanged] != len(first) || got[Created]+got[Updated] > 0 {
		t.Errorf("a second run: %v", got)
	}
	const cert, key = "db-0/etc/etcd/pki/server.crt", "db-0/etc/etcd/pki/server.key"
	keyWas, certWas, confWas := read(t, dir, key), read(t, dir, cert), read(t, dir, "db-1/etc/etcd/etcd.conf.yml")

	// Two thirds of 90 days later, certificates are renewed, with their keys.
	if second, err = render(t, dir, nil, now.Add(61*day), three()); err != nil {
		t.Fatal(err)
	}
	if got := tally(second); got[Updated] != 7 || got[Created] > 0 {
		t.Errorf("a renewal: %v, want three server, three peer and a client certificate", got)
	}
	if read(t, dir, key) != keyWas || read(t, dir, cert) == certWas {
		t.Error("a renewal changed the key, or not the certificate")
	}
	// At another address, the certificate names it, and the key stays.
	certWas = read(t, dir, cert)
	if _, err = render(t, dir, nil, now.Add(61*day), hosts("10.9.9.9", "10.0.0.2", "10.0.0.3")); err != nil {
		t.Fatal(err)
	}
	if read(t, dir, cert) == certWas {
		t.Error("a certificate names an address that is no longer the member's")
	}
	bundle := pki.Bundle{Certificate: []byte(read(t, dir, cert)), CA: []byte(read(t, dir, "pki/ca.crt"))}
	if err = pki.VerifyLeaf(bundle, []byte(keyWas), []string{"10.9.9.9", "127.0.0.1", "localhost", "a"}, pki.Server, now.Add(61*day)); err != nil {
		t.Error(err)
	}
	token := func(s string) string {
		_, rest, _ := strings.Cut(s, "initial-cluster-token: ")
		line, _, _ := strings.Cut(rest, "\n")
		return line
	}
	if was, is := token(confWas), token(read(t, dir, "db-1/etc/etcd/etcd.conf.yml")); was == "" || was != is {
		t.Errorf("the cluster's token was %q and is %q", was, is)
	}
	// A key that others could read is closed again.
	if err = os.Chmod(filepath.Join(dir, key), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err = render(t, dir, nil, now.Add(61*day), hosts("10.9.9.9", "10.0.0.2", "10.0.0.3")); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(dir, key)); err != nil || info.Mode() != 0o600 {
		t.Errorf("the key has mode %v (%v)", info.Mode(), err)
	}
}

func TestRenderTreeRefuses(t *testing.T) {
	now := time.Now()
	refused := func(t *testing.T, dir, want string) {
		t.Helper()
		if _, err := render(t, dir, nil, now, three()); !errors.Is(err, ErrRender) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	put := func(t *testing.T, dir, name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("other things", func(t *testing.T) {
		dir := t.TempDir()
		put(t, dir, "thesis.txt", "x")
		refused(t, dir, "thesis.txt")
	})
	t.Run("a file", func(t *testing.T) {
		dir := t.TempDir()
		put(t, dir, "file", "x")
		refused(t, filepath.Join(dir, "file"), "name a directory")
	})
	t.Run("another form", func(t *testing.T) {
		dir := t.TempDir()
		if _, err := render(t, dir, nil, now, three()); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenTree(dir, "default/db", Compose); !errors.Is(err, ErrRender) || !strings.Contains(err.Error(), "as systemd") {
			t.Error(err)
		}
		if _, err := OpenTree(dir, "default/other", Systemd); !errors.Is(err, ErrRender) {
			t.Error(err)
		}
	})
	t.Run("edited", func(t *testing.T) {
		dir := t.TempDir()
		if _, err := render(t, dir, nil, now, three()); err != nil {
			t.Fatal(err)
		}
		const unit = "db-2/etc/systemd/system/etcd.service"
		put(t, dir, unit, read(t, dir, unit)+"# mine\n")
		refused(t, dir, unit)
		if !strings.HasSuffix(read(t, dir, unit), "# mine\n") {
			t.Error("what somebody wrote is gone")
		}
	})
	t.Run("a key alone", func(t *testing.T) {
		dir := t.TempDir()
		if _, err := render(t, dir, nil, now, three()); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(dir, "pki/ca.key")); err != nil {
			t.Fatal(err)
		}
		refused(t, dir, "pki/ca.key is not")
	})
}

// A write that broke off is finished by the next, wherever it broke off.
func TestRenderTreeBrokenOff(t *testing.T) {
	now := time.Now()
	dir := t.TempDir()
	if _, err := render(t, dir, nil, now, three()); err != nil {
		t.Fatal(err)
	}
	other := hosts("10.0.0.1", "10.0.0.2", "10.0.0.4")
	tree, err := OpenTree(dir, "default/db", Systemd)
	if err != nil {
		t.Fatal(err)
	}
	r, err := New(Options{Cluster: cluster(t, nil), Form: Systemd, Hosts: other, Token: tree.Token})
	if err != nil {
		t.Fatal(err)
	}
	// A directory in the way of one file fails the write in the middle.
	const blocked = "db-1/etc/tmpfiles.d/etcd.conf"
	if err = os.Remove(filepath.Join(dir, blocked)); err != nil {
		t.Fatal(err)
	}
	plan, err := tree.Plan(r.Files)
	if err != nil {
		t.Fatal(err)
	}
	if got := tally(plan); got[Created] != 1 || got[Updated] == 0 {
		t.Fatalf("%v", got)
	}
	if err = os.RemoveAll(filepath.Join(dir, "db-1/etc/tmpfiles.d")); err != nil {
		t.Fatal(err)
	}
	if err = os.WriteFile(filepath.Join(dir, "db-1/etc/tmpfiles.d"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err = tree.Write(r.Files); err == nil {
		t.Fatal("it wrote a file below a file")
	}
	if err = os.Remove(filepath.Join(dir, "db-1/etc/tmpfiles.d")); err != nil {
		t.Fatal(err)
	}
	if _, err = render(t, dir, nil, now, other); err != nil {
		t.Errorf("after a write that broke off: %v", err)
	}
}

// One's own CA signs, and its key is not copied.
func TestRenderOwnCA(t *testing.T) {
	now := time.Now()
	cert, key, err := pki.NewCA("mine", 365*day, now)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := pki.LoadCA(cert, key, nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if _, err = render(t, dir, ca, now, three()); err != nil {
		t.Fatal(err)
	}
	if read(t, dir, "db-1/etc/etcd/pki/ca.crt") != string(cert) {
		t.Error("the member trusts another CA")
	}
	if _, err = os.Stat(filepath.Join(dir, "pki/ca.key")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the CA's key: %v", err)
	}
	changes, err := render(t, dir, ca, now, three())
	if err != nil || tally(changes)[Unchanged] != len(changes) {
		t.Errorf("a second run: %v, %v", tally(changes), err)
	}
}

// TestRenderAnotherCA: a directory's CA is not replaced by another, which would leave
// members that trust each other no more; beside it, another may sign.
func TestRenderAnotherCA(t *testing.T) {
	now, dir := time.Now(), t.TempDir()
	if _, err := render(t, dir, nil, now, three()); err != nil {
		t.Fatal(err)
	}
	old := read(t, dir, "pki/ca.crt")
	cert, key, err := pki.NewCA("another", 365*day, now)
	if err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string]string{"alone": string(cert), "with the old one": string(cert) + old} {
		ca, err := LoadCA([]byte(file), key)
		if err != nil {
			t.Fatal(err)
		}
		_, err = render(t, dir, ca, now, three())
		if both := name != "alone"; both != (err == nil) || err != nil && !errors.Is(err, ErrRender) {
			t.Errorf("%s: %v", name, err)
		}
		if !strings.Contains(read(t, dir, "pki/ca.crt"), old) {
			t.Errorf("%s: the CA that the members trust is gone", name)
		}
	}
}

// TestRenderAddresses: two forms of one address are one host, and addresses that others
// can't reach are refused.
func TestRenderAddresses(t *testing.T) {
	r := mustNew(t, Options{Cluster: cluster(t, nil), Form: Systemd, Hosts: hosts("10.0.0.1", "::ffff:10.0.0.1", "10.0.0.3")})
	if a, b := r.Members[0], r.Members[1]; a.Ports.Peer == b.Ports.Peer || a.Unit == b.Unit {
		t.Errorf("both have port %d and unit %s of one host", a.Ports.Peer, a.Unit)
	}
	for _, wrong := range []string{"127.0.0.1", "224.0.0.1", "169.254.1.1", "fe80::1", "::1", "0.0.0.0"} {
		if _, err := New(Options{Cluster: cluster(t, nil), Form: Systemd, Hosts: hosts("10.0.0.1", wrong, "10.0.0.3"), Token: "t"}); !errors.Is(err, ErrRender) {
			t.Errorf("%s: %v", wrong, err)
		}
	}
}

// The configuration file has each etcd do what the flags have it do: both ways it logs the
// same settings when it starts.
func TestRenderConfigFileSaysWhatFlagsSay(t *testing.T) {
	for version, binary := range etcds(t) {
		t.Run(version, func(t *testing.T) {
			ports := v1alpha1.Ports{}
			for _, p := range []*int32{&ports.Client, &ports.Peer, &ports.Metrics} {
				number, err := strconv.ParseInt(freeport.Port(t), 10, 32)
				if err != nil {
					t.Fatal(err)
				}
				*p = int32(number)
			}
			c := cluster(t, func(s *v1alpha1.EtcdClusterSpec) {
				s.Version, s.Replicas, s.Ports = version, 1, &ports
				s.Etcd.SnapshotCount, s.Etcd.HeartbeatInterval, s.Etcd.ElectionTimeout = 4321, "120ms", "1300ms"
			})
			r := mustNew(t, Options{Cluster: c, Form: Systemd, Hosts: hosts("127.0.0.1")})
			certs, err := r.Certificates(Signing{Read: func(string) ([]byte, error) { return nil, fs.ErrNotExist }, Validity: day, Now: time.Now()})
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			m := r.Members[0]
			f := m.flags
			f.DataDir = filepath.Join(dir, "data")
			tlsFiles := map[string]*string{
				"ca.crt": &f.TLS.CA, "server.crt": &f.TLS.ServerCert, "server.key": &f.TLS.ServerKey, "peer.crt": &f.TLS.PeerCert, "peer.key": &f.TLS.PeerKey,
			}
			for _, c := range certs {
				if to := tlsFiles[filepath.Base(c.Path)]; to != nil {
					*to = filepath.Join(dir, filepath.Base(c.Path))
					if err = os.WriteFile(*to, c.Data, c.Mode); err != nil {
						t.Fatal(err)
					}
				}
			}
			args, err := etcd.Flags(version, f)
			if err != nil {
				t.Fatal(err)
			}
			conf, err := etcd.ConfigFile(version, f)
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(dir, "etcd.conf.yml")
			if err = os.WriteFile(file, conf, 0o600); err != nil {
				t.Fatal(err)
			}
			byFlags := started(t, binary, f.MetricsURL(), args...)
			if err = os.RemoveAll(f.DataDir); err != nil {
				t.Fatal(err)
			}
			byFile := started(t, binary, f.MetricsURL(), "--config-file="+file)
			if diff := cmp.Diff(byFlags, byFile); diff != "" {
				t.Errorf("etcd %s (-flags +file):\n%s", version, diff)
			}
			if byFile["snapshot-count"] != 4321.0 || byFile["initial-corrupt-check"] != true && version != "3.7.3" && !strings.HasPrefix(version, "3.6") {
				t.Errorf("etcd %s was told %v", version, byFile)
			}
		})
	}
}

// etcds are the executables to try, by version.
func etcds(t *testing.T) map[string]string {
	t.Helper()
	own := filepath.Join(t.TempDir(), "etcd")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err = os.Symlink(self, own); err != nil {
		t.Fatal(err)
	}
	all := map[string]string{"3.7.3": own}
	releases := os.Getenv("QUORATE_ETCD_RELEASES")
	for _, version := range []string{"3.5.35", "3.6.16"} {
		binary := filepath.Join(releases, version, "etcd")
		if _, err = os.Stat(binary); releases != "" && err == nil {
			all[version] = binary
		} else {
			t.Logf("SKIPPED: etcd %s: QUORATE_ETCD_RELEASES holds none", version)
		}
	}
	return all
}

// started runs etcd until it serves, and returns the settings that it logs at its start.
func started(t *testing.T, binary, metrics string, args ...string) map[string]any {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), etcdlab.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = []string{}
	var log bytes.Buffer
	cmd.Stderr, cmd.Stdout = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var exit error
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		exit = cmd.Wait()
	}()
	for ready := false; !ready; {
		select {
		case <-ended:
			t.Fatalf("etcd ended: %v\n%s", exit, log.Bytes())
		case <-time.After(50 * time.Millisecond):
		}
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, metrics+"/health", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		if answer, err := http.DefaultClient.Do(request); err == nil {
			ready = answer.StatusCode == http.StatusOK
			_, _ = io.Copy(io.Discard, answer.Body)
			_ = answer.Body.Close()
		}
	}
	http.DefaultClient.CloseIdleConnections()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-ended
	for line := range bytes.Lines(log.Bytes()) {
		var entry map[string]any
		if json.Unmarshal(line, &entry) == nil && entry["msg"] == "starting an etcd server" {
			delete(entry, "ts")
			return entry
		}
	}
	t.Fatalf("etcd did not say how it was started:\n%s", log.Bytes())
	return nil
}

// All that is YAML can be read, without a key that stands twice.
func TestRenderYAML(t *testing.T) {
	for _, form := range Forms {
		for name, text := range contents(mustNew(t, Options{Cluster: cluster(t, nil), Form: form, Hosts: three()})) {
			if ext := filepath.Ext(name); ext != ".yaml" && ext != ".yml" {
				continue
			}
			var v any
			if err := yaml.UnmarshalStrict([]byte(text), &v); err != nil {
				t.Errorf("%s: %s: %v", form, name, err)
			}
		}
	}
}
