// Package s3lab starts a real S3 server for tests, and puts faults before it.
//
//	lab := s3lab.New(t, s3lab.Options{})
//	lab.Make("backups")
//	b, err := bucket.Open(ctx, lab.Config("backups"), bucket.Options{Credentials: s3lab.Credentials()})
//	lab.Proxy.Add(s3lab.Fault{Share: 0.3, Status: http.StatusServiceUnavailable})
//
// The server is versitygw, which `make s3-server` builds. It is gone when the test ends. What
// is stored lies in lab.Root, a file per object, so that a test can damage it there.
package s3lab

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/backup/bucket"
	"github.com/quorate/quorate/test/freeport"
)

// The administrator's credentials, and the region.
const (
	Key    = "AKADMIN"
	Secret = "admin-secret-that-nobody-may-print"
	Region = "us-east-1"
)

// patience bounds what a test waits for.
const patience = 30 * time.Second

// Options say what to start.
type Options struct {
	// TmpfsBytes has what is stored lie on a file system of this size, which needs root: the
	// test is skipped without it.
	TmpfsBytes int64
	// Binary of versitygw; the one that was built if empty.
	Binary string
}

// Lab is a server, and the proxy before it.
type Lab struct {
	// Root holds a directory for each bucket.
	Root string
	// Address of the server itself, host:port; Proxy.Address is before it.
	Address string
	Proxy   *Proxy
	// Admin asks the server itself, as the administrator.
	Admin *minio.Client

	tb     testing.TB
	binary string
	log    *lockedBuffer
}

// Binary is where make builds the server. A test without it is skipped.
func Binary(tb testing.TB) string {
	tb.Helper()
	dir, err := os.Getwd()
	if err != nil {
		tb.Fatal(err)
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err = os.Stat(filepath.Join(dir, "go.mod")); err != nil {
			continue
		}
		path := filepath.Join(dir, ".cache", "s3", "versitygw")
		if _, err = os.Stat(path); err != nil {
			tb.Skip("there is no S3 server to test with: make s3-server")
		}
		return path
	}
	tb.Skip("this is not run in the repository, so there is no S3 server to test with")
	return ""
}

// New starts a server without buckets.
func New(tb testing.TB, o Options) *Lab {
	tb.Helper()
	if o.Binary == "" {
		o.Binary = Binary(tb)
	}
	base := tb.TempDir()
	l := &Lab{tb: tb, Root: filepath.Join(base, "root"), Address: freeport.Address(tb), binary: o.Binary, log: &lockedBuffer{}}
	// Versions must not lie in the root: they would be buckets.
	for _, dir := range []string{l.Root, filepath.Join(base, "versions"), filepath.Join(base, "iam")} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			tb.Fatal(err)
		}
	}
	if o.TmpfsBytes > 0 {
		l.mount(o.TmpfsBytes)
	}
	l.start(base)
	client, err := minio.New(l.Address, &minio.Options{Creds: credentials.NewStaticV4(Key, Secret, ""), Region: Region, MaxRetries: 1})
	if err != nil {
		tb.Fatal(err)
	}
	l.Admin = client
	l.Proxy = NewProxy(tb, l.Address)
	return l
}

func (l *Lab) mount(size int64) {
	l.tb.Helper()
	if os.Geteuid() != 0 {
		l.tb.Skip("only root can mount a small file system")
	}
	err := unix.Mount("tmpfs", l.Root, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0700,size="+strconv.FormatInt(size, 10))
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		l.tb.Skipf("a small file system can't be mounted here: %v", err)
	}
	if err != nil {
		l.tb.Fatal(err)
	}
	l.tb.Cleanup(func() {
		if err := unix.Unmount(l.Root, unix.MNT_DETACH); err != nil {
			l.tb.Errorf("unmount %s: %v", l.Root, err)
		}
	})
}

func (l *Lab) start(base string) {
	l.tb.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(l.tb.Context()), l.binary, "--access", Key, "--secret", Secret, "--region", Region, "--port", l.Address,
		"--health", "/health", "--keep-alive", "--iam-dir", filepath.Join(base, "iam"), "--iam-cache-disable",
		"posix", "--versioning-dir", filepath.Join(base, "versions"), l.Root)
	cmd.Stdout, cmd.Stderr = l.log, l.log
	// Nothing is left behind by a test that panics.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		l.tb.Fatal(err)
	}
	ended := make(chan struct{})
	var how error
	go func() {
		how = cmd.Wait()
		close(ended)
	}()
	l.tb.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		select {
		case <-ended:
		case <-time.After(patience):
			l.tb.Error("the S3 server does not end")
		}
		if l.tb.Failed() {
			l.tb.Logf("the S3 server's log ends with:\n%s", l.log.tail(4000))
		}
	})
	ctx, cancel := context.WithTimeout(l.tb.Context(), patience)
	defer cancel()
	for {
		if healthy(ctx, l.Address) {
			return
		}
		select {
		case <-ended:
			l.tb.Fatalf("the S3 server ended: %v\n%s", how, l.log.tail(4000))
		case <-ctx.Done():
			l.tb.Fatalf("the S3 server does not answer\n%s", l.log.tail(4000))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func healthy(ctx context.Context, address string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/health", http.NoBody)
	if err != nil {
		return false
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	return res.Body.Close() == nil && res.StatusCode == http.StatusOK
}

// Config is that of a bucket as it is seen through the proxy.
func (l *Lab) Config(name string) bucket.Config {
	return bucket.Config{Provider: bucket.S3, Bucket: name, Endpoint: l.Proxy.Address, Region: Region, Insecure: true}
}

// Credentials are the administrator's.
func Credentials() bucket.Credentials { return UserCredentials(Key, Secret) }

// UserCredentials are those of a User.
func UserCredentials(key, secret string) bucket.Credentials {
	return bucket.Explicit(map[string]string{"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret})
}

// Make makes a bucket.
func (l *Lab) Make(name string) {
	l.tb.Helper()
	if err := l.Admin.MakeBucket(l.tb.Context(), name, minio.MakeBucketOptions{}); err != nil {
		l.tb.Fatal(err)
	}
}

// MakeLocking makes a bucket with object lock.
func (l *Lab) MakeLocking(name string) {
	l.tb.Helper()
	if err := l.Admin.MakeBucket(l.tb.Context(), name, minio.MakeBucketOptions{ObjectLocking: true}); err != nil {
		l.tb.Fatal(err)
	}
}

// User makes one that owns no bucket, and returns what takes it away again.
func (l *Lab) User(key, secret string) (revoke func()) {
	l.tb.Helper()
	l.admin("create-user", "--access", key, "--secret", secret, "--role", "user")
	return func() { l.admin("delete-user", "--access", key) }
}

// Own gives a bucket to a user.
func (l *Lab) Own(bucket, key string) {
	l.tb.Helper()
	l.admin("change-bucket-owner", "--bucket", bucket, "--owner", key)
}

func (l *Lab) admin(args ...string) {
	l.tb.Helper()
	args = append([]string{"admin", "--access", Key, "--secret", Secret, "--region", Region, "--endpoint-url", "http://" + l.Address}, args...)
	if out, err := exec.CommandContext(l.tb.Context(), l.binary, args...).CombinedOutput(); err != nil {
		l.tb.Fatalf("versitygw %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// Uploads are the keys of the multipart uploads that are not ended.
func (l *Lab) Uploads(bucket string) []string {
	l.tb.Helper()
	page, err := minio.Core{Client: l.Admin}.ListMultipartUploads(l.tb.Context(), bucket, "", "", "", "", 1000)
	if err != nil {
		l.tb.Fatal(err)
	}
	keys := make([]string, 0, len(page.Uploads))
	for _, upload := range page.Uploads {
		keys = append(keys, upload.Key)
	}
	return keys
}

// Keys are those of the objects that can be seen.
func (l *Lab) Keys(bucket string) []string {
	l.tb.Helper()
	var keys []string
	for object := range l.Admin.ListObjects(l.tb.Context(), bucket, minio.ListObjectsOptions{Recursive: true}) {
		if object.Err != nil {
			l.tb.Fatal(object.Err)
		}
		keys = append(keys, object.Key)
	}
	return keys
}

// Unused is an address where nobody listens.
func Unused(tb testing.TB) string {
	tb.Helper()
	return net.JoinHostPort("127.0.0.1", freeport.Port(tb))
}

// lockedBuffer is written to by the server while a test reads it.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) tail(n int) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.buf.String()
	return s[max(0, len(s)-n):]
}
