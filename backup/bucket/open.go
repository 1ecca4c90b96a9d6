package bucket

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"time"
)

// Options say how a bucket is worked with. The zero value does.
type Options struct {
	// Credentials; a directory needs none.
	Credentials Credentials
	// Retry; DefaultRetry if its Attempts are 0.
	Retry Retry
	// UploadRate and DownloadRate in bytes per second bound all that goes on at once in this
	// bucket and its Subs; 0 is unbounded. Bytes that are sent again count again.
	UploadRate, DownloadRate int64
	// Log gets a warning for every attempt that failed; none if nil.
	Log *slog.Logger
	// OnAttempt is told every attempt that failed, maybe from several goroutines at once.
	OnAttempt func(Attempt)
	// SpoolDir is for temporary files; os.TempDir if empty.
	SpoolDir string
	// Stall is how long a connection may stand still; two minutes if 0.
	Stall time.Duration
	// Transport is put around the one for HTTP, by tests.
	Transport func(http.RoundTripper) http.RoundTripper
}

// driver is a kind of store. Names are whole, with the prefix. What it returns are errors of
// the store or *Error; the front makes the former the latter.
type driver interface {
	put(ctx context.Context, name string, body *source, o PutOptions) (Info, error)
	// get gives what there is from off on, up to length bytes or the end if that is -1, and
	// how many bytes that will be. Version is empty, or the only one that is wanted.
	get(ctx context.Context, name string, off, length int64, version string) (piece, error)
	stat(ctx context.Context, name string) (Info, error)
	// list begins after a name; it is called again after a fault.
	list(ctx context.Context, prefix, after string, fn func(Info) error) error
	remove(ctx context.Context, name string) error
	abortStale(ctx context.Context, prefix string, before time.Time) (int, error)
	close() error
}

// piece is a part of an object, or all of it.
type piece struct {
	body io.ReadCloser
	// size is how many bytes body will give.
	size int64
	// version tells whether it is the same object when it is read on; empty if unknown.
	version string
	// md5 in hexadecimal of a whole object; empty if unknown.
	md5 string
}

// Open makes a bucket ready. It asks the store nothing, except for a directory, which must
// be there: what is wrong with credentials shows at the first call.
func Open(ctx context.Context, c Config, o Options) (Bucket, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("bucket: %w", err)
	}
	creds, err := o.Credentials.resolve(c.Provider)
	if err != nil {
		return nil, fmt.Errorf("bucket %s: %w", c, err)
	}
	if o.Retry.Attempts == 0 {
		o.Retry = DefaultRetry
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.SpoolDir == "" {
		o.SpoolDir = os.TempDir()
	}
	if o.Stall == 0 {
		o.Stall = defaultStall
	}
	// Errors tell the whole name beside the bucket, so its prefix would be there twice.
	store := c
	if c.Provider != File {
		store.Prefix = ""
	}
	s := &session{
		store: store.String(), identity: creds.identity, secrets: creds.secretValues(), retry: o.Retry, log: o.Log, onAttempt: o.OnAttempt,
		upload: NewLimiter(o.UploadRate), download: NewLimiter(o.DownloadRate),
	}
	b := &front{config: c, s: s}
	b.d, err = openDriver(ctx, c, creds, o, s)
	if err != nil {
		return nil, s.fail(ctx, "open", "", err)
	}
	if c.Provider != File {
		b.prefix = c.Prefix
	}
	return b, nil
}

func openDriver(ctx context.Context, c Config, creds resolved, o Options, s *session) (driver, error) {
	if c.Provider == File {
		s.classify = classifyFile
		return openDir(c.Prefix, s)
	}
	s.classify = classifyHTTP
	var ca []byte
	if c.CA != "" {
		var err error
		if ca, err = os.ReadFile(c.CA); err != nil {
			return nil, refused("ca: %w", err)
		}
		if len(ca) == 0 {
			return nil, refused("ca: %s is empty", c.CA)
		}
	}
	base, err := newTransport(ca, o.Stall)
	if err != nil {
		return nil, refused("%w", err)
	}
	watch := &skewWatch{base, &s.skew}
	var rt http.RoundTripper = watch
	if o.Transport != nil {
		watch.base = o.Transport(base)
	}
	var d driver
	if c.Provider == S3 {
		d, err = openS3(c, creds, rt, s)
	} else {
		d, err = openCloud(ctx, c, creds, rt, s, o.SpoolDir)
	}
	if err != nil {
		return nil, refused("%w", err)
	}
	return &closer{d, base}, nil
}

// closer lets go of connections that are idle.
type closer struct {
	driver
	transport *http.Transport
}

func (c *closer) close() error {
	c.transport.CloseIdleConnections()
	return c.driver.close()
}
