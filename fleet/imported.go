package fleet

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/etcd"
	"github.com/quorate/quorate/store"
)

// Keys of a Secret with a user's name and password.
const (
	secretUsername = "username"
	secretPassword = "password"
)

const (
	// importedIdle is how often an observed cluster is asked. With the 3 s that it
	// takes at most to find out what is wrong, a fault is told within 5 s.
	importedIdle = 2 * time.Second
	// importedDead is how often one is asked in the end of which no member answers,
	// and importedSilent, if it takes a worker for seconds to learn that.
	importedDead   = 5 * time.Second
	importedSilent = 15 * time.Second
)

// Reasons of an observed cluster that can't be asked.
const (
	reasonNoCredentials  = "CredentialsMissing"
	reasonBadCredentials = "CredentialsInvalid"
)

// problem is why a cluster can't be asked at all.
type problem struct {
	reason  string
	message string
}

// observation is what is known of an observed cluster at one moment.
type observation struct {
	cluster *v1alpha1.EtcdCluster
	askedAt time.Time
	problem *problem
	survey  etcd.Survey
}

// imports keeps the connections to the clusters that others run, each with its own:
// what one does to its connections is nothing to the others.
type imports struct {
	store store.Store
	now   func() time.Time

	mu    sync.Mutex
	known map[store.Key]*imported
}

// imported is one of them.
type imported struct {
	uid         v1alpha1.UID
	fingerprint string
	surveyor    *etcd.Surveyor
	// silent counts the turns in a row in which nobody answered.
	silent int
}

func newImports(s store.Store, now func() time.Time) *imports {
	return &imports{store: s, now: now, known: map[store.Key]*imported{}}
}

// observe asks the cluster.
func (i *imports) observe(ctx context.Context, c *v1alpha1.EtcdCluster) (observation, error) {
	o := observation{cluster: c, askedAt: i.now()}
	secret, wrong, err := i.credentials(ctx, c)
	if err != nil {
		return o, err
	}
	if wrong != nil {
		i.drop(store.KeyOf(c))
		o.problem = wrong
		return o, nil
	}
	one, wrong := i.connect(c, secret)
	if wrong != nil {
		i.drop(store.KeyOf(c))
		o.problem = wrong
		return o, nil
	}
	want, err := etcd.ParseID(c.Status.ClusterID)
	if err != nil {
		return o, err
	}
	o.survey = one.surveyor.Survey(ctx, want)
	return o, ctx.Err()
}

// credentials reads the Secret that the cluster names; nil if it names none.
func (i *imports) credentials(ctx context.Context, c *v1alpha1.EtcdCluster) (*v1alpha1.Secret, *problem, error) {
	name := c.Spec.Import.CredentialsSecretRef
	if name == "" {
		return nil, nil, nil
	}
	secret := &v1alpha1.Secret{}
	err := i.store.Get(ctx, store.Key{Namespace: c.Namespace, Name: name}, secret)
	if errors.Is(err, store.ErrNotFound) {
		return nil, &problem{reasonNoCredentials, fmt.Sprintf(
			"cluster %s names the Secret %s, which does not exist in namespace %s: apply one with what is needed of ca.crt, tls.crt, tls.key, username and password, or import the cluster again",
			c.Name, name, c.Namespace)}, nil
	}
	return secret, nil, err
}

// connect returns the connections of a cluster, made anew when what they were made
// from has changed.
func (i *imports) connect(c *v1alpha1.EtcdCluster, secret *v1alpha1.Secret) (*imported, *problem) {
	access, err := ImportAccess(c.Spec.Import, secret)
	if err != nil {
		return nil, &problem{reasonBadCredentials, fmt.Sprintf("cluster %s: Secret %s: %v", c.Name, c.Spec.Import.CredentialsSecretRef, err)}
	}
	mark := fingerprint(c.Spec.Import, secret)
	i.mu.Lock()
	defer i.mu.Unlock()
	key := store.KeyOf(c)
	if one := i.known[key]; one != nil {
		if one.uid == c.UID && one.fingerprint == mark {
			return one, nil
		}
		go one.surveyor.Close() // it waits for the survey under way
	}
	one := &imported{uid: c.UID, fingerprint: mark, surveyor: etcd.NewSurveyor(access)}
	i.known[key] = one
	return one, nil
}

func fingerprint(spec *v1alpha1.ImportSpec, secret *v1alpha1.Secret) string {
	var data map[string][]byte
	if secret != nil {
		data = secret.Data
	}
	// Strings and bytes marshal without error, maps in the order of their keys.
	raw, _ := json.Marshal(struct {
		Spec *v1alpha1.ImportSpec
		Data map[string][]byte
	}{spec, data})
	sum := sha256.Sum256(raw)
	return string(sum[:])
}

// ImportAccess makes of an import and its Secret, which may be nil, how the cluster
// is reached.
func ImportAccess(spec *v1alpha1.ImportSpec, secret *v1alpha1.Secret) (etcd.Access, error) {
	access := etcd.Access{Endpoints: spec.Endpoints}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: spec.ServerName}
	access.TLS = cfg
	if secret == nil {
		return access, nil
	}
	cert, key := secret.Data[secretCert], secret.Data[secretKey]
	if (len(cert) > 0) != (len(key) > 0) {
		return access, fmt.Errorf("it has only one of %s and %s: give both, or neither", secretCert, secretKey)
	}
	if len(cert) > 0 {
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return access, fmt.Errorf("%s and %s do not go together or are no PEM (%w): give a client certificate with its key", secretCert, secretKey, err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	if ca := secret.Data[secretCA]; len(ca) > 0 {
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(ca) {
			return access, fmt.Errorf("%s holds no certificate in PEM: give the CA that signed the members' certificates", secretCA)
		}
	}
	access.Username = string(secret.Data[secretUsername])
	access.Password = strings.TrimRight(string(secret.Data[secretPassword]), "\r\n")
	if (access.Username != "") != (access.Password != "") {
		return access, fmt.Errorf("it has only one of %s and %s: give both, or neither", secretUsername, secretPassword)
	}
	return access, nil
}

// drop closes the connections to a cluster.
func (i *imports) drop(key store.Key) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if one := i.known[key]; one != nil {
		go one.surveyor.Close() // it waits for the survey under way
		delete(i.known, key)
	}
}

// again is when to ask next. Only a cluster that does not answer at all is asked
// more and more seldom. The moment is blurred, so that many don't come at once.
func (i *imports) again(key store.Key, o *observation, took time.Duration) time.Duration {
	i.mu.Lock()
	defer i.mu.Unlock()
	next := importedIdle
	if one := i.known[key]; one != nil {
		const long, turns = 900 * time.Millisecond, 3
		seldom := importedDead
		if took > long {
			seldom = importedSilent
		}
		if one.silent++; o.answering() > 0 {
			one.silent = 0
		}
		next = min(importedIdle<<min(one.silent, turns), seldom)
	}
	return next - rand.N(next/10) //nolint:gosec // no secret
}

// ReconcileImported looks at one observed cluster. It writes nothing to its etcd,
// and nothing to the store but the object's status and finalizer. It returns when
// to look again.
func (c *ClusterController) ReconcileImported(ctx context.Context, key store.Key) (time.Duration, error) {
	cluster := &v1alpha1.EtcdCluster{}
	err := c.opts.Store.Get(ctx, key, cluster)
	if errors.Is(err, store.ErrNotFound) {
		c.imports.drop(key)
		return 0, nil
	}
	if err != nil || !cluster.Observed() || cluster.Spec.Import == nil {
		return 0, err
	}
	if cluster.DeletionTimestamp != nil {
		return 0, c.forgetImported(ctx, cluster)
	}
	// There is nothing to hold: nothing is done to it.
	_, restored := cluster.Annotations[v1alpha1.AnnotationRestored]
	if restored || !v1alpha1.HasFinalizer(cluster, v1alpha1.FinalizerCluster) {
		delete(cluster.Annotations, v1alpha1.AnnotationRestored)
		v1alpha1.RemoveFinalizer(cluster, v1alpha1.FinalizerCluster)
		cluster.Finalizers = append(cluster.Finalizers, v1alpha1.FinalizerCluster)
		if err = c.opts.Store.Update(ctx, cluster); err != nil {
			return 0, err
		}
	}
	began := time.Now()
	o, err := c.imports.observe(ctx, cluster)
	if err != nil {
		return 0, err
	}
	took := time.Since(began)
	if err := c.writeImportedStatus(ctx, &o); err != nil {
		return 0, err
	}
	return c.imports.again(key, &o, took), nil
}

// forgetImported lets a deleted object go, with the Secret that importing has made.
// Etcd itself is not touched.
func (c *ClusterController) forgetImported(ctx context.Context, cluster *v1alpha1.EtcdCluster) error {
	c.imports.drop(store.KeyOf(cluster))
	if !v1alpha1.HasFinalizer(cluster, v1alpha1.FinalizerCluster) {
		return nil
	}
	if name := cluster.Spec.Import.CredentialsSecretRef; name != "" {
		secret := &v1alpha1.Secret{}
		err := c.opts.Store.Get(ctx, store.Key{Namespace: cluster.Namespace, Name: name}, secret)
		if err == nil && secret.Annotations[v1alpha1.AnnotationImportedFor] == cluster.Name {
			err = c.opts.Store.Delete(ctx, v1alpha1.KindSecret, store.KeyOf(secret), store.Preconditions{UID: secret.UID})
		}
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
	}
	v1alpha1.RemoveFinalizer(cluster, v1alpha1.FinalizerCluster)
	return c.opts.Store.Update(ctx, cluster)
}

// planImported is the plan of an observed cluster, which is always empty.
func planImported(c *v1alpha1.EtcdCluster) v1alpha1.Plan {
	p := v1alpha1.Plan{
		Namespace: c.Namespace, Cluster: c.Name, Generation: c.Generation, Steps: []v1alpha1.PlanStep{},
		HeldReason: "ObservedOnly", Held: observedOnly,
	}
	p.Token = token(&p)
	return p
}

const observedOnly = "the cluster is observed only: Quorate changes nothing in it"
