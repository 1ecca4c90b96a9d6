package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/app"
	"github.com/quorate/quorate/backup"
	"github.com/quorate/quorate/backup/bucket"
	"github.com/quorate/quorate/backup/catalog"
	"github.com/quorate/quorate/check"
	"github.com/quorate/quorate/etcd"
	"github.com/quorate/quorate/internal/version"
	"github.com/quorate/quorate/store"
)

const (
	// spoolName is where backups lie while they are taken, tried or read, below the data
	// directory.
	spoolName = "spool"
	// schemeMark ends the scheme of a store's URL.
	schemeMark = "://"
	fileScheme = "file" + schemeMark
)

var (
	// errUnsound: a backup failed its proof, or a snapshot its check.
	errUnsound = errors.New("the proof failed")
	// errUnanswered: no member of the cluster answers.
	errUnanswered = app.ErrUnanswered
	// errRefusedKeys: keys were not put back, which was printed.
	errRefusedKeys = errors.New("not put back")
)

var backupForms = []string{outTable, outJSON, outYAML}

func backupCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "backup",
		Short: "Back up any etcd cluster, prove each backup by a restore, and look into it",
		Long: `Take backups of etcd clusters into directories and object stores, and work with
them. It needs no server: what a store holds is learned from the store alone.

A store is named by a URL, or by the path of a directory that exists:

  ./backups  /mnt/backups  file:///mnt/backups
  s3://bucket/prefix?region=eu-west-1
  s3://bucket/prefix?endpoint=minio.example.com:9000&ca=/etc/minio.pem
  cos://bucket-1250000000/prefix?region=ap-guangzhou
  oss://bucket/prefix?region=cn-hangzhou
  gs://bucket/prefix
  azblob://container/prefix?account=name

Credentials come from the environment (AWS_ACCESS_KEY_ID and so on), from
--credentials-file, or from the machine's own identity.

A backup is named by its ID, by the eight digits at the end of it, by "latest", or
by "latest-proven". "quorate restore" makes data directories of one.`,
		Example: `  quorate backup run -c playground --to ./backups
  quorate backup list ./backups
  quorate backup verify ./backups latest`,
		Args: argsBetween(0, 0, ""),
		RunE: runGroup,
	}
	cmd.AddCommand(backupRunCommand(e), backupListCommand(e), backupShowCommand(e), backupVerifyCommand(e), backupCopyCommand(e),
		backupPruneCommand(e), backupBrowseCommand(e), backupDiffCommand(e), backupPutBackCommand(e))
	return cmd
}

// storeFlags say how stores are worked with.
type storeFlags struct {
	credentialsFile string
	instance        bool
	spoolDir        string
	identityFile    string
	rate            byteSize
	// log gets the store's warnings; stderr if nil.
	log io.Writer
}

// bind adds the flags of every command that reads a store.
func (s *storeFlags) bind(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&s.credentialsFile, "credentials-file", "", "file with the store's credentials, as NAME=VALUE lines or JSON, that only its owner reads (default: the environment)")
	f.BoolVar(&s.instance, "instance-credentials", false, "take the credentials that the cloud gives to this machine")
}

// bindData adds the flags of commands that also read what is in a backup.
func (s *storeFlags) bindData(cmd *cobra.Command) {
	s.bind(cmd)
	f := cmd.Flags()
	f.StringVar(&s.spoolDir, "spool-dir", "", "directory with room for the database, where it lies meanwhile (default: "+spoolName+" in the data directory)")
	f.StringVar(&s.identityFile, "identity-file", "", "file with the age identity that opens encrypted backups")
	_ = cmd.MarkFlagDirname("spool-dir") // the command has that flag
}

// spool is the directory where a backup lies meanwhile.
func (e *env) spool(s *storeFlags) (string, error) {
	dir := s.spoolDir
	if dir == "" {
		dir = filepath.Join(e.home(), spoolName)
	}
	return filepath.Abs(dir)
}

// storeConfig reads a store's URL, or the path of a directory.
func storeConfig(cmd *cobra.Command, text string) (bucket.Config, error) {
	if !strings.Contains(text, schemeMark) {
		if text == "" {
			return bucket.Config{}, usagef(cmd, "the store's URL is empty: give one such as s3://bucket/prefix?region=eu-west-1, or a directory")
		}
		dir, err := filepath.Abs(text)
		if err != nil {
			return bucket.Config{}, err
		}
		c := bucket.Config{Provider: bucket.File, Prefix: dir}
		if err = c.Validate(); err != nil {
			return c, usagef(cmd, "%v", err)
		}
		return c, nil
	}
	c, err := bucket.Parse(text)
	if err != nil {
		return c, usagef(cmd, "%v", err)
	}
	return c, nil
}

// openStore makes a store ready. Close it.
func (e *env) openStore(cmd *cobra.Command, text string, s *storeFlags, spool string) (bucket.Bucket, error) {
	c, err := storeConfig(cmd, text)
	if err != nil {
		return nil, err
	}
	o := bucket.Options{Credentials: bucket.Environment(), UploadRate: int64(s.rate), DownloadRate: int64(s.rate), SpoolDir: spool}
	switch {
	case s.instance && s.credentialsFile != "":
		return nil, usagef(cmd, "--credentials-file and --instance-credentials both say who asks: give one of them")
	case c.Provider == bucket.File:
	case s.instance:
		o.Credentials = bucket.Instance()
	case s.credentialsFile != "":
		values, readErr := readCredentials(s.credentialsFile, c.Provider)
		if readErr != nil {
			return nil, fmt.Errorf("--credentials-file: %w", readErr)
		}
		o.Credentials = bucket.Explicit(values)
	}
	if spool != "" && c.Provider != bucket.File {
		if err = os.MkdirAll(spool, 0o700); err != nil {
			return nil, fmt.Errorf("spool: %w", err)
		}
	}
	to := s.log
	if to == nil {
		to = e.Err
	}
	if o.Log, err = e.logger(slog.LevelWarn, to); err != nil {
		return nil, err
	}
	b, err := bucket.Open(cmd.Context(), c, o)
	if _, ofStore := errors.AsType[*bucket.Error](err); err != nil && !ofStore && o.Credentials.String() == bucket.Environment().String() {
		return nil, fmt.Errorf("%w; --credentials-file and --instance-credentials are other ways to give them", err)
	}
	return b, err
}

// clusterAccess is a cluster that is backed up or compared.
type clusterAccess struct {
	etcd.Access
	// name is that of the server's object; zero where endpoints were given.
	name catalog.Cluster
	// observed: Quorate is not to write to it.
	observed bool
	// backups of it are allowed.
	backups bool
}

func (c *clusterAccess) String() string {
	if c.name.Name != "" {
		return c.name.String()
	}
	return strings.Join(c.Endpoints, ",")
}

// clusterOf says how the cluster of the flags is reached.
func (e *env) clusterOf(cmd *cobra.Command, t doctorOptions) (*clusterAccess, error) {
	if t.cluster != "" {
		return e.fleetAccess(cmd.Context(), t)
	}
	target, err := e.doctorTarget(cmd.Context(), t)
	if err != nil {
		return nil, err
	}
	out := &clusterAccess{}
	out.Username, out.Password, err = passwordOf(&t)
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the file of --password-file: %w", err)
	case out.Username != "" && out.Password == "":
		return nil, usagef(cmd, "--user is %s and there is no password: give --password-file FILE, put it into %s, or give --user NAME:PASSWORD", out.Username, envEtcdPassword)
	}
	if out.TLS, err = clientTLS(target.CA, target.Certificate, target.Key); err != nil {
		return nil, usagef(cmd, "%v", err)
	}
	if out.Endpoints, err = check.Endpoints(target.Endpoints, len(target.CA) > 0 || len(target.Certificate) > 0); err != nil {
		return nil, usagef(cmd, "%s", reason(err))
	}
	return out, nil
}

// fleetAccess asks the server for endpoints and for a certificate that outlives a
// backup.
func (e *env) fleetAccess(ctx context.Context, t doctorOptions) (*clusterAccess, error) {
	c, err := e.connect()
	if err != nil {
		return nil, err
	}
	key := e.cluster(t.cluster)
	cluster, err := readCluster(ctx, c, key)
	if err != nil {
		return nil, err
	}
	pass, err := passTo(ctx, c, cluster, etcdctlTTL)
	if err != nil {
		return nil, named(target{v1alpha1.KindCluster, key}, err)
	}
	endpoints := pass.endpoints
	if len(t.endpoints) > 0 {
		endpoints = t.endpoints
	}
	if len(endpoints) == 0 {
		return nil, fmt.Errorf("%s has no members that listen yet: `quorate describe cluster %s%s` says why", label(v1alpha1.KindCluster, key.Name), key.Name, inNamespace(key.Namespace))
	}
	out := &clusterAccess{name: catalog.Cluster{Namespace: key.Namespace, Name: key.Name}, observed: cluster.Observed(), backups: cluster.Allows(v1alpha1.MaintainBackup)}
	if out.TLS, err = clientTLS(pass.bundle.CA, pass.bundle.Certificate, pass.key); err != nil {
		return nil, err
	}
	out.TLS.ServerName = pass.serverName
	out.Username, out.Password = pass.user, pass.password
	out.Endpoints, err = check.Endpoints(endpoints, len(pass.bundle.CA) > 0)
	return out, err
}

// survey asks the cluster once.
func (c *clusterAccess) survey(ctx context.Context) (etcd.Survey, error) {
	s := etcd.NewSurveyor(c.Access)
	defer s.Close()
	found := s.Survey(ctx, 0)
	if found.ClusterID != 0 {
		return found, nil
	}
	causes := make([]string, 0, len(found.Deaf))
	for _, f := range found.Deaf {
		causes = append(causes, f.String())
	}
	return found, fmt.Errorf("%s: %w: %s", c, errUnanswered, strings.Join(causes, "; "))
}

// dial makes a client of the cluster. Close it.
func (c *clusterAccess) dial() (*clientv3.Client, error) {
	const dialTime = 5 * time.Second
	cfg := clientv3.Config{
		Endpoints: c.Endpoints, TLS: c.TLS, Username: c.Username, Password: c.Password, DialTimeout: dialTime, Logger: zap.NewNop(),
	}
	if c.TLS != nil && c.TLS.ServerName != "" {
		cfg.DialOptions = append(cfg.DialOptions, grpc.WithAuthority(c.TLS.ServerName))
	}
	client, err := clientv3.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", c, err)
	}
	return client, nil
}

// refuseObserved keeps writes away from a cluster that is only looked at.
func (c *clusterAccess) refuseObserved() error {
	if !c.observed {
		return nil
	}
	return fmt.Errorf("%s is only observed, and Quorate does not write to it: name it by --endpoints: %w", c, store.ErrForbidden)
}

// refuseUnasked keeps snapshots away from a cluster of the server whose owner has not
// allowed them.
func (c *clusterAccess) refuseUnasked() error {
	if !c.observed || c.backups {
		return nil
	}
	return fmt.Errorf("%s is only observed, and nobody has allowed backups of it: add Backup to spec.import.maintain, or name it by --endpoints: %w", c, store.ErrForbidden)
}

// scratchEtcd is the etcd that backups are tried on: the one in this binary, unless
// another one is named.
func scratchEtcd(ctx context.Context, path string) (backup.EtcdCommand, error) {
	if path == "" {
		// By this link, since the file may have been replaced meanwhile.
		return backup.EtcdCommand{Path: "/proc/self/exe", Name: nameEtcd, Version: version.Etcd()}, nil
	}
	found, err := exec.LookPath(path)
	if err != nil {
		return backup.EtcdCommand{}, fmt.Errorf("--etcd: %w", err)
	}
	if found, err = filepath.Abs(found); err != nil {
		return backup.EtcdCommand{}, fmt.Errorf("--etcd: %w", err)
	}
	v, err := askVersion(ctx, found)
	if err != nil {
		return backup.EtcdCommand{}, fmt.Errorf("--etcd: %w", err)
	}
	return backup.EtcdCommand{Path: found, Name: nameEtcd, Version: v}, nil
}

var etcdVersionLine = regexp.MustCompile(`(?m)^etcd Version: (\d+\.\d+\.\d+\S*)$`)

// askVersion asks an executable which etcd it is.
func askVersion(ctx context.Context, path string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "--version")
	cmd.Args[0] = nameEtcd // Quorate's own binary is etcd under this name
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s --version: %w", path, err)
	}
	found := etcdVersionLine.FindSubmatch(out)
	if found == nil {
		return "", fmt.Errorf("%s --version says %.80q: it is no etcd", path, strings.TrimSpace(string(out)))
	}
	return string(found[1]), nil
}
