package backup

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/quorate/quorate/datadir"
	"github.com/quorate/quorate/etcd"
)

const (
	// watchEvery is how often the member is looked at while it is read.
	watchEvery = 2 * time.Second
	// stallTime is how long a stream may bring nothing.
	stallTime = time.Minute
	// minGrowth is what a database may grow in any case while it is read, in bytes.
	minGrowth = 512 << 20
	// nearQuota is the share of its quota from which on a database is not to grow
	// because of us.
	nearQuota = 0.9
	// spoolFloor is what stays free on the spool's disk unless asked otherwise.
	spoolFloor = 256 << 20
	// spoolBuffer is what is written to the spool at once.
	spoolBuffer = 64 << 10
	packedFile  = "packed"
)

var (
	// ErrGrowing says that the member's database grows too much while it is read.
	ErrGrowing = errors.New("the database grows while it is read")
	// ErrStalled says that the member sends nothing any more.
	ErrStalled = errors.New("the member sends nothing any more")
	// ErrBehind says that what the member sent is older than what the leader had before.
	ErrBehind = errors.New("the member was behind")
)

// packed is what is stored of a spooled database.
type packed struct {
	path   string
	size   int64
	sha256 string
	// hash of the database that was packed, and of nothing that was not.
	hash *datadir.SnapshotHash
}

// spoolFrom streams the member's snapshot into the spool. What packs it follows, and may
// not be through when the stream is over: the member is not kept waiting for it.
func spoolFrom(ctx context.Context, s *etcd.Surveyor, from Source, spool *Spool, p packing, tell func(done int64)) (*packer, error) {
	streaming, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	pack := startPacker(ctx, spool, p, stop)
	var watching sync.WaitGroup
	watching.Go(func() { watchGrowth(streaming, s, from, spool, stop, tell) })
	// The connection brings 16 KiB at a time.
	buffered := bufio.NewWriterSize(spool, spoolBuffer)
	err := s.Snapshot(streaming, from.Endpoint, buffered)
	if err == nil {
		err = buffered.Flush()
	}
	if cause := context.Cause(streaming); err != nil && cause != nil && ctx.Err() == nil {
		err = cause
	}
	// It is not synced: who loses the spool loses the backup under way with it.
	spool.End(err)
	stop(nil)
	watching.Wait()
	if err != nil {
		pack.stop()
		return nil, err
	}
	return pack, nil
}

// watchGrowth stops a stream that brings nothing, or while which the database grows: a
// read transaction that lasts keeps etcd from using its pages again.
func watchGrowth(ctx context.Context, s *etcd.Surveyor, from Source, spool *Spool, stop context.CancelCauseFunc, tell func(done int64)) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	var had int64
	moved := time.Now()
	allowed := allowedSize(from.Status.DBSize, from.Status.DBQuota)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		size := spool.Size()
		tell(size)
		if size > had {
			had, moved = size, time.Now()
		} else if time.Since(moved) > stallTime {
			stop(fmt.Errorf("%s at %s: %w: %d bytes came, the last %s ago", from.Name, from.Endpoint, ErrStalled, size, time.Since(moved).Round(time.Second)))
			return
		}
		for _, m := range s.Survey(ctx, 0).Members {
			if m.ID == from.ID && m.Answered && m.Status.DBSize > allowed {
				stop(fmt.Errorf("%s at %s: %w: from %d to %d bytes, and %d are allowed, since a backup under way keeps etcd from using space again: take it when less is written, or put the spool on a faster disk",
					from.Name, from.Endpoint, ErrGrowing, from.Status.DBSize, m.Status.DBSize, allowed))
				return
			}
		}
	}
}

// allowedSize is how large a database may become while it is read. One that is near its
// quota may take half of what is left: it needs its backup more than others.
func allowedSize(size, quota int64) int64 {
	allowed := size + max(minGrowth, size/4)
	if quota > 0 {
		allowed = min(allowed, max(int64(float64(quota)*nearQuota), size+(quota-size)/2, size))
	}
	return allowed
}

// packer packs the spooled file while it grows.
type packer struct {
	cancel context.CancelFunc
	done   chan struct{}
	out    packed
	err    error
}

// startPacker also tells failed why, if it fails.
func startPacker(ctx context.Context, spool *Spool, p packing, failed func(error)) *packer {
	ctx, cancel := context.WithCancel(ctx)
	k := &packer{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(k.done)
		if k.out, k.err = packFile(ctx, spool, p); k.err != nil {
			failed(k.err)
		}
	}()
	return k
}

// wait returns what was packed.
func (k *packer) wait(ctx context.Context) (packed, error) {
	select {
	case <-k.done:
		return k.out, k.err
	case <-ctx.Done():
		return packed{}, context.Cause(ctx)
	}
}

// failed says why it has failed, if it has so far.
func (k *packer) failed() error {
	select {
	case <-k.done:
		return k.err
	default:
		return nil
	}
}

// stop ends it, if it is not through.
func (k *packer) stop() {
	k.cancel()
	<-k.done
}

func packFile(ctx context.Context, spool *Spool, p packing) (out packed, err error) {
	r, err := spool.Follow(ctx)
	if err != nil {
		return packed{}, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	out.path = filepath.Join(spool.Dir(), packedFile)
	f, err := os.OpenFile(out.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return packed{}, fmt.Errorf("spool: %w", err)
	}
	sum := sha256.New()
	count := &counter{to: io.MultiWriter(f, sum)}
	out.hash = datadir.NewSnapshotHash()
	err = p.write(count, newHashing(r, out.hash))
	if err = errors.Join(err, f.Close()); err != nil {
		return packed{}, err
	}
	out.size, out.sha256 = count.n, hex.EncodeToString(sum.Sum(nil))
	return out, nil
}

// hashing hashes what is read through it, beside what its reader does with it.
type hashing struct {
	from io.Reader
	to   io.Writer
	// left is what was not read yet of buf.
	buf, left []byte
	hashed    chan struct{}
	err       error
}

func newHashing(from io.Reader, to io.Writer) *hashing {
	h := &hashing{from: from, to: to, buf: make([]byte, spoolBuffer), hashed: make(chan struct{}, 1)}
	h.hashed <- struct{}{}
	return h
}

// Read returns io.EOF only once all is hashed.
func (h *hashing) Read(p []byte) (int, error) {
	if len(h.left) == 0 {
		<-h.hashed
		n := 0
		if h.err == nil {
			n, h.err = h.from.Read(h.buf)
		}
		if h.left = h.buf[:n]; n == 0 {
			h.hashed <- struct{}{}
			return 0, h.err
		}
		go func() {
			_, _ = h.to.Write(h.buf[:n]) // a hash takes all
			h.hashed <- struct{}{}
		}()
	}
	n := copy(p, h.left)
	h.left = h.left[n:]
	return n, nil
}

type counter struct {
	to io.Writer
	n  int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.to.Write(p)
	c.n += int64(n)
	return n, err
}
