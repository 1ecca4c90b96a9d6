package cli

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/driver/render"
	"github.com/quorate/quorate/pki"
	"github.com/quorate/quorate/store"
)

type renderOptions struct {
	file      string
	out       string
	hosts     []string
	hostsFile string
	ca, caKey string
	image     string
	dryRun    bool
}

// renderForms say what each form is, for the help.
var renderForms = []struct {
	form                 render.Form
	short, long, example string
}{
	{
		render.Systemd, "Write units, configurations and certificates for systemd",
		`Write, for each member, what belongs onto its host by its path there: a unit that
runs /usr/local/bin/etcd as the user etcd, etcd.conf.yml, certificates, and what
makes the user. Members that share an address get units and ports of their own.`,
		`  quorate render systemd -f cluster.yaml --hosts a=10.0.0.1,b=10.0.0.2,c=10.0.0.3 -o ./etcd
  quorate render systemd -f cluster.yaml --hosts-file hosts.txt -o ./etcd --dry-run`,
	},
	{
		render.Supervisord, "Write programs, configurations and certificates for supervisord",
		`Write, for each member, what belongs onto its host by its path there: a program for
/etc/supervisor/conf.d, etcd.conf.yml and certificates. Members that share an
address get programs and ports of their own.`,
		`  quorate render supervisord -f cluster.yaml --hosts a=10.0.0.1,b=10.0.0.2,c=10.0.0.3 -o ./supervised`,
	},
	{
		render.StaticPod, "Write static Pods and certificates as kubeadm lays them",
		`Write, for each control-plane node, /etc/kubernetes/manifests/etcd.yaml as kubeadm
lays it, and the certificates of /etc/kubernetes/pki. Members have the names of
their nodes.`,
		`  quorate render static-pod -f cluster.yaml --hosts cp1=10.0.0.1,cp2=10.0.0.2,cp3=10.0.0.3 -o ./static-pods
  quorate render static-pod -f cluster.yaml --hosts cp1=10.0.0.1,cp2=10.0.0.2,cp3=10.0.0.3 -o -`,
	},
	{
		render.Compose, "Write compose files, configurations and certificates",
		`Write a compose file for each host, whose network the member uses. Without --hosts
it is one file with all members on one machine, in a network of their own.`,
		`  quorate render compose -f cluster.yaml -o ./composed
  quorate render compose -f cluster.yaml --hosts a=10.0.0.1,b=10.0.0.2,c=10.0.0.3 -o ./composed-hosts`,
	},
	{
		render.Ansible, "Write a playbook, a role and an inventory for Ansible",
		`Write a playbook that makes every host a member under systemd: run twice, it changes
nothing the second time; run after a change, it restarts one member after the other.`,
		`  quorate render ansible -f cluster.yaml --hosts a=10.0.0.1,b=10.0.0.2,c=10.0.0.3 -o ./playbook`,
	},
}

func renderCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "render",
		Short: "Write what you run yourself for a cluster: units, static Pods, compose, Ansible",
		Long: `Write a cluster's file out as what people run without Quorate: units, programs,
static Pods, compose files or an Ansible role, with etcd's configuration,
certificates and a README that says how to install and verify them. No server is
needed.

A second run into the same directory changes nothing: keys and the cluster's token
are kept, and files that somebody else has changed are never overwritten.
Certificates of whose life two thirds are over are renewed, with their keys.`,
		Example: `  quorate render systemd -f cluster.yaml --hosts a=10.0.0.1,b=10.0.0.2,c=10.0.0.3 -o ./etcd`,
		Args:    cobra.ArbitraryArgs,
		RunE:    runGroup,
	}
	for _, f := range renderForms {
		cmd.AddCommand(renderFormCommand(e, f.form, f.short, f.long, f.example))
	}
	return cmd
}

func renderFormCommand(e *env, form render.Form, short, long, example string) *cobra.Command {
	var o renderOptions
	cmd := &cobra.Command{
		Use: string(form) + " -f FILE", Short: short, Long: long, Example: example, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return e.render(cmd, form, o) },
	}
	f := cmd.Flags()
	f.StringVarP(&o.file, "filename", "f", "", "file with the cluster; - for the standard input")
	f.StringVarP(&o.out, "out", "o", "", "directory to write; - prints the manifests, without certificates (default "+defaultOut(form)+")")
	f.StringSliceVar(&o.hosts, "hosts", nil, "NAME=ADDRESS of each member's host, in their order")
	f.StringVar(&o.hostsFile, "hosts-file", "", "file with a line NAME ADDRESS for each member's host")
	f.StringVar(&o.ca, "ca", "", "certificate of your own CA, which signs in place of one made here")
	f.StringVar(&o.caKey, "ca-key", "", "key of --ca")
	f.BoolVar(&o.dryRun, "dry-run", false, "only list the files, and say what would be done to each")
	if form == render.StaticPod || form == render.Compose {
		f.StringVar(&o.image, "image", "", "image of the containers (default etcd's own of the cluster's version)")
	}
	// They can't fail: the command has these flags.
	_ = cmd.MarkFlagDirname("out")
	_ = cmd.MarkFlagFilename("filename", "yaml", "yml", "json")
	complete(cmd, "hosts")
	if form == render.StaticPod || form == render.Compose {
		complete(cmd, "image")
	}
	return cmd
}

// defaultOut is the directory where nobody names one.
func defaultOut(form render.Form) string { return "./CLUSTER-" + string(form) }

func (e *env) render(cmd *cobra.Command, form render.Form, o renderOptions) error {
	switch {
	case o.file == "":
		return usagef(cmd, "-f is missing: the file with the cluster to render")
	case len(o.hosts) > 0 && o.hostsFile != "":
		return usagef(cmd, "--hosts and --hosts-file say the same: give one of them")
	case (o.ca == "") != (o.caKey == ""):
		return usagef(cmd, "--ca and --ca-key go together: give both, or neither")
	case len(o.hosts) == 0 && o.hostsFile == "" && form != render.Compose:
		return usagef(cmd, "--hosts is missing: name the host of each member, as in --hosts a=10.0.0.1,b=10.0.0.2,c=10.0.0.3")
	}
	hosts, err := renderHosts(cmd, o)
	if err != nil {
		return err
	}
	doc, err := e.proposed(cmd, o.file, store.Key{})
	if err != nil {
		return err
	}
	cluster, ok := doc.Object.(*v1alpha1.EtcdCluster)
	if !ok {
		return fmt.Errorf("%s holds no cluster: %w", o.file, store.ErrInvalid)
	}
	ro := render.Options{Cluster: cluster, Form: form, Hosts: hosts, Image: o.image}
	if o.out == "-" {
		return e.renderPrint(cmd, ro, o.dryRun)
	}
	if o.out == "" {
		o.out = strings.Replace(defaultOut(form), "CLUSTER", cluster.Name, 1)
	}
	ca, err := renderCA(cluster, o)
	if err != nil {
		return err
	}
	return e.renderTree(ro, ca, o)
}

// renderTree writes a rendering into its directory, or says what would be written.
func (e *env) renderTree(ro render.Options, ca *pki.CA, o renderOptions) error {
	c := ro.Cluster
	if err := render.Refuse(c); err != nil {
		return err
	}
	tree, err := render.OpenTree(o.out, c.Namespace+"/"+c.Name, ro.Form)
	if err != nil {
		return err
	}
	ro.Token = tree.Token
	r, err := render.New(ro)
	if err != nil {
		return err
	}
	validity, err := time.ParseDuration(c.Spec.TLS.LeafValidity)
	if err != nil {
		return fmt.Errorf("tls.leafValidity: %w: %w", err, store.ErrInvalid)
	}
	certs, err := r.Certificates(render.Signing{CA: ca, Read: tree.Read, Validity: validity, Now: time.Now()})
	if err != nil {
		return err
	}
	files := slices.Concat(r.Files, certs)
	slices.SortFunc(files, func(a, b render.File) int { return strings.Compare(a.Path, b.Path) })
	do := tree.Write
	if o.dryRun {
		do = tree.Plan
	}
	changes, err := do(files)
	if err != nil {
		return err
	}
	return e.printRendered(c.Name, o, changes)
}

func (e *env) printRendered(name string, o renderOptions, changes []render.Change) error {
	count := map[string]int{}
	g := grid{header: []string{"file", "mode", "action"}}
	for _, c := range changes {
		count[c.Action]++
		g.add(c.Path, c.Mode, c.Action)
	}
	if o.dryRun {
		if err := g.write(e.Out, 0); err != nil {
			return err
		}
		e.printf("\n")
	}
	tail := ""
	if o.dryRun {
		tail = " (dry run)"
	}
	e.printf("%s: %d files created, %d updated, %d unchanged in %s%s\n", label(v1alpha1.KindCluster, name),
		count[render.Created], count[render.Updated], count[render.Unchanged], o.out, tail)
	if !o.dryRun && count[render.Created] > 0 {
		e.printf("%s\n", "next: read "+strings.TrimSuffix(o.out, "/")+"/README.md")
	}
	return nil
}

// renderPrint prints the manifests: what holds no secret, and is no script or page.
func (e *env) renderPrint(cmd *cobra.Command, ro render.Options, dryRun bool) error {
	if dryRun {
		return usagef(cmd, "-o - prints and --dry-run lists: give one of them")
	}
	var err error
	if ro.Token, err = render.NewToken(ro.Cluster.Name); err != nil {
		return err
	}
	r, err := render.New(ro)
	if err != nil {
		return err
	}
	first := true
	for _, f := range r.Files {
		if f.Path == "README.md" || f.Path == "healthcheck.sh" {
			continue
		}
		if !first {
			e.printf("---\n")
		}
		first = false
		e.printf("# %s\n%s", f.Path, f.Data)
	}
	return nil
}

// renderHosts reads the hosts from the flags or the file.
func renderHosts(cmd *cobra.Command, o renderOptions) ([]render.Host, error) {
	lines := o.hosts
	if o.hostsFile != "" {
		raw, err := os.ReadFile(o.hostsFile)
		if err != nil {
			return nil, fmt.Errorf("read the hosts: %w", err)
		}
		scan := bufio.NewScanner(bytes.NewReader(raw))
		for scan.Scan() {
			line, _, _ := strings.Cut(scan.Text(), "#")
			fields := strings.Fields(strings.Replace(line, "=", " ", 1))
			if len(fields) > 0 {
				lines = append(lines, strings.Join(fields, "="))
			}
		}
		if err = scan.Err(); err != nil {
			return nil, fmt.Errorf("read the hosts: %s: %w", o.hostsFile, err)
		}
	}
	hosts := make([]render.Host, 0, len(lines))
	for _, line := range lines {
		name, address, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok {
			return nil, usagef(cmd, "host %q: write it as NAME=ADDRESS, such as a=10.0.0.1", line)
		}
		addr, err := netip.ParseAddr(address)
		if err != nil {
			return nil, usagef(cmd, "host %s: %q is no IP address: etcd listens on addresses, not on names", name, address)
		}
		hosts = append(hosts, render.Host{Name: name, Addr: addr})
	}
	return hosts, nil
}

// renderCA is the CA of one's own; nil where one is to be made.
func renderCA(c *v1alpha1.EtcdCluster, o renderOptions) (*pki.CA, error) {
	mode := c.Spec.TLS.Mode
	if o.ca == "" {
		if mode == v1alpha1.TLSCASecret {
			return nil, fmt.Errorf("cluster %s: %w: tls.mode is CASecret, and no server is asked for the Secret %s: give its tls.crt with --ca and its tls.key with --ca-key", c.Name, render.ErrRender, c.Spec.TLS.CASecretRef)
		}
		return nil, nil //nolint:nilnil // it is made later
	}
	if mode == v1alpha1.TLSFiles || mode == v1alpha1.TLSDisabled {
		return nil, fmt.Errorf("cluster %s: %w: tls.mode is %s, where nothing is signed: leave --ca out", c.Name, render.ErrRender, mode)
	}
	cert, err := os.ReadFile(o.ca)
	key, keyErr := os.ReadFile(o.caKey)
	if err = errors.Join(err, keyErr); err != nil {
		return nil, fmt.Errorf("read the CA: %w", err)
	}
	ca, err := render.LoadCA(cert, key)
	if err != nil {
		// Its words are those of a Secret; here one file has the CA and its roots.
		said := strings.NewReplacer("ca.crt", o.ca, "tls.crt", o.ca, "tls.key", o.caKey).Replace(err.Error())
		return nil, &renderCAError{said, err}
	}
	return ca, nil
}

// renderCAError is what is wrong with the CA, by the names of its files.
type renderCAError struct {
	said string
	err  error
}

func (e *renderCAError) Error() string { return e.said }

func (e *renderCAError) Unwrap() error { return e.err }
