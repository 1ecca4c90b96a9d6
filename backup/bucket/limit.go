package bucket

import (
	"context"
	"io"

	"golang.org/x/time/rate"
)

// NewLimiter lets bytesPerSecond pass; nil, which lets all pass, if that is not positive.
func NewLimiter(bytesPerSecond int64) *rate.Limiter {
	if bytesPerSecond <= 0 {
		return nil
	}
	// A tenth of a second at once: smooth enough for others on the line, and few wake-ups.
	return rate.NewLimiter(rate.Limit(bytesPerSecond), int(min(max(bytesPerSecond/10, 1<<10), 1<<20)))
}

// LimitReader reads no faster than limiter lets it, and not after ctx has ended. Readers
// that share a limiter share its rate.
func LimitReader(ctx context.Context, r io.Reader, limiter *rate.Limiter) io.Reader {
	return &limitedReader{ctx, r, limiter}
}

type limitedReader struct {
	ctx     context.Context
	r       io.Reader
	limiter *rate.Limiter
}

func (l *limitedReader) Read(p []byte) (int, error) {
	if err := l.ctx.Err(); err != nil {
		return 0, context.Cause(l.ctx)
	}
	if l.limiter == nil {
		return l.r.Read(p)
	}
	if burst := l.limiter.Burst(); len(p) > burst {
		p = p[:burst]
	}
	n, err := l.r.Read(p)
	if n > 0 {
		if wait := l.limiter.WaitN(l.ctx, n); wait != nil && err == nil {
			err = wait
		}
	}
	return n, err
}
