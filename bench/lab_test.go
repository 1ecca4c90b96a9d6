package bench_test

import (
	"context"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/quorate/quorate/bench"
	"github.com/quorate/quorate/test/etcdlab"
)

// TestMain makes the test binary act as etcd too.
func TestMain(m *testing.M) { etcdlab.Main(m) }

// node is one real etcd.
type node = etcdlab.Member

// cluster starts members, which end with the test, and waits until they serve.
func cluster(t *testing.T, members int) []*node {
	t.Helper()
	return etcdlab.New(t, etcdlab.Options{Members: members}).Ready().Members
}

// countKeys below a prefix.
func countKeys(t *testing.T, url, prefix string) int64 {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{url}, Logger: zap.NewNop(), DialTimeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	r, err := c.Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		t.Fatal(err)
	}
	return r.Count
}

// load is a small one on some members.
func load(mix string, nodes ...*node) bench.Spec {
	s := bench.Default()
	s.Workload = mix
	s.Mix, _ = bench.ParseMix(mix) // the run refuses one without
	s.Duration, s.Keys, s.Clients, s.Seed = bench.Duration(time.Second), 300, 4, 7
	s.Timeout = bench.Duration(5 * time.Second)
	for _, n := range nodes {
		s.Endpoints = append(s.Endpoints, n.Client)
	}
	return s
}

// mustRun runs a load, and checks what holds of every one: time and counts fit, no
// key is left.
func mustRun(t *testing.T, s bench.Spec, o bench.Options) *bench.Result {
	t.Helper()
	r, err := bench.Run(t.Context(), s, o)
	if err != nil {
		t.Fatal(err)
	}
	sum, failed := int64(0), int64(0)
	for _, m := range r.Operations {
		sum, failed = sum+m.Count, failed+m.Errors.Total()
		h, err := bench.Decode(m.Histogram)
		if err != nil || h.TotalCount() != m.Count+m.Errors.Total()-m.Errors.Dropped {
			t.Errorf("%s: the histogram holds %d of %d requests, %v", m.Name, h.TotalCount(), m.Count+m.Errors.Total(), err)
		}
	}
	inSeries := int64(0)
	for _, s := range r.Series {
		inSeries += s.Count
	}
	if sum != r.Total.Count || failed != r.Total.Errors.Total() || inSeries != r.Total.Count {
		t.Errorf("operations %d, series %d, total %d; errors %d of %d", sum, inSeries, r.Total.Count, failed, r.Total.Errors.Total())
	}
	if !s.Keep {
		if n := countKeys(t, s.Endpoints[0], r.Cleanup.Prefix); n > 0 || r.Cleanup.Error != "" {
			t.Errorf("%d keys are left below %s: %s", n, r.Cleanup.Prefix, r.Cleanup.Error)
		}
	}
	return r
}
