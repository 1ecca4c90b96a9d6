package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/quorate/quorate/datadir"
)

// The database of all comparisons of backups: a million keys, some 400 MB.
const (
	fixtureKeys  = 1_000_000
	fixtureBatch = 100
	fixtureValue = 250

	// The foreground that a backup may disturb.
	foregroundRate = 300
)

const (
	speed    = "speed"
	rss      = "memory"
	cpuTotal = "CPU"
	duration = "took"
	putP50   = "foreground p50"
	putP99   = "foreground p99"
	putMax   = "foreground max"
)

var (
	etcdctl = peer{name: "etcdctl", module: "go.etcd.io/etcd/etcdctl/v3", version: "v3.7.3", pkg: "go.etcd.io/etcd/etcdctl/v3"}
	etcdutl = peer{name: "etcdutl", module: "go.etcd.io/etcd/etcdutl/v3", version: "v3.7.3", pkg: "go.etcd.io/etcd/etcdutl/v3"}
)

// asFast wants the same speed or more; the disk is what both wait for.
var asFast = &goal{"≥ 1×: medians within 5 %, interval reaches 1", func(m *measured) bool {
	return m.Ours.Median >= 0.95*m.Theirs.Median && m.High >= 1
}}

func lean(limit float64) *goal {
	return &goal{fmt.Sprintf("≤ %.0f MB", limit), func(m *measured) bool { return m.Ours.Max <= limit }}
}

func backupFull() comparison {
	return comparison{
		name: "backup-full", peer: etcdctl, prepare: prepareFixture,
		claim: fmt.Sprintf("quorate backup run and etcdctl snapshot save of %d keys, under %d put/s; ours also checks every record and compresses", fixtureKeys, foregroundRate),
		metrics: []metric{
			{speed, "MB/s", asFast},
			{rss, "MB", lean(150)},
			{cpuTotal, "s", nil},
			{duration, "s", nil},
			{putP50, "ms", nil},
			{putP99, "ms", nil},
			{putMax, "ms", nil},
		},
		ours: func(ctx context.Context, l *lane) (sample, error) {
			store := filepath.Join(l.dir, "store")
			if err := os.Mkdir(store, 0o700); err != nil {
				return nil, err
			}
			return l.underLoad(ctx, l.quorate, "backup", "run", "--endpoints", l.endpoint, "--name", "perf/one", "--to", "file://"+store,
				"--spool-dir", filepath.Join(l.dir, "spool"), "--prove=false", "-o", "json")
		},
		theirs: func(ctx context.Context, l *lane) (sample, error) {
			return l.underLoad(ctx, l.peer, "--endpoints", l.endpoint, "snapshot", "save", filepath.Join(l.dir, "snapshot.db"))
		},
	}
}

func backupRestore() comparison {
	urls := "one=http://127.0.0.1:2380"
	return comparison{
		name: "backup-restore", peer: etcdutl, prepare: prepareFixture,
		claim:   fmt.Sprintf("quorate restore and etcdutl snapshot restore of a snapshot of %d keys", fixtureKeys),
		metrics: []metric{{speed, "MB/s", asFast}, {rss, "MB", lean(150)}, {cpuTotal, "s", nil}, {duration, "s", nil}},
		ours: func(ctx context.Context, l *lane) (sample, error) {
			return l.timed(ctx, l.quorate, "restore", "--snapshot", l.fixture, "--member", "one="+filepath.Join(l.dir, "restored"),
				"--initial-cluster", urls, "--bump-revision", "0")
		},
		theirs: func(ctx context.Context, l *lane) (sample, error) {
			return l.timed(ctx, l.peer, "snapshot", "restore", l.fixture, "--name", "one", "--data-dir", filepath.Join(l.dir, "restored"),
				"--initial-cluster", urls, "--initial-advertise-peer-urls", strings.TrimPrefix(urls, "one="))
		},
	}
}

// prepareFixture makes the snapshot that every lane begins with.
func prepareFixture(ctx context.Context, dir string, b *built) error {
	file := filepath.Join(dir, "fixture.db")
	_, err := inLane(ctx, filepath.Join(dir, "fixture"), b, func(ctx context.Context, l *lane) (sample, error) {
		return nil, l.ask(ctx, func(c *clientv3.Client) error {
			if err := fillFixture(ctx, c); err != nil {
				return err
			}
			from, err := c.Snapshot(ctx)
			if err != nil {
				return err
			}
			to, err := os.Create(file)
			if err != nil {
				return err
			}
			_, err = io.Copy(to, from)
			return errors.Join(err, from.Close(), to.Close())
		})
	})
	b.fixture = file
	return err
}

// fillFixture writes values of which half is the same in all and half is not, so that
// they compress as real ones do.
func fillFixture(ctx context.Context, c *clientv3.Client) error {
	const writers = 8
	var wg sync.WaitGroup
	failed := make(chan error, writers)
	for w := range writers {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(w)))
			common := strings.Repeat("quorate ", fixtureValue/16)
			for batch := w; batch < fixtureKeys/fixtureBatch; batch += writers {
				ops := make([]clientv3.Op, fixtureBatch)
				for i := range ops {
					var own strings.Builder
					for own.Len() < fixtureValue/2 {
						own.WriteString(strconv.FormatUint(random.Uint64(), 36))
					}
					ops[i] = clientv3.OpPut(fmt.Sprintf("/perf/%08d", batch*fixtureBatch+i), common+own.String())
				}
				if _, err := c.Txn(ctx).Then(ops...).Commit(); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	wg.Wait()
	select {
	case err := <-failed:
		return fmt.Errorf("fill the database: %w", err)
	default:
		return nil
	}
}

// seed gives a lane's etcd the data of the fixture.
func (l *lane) seed(ctx context.Context, peerURL string) error {
	_, err := datadir.Restore(ctx, datadir.RestoreOptions{
		Path: l.fixture, Dir: filepath.Join(l.dir, "data"), Name: "one", InitialCluster: map[string][]string{"one": {peerURL}},
	})
	return err
}

// timed runs a program on the fixture.
func (l *lane) timed(ctx context.Context, name string, args ...string) (sample, error) {
	size, err := os.Stat(l.fixture)
	if err != nil {
		return nil, err
	}
	run, err := l.program(ctx, nil, name, args...)
	if err != nil {
		return nil, err
	}
	return sample{
		speed: float64(size.Size()) / 1e6 / run.took.Seconds(), rss: float64(run.rss) / 1e6, cpuTotal: run.cpu.Seconds(), duration: run.took.Seconds(),
	}, nil
}

// underLoad runs a program while puts come in at a steady rate, whose latencies count
// from when each was due.
func (l *lane) underLoad(ctx context.Context, name string, args ...string) (sample, error) {
	var s sample
	err := l.ask(ctx, func(c *clientv3.Client) (err error) {
		loadCtx, stop := context.WithCancel(ctx)
		var latencies []float64
		done := make(chan struct{})
		go func() {
			defer close(done)
			latencies = foreground(loadCtx, c)
		}()
		s, err = l.timed(ctx, name, args...)
		stop()
		<-done
		if err != nil {
			return err
		}
		if len(latencies) < 100 {
			return fmt.Errorf("only %d puts were made meanwhile", len(latencies))
		}
		s[putP50], s[putP99], s[putMax] = quantile(latencies, 0.5), quantile(latencies, 0.99), slices.Max(latencies)
		return nil
	})
	return s, err
}

// foreground returns latencies in milliseconds.
func foreground(ctx context.Context, c *clientv3.Client) []float64 {
	const every = time.Second / foregroundRate
	var mu sync.Mutex
	var all []float64
	var wg sync.WaitGroup
	value := strings.Repeat("v", valueSize)
	began := time.Now()
	for i := 0; ; i++ {
		due := began.Add(time.Duration(i) * every)
		select {
		case <-ctx.Done():
			wg.Wait()
			return all
		case <-time.After(time.Until(due)):
		}
		wg.Go(func() {
			// What was sent is waited for, though the run is over.
			if _, err := c.Put(context.WithoutCancel(ctx), fmt.Sprintf("/foreground/%d", i%1000), value); err != nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, float64(time.Since(due).Microseconds())/1000)
		})
	}
}
