package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/pki"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
)

// pass is what a client of a cluster needs.
type pass struct {
	endpoints []string
	// bundle and key are empty where the cluster wants no certificate.
	bundle pki.Bundle
	key    []byte
	// serverName to look for in the members' certificates; empty for the URL's.
	serverName string
	user       string
	password   string
}

// passTo asks the server for what a client of the cluster needs: a certificate
// that is signed for it or, for a cluster that is only observed, what it was
// imported with. That lies in a Secret, which admins alone may read.
func passTo(ctx context.Context, c *remote.Client, cluster *v1alpha1.EtcdCluster, ttl time.Duration) (pass, error) {
	ctx, cancel := call(ctx)
	defer cancel()
	if cluster.Observed() {
		return storedPass(ctx, c, cluster)
	}
	private, err := pki.NewKey()
	if err != nil {
		return pass{}, err
	}
	csr, err := pki.NewRequest(private, clientName)
	if err != nil {
		return pass{}, err
	}
	bundle, endpoints, err := c.ClientCertificate(ctx, store.KeyOf(cluster), csr, ttl)
	p := pass{endpoints: endpoints, bundle: bundle, key: private}
	if len(bundle.Certificate) == 0 {
		p.bundle, p.key = pki.Bundle{}, nil
	}
	return p, err
}

func storedPass(ctx context.Context, c *remote.Client, cluster *v1alpha1.EtcdCluster) (pass, error) {
	p := pass{endpoints: cluster.Status.Endpoints, serverName: cluster.Spec.Import.ServerName}
	if len(p.endpoints) == 0 {
		p.endpoints = cluster.Spec.Import.Endpoints
	}
	name := cluster.Spec.Import.CredentialsSecretRef
	if name == "" {
		return p, nil
	}
	secret := &v1alpha1.Secret{}
	err := c.Get(ctx, store.Key{Namespace: cluster.Namespace, Name: name}, secret)
	if errors.Is(err, store.ErrNotFound) {
		return p, fmt.Errorf("its Secret %s does not exist: import the cluster again, or apply the Secret: %w", name, err)
	}
	if err != nil {
		return p, err
	}
	p.bundle = pki.Bundle{Certificate: secret.Data["tls.crt"], CA: secret.Data["ca.crt"]}
	p.key = secret.Data["tls.key"]
	p.user, p.password = string(secret.Data["username"]), strings.TrimRight(string(secret.Data["password"]), "\r\n")
	return p, nil
}
