package app

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"filippo.io/age"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/fleet"
	"github.com/quorate/quorate/store"
)

// clusterForm says what a cluster needs to be backed up without a server.
const clusterForm = "set spec.management to Observe, and give spec.import with its endpoints and Backup under maintain"

// load puts the objects into the store, and says what is wrong with them.
func (f *BackupFile) load(ctx context.Context) error {
	var errs []error
	wrong := func(obj v1alpha1.Object, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s %s: %w: %w", v1alpha1.KindOf(obj).Kind, store.KeyOf(obj), fmt.Errorf(format, args...), store.ErrInvalid))
	}
	var policies []*v1alpha1.EtcdBackupPolicy
	for _, obj := range f.opts.Objects {
		switch o := obj.(type) {
		case *v1alpha1.EtcdBackupPolicy:
			policies = append(policies, o)
		case *v1alpha1.EtcdCluster, *v1alpha1.Secret:
		default:
			wrong(obj, "without a server, files hold EtcdBackupPolicies, EtcdClusters and Secrets: leave it out")
			continue
		}
		if err := admitBackups(obj); err != nil {
			errs = append(errs, fmt.Errorf("%s %s: %w", v1alpha1.KindOf(obj).Kind, store.KeyOf(obj), err))
			continue
		}
		err := f.store.Create(ctx, obj)
		if errors.Is(err, store.ErrExists) {
			err = nil
			wrong(obj, "the files have it twice: keep one of them")
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) == 0 && len(policies) == 0 {
		return fmt.Errorf("the files hold no EtcdBackupPolicy, which says when backups are taken and where they go: add one: %w", store.ErrInvalid)
	}
	for _, p := range policies {
		if p.Spec.Suspended {
			continue
		}
		f.policies = append(f.policies, p)
		f.checkPolicy(ctx, p, wrong)
	}
	if len(errs) == 0 && len(f.policies) == 0 {
		return fmt.Errorf("EtcdBackupPolicy %s: it is suspended, so nothing is to be done: set spec.suspended to false: %w", store.KeyOf(policies[0]), store.ErrForbidden)
	}
	return errors.Join(errs...)
}

type wrongFunc func(obj v1alpha1.Object, format string, args ...any)

// checkPolicy looks at what a policy names.
func (f *BackupFile) checkPolicy(ctx context.Context, p *v1alpha1.EtcdBackupPolicy, wrong wrongFunc) {
	selected := 0
	for _, obj := range f.opts.Objects {
		c, ok := obj.(*v1alpha1.EtcdCluster)
		if !ok || c.Namespace != p.Namespace || !selects(p, c) {
			continue
		}
		selected++
		f.selected[store.KeyOf(p)] = append(f.selected[store.KeyOf(p)], store.KeyOf(c))
		f.checkCluster(ctx, c, wrong)
	}
	const add = "add it to the files, or name the cluster by --endpoints URL --name NAME"
	switch {
	case selected > 0:
	case p.Spec.ClusterName != "":
		wrong(p, "spec.clusterName is %s, and the files have no EtcdCluster %s in namespace %s: %s", p.Spec.ClusterName, p.Spec.ClusterName, p.Namespace, add)
	default:
		wrong(p, "the files have no EtcdCluster in namespace %s with the labels of spec.selector: %s", p.Namespace, add)
	}
	for _, d := range p.Spec.Destinations {
		if d.CredentialsSecretRef != "" {
			f.secret(ctx, p, "destination "+d.Name, d.CredentialsSecretRef, wrong)
		}
	}
	if e := p.Spec.Encryption; e != nil && e.IdentitySecretRef != "" && p.Spec.Proof.Wanted() {
		secret := f.secret(ctx, p, "spec.encryption.identitySecretRef", e.IdentitySecretRef, wrong)
		if secret == nil {
			return
		}
		// The cause is left out: it could quote what is secret.
		if _, err := age.ParseIdentities(strings.NewReader(string(secret.Data[fleet.SecretIdentity]))); err != nil {
			wrong(p, "spec.encryption.identitySecretRef names the Secret %s, which has no age identity under the key %s: put the text of an identity file there, AGE-SECRET-KEY-1…",
				e.IdentitySecretRef, fleet.SecretIdentity)
		}
	}
}

// selects reports whether a policy backs a cluster of its namespace up.
func selects(p *v1alpha1.EtcdBackupPolicy, c *v1alpha1.EtcdCluster) bool {
	if p.Spec.ClusterName != "" {
		return p.Spec.ClusterName == c.Name
	}
	return p.Spec.Selector != nil && p.Spec.Selector.Matches(c.Labels)
}

func (f *BackupFile) checkCluster(ctx context.Context, c *v1alpha1.EtcdCluster, wrong wrongFunc) {
	switch {
	case !c.Observed() || c.Spec.Import == nil:
		wrong(c, "it is one that a Quorate server runs; without a server, clusters are reached as others run them: %s", clusterForm)
		return
	case !c.Allows(v1alpha1.MaintainBackup):
		wrong(c, "spec.import.maintain does not have Backup, and a snapshot holds every key in the cluster: add it once those who run the cluster allow it")
	case c.Spec.Suspended:
		wrong(c, "it is suspended: set spec.suspended to false, or have no policy select it")
	}
	var secret *v1alpha1.Secret
	if name := c.Spec.Import.CredentialsSecretRef; name != "" {
		if secret = f.secret(ctx, c, "spec.import.credentialsSecretRef", name, wrong); secret == nil {
			return
		}
	}
	if _, err := fleet.ImportAccess(c.Spec.Import, secret); err != nil {
		wrong(c, "Secret %s: %w", c.Spec.Import.CredentialsSecretRef, err)
	}
}

// secret that an object names; nil, which is told, where there is none.
func (f *BackupFile) secret(ctx context.Context, of v1alpha1.Object, where, name string, wrong wrongFunc) *v1alpha1.Secret {
	secret := &v1alpha1.Secret{}
	if err := f.store.Get(ctx, store.Key{Namespace: of.GetNamespace(), Name: name}, secret); err != nil {
		wrong(of, "%s names the Secret %s, which the files do not have in namespace %s: add it to them", where, name, of.GetNamespace())
		return nil
	}
	return secret
}

// Lock makes this process the only one of this machine that follows these policies for
// these clusters and destinations, until Close. The error is store.ErrForbidden where
// another one does.
func (f *BackupFile) Lock() error {
	if err := os.MkdirAll(f.spool, 0o700); err != nil {
		return fmt.Errorf("spool: %w: name another directory with --spool-dir", err)
	}
	for _, p := range f.policies {
		for _, cluster := range f.selected[store.KeyOf(p)] {
			for _, d := range p.Spec.Destinations {
				if err := f.lockOne(store.KeyOf(p), cluster, d.URL); err != nil {
					return errors.Join(err, f.Close())
				}
			}
		}
	}
	return nil
}

// lockOne holds what one policy does with one cluster in one store. The file stays:
// removing it would let two processes lock two files of one name.
func (f *BackupFile) lockOne(policy, cluster store.Key, url string) error {
	const shown = 8
	sum := sha256.Sum256([]byte(policy.String() + "\x00" + cluster.String() + "\x00" + url))
	path := filepath.Join(f.spool, "policy-"+hex.EncodeToString(sum[:shown])+".lock")
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) //nolint:gosec // below our own directory
	if err != nil {
		return fmt.Errorf("lock the policy: %w: name another directory with --spool-dir", err)
	}
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	switch {
	case errors.Is(err, unix.EWOULDBLOCK):
		const most = 32
		holder, _ := io.ReadAll(io.LimitReader(file, most)) // only to help: the lock itself has said no
		who := "another process"
		if pid := strings.TrimSpace(string(holder)); pid != "" {
			who += " (pid " + pid + ")"
		}
		err = fmt.Errorf("%s follows policy %s for cluster %s already: two would prune what the other takes: wait for it, or stop it first: %w", who, policy, cluster, store.ErrForbidden)
	case err == nil:
		err = errors.Join(file.Truncate(0), writePID(file))
	}
	if err != nil {
		return errors.Join(err, file.Close())
	}
	f.locks = append(f.locks, file)
	return nil
}

func writePID(file *os.File) error {
	_, err := fmt.Fprintf(file, "%d\n", os.Getpid())
	return err
}
