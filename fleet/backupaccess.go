package fleet

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/etcd"
	"github.com/quorate/quorate/store"
)

// SecretIdentity is the key of an age identity in the Secret that
// encryption.identitySecretRef names.
const SecretIdentity = "identity"

// Reasons why there can be no backup.
const (
	reasonNotAllowed  = "NotAllowed"
	reasonNotFormed   = "NotFormed"
	reasonSuspended   = "Suspended"
	reasonNoCluster   = "NoCluster"
	reasonNoPolicy    = "NoPolicy"
	reasonNoTLS       = "NoClientCertificate"
	reasonBadSettings = "InvalidSpec"
)

// mayBackUp says why a cluster can't be backed up now; nil if it can.
func mayBackUp(c *v1alpha1.EtcdCluster) *problem {
	switch {
	case c.DeletionTimestamp != nil:
		return &problem{reasonNoCluster, fmt.Sprintf("cluster %s is being deleted", c.Name)}
	case !c.Allows(v1alpha1.MaintainBackup):
		return &problem{reasonNotAllowed, fmt.Sprintf(
			"cluster %s is run by others, who have to allow that it is backed up: a snapshot holds every key in it. Add Backup to its spec.import.maintain once they have", c.Name)}
	case c.Spec.Suspended:
		return &problem{reasonSuspended, fmt.Sprintf("cluster %s is suspended: its members are stopped", c.Name)}
	case c.Status.ClusterID == "" || len(c.Status.Endpoints) == 0 && !c.Observed():
		return &problem{reasonNotFormed, fmt.Sprintf("cluster %s has not answered yet: nobody knows its cluster ID", c.Name)}
	}
	return nil
}

// backupsOf names the backups of a cluster in the stores.
func backupsOf(c *v1alpha1.EtcdCluster) (BackupsOf, error) {
	id, err := etcd.ParseID(c.Status.ClusterID)
	return BackupsOf{Namespace: c.Namespace, Cluster: c.Name, ClusterID: id}, err
}

// reach says how a cluster is reached for a backup.
func (c *BackupController) reach(ctx context.Context, cluster *v1alpha1.EtcdCluster) (etcd.Access, *problem, error) {
	if !cluster.Observed() {
		config, err := c.opts.Credentials.ClientTLS(ctx, cluster)
		if err != nil {
			if errors.Is(err, store.ErrUnavailable) || ctx.Err() != nil {
				return etcd.Access{}, nil, err
			}
			return etcd.Access{}, &problem{reasonNoTLS, err.Error()}, nil
		}
		return etcd.Access{Endpoints: cluster.Status.Endpoints, TLS: config}, nil, nil
	}
	var secret *v1alpha1.Secret
	if name := cluster.Spec.Import.CredentialsSecretRef; name != "" {
		var wrong *problem
		var err error
		if secret, wrong, err = c.secret(ctx, cluster.Namespace, name, "import.credentialsSecretRef of cluster "+cluster.Name); secret == nil {
			return etcd.Access{}, wrong, err
		}
	}
	access, err := ImportAccess(cluster.Spec.Import, secret)
	if err != nil {
		return access, &problem{reasonBadCredentials, fmt.Sprintf("cluster %s: Secret %s: %v", cluster.Name, cluster.Spec.Import.CredentialsSecretRef, err)}, nil
	}
	return access, nil, nil
}

// secret reads a Secret; nil with why there is none.
func (c *BackupController) secret(ctx context.Context, namespace, name, where string) (*v1alpha1.Secret, *problem, error) {
	secret := &v1alpha1.Secret{}
	err := c.opts.Store.Get(ctx, store.Key{Namespace: namespace, Name: name}, secret)
	if errors.Is(err, store.ErrNotFound) {
		return nil, &problem{reasonNoCredentials, fmt.Sprintf("%s names the Secret %s, which does not exist in namespace %s: apply it", where, name, namespace)}, nil
	}
	if err != nil {
		return nil, nil, err
	}
	return secret, nil, nil
}

// stores makes destinations ready to be used. The first that can't be is the problem.
func (c *BackupController) stores(ctx context.Context, namespace string, destinations []v1alpha1.BackupDestination) ([]BackupStore, *problem, error) {
	all := make([]BackupStore, 0, len(destinations))
	for i := range destinations {
		s, wrong, err := c.storeOf(ctx, namespace, &destinations[i])
		if wrong != nil || err != nil {
			return nil, wrong, err
		}
		all = append(all, s)
	}
	return all, nil, nil
}

func (c *BackupController) storeOf(ctx context.Context, namespace string, d *v1alpha1.BackupDestination) (BackupStore, *problem, error) {
	s := BackupStore{Name: d.Name, URL: d.URL, From: d.CredentialsFrom, Compliance: d.Compliance}
	var badRate, badLock error
	s.UploadRate, badRate = d.UploadBytes()
	s.LockFor, badLock = durationOr(d.LockFor, 0)
	if err := errors.Join(badRate, badLock); err != nil {
		return s, &problem{reasonBadSettings, fmt.Sprintf("destination %s: uploadRate or lockFor: %v", d.Name, err)}, nil
	}
	if d.CredentialsSecretRef == "" {
		return s, nil, nil
	}
	secret, wrong, err := c.secret(ctx, namespace, d.CredentialsSecretRef, "destination "+d.Name)
	if secret == nil {
		return s, wrong, err
	}
	s.Credentials = make(map[string]string, len(secret.Data))
	for name, value := range secret.Data {
		s.Credentials[name] = string(value)
	}
	return s, nil, nil
}

// identity reads what opens encrypted backups; empty where there is none.
func (c *BackupController) identity(ctx context.Context, namespace string, e *v1alpha1.BackupEncryption) (string, *problem, error) {
	if e == nil || e.IdentitySecretRef == "" {
		return "", nil, nil
	}
	secret, wrong, err := c.secret(ctx, namespace, e.IdentitySecretRef, "encryption.identitySecretRef")
	if secret == nil {
		return "", wrong, err
	}
	text := string(secret.Data[SecretIdentity])
	if text == "" {
		return "", &problem{reasonNoCredentials, fmt.Sprintf("the Secret %s has no %s: put an age identity there, AGE-SECRET-KEY-1…", e.IdentitySecretRef, SecretIdentity)}, nil
	}
	return text, nil, nil
}

// backupSettings are what a backup is taken with: its policy's, or its own.
type backupSettings struct {
	policy       *v1alpha1.EtcdBackupPolicy
	destinations []v1alpha1.BackupDestination
	encryption   *v1alpha1.BackupEncryption
	compression  v1alpha1.BackupCompression
	proof        v1alpha1.BackupProof
	leaderless   bool
}

// settings of a backup. A scheduled one ends with its policy.
func (c *BackupController) settings(ctx context.Context, b *v1alpha1.EtcdBackup) (backupSettings, *problem, error) {
	s := backupSettings{destinations: b.Spec.Destinations, encryption: b.Spec.Encryption, compression: v1alpha1.CompressionFastest}
	if b.Spec.PolicyName != "" {
		p := &v1alpha1.EtcdBackupPolicy{}
		err := c.opts.Store.Get(ctx, store.Key{Namespace: b.Namespace, Name: b.Spec.PolicyName}, p)
		if errors.Is(err, store.ErrNotFound) {
			return s, &problem{reasonNoPolicy, fmt.Sprintf("there is no EtcdBackupPolicy %s in namespace %s", b.Spec.PolicyName, b.Namespace)}, nil
		}
		if err != nil {
			return s, nil, err
		}
		if p.Spec.Suspended && b.Spec.Reason == v1alpha1.BackupScheduled {
			return s, &problem{reasonSuspended, fmt.Sprintf("policy %s was suspended before it began", p.Name)}, nil
		}
		s = backupSettings{
			policy: p, destinations: p.Spec.Destinations, encryption: p.Spec.Encryption, compression: p.Spec.Compression,
			proof: p.Spec.Proof, leaderless: p.Spec.WithoutLeader,
		}
	}
	if b.Spec.Proof != nil {
		s.proof = *b.Spec.Proof
	}
	return s, nil, nil
}

// policyName is how the stores name the policy of a backup.
func (s *backupSettings) policyName() string {
	if s.policy == nil {
		return ""
	}
	return store.KeyOf(s.policy).String()
}

// retentionOf a destination.
func retentionOf(p *v1alpha1.EtcdBackupPolicy, d *v1alpha1.BackupDestination) v1alpha1.BackupRetention {
	if d.Retention != nil {
		return *d.Retention
	}
	return p.Spec.Retention
}

// awaitProof is how long what is unproven waits for its proof before rules may delete it.
const awaitProof = 24 * time.Hour
