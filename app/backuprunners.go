package app

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"time"
	_ "time/tzdata" // schedules have time zones, and a host may not know them

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/backup"
	"github.com/quorate/quorate/backup/bucket"
	"github.com/quorate/quorate/fleet"
	"github.com/quorate/quorate/store"
)

// backupsAtOnce is how many backups a server takes at the same time. Each may fill a
// network and takes the room of a database twice.
const backupsAtOnce = 2

// composeBackups makes what takes backups.
func (s *Server) composeBackups(credentials fleet.Credentials, releases catalog, metrics prometheus.Registerer) error {
	engine, err := newBackups(s.paths, releases, s.opts.Logger)
	if err != nil {
		return err
	}
	name, err := serverName(s.paths.server())
	if err != nil {
		return err
	}
	s.backups, err = fleet.NewBackupController(fleet.BackupOptions{
		Store: s.store, Backups: engine, Credentials: credentials, Recorder: s.store, Logger: s.opts.Logger, Server: name, Registerer: metrics,
	})
	if err != nil {
		return err
	}
	s.restores = fleet.NewRestoreController(fleet.RestoreOptions{
		Store: s.store, Restores: engine, Settings: s.backups, Clusters: s.clusters, Recorder: s.store, Logger: s.opts.Logger,
	})
	return nil
}

// restoreRunner carries restores out: a worker may be busy with a proof for hours.
func (s *Server) restoreRunner() *fleet.Runner {
	const workers, patience = 4, 24 * time.Hour
	return &fleet.Runner{
		Name: "restore", Reconcile: s.restores.Reconcile, Workers: workers, Timeout: patience, Logger: s.opts.Logger,
		Sources: []fleet.Source{s.watch(v1alpha1.KindRestore)},
	}
}

// serverName is the same for every process that uses the directory, one after another,
// and another one elsewhere.
func serverName(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	host, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("the name of this host: %w", err)
	}
	const shown = 4
	sum := sha256.Sum256([]byte(host + "\x00" + dir))
	return host + "/" + hex.EncodeToString(sum[:shown]), nil
}

// policyRunner orders the backups that are due.
func (s *Server) policyRunner() *fleet.Runner {
	const workers, patience = 4, 5 * time.Minute
	return &fleet.Runner{
		Name: "backuppolicy", Reconcile: s.backups.ReconcilePolicy, Workers: workers, Timeout: patience, Logger: s.opts.Logger,
		Sources: []fleet.Source{s.watch(v1alpha1.KindBackupPolicy), policiesOfBackups(s.store)},
	}
}

// backupRunner takes them. The controller bounds each stage by itself.
func (s *Server) backupRunner() *fleet.Runner {
	const patience = 7 * 24 * time.Hour
	return &fleet.Runner{
		Name: "backup", Reconcile: s.backups.ReconcileBackup, Workers: backupsAtOnce, Timeout: patience, Logger: s.opts.Logger,
		Sources: []fleet.Source{s.watch(v1alpha1.KindBackup)},
	}
}

// policiesOfBackups yields the policy of each backup whose phase changes: one that runs
// says every few seconds that it does.
func policiesOfBackups(records store.Store) fleet.Source {
	return func(ctx context.Context) <-chan store.Key {
		out := make(chan store.Key)
		go func() {
			defer close(out)
			phases := map[store.Key]v1alpha1.BackupPhase{}
			for key := range records.Watch(ctx, v1alpha1.KindBackup, "") {
				b := &v1alpha1.EtcdBackup{}
				if err := records.Get(ctx, key, b); err != nil {
					// A policy is looked at every minute all the same.
					delete(phases, key)
					continue
				}
				was, known := phases[key]
				if phases[key] = b.Status.Phase; known && was == b.Status.Phase || b.Spec.PolicyName == "" {
					continue
				}
				select {
				case out <- store.Key{Namespace: key.Namespace, Name: b.Spec.PolicyName}:
				case <-ctx.Done():
				}
			}
		}()
		return out
	}
}

// admitBackups refuses what would fail each time it runs.
func admitBackups(obj v1alpha1.Object) error {
	var destinations []v1alpha1.BackupDestination
	var encryption *v1alpha1.BackupEncryption
	switch o := obj.(type) {
	case *v1alpha1.EtcdBackupPolicy:
		if _, err := fleet.NewBackupSchedule(o.Spec.Schedule); err != nil {
			return fmt.Errorf("spec.schedule: %w: %w", err, store.ErrInvalid)
		}
		destinations, encryption = o.Spec.Destinations, o.Spec.Encryption
	case *v1alpha1.EtcdBackup:
		destinations, encryption = o.Spec.Destinations, o.Spec.Encryption
	case *v1alpha1.EtcdRestore:
		if d := o.Spec.Source.Destination; d != nil {
			destinations = []v1alpha1.BackupDestination{*d}
		}
	}
	seen := map[string]string{}
	for i, d := range destinations {
		at := fmt.Sprintf("spec.destinations[%d]", i)
		if _, restore := obj.(*v1alpha1.EtcdRestore); restore {
			at = "spec.source.destination"
		}
		config, err := bucket.Parse(d.URL)
		if err != nil {
			return fmt.Errorf("%s.url: %w: %w", at, err, store.ErrInvalid)
		}
		url := config.String()
		if other, twice := seen[url]; twice {
			return fmt.Errorf("%s.url: %s and %s are the same store: one copy is no second one: %w", at, other, d.Name, store.ErrInvalid)
		}
		seen[url] = d.Name
		if config.Provider == bucket.File && d.CredentialsSecretRef != "" {
			return fmt.Errorf("%s.credentialsSecretRef: a directory needs no credentials: leave it out: %w", at, store.ErrInvalid)
		}
	}
	if encryption == nil {
		return nil
	}
	if _, err := backup.ParseRecipients(encryption.Recipients); err != nil {
		return fmt.Errorf("spec.encryption.recipients: %w: %w", err, store.ErrInvalid)
	}
	return nil
}
