// Package load writes to an etcd cluster at a steady rate, remembers what was
// acknowledged and when, and tells afterwards whether any of it was lost and for
// how long nothing could be written.
//
// The rate does not follow the cluster: a write is begun whenever it is due, however
// many are still out, so that a stall shows as writes that are late rather than as
// writes that were never tried.
package load

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

// ErrBusy is the error of a write that was due and not begun, since too many were
// still out.
var ErrBusy = errors.New("too many writes are out")

const (
	defaultTimeout  = 2 * time.Second
	defaultInFlight = 4096
	dialTimeout     = 2 * time.Second
	readTimeout     = 5 * time.Second
	page            = 2000
)

// Config says what is written, and where.
type Config struct {
	// Endpoints are the client URLs of the members. Writes go to each in turn, over a
	// connection of its own, so that a dead member fails its share alone.
	Endpoints []string
	// TLS for the connections; nil for plain text.
	TLS *tls.Config
	// Rate is in writes a second.
	Rate int
	// Run names the keys: /prove/<Run>/<number>.
	Run string
	// Timeout of one write, 2 s by default. One that fails is not tried again: whether
	// it was carried out stays unknown.
	Timeout time.Duration
	// InFlight bounds the writes that are out at once, 4096 by default.
	InFlight int
}

// Record is one write.
type Record struct {
	// Key and Value written; both are unique.
	Key, Value string
	// Endpoint it was sent to.
	Endpoint string
	// Sent is when it was begun.
	Sent time.Time
	// Acked is when it was acknowledged; zero if it was not.
	Acked time.Time
	// Ended is when it was acknowledged or given up.
	Ended time.Time
	// Revision of the acknowledged write.
	Revision int64
	// Err is why it was not acknowledged.
	Err error
}

// Writer writes until it is stopped.
type Writer struct {
	cfg     Config
	clients []*clientv3.Client
	cancel  context.CancelFunc
	loop    sync.WaitGroup

	mu      sync.Mutex
	records []Record
}

// Start begins to write. The writer stops with ctx or Stop; Close frees its
// connections.
func Start(ctx context.Context, cfg Config) (*Writer, error) {
	if cfg.Rate <= 0 || len(cfg.Endpoints) == 0 || cfg.Run == "" {
		return nil, fmt.Errorf("load: a rate, endpoints and the name of the run are needed, not %d, %v and %q", cfg.Rate, cfg.Endpoints, cfg.Run)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = defaultTimeout
	}
	if cfg.InFlight == 0 {
		cfg.InFlight = defaultInFlight
	}
	w := &Writer{cfg: cfg}
	for _, endpoint := range cfg.Endpoints {
		c, err := dial(endpoint, cfg.TLS)
		if err != nil {
			return nil, errors.Join(err, w.Close())
		}
		w.clients = append(w.clients, c)
	}
	ctx, w.cancel = context.WithCancel(ctx)
	w.loop.Go(func() { w.run(ctx) })
	return w, nil
}

// dial makes a client of one endpoint that soon notices when a dead one is back.
func dial(endpoint string, config *tls.Config) (*clientv3.Client, error) {
	c, err := clientv3.New(clientv3.Config{
		Endpoints: []string{endpoint}, TLS: config, DialTimeout: dialTimeout, Logger: zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.5, Jitter: 0.2, MaxDelay: 250 * time.Millisecond},
			MinConnectTimeout: dialTimeout,
		})},
	})
	if err != nil {
		return nil, fmt.Errorf("load: dial %s: %w", endpoint, err)
	}
	return c, nil
}

// run begins each write when it is due. What a slow tick has left out is made up
// for at the next one.
func (w *Writer) run(ctx context.Context) {
	const tick = 5 * time.Millisecond
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	slots := make(chan struct{}, w.cfg.InFlight)
	began := time.Now()
	var writes sync.WaitGroup
	defer writes.Wait()
	begun := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		due := int(time.Since(began).Seconds() * float64(w.cfg.Rate))
		for n := begun; n < due; n++ {
			select {
			case slots <- struct{}{}:
			default:
				now := time.Now()
				w.keep(Record{Key: w.key(n), Sent: now, Ended: now, Err: ErrBusy})
				continue
			}
			writes.Go(func() {
				defer func() { <-slots }()
				// One that is out when the writer stops is let end by itself.
				w.keep(w.put(context.WithoutCancel(ctx), n))
			})
		}
		begun = due
	}
}

func (w *Writer) key(n int) string { return fmt.Sprintf("%s%09d", w.prefix(), n) }

func (w *Writer) prefix() string { return "/prove/" + w.cfg.Run + "/" }

func (w *Writer) put(ctx context.Context, n int) Record {
	var random [16]byte
	_, _ = rand.Read(random[:]) // it never fails
	which := n % len(w.clients)
	r := Record{Key: w.key(n), Value: fmt.Sprintf("%d-%s", n, hex.EncodeToString(random[:])), Endpoint: w.cfg.Endpoints[which]}
	ctx, cancel := context.WithTimeout(ctx, w.cfg.Timeout)
	defer cancel()
	r.Sent = time.Now()
	answer, err := w.clients[which].Put(ctx, r.Key, r.Value)
	r.Ended = time.Now()
	if err != nil {
		r.Err = err
		return r
	}
	r.Acked, r.Revision = r.Ended, answer.Header.Revision
	return r
}

func (w *Writer) keep(r Record) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.records = append(w.records, r)
}

// Stop ends the writing and waits for the writes that are out. It may be called
// again.
func (w *Writer) Stop() {
	w.cancel()
	w.loop.Wait()
}

// Close stops the writer and frees its connections.
func (w *Writer) Close() error {
	if w.cancel != nil {
		w.Stop()
	}
	errs := make([]error, 0, len(w.clients))
	for _, c := range w.clients {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// Records returns the writes that have ended, in the order in which they did.
func (w *Writer) Records() []Record {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clip(w.records)
}

// Lost reads all keys of the run back, linearizably, and returns the acknowledged
// writes that are missing or have another value. Endpoints may be others than
// those written to, since a member may have come back elsewhere.
func (w *Writer) Lost(ctx context.Context, endpoints []string) ([]Record, error) {
	var err error
	for _, endpoint := range endpoints {
		var have map[string]string
		if have, err = w.readBack(ctx, endpoint); err == nil {
			return Missing(w.Records(), have), nil
		}
	}
	return nil, fmt.Errorf("load: no endpoint of %v could be read back: %w", endpoints, err)
}

func (w *Writer) readBack(ctx context.Context, endpoint string) (map[string]string, error) {
	c, err := dial(endpoint, w.cfg.TLS)
	if err != nil {
		return nil, err
	}
	defer c.Close() //nolint:errcheck // it was only read from
	have := map[string]string{}
	from, end := w.prefix(), clientv3.GetPrefixRangeEnd(w.prefix())
	for {
		callCtx, cancel := context.WithTimeout(ctx, readTimeout)
		answer, err := c.Get(callCtx, from, clientv3.WithRange(end), clientv3.WithLimit(page))
		cancel()
		if err != nil {
			return nil, err
		}
		for _, kv := range answer.Kvs {
			have[string(kv.Key)] = string(kv.Value)
		}
		if !answer.More || len(answer.Kvs) == 0 {
			return have, nil
		}
		from = string(answer.Kvs[len(answer.Kvs)-1].Key) + "\x00"
	}
}
