// Package inspect looks at an etcd cluster from outside, as any client can, and says
// what is wrong with it: the engine of `quorate doctor`. It needs no Quorate server
// and writes nothing, ever: see etcd.Observer.
//
// It has two halves. Gathering asks every member at once, each with a deadline of
// its own, and ends with one Observation, which is data alone. Checks are pure
// functions of that, one file for each subject: a new check is a new file and a
// line in the list of checks in examine.go. Unknown is never healthy: what could
// not be asked is a finding, too.
package inspect

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/quorate/quorate/pki"
)

// ErrOptions says that the cluster can't be asked as it was given.
var ErrOptions = errors.New("the cluster can't be asked")

// DefaultTimeout bounds an inspection.
const DefaultTimeout = 10 * time.Second

// Options say which cluster is looked at, and how it is reached.
type Options struct {
	// Endpoints are client URLs. Without a scheme they are https where CA or
	// Certificate is given.
	Endpoints []string
	// CA are the roots to trust (PEM); those of the system where it is empty.
	CA []byte
	// Certificate and Key (PEM) are shown to members that ask for one.
	Certificate []byte
	Key         []byte
	// User and Password log in where User is not empty.
	User     string
	Password string
	// Timeout bounds all of it; 0 is DefaultTimeout.
	Timeout time.Duration
	// Etcdctl is how a person runs etcdctl on this cluster, without endpoints: it
	// stands in front of the commands to copy.
	Etcdctl string
	// Logger hears what went wrong on the way; nil for nobody.
	Logger *slog.Logger
}

// Inspect asks the cluster and examines the answers. ErrOptions when there is
// nothing to ask; a cluster that does not answer is a report, not an error.
func Inspect(ctx context.Context, o Options) (*Report, error) {
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	if o.Etcdctl == "" {
		o.Etcdctl = "etcdctl"
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	cfg, err := o.clientTLS()
	if err != nil {
		return nil, err
	}
	if o.Endpoints, err = o.endpoints(); err != nil {
		return nil, err
	}
	// What is left is for the examination, and for those that end late.
	const reserve = 20
	ctx, cancel := context.WithTimeout(ctx, o.Timeout-o.Timeout/reserve)
	defer cancel()
	g := &gatherer{opts: o, tls: cfg, unit: o.Timeout / 10}
	seen := g.gather(ctx)
	if errors.Is(ctx.Err(), context.Canceled) {
		return nil, ctx.Err()
	}
	return Examine(seen), nil
}

func (o *Options) clientTLS() (*tls.Config, error) {
	if len(o.CA) > 0 {
		cfg, err := pki.ClientTLS(o.Certificate, o.Key, o.CA)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrOptions, err)
		}
		return cfg, nil
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(o.Certificate) == 0 && len(o.Key) == 0 {
		return cfg, nil
	}
	pair, err := tls.X509KeyPair(o.Certificate, o.Key)
	if err != nil {
		return nil, fmt.Errorf("%w: client certificate: %w: give the certificate and its own key (PEM)", ErrOptions, err)
	}
	cfg.Certificates = []tls.Certificate{pair}
	return cfg, nil
}

// endpoints checks them and gives each its scheme.
func (o *Options) endpoints() ([]string, error) {
	var list []string
	for _, e := range o.Endpoints {
		if e = strings.TrimSpace(e); e == "" {
			continue
		}
		if !strings.Contains(e, "://") {
			scheme := "http://"
			if len(o.CA) > 0 || len(o.Certificate) > 0 {
				scheme = "https://"
			}
			e = scheme + e
		}
		u, err := url.Parse(e)
		if err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" {
			return nil, fmt.Errorf("endpoint %q: %w: give a client URL such as https://10.0.0.1:2379", e, ErrOptions)
		}
		if u.Port() == "" {
			u.Host += ":2379"
		}
		if e = u.Scheme + "://" + u.Host; !slices.Contains(list, e) {
			list = append(list, e)
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%w: no endpoint was given: name a client URL such as https://10.0.0.1:2379", ErrOptions)
	}
	return list, nil
}
