package fleet

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/etcd"
)

// Credentials gives the TLS configuration with which Quorate reaches a cluster;
// nil for one without TLS. It returns the same pointer until it has to change.
type Credentials interface {
	ClientTLS(ctx context.Context, c *v1alpha1.EtcdCluster) (*tls.Config, error)
	Forget(c *v1alpha1.EtcdCluster)
}

// Prober reaches clusters through etcd's client API. It implements Etcd.
type Prober struct {
	pool  *etcd.Pool
	creds Credentials
	now   func() time.Time
}

// NewProber returns a prober; close the pool when it is no longer used.
func NewProber(pool *etcd.Pool, creds Credentials) *Prober {
	return &Prober{pool: pool, creds: creds, now: time.Now}
}

// Probe implements Etcd.
func (p *Prober) Probe(ctx context.Context, c *v1alpha1.EtcdCluster, members []*v1alpha1.EtcdMember) (map[string]Probe, []etcd.Alarm, error) {
	answers := map[string]Probe{}
	if len(members) == 0 {
		return answers, nil, nil
	}
	creds, err := p.creds.ClientTLS(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, m := range members {
		if m.Status.ClientURL == "" || m.Spec.Bootstrap == nil || !told(&MemberState{Object: m}) {
			continue
		}
		wg.Go(func() {
			probe := Probe{SentAt: p.now()}
			// One member that is silent must not use up the others' time.
			const patience = time.Second
			askCtx, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			status, err := p.pool.Status(askCtx, etcd.Target{Endpoint: m.Status.ClientURL, TLS: creds})
			probe.Took = p.now().Sub(probe.SentAt)
			if err != nil {
				probe.Err = short(err)
			}
			probe.Status = status
			mu.Lock()
			defer mu.Unlock()
			answers[m.Name] = probe
		})
	}
	wg.Wait()
	for _, m := range members {
		a, ok := answers[m.Name]
		if !ok || a.Err != "" || a.Status.Leader == 0 {
			continue
		}
		// Raised alarms are shown by every member alike.
		if len(a.Status.Errors) == 0 {
			break
		}
		alarms, err := p.pool.Alarms(ctx, etcd.Target{Endpoint: m.Status.ClientURL, TLS: creds})
		if err == nil {
			return answers, alarms, nil
		}
	}
	return answers, nil, nil
}

// memberPatience bounds one call that lists or changes the members.
const memberPatience = 5 * time.Second

// Members implements Etcd.
func (p *Prober) Members(ctx context.Context, c *v1alpha1.EtcdCluster, via []*v1alpha1.EtcdMember) (members []etcd.Member, err error) {
	creds, err := p.creds.ClientTLS(ctx, c)
	if err != nil {
		return nil, err
	}
	err = errors.New("no member answers")
	for _, m := range via {
		// One that is silent must not use up the others' time.
		ask, cancel := context.WithTimeout(ctx, time.Second)
		members, err = p.pool.Members(ask, etcd.Target{Endpoint: m.Status.ClientURL, TLS: creds})
		cancel()
		if err == nil {
			return members, nil
		}
	}
	return nil, err
}

// AddLearner implements Etcd.
func (p *Prober) AddLearner(ctx context.Context, c *v1alpha1.EtcdCluster, via *v1alpha1.EtcdMember, peerURL string) error {
	return p.change(ctx, c, via, func(ctx context.Context, target etcd.Target) error { return p.pool.AddLearner(ctx, target, peerURL) })
}

// Promote implements Etcd.
func (p *Prober) Promote(ctx context.Context, c *v1alpha1.EtcdCluster, via *v1alpha1.EtcdMember, id etcd.ID) error {
	return p.change(ctx, c, via, func(ctx context.Context, target etcd.Target) error { return p.pool.Promote(ctx, target, id) })
}

// Remove implements Etcd.
func (p *Prober) Remove(ctx context.Context, c *v1alpha1.EtcdCluster, via *v1alpha1.EtcdMember, id etcd.ID) error {
	return p.change(ctx, c, via, func(ctx context.Context, target etcd.Target) error { return p.pool.Remove(ctx, target, id) })
}

func (p *Prober) change(ctx context.Context, c *v1alpha1.EtcdCluster, via *v1alpha1.EtcdMember, call func(context.Context, etcd.Target) error) error {
	creds, err := p.creds.ClientTLS(ctx, c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, memberPatience)
	defer cancel()
	return call(ctx, etcd.Target{Endpoint: via.Status.ClientURL, TLS: creds})
}

// MoveLeader implements Etcd.
func (p *Prober) MoveLeader(ctx context.Context, c *v1alpha1.EtcdCluster, leader *v1alpha1.EtcdMember, to etcd.ID) error {
	creds, err := p.creds.ClientTLS(ctx, c)
	if err != nil {
		return err
	}
	const patience = 5 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return p.pool.MoveLeader(ctx, etcd.Target{Endpoint: leader.Status.ClientURL, TLS: creds}, to)
}

// Forget implements Etcd.
func (p *Prober) Forget(c *v1alpha1.EtcdCluster) {
	for _, endpoint := range c.Status.Endpoints {
		p.pool.Forget(endpoint)
	}
	p.creds.Forget(c)
}

// short cuts an error of gRPC to what a person needs of it.
func short(err error) string {
	text := err.Error()
	for _, known := range []string{"connection refused", "certificate has expired", "certificate signed by unknown authority", "no route to host"} {
		if strings.Contains(text, known) {
			return known
		}
	}
	if strings.Contains(text, "DeadlineExceeded") || strings.Contains(text, "deadline exceeded") {
		return "no answer in time"
	}
	if i := strings.LastIndex(text, "desc = "); i >= 0 {
		text = text[i+len("desc = "):]
	}
	return fmt.Sprintf("%.200s", text)
}
