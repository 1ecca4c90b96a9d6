package fleetlab

import (
	"crypto/tls"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/quorate/quorate/pki"
	"github.com/quorate/quorate/store"
)

// TLS is what a client of the cluster shows and trusts.
func (l *Lab) TLS(cluster string) *tls.Config {
	l.tb.Helper()
	key, err := pki.NewKey()
	l.must(err)
	csr, err := pki.NewRequest(key, "lab")
	l.must(err)
	bundle, _, err := l.Client.ClientCertificate(l.tb.Context(), store.Key{Namespace: Namespace, Name: cluster}, csr, time.Hour)
	l.must(err)
	config, err := pki.ClientTLS(bundle.Certificate, key, bundle.CA)
	l.must(err)
	return config
}

// Dial makes a client of the cluster, or of one of its endpoints, on the server's host; it
// ends with the test.
func (l *Lab) Dial(cluster string, endpoints ...string) *clientv3.Client {
	l.tb.Helper()
	if len(endpoints) == 0 {
		endpoints = l.Cluster(cluster).Status.Endpoints
	}
	c, err := clientv3.New(clientv3.Config{
		Endpoints: endpoints, TLS: l.TLS(cluster), DialTimeout: 2 * time.Second, Logger: zap.NewNop(),
		DialKeepAliveTime: 2 * time.Second, DialKeepAliveTimeout: 2 * time.Second,
		DialOptions: []grpc.DialOption{grpc.WithContextDialer(l.control.Dial)},
	})
	l.must(err)
	l.tb.Cleanup(func() { _ = c.Close() })
	return c
}
