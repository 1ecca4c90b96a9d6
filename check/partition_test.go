package check_test

import (
	"context"
	"testing"
	"time"

	"github.com/quorate/quorate/check"
	"github.com/quorate/quorate/test/etcdlab"
	"github.com/quorate/quorate/test/netlab"
)

// partitioner cuts one member after another off: in turn from the other members alone,
// from everyone, and so that it can speak and not hear.
type partitioner struct {
	net   *netlab.Lab
	names []string
	lasts time.Duration
	next  int
}

func (p *partitioner) Kind() string { return "partition" }

func (p *partitioner) Disturb(ctx context.Context) (string, error) {
	ways := []func(name string, others []string) error{
		func(name string, others []string) error { return p.net.Partition([]string{name}, others) },
		func(name string, _ []string) error { return p.net.Isolate(name) },
		func(name string, others []string) error { return p.net.Drop(others, []string{name}) },
	}
	n := p.next % len(p.names)
	name := p.names[n]
	others := append(append([]string(nil), p.names[:n]...), p.names[n+1:]...)
	if err := ways[p.next%len(ways)](name, others); err != nil {
		return "", err
	}
	p.next++
	timer := time.NewTimer(p.lasts)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return name, p.net.Heal()
}

// TestHoldsUnderPartitions: members that are cut off lose nothing, and tell nothing
// that is not so.
func TestHoldsUnderPartitions(t *testing.T) {
	if err := netlab.Available(); err != nil {
		t.Skip(err)
	}
	names := []string{"m1", "m2", "m3"}
	net, err := netlab.New(netlab.Options{Hosts: []netlab.HostSpec{{Name: names[0]}, {Name: names[1]}, {Name: names[2]}, {Name: "client"}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := net.Close(); err != nil {
			t.Error(err)
		}
	})
	dial := net.Host("client").Dial
	l := etcdlab.New(t, etcdlab.Options{Members: len(names), Hosts: net.Hosts()})
	l.Connect = dial
	l.Ready()
	r := run(t, check.Options{
		Endpoints: l.URLs(), Dial: dial, Duration: 20 * time.Second, Every: time.Second, Timeout: time.Second,
		Disturbers: []check.Disturber{&partitioner{net: net, names: names, lasts: 2 * time.Second}},
	})
	if r.Verdict != check.Holds || r.Stats.Unknown == 0 || len(r.Disturbances) < 4 {
		t.Errorf("%s, %d unknown, %d disturbances", r.Verdict, r.Stats.Unknown, len(r.Disturbances))
	}
}
