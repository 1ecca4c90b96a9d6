package cli

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/app"
	"github.com/quorate/quorate/server"
)

func serverCommand(e *env) *cobra.Command {
	var o app.ServerOptions
	cmd := &cobra.Command{
		Use:   "server",
		Short: "Run the server: the store, the API and the fleet's controllers",
		Long: `Run the server until it is told to stop. It keeps the fleet's objects in an etcd of
its own, or in one that runs elsewhere, and serves the API with bearer tokens. Any
address that is not loopback demands TLS: with --tls-self-made the server makes a CA
and a certificate by itself, which agents learn of when they join. Certificates in
files are taken up as they change.

How to reach it is written to client.json in the data directory, for its own user.`,
		Example: `  quorate server
  quorate server --listen 10.0.0.2:7379 --tls-self-made --tls-names quorate.example.com
  quorate server --listen 10.0.0.2:7379 --tls-cert-file server.crt --tls-key-file server.key
  quorate server --discovery-listen 10.0.0.2:7382 --dns-listen 10.0.0.2:53
  quorate server --store-endpoints https://10.0.0.3:2379 --store-ca-file ca.crt`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return e.runServer(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Listen, "listen", app.DefaultListen, "address of the API")
	f.StringVar(&o.TLSCertFile, "tls-cert-file", "", "certificate of the API")
	f.StringVar(&o.TLSKeyFile, "tls-key-file", "", "key of that certificate")
	f.StringVar(&o.TLSCAFile, "tls-ca-file", "", "CA that agents are to know the API by (default: as the last certificate in --tls-cert-file says)")
	f.BoolVar(&o.TLSSelfMade, "tls-self-made", false, "make a CA and a certificate for the API, in the data directory, and renew it")
	f.StringSliceVar(&o.TLSNames, "tls-names", nil, "with --tls-self-made: further DNS names and addresses by which the API is called")
	f.DurationVar(&o.AgentValidity, "agent-validity", server.AgentValidity, "how long the certificates of agents last; they are renewed when two thirds are over")
	f.StringSliceVar(&o.StoreEndpoints, "store-endpoints", nil, "etcd that keeps the fleet's objects (default: an embedded one)")
	f.StringVar(&o.StoreCAFile, "store-ca-file", "", "CA of that etcd")
	f.StringVar(&o.StoreCertFile, "store-cert-file", "", "client certificate for it")
	f.StringVar(&o.StoreKeyFile, "store-key-file", "", "key of that certificate")
	f.StringVar(&o.StoreUser, "store-user", "", "user of that etcd")
	f.StringVar(&o.StorePasswordFile, "store-password-file", "", "file with the user's password")
	f.StringVar(&o.SealingKeyFile, "sealing-key-file", "", "keys that seal Secrets (default: server/sealing.key in the data directory)")
	f.StringVar(&o.DiscoveryListen, "discovery-listen", "", "address of a discovery service for clusters that are formed with mode Discovery (default: none)")
	f.StringVar(&o.DiscoveryURL, "discovery-url", "", "where members reach it (default: https:// and that address)")
	f.StringVar(&o.DNSListen, "dns-listen", "", "address of a name server for the domains of clusters that are formed with mode DNS (default: none)")
	cmd.AddCommand(serverBackupCommand(e), serverRestoreCommand(e), rotateKeyCommand(e), tokenCommand(e))
	return cmd
}

func (e *env) runServer(ctx context.Context, o app.ServerOptions) error {
	var err error
	if o.Logger, err = e.logger(slog.LevelInfo, e.Err); err != nil {
		return err
	}
	if o.DataDir, err = filepath.Abs(e.home()); err != nil {
		return err
	}
	return app.RunServer(ctx, o, func(url string) {
		o.Logger.InfoContext(ctx, "serving", slog.String("url", url), slog.String("data_dir", o.DataDir))
	})
}

func serverBackupCommand(e *env) *cobra.Command {
	var overwrite bool
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Back up the fleet's store while the server runs",
		Long: `Write a backup of the fleet's store to a file, and check it by reading it again.
The file appears whole or not at all, and only you can read it. "-" is the standard
output, where only the exit code says that all of it was written.

The sealing key is not in it: keep a copy of server/sealing.key elsewhere. Without
that key the Secrets in the backup can't be opened.`,
		Example: `  quorate server backup fleet-2026-11-20.tar
  quorate --server https://quorate.example.com:7379 --token-file token server backup fleet.tar
  quorate server backup - > fleet.tar`,
		Args: argsBetween(1, 1, "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.serverBackup(cmd, args[0], overwrite)
		},
	}
	cmd.Flags().BoolVar(&overwrite, "overwrite", false, "replace the file if it exists")
	return cmd
}

func (e *env) serverBackup(cmd *cobra.Command, file string, overwrite bool) error {
	if file == "-" {
		return e.serverBackupOut(cmd)
	}
	if _, err := os.Lstat(file); err == nil && !overwrite {
		return fmt.Errorf("%s: %w: choose another name, or give --overwrite", file, fs.ErrExist)
	}
	c, err := e.connect()
	if err != nil {
		return err
	}
	from, err := c.Backup(cmd.Context())
	if err != nil {
		return err
	}
	done := e.slowly("reading the store and checking what was read")
	m, err := saveBackup(file, from)
	done()
	if err != nil {
		return fmt.Errorf("back up the store to %s: %w", file, err)
	}
	e.printf("%s holds %s: revision %d of epoch %d, checked\n", file, countsText(m.ObjectCounts), m.Revision, m.Epoch.Number)
	e.errorf("%s\n", keepSealingKey)
	return nil
}

const keepSealingKey = "keep a copy of the sealing key elsewhere (server/sealing.key in the server's data directory): without it Secrets can't be opened"

// serverBackupOut writes a backup to stdout, and checks it as it goes by.
func (e *env) serverBackupOut(cmd *cobra.Command) error {
	if isTerminal(e.Out) {
		return usagef(cmd, "a backup is nothing for a terminal: name a file, or redirect the output")
	}
	c, err := e.connect()
	if err != nil {
		return err
	}
	from, err := c.Backup(cmd.Context())
	if err != nil {
		return err
	}
	done := e.slowly("reading the store and checking what was read")
	m, err := passBackup(e.Out, from)
	done()
	if err != nil {
		return fmt.Errorf("back up the store to the standard output: %w: throw away what was written", err)
	}
	e.errorf("the backup holds %s: revision %d of epoch %d, checked\n%s\n", countsText(m.ObjectCounts), m.Revision, m.Epoch.Number, keepSealingKey)
	return nil
}

func serverRestoreCommand(e *env) *cobra.Command {
	var o app.ServerRestoreOptions
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Put the fleet's store back from a backup, offline",
		Long: `Make the store in the data directory anew from a backup. The server must not run.
A store that is there is moved aside, never removed. Members are not touched and
keep serving.

Afterwards every cluster is held still, since the store may be older than what
runs, until you have read and accepted its plan: "quorate plan NAME --accept".`,
		Example: `  quorate server restore fleet-2026-11-20.tar --dry-run
  quorate server restore fleet-2026-11-20.tar --sealing-key-file sealing.key`,
		Args: argsBetween(1, 1, "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Archive = args[0]
			if dryRun {
				return e.inspectBackup(o)
			}
			return e.serverRestore(cmd.Context(), o)
		},
	}
	cmd.Flags().StringVar(&o.SealingKeyFile, "sealing-key-file", "", "keys that open its Secrets (default: server/sealing.key in the data directory)")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only check the backup and say what it holds")
	return cmd
}

func (e *env) serverRestore(ctx context.Context, o app.ServerRestoreOptions) (err error) {
	if o.Logger, err = e.logger(slog.LevelWarn, e.Err); err != nil {
		return err
	}
	if o.DataDir, err = filepath.Abs(e.home()); err != nil {
		return err
	}
	done := e.slowly("making the store from the backup")
	r, err := app.RestoreServer(ctx, o)
	done()
	if err != nil {
		return err
	}
	e.printf("restored %s from a backup that is %s old; epoch %d begins\n",
		countsText(r.Manifest.ObjectCounts), r.Age.Round(time.Second), r.Epoch.Number)
	if r.Aside != "" {
		e.printf("the store that was there is kept in %s\n", r.Aside)
	}
	if r.Suspended > 0 {
		are := "clusters are"
		if r.Suspended == 1 {
			are = "cluster is"
		}
		e.printf("%d %s held still: start the server, and accept each with `%s`\n",
			r.Suspended, are, e.self(o.DataDir)+" plan NAME --accept")
	}
	return nil
}

// inspectBackup is the dry run of a restore.
func (e *env) inspectBackup(o app.ServerRestoreOptions) error {
	m, err := checkBackup(o.Archive)
	if err != nil {
		return err
	}
	e.printf("%s is whole: %s, revision %d of epoch %d, made %s by quorate %s\n", o.Archive, countsText(m.ObjectCounts),
		m.Revision, m.Epoch.Number, m.Created.Format(time.RFC3339), m.QuorateVersion)
	e.printf("nothing was changed (dry run)\n")
	return nil
}

func rotateKeyCommand(e *env) *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "rotate-key",
		Short: "Seal every Secret with a new key",
		Long: `Have the server make a new sealing key, seal every Secret with it and drop the keys
that nothing uses any more. It may be run again at any time, also after it was
interrupted. Copy the sealing key's file anew afterwards: older copies open older
backups only.`,
		Example: `  quorate server rotate-key
  quorate server rotate-key --dry-run`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := e.connect()
			if err != nil {
				return err
			}
			if dryRun {
				ctx, cancel := call(cmd.Context())
				defer cancel()
				v, verr := c.Version(ctx)
				if verr == nil {
					e.printf("the server %s (quorate %s) would seal every Secret anew (dry run)\n", c.Server(), v)
				}
				return verr
			}
			done := e.slowly("sealing every Secret with a new key")
			n, err := c.RotateKey(cmd.Context())
			done()
			if err != nil {
				return err
			}
			are := "Secrets are"
			if n == 1 {
				are = "Secret is"
			}
			e.printf("%d %s sealed with a new key: copy the sealing key's file anew\n", n, are)
			return nil
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would be done")
	return cmd
}

// countsText is such as "1 etcdcluster, 3 etcdmembers".
func countsText(counts map[string]int) string {
	var parts []string
	for _, kind := range v1alpha1.Kinds() {
		switch n := counts[kind.Plural]; {
		case n == 1:
			parts = append(parts, "1 "+strings.ToLower(kind.Kind))
		case n > 1:
			parts = append(parts, fmt.Sprintf("%d %s", n, kind.Plural))
		}
	}
	if len(parts) == 0 {
		return "no objects"
	}
	return strings.Join(parts, ", ")
}
