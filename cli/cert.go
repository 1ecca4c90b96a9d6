package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/internal/atomicfile"
	"github.com/quorate/quorate/pki"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
)

// clientName is the common name of the client certificates that Quorate uses itself.
const clientName = "quorate-client"

// Files that `cert issue` writes.
const (
	certFile = "client.crt"
	keyFile  = "client.key"
	caFile   = "ca.crt"
)

func certCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cert",
		Short: "List certificates with their expiry, and issue one for a client",
		Long: `Members' certificates are signed by the cluster's CA and renewed after two thirds
of their life, without a restart. "quorate cert issue" gives a client its own.`,
		Example: `  quorate cert list
  quorate cert issue -c playground --cn app --out app-tls`,
		Args: cobra.ArbitraryArgs,
		RunE: runGroup,
	}
	cmd.AddCommand(certListCommand(e), certIssueCommand(e))
	return cmd
}

// certificate is a line of `cert list`.
type certificate struct {
	Namespace string `json:"namespace"`
	Cluster   string `json:"cluster"`
	// Of is the member that has it, or CA.
	Of string `json:"of"`
	// Status is Valid, or why it is not.
	Status   string     `json:"status"`
	NotAfter *time.Time `json:"notAfter,omitempty"`
	Message  string     `json:"message,omitempty"`
}

func certListCommand(e *env) *cobra.Command {
	var cluster, output string
	var all bool
	forms := []string{outTable, outJSON, outYAML}
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the certificates of members and CAs, with their expiry",
		Long: `List the certificate of each member that expires first, as its host reports it, the
CA of each cluster, and what Quorate shows to imported clusters. The latter are read
from Secrets, which only an admin may: for others they are not listed.`,
		Example: `  quorate cert list
  quorate cert list -c playground -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(cmd, output, forms...); err != nil {
				return err
			}
			return e.certList(cmd.Context(), cluster, all, output)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&cluster, "cluster", "c", "", "only those of a cluster")
	f.BoolVarP(&all, "all-namespaces", "A", false, "clusters of all namespaces")
	outputFlag(cmd, &output, forms...)
	e.completeClusters(cmd)
	return cmd
}

func (e *env) certList(ctx context.Context, name string, all bool, output string) error {
	c, err := e.connect()
	if err != nil {
		return err
	}
	var named []target
	if name != "" {
		named = []target{{v1alpha1.KindCluster, e.cluster(name)}}
	}
	clusters, err := e.find(ctx, c, v1alpha1.KindCluster, named, store.ListOptions{Namespace: e.listNamespace(v1alpha1.KindCluster, all)})
	if err != nil {
		return err
	}
	list := []certificate{}
	for _, obj := range clusters {
		cluster, ok := obj.(*v1alpha1.EtcdCluster)
		if !ok {
			continue
		}
		of, err := certificatesOf(ctx, c, cluster)
		if err != nil {
			return err
		}
		list = append(list, of...)
	}
	if output != outTable {
		return e.printValue(output, map[string]any{"items": list})
	}
	if len(list) == 0 {
		e.errorf("there are no certificates\n")
		return nil
	}
	g := grid{header: []string{"cluster", "of", "status", "expires", "in", "message"}, wrap: []int{5}}
	now := time.Now()
	for _, l := range list {
		expires, in := "", ""
		if l.NotAfter != nil {
			expires, in = l.NotAfter.UTC().Format(time.DateOnly), age(now, *l.NotAfter)
		}
		if all {
			l.Cluster = l.Namespace + "/" + l.Cluster
		}
		g.add(l.Cluster, l.Of, l.Status, expires, in, l.Message)
	}
	return g.write(e.Out, width(e.Out))
}

// validUntil begins the message of a member's certificates that are valid.
const validUntil = "valid until "

func certificatesOf(ctx context.Context, c *remote.Client, cluster *v1alpha1.EtcdCluster) ([]certificate, error) {
	key := store.KeyOf(cluster)
	var list []certificate
	for _, k := range keptOf(cluster) {
		l, err := readKept(ctx, c, cluster, k)
		if err != nil {
			return nil, err
		}
		if l != nil {
			list = append(list, *l)
		}
	}
	members, err := membersOf(ctx, c, key)
	if err != nil {
		return nil, err
	}
	for _, m := range members {
		list = append(list, certificateOf(m))
	}
	return list, nil
}

// certificateOf is what a member's condition says of its certificates.
func certificateOf(m *v1alpha1.EtcdMember) certificate {
	l := certificate{Namespace: m.Namespace, Cluster: m.Spec.ClusterName, Of: m.Name, Status: "Unknown", Message: "its host has not reported yet"}
	cond := v1alpha1.FindCondition(m.Status.Conditions, v1alpha1.ConditionCertificates)
	if cond == nil {
		return l
	}
	l.Status, l.Message = cond.Reason, cond.Message
	rest, ok := strings.CutPrefix(cond.Message, validUntil)
	if !ok {
		return l
	}
	stamp, more, _ := strings.Cut(rest, "; ")
	if at, err := time.Parse(time.RFC3339, stamp); err == nil {
		l.NotAfter, l.Message = &at, more
	}
	return l
}

// kept is a certificate that lies in a Secret.
type kept struct{ of, secret, key string }

// keptOf are the certificates of a cluster that Quorate keeps: its CA's, or what it
// shows to an imported cluster.
func keptOf(cluster *v1alpha1.EtcdCluster) []kept {
	switch {
	case cluster.Observed() && cluster.Spec.Import != nil && cluster.Spec.Import.CredentialsSecretRef != "":
		name := cluster.Spec.Import.CredentialsSecretRef
		return []kept{{"CA", name, "ca.crt"}, {"client", name, "tls.crt"}}
	case cluster.Observed():
		return nil
	case cluster.Spec.TLS.Mode == v1alpha1.TLSGenerated:
		return []kept{{"CA", cluster.Name + "-ca", "tls.crt"}}
	case cluster.Spec.TLS.Mode == v1alpha1.TLSCASecret:
		return []kept{{"CA", cluster.Spec.TLS.CASecretRef, "tls.crt"}}
	}
	return nil // Quorate has no CA of such a cluster
}

// readKept reads a certificate from its Secret; nil where there is none, or it may
// not be read.
func readKept(ctx context.Context, c *remote.Client, cluster *v1alpha1.EtcdCluster, k kept) (*certificate, error) {
	ctx, cancel := call(ctx)
	defer cancel()
	secret := &v1alpha1.Secret{}
	err := c.Get(ctx, store.Key{Namespace: cluster.Namespace, Name: k.secret}, secret)
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrForbidden) || err == nil && len(secret.Data[k.key]) == 0 {
		return nil, nil //nolint:nilnil // it is not listed
	}
	if err != nil {
		return nil, err
	}
	l := &certificate{Namespace: cluster.Namespace, Cluster: cluster.Name, Of: k.of, Status: "Valid"}
	info, err := pki.Inspect(secret.Data[k.key])
	if err != nil {
		l.Status, l.Message = "Invalid", err.Error()
		return l, nil
	}
	l.NotAfter = &info.NotAfter
	if !time.Now().Before(info.NotAfter) {
		l.Status = "Expired"
	}
	return l, nil
}

type issueOptions struct {
	cluster   string
	name      string
	out       string
	ttl       time.Duration
	overwrite bool
	dryRun    bool
}

func certIssueCommand(e *env) *cobra.Command {
	var o issueOptions
	cmd := &cobra.Command{
		Use:   "issue -c CLUSTER --cn NAME --out DIRECTORY",
		Short: "Issue a client certificate for a cluster",
		Long: `Have the server sign a client certificate of a cluster, and write ` + certFile + `,
` + keyFile + ` and ` + caFile + ` to a directory, for you alone. The key is made here and
never leaves this machine.

Where the cluster has etcd's roles enabled, the common name is the etcd user that
the client acts as. Only an admin may issue certificates.`,
		Example: `  quorate cert issue -c playground --cn app --out app-tls
  quorate cert issue -c playground --cn app --out app-tls --ttl 720h --overwrite
  quorate cert issue -c playground --cn app --out app-tls --dry-run`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case o.cluster == "":
				return usagef(cmd, "-c is missing: the cluster that the client talks to")
			case o.name == "" || len(o.name) > 64:
				return usagef(cmd, "--cn is missing or too long: give the client a name of 1 to 64 characters")
			case o.out == "":
				return usagef(cmd, "--out is missing: the directory for certificate and key")
			case o.ttl <= 0:
				return usagef(cmd, "--ttl is %s: give how long the certificate is to be valid, such as 720h", o.ttl)
			}
			return e.certIssue(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.cluster, "cluster", "c", "", "the cluster that the client talks to")
	f.StringVar(&o.name, "cn", "", "common name: what the client is called")
	f.StringVar(&o.out, "out", "", "directory for the files; it is made where it does not exist")
	f.DurationVar(&o.ttl, "ttl", 24*time.Hour, "how long the certificate is valid, up to a year")
	f.BoolVar(&o.overwrite, "overwrite", false, "replace files that exist")
	f.BoolVar(&o.dryRun, "dry-run", false, "only check that it can be done, and say what would be written")
	e.completeClusters(cmd)
	return cmd
}

func (e *env) certIssue(ctx context.Context, o issueOptions) error {
	for _, name := range []string{certFile, keyFile, caFile} {
		path := filepath.Join(o.out, name)
		if _, err := os.Lstat(path); err == nil && !o.overwrite {
			return fmt.Errorf("%s: %w: choose another directory, or give --overwrite", path, fs.ErrExist)
		}
	}
	c, err := e.connect()
	if err != nil {
		return err
	}
	t := target{v1alpha1.KindCluster, e.cluster(o.cluster)}
	cluster, err := readCluster(ctx, c, t.key)
	if err != nil {
		return err
	}
	if err = mayIssue(t, cluster); err != nil {
		return err
	}
	if o.dryRun {
		e.printf("a certificate for %s, valid for %s, would be written to %s (dry run)\n", o.name, o.ttl, o.out)
		return nil
	}
	private, err := pki.NewKey()
	if err != nil {
		return err
	}
	csr, err := pki.NewRequest(private, o.name)
	if err != nil {
		return err
	}
	ctx, cancel := call(ctx)
	defer cancel()
	bundle, endpoints, err := c.ClientCertificate(ctx, t.key, csr, o.ttl)
	if err != nil {
		return named(t, err)
	}
	if err = os.MkdirAll(o.out, 0o700); err != nil {
		return fmt.Errorf("make the directory for the certificate (--out): %w", err)
	}
	for _, f := range []struct {
		name string
		data []byte
	}{{keyFile, private}, {caFile, bundle.CA}, {certFile, bundle.Certificate}} {
		if err = atomicfile.Write(filepath.Join(o.out, f.name), f.data, 0o600); err != nil {
			return fmt.Errorf("write the certificate: %w: choose another directory with --out", err)
		}
	}
	info, err := pki.Inspect(bundle.Certificate)
	if err != nil {
		return err
	}
	e.printf("%s, %s and %s are in %s: %s, valid until %s\n", certFile, keyFile, caFile, o.out, info.CommonName, info.NotAfter.UTC().Format(time.RFC3339))
	in := func(name string) string { return quoted(filepath.Join(o.out, name)) }
	e.errorf("use them so: etcdctl --endpoints %s --cacert %s --cert %s --key %s endpoint health\n",
		quoted(strings.Join(endpoints, ",")), in(caFile), in(certFile), in(keyFile))
	return nil
}

// mayIssue says why a cluster has no certificates to give.
func mayIssue(t target, cluster *v1alpha1.EtcdCluster) error {
	switch {
	case cluster.Observed():
		return fmt.Errorf("%s is imported, and Quorate has no CA to sign with: sign the client's certificate with the CA that its members trust: %w", t, store.ErrInvalid)
	case cluster.Spec.TLS.Mode == v1alpha1.TLSFiles:
		return fmt.Errorf("%s uses certificates from files (tls.mode Files), and Quorate has no CA to sign with: sign the client's with your own CA: %w", t, store.ErrInvalid)
	case cluster.Spec.TLS.Mode == v1alpha1.TLSDisabled:
		return fmt.Errorf("%s serves plain text (tls.mode Disabled): its clients need no certificate: %w", t, store.ErrInvalid)
	}
	return nil
}
