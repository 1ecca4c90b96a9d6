package discovery_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/formation/discovery"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/memory"
)

// site is a discovery service that can be restarted at its address.
type site struct {
	t     *testing.T
	store *memory.Store
	addr  string
	where discovery.Where

	mu   sync.Mutex
	now  time.Time
	stop func()
	svc  *discovery.Service
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, store: memory.New(memory.Options{}), addr: "127.0.0.1:0", now: time.Now()}
	s.start()
	t.Cleanup(func() { s.stop() })
	return s
}

func (s *site) clock() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

func (s *site) pass(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = s.now.Add(d)
}

func (s *site) start() {
	s.t.Helper()
	var config net.ListenConfig
	l, err := config.Listen(s.t.Context(), "tcp", s.addr)
	must(s.t, err)
	s.addr = l.Addr().String()
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.t.Context()))
	s.svc, err = discovery.Open(ctx, discovery.Options{Store: s.store, URL: "https://" + s.addr, Now: s.clock})
	must(s.t, err)
	done := make(chan error, 1)
	go func(svc *discovery.Service) { done <- svc.Serve(ctx, l) }(s.svc)
	s.stop = sync.OnceFunc(func() {
		cancel()
		if ended := <-done; ended != nil {
			s.t.Error(ended)
		}
	})
	s.where, err = discovery.Find(ctx, s.store)
	must(s.t, err)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (s *site) tls() *tls.Config {
	s.t.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(s.where.CA)) {
		s.t.Fatal("no CA")
	}
	return &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
}

// client is what etcd uses.
func (s *site) client() *clientv3.Client {
	s.t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{s.where.URL}, TLS: s.tls(), DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
	must(s.t, err)
	s.t.Cleanup(func() { _ = c.Close() })
	return c
}

func (s *site) conn() *grpc.ClientConn {
	s.t.Helper()
	c, err := grpc.NewClient(s.addr, grpc.WithTransportCredentials(credentials.NewTLS(s.tls())))
	must(s.t, err)
	s.t.Cleanup(func() { _ = c.Close() })
	return c
}

func (s *site) token(size int) string {
	s.t.Helper()
	t, err := discovery.New(s.t.Context(), s.store, size, time.Hour, s.clock())
	must(s.t, err)
	if len(t.Token) != 32 {
		s.t.Fatalf("token %q has not 128 bits", t.Token)
	}
	return t.Token
}

const root = "/_etcd/registry/"

// TestNothingElse: whatever a founding member does not ask is refused, and shows neither
// other tokens nor anything else of the store.
func TestNothingElse(t *testing.T) {
	s := newSite(t)
	mine, other := s.token(3), s.token(3)
	secret := &v1alpha1.Secret{Data: map[string][]byte{"k": []byte("hidden")}}
	secret.Namespace, secret.Name = "default", "hidden"
	must(t, s.store.Create(t.Context(), secret))
	kv := pb.NewKVClient(s.conn())
	ranges := map[string]*pb.RangeRequest{
		"everything":         {Key: []byte{0}, RangeEnd: []byte{0}},
		"all tokens":         {Key: []byte(root), RangeEnd: []byte("/_etcd/registry0")},
		"below a token":      {Key: []byte(root + mine), RangeEnd: []byte(root + mine + "0")},
		"token and beyond":   {Key: []byte(root + mine + "/members"), RangeEnd: []byte{0}},
		"wider members":      {Key: []byte(root + mine + "/members"), RangeEnd: []byte(root + mine + "/n")},
		"size as a range":    {Key: []byte(root + mine + "/_config/size"), RangeEnd: []byte{0}},
		"from own to others": {Key: []byte(root + min(mine, other) + "/members"), RangeEnd: []byte(root + max(mine, other) + "/members/z")},
		"one member":         {Key: []byte(root + mine + "/members/1")},
		"no token":           {Key: []byte(root + "/members"), RangeEnd: []byte(root + "/membert")},
		"path tricks":        {Key: []byte(root + "../secrets/members"), RangeEnd: []byte(root + "../secrets/membert")},
		"a store's key":      {Key: []byte("/quorate/secrets/default/hidden")},
		"empty":              {},
		"old revision":       {Key: []byte(root + mine + "/_config/size"), Revision: 1},
	}
	for name, r := range ranges {
		if _, err := kv.Range(t.Context(), r); status.Code(err) != codes.PermissionDenied {
			t.Errorf("range %s: %v", name, err)
		}
	}
	good := []byte("m1=https://10.0.0.1:2380")
	member := func(token, id string) []byte { return []byte(root + token + "/members/" + id) }
	for name, c := range map[string]struct {
		put  *pb.PutRequest
		code codes.Code
	}{
		"size":            {&pb.PutRequest{Key: []byte(root + mine + "/_config/size"), Value: []byte("1")}, codes.PermissionDenied},
		"elsewhere":       {&pb.PutRequest{Key: []byte("/registry/pods/x"), Value: good}, codes.PermissionDenied},
		"no ID":           {&pb.PutRequest{Key: member(mine, "zzz"), Value: good}, codes.PermissionDenied},
		"deeper":          {&pb.PutRequest{Key: member(mine, "1/2"), Value: good}, codes.PermissionDenied},
		"lease":           {&pb.PutRequest{Key: member(mine, "1"), Value: good, Lease: 7}, codes.PermissionDenied},
		"previous":        {&pb.PutRequest{Key: member(mine, "1"), Value: good, PrevKv: true}, codes.PermissionDenied},
		"no URL":          {&pb.PutRequest{Key: member(mine, "1"), Value: []byte("m1")}, codes.InvalidArgument},
		"other scheme":    {&pb.PutRequest{Key: member(mine, "1"), Value: []byte("m1=ftp://10.0.0.1:2380")}, codes.InvalidArgument},
		"no port":         {&pb.PutRequest{Key: member(mine, "1"), Value: []byte("m1=https://10.0.0.1")}, codes.InvalidArgument},
		"two names":       {&pb.PutRequest{Key: member(mine, "1"), Value: []byte("m1=https://a:1,m2=https://b:1")}, codes.InvalidArgument},
		"too long":        {&pb.PutRequest{Key: member(mine, "1"), Value: []byte("m1=https://" + strings.Repeat("a", 4000) + ":1")}, codes.InvalidArgument},
		"unknown token":   {&pb.PutRequest{Key: member(strings.Repeat("f", 32), "1"), Value: good}, codes.NotFound},
		"service's own":   {&pb.PutRequest{Key: member("service", "1"), Value: good}, codes.NotFound},
		"far too long":    {&pb.PutRequest{Key: member(mine, "1"), Value: make([]byte, 100<<10)}, codes.ResourceExhausted},
		"control letters": {&pb.PutRequest{Key: member(mine, "1"), Value: []byte("m\n1=https://10.0.0.1:2380")}, codes.InvalidArgument},
	} {
		if _, err := kv.Put(t.Context(), c.put); status.Code(err) != c.code {
			t.Errorf("put %s: %v, want %s", name, err, c.code)
		}
	}
	for name, err := range map[string]error{
		"delete":  second(kv.DeleteRange(t.Context(), &pb.DeleteRangeRequest{Key: member(mine, "1")})),
		"txn":     second(kv.Txn(t.Context(), &pb.TxnRequest{})),
		"compact": second(kv.Compact(t.Context(), &pb.CompactionRequest{Revision: 1})),
		"members": second(pb.NewClusterClient(s.conn()).MemberList(t.Context(), &pb.MemberListRequest{})),
		"status":  second(pb.NewMaintenanceClient(s.conn()).Status(t.Context(), &pb.StatusRequest{})),
		"lease":   second(pb.NewLeaseClient(s.conn()).LeaseGrant(t.Context(), &pb.LeaseGrantRequest{TTL: 1})),
		"auth":    second(pb.NewAuthClient(s.conn()).UserList(t.Context(), &pb.AuthUserListRequest{})),
	} {
		if status.Code(err) != codes.Unimplemented {
			t.Errorf("%s: %v", name, err)
		}
	}
	watches := map[string]*pb.WatchCreateRequest{
		"everything": {Key: []byte{0}, RangeEnd: []byte{0}},
		"all tokens": {Key: []byte(root), RangeEnd: []byte("/_etcd/registry0")},
		"unknown":    {Key: []byte(root + strings.Repeat("f", 32) + "/members"), RangeEnd: []byte(root + strings.Repeat("f", 32) + "/membert")},
		"size":       {Key: []byte(root + mine + "/_config/size")},
	}
	for name, r := range watches {
		w, err := pb.NewWatchClient(s.conn()).Watch(t.Context())
		must(t, err)
		must(t, w.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: r}}))
		if _, err = w.Recv(); status.Code(err) != codes.PermissionDenied {
			t.Errorf("watch %s: %v", name, err)
		}
	}
	tokens, err := discovery.List(t.Context(), s.store)
	must(t, err)
	for _, tk := range tokens {
		if len(tk.Members) != 0 {
			t.Errorf("%s: something was registered: %v", tk.Name, tk.Members)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// meet registers a member as etcd does, and waits for the others as it does.
func meet(ctx context.Context, c *clientv3.Client, token string, id, size int) ([]string, error) {
	prefix := root + token + "/members"
	if _, err := c.Put(ctx, fmt.Sprintf("%s/%x", prefix, id), fmt.Sprintf("m%d=https://10.0.0.%d:2380", id, id)); err != nil {
		return nil, err
	}
	got, err := c.Get(ctx, prefix, clientv3.WithPrefix())
	if err != nil {
		return nil, err
	}
	var seen []string
	for _, kv := range got.Kvs {
		seen = append(seen, string(kv.Value))
	}
	if len(seen) >= size {
		return seen, nil
	}
	for resp := range c.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(got.Header.Revision+1)) {
		for _, e := range resp.Events {
			seen = append(seen, string(e.Kv.Value))
		}
		if len(seen) >= size {
			return seen, nil
		}
	}
	return seen, errors.New("the watch ended")
}

// TestRestartInTheMiddle: members that wait, and those that come later, see each other
// over a restart of the service, in one order.
func TestRestartInTheMiddle(t *testing.T) {
	s := newSite(t)
	token := s.token(3)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	type result struct {
		seen []string
		err  error
	}
	results := make(chan result, 3)
	join := func(id int) {
		c := s.client()
		go func() {
			seen, err := meet(ctx, c, token, id, 3)
			for status.Code(err) == codes.Unavailable && ctx.Err() == nil {
				// The service stopped before it had answered: etcd ends, and its supervisor
				// starts it again.
				seen, err = meet(ctx, c, token, id, 3)
			}
			results <- result{seen, err}
		}()
	}
	join(1)
	s.registered(token, 1)
	s.stop()
	s.start()
	join(2)
	s.registered(token, 2)
	s.stop()
	s.start()
	join(3)
	want := []string{"m1=https://10.0.0.1:2380", "m2=https://10.0.0.2:2380", "m3=https://10.0.0.3:2380"}
	for range 3 {
		r := <-results
		if r.err != nil || strings.Join(r.seen, " ") != strings.Join(want, " ") {
			t.Errorf("a member sees %v, %v", r.seen, r.err)
		}
	}
}

// registered waits until that many members have.
func (s *site) registered(token string, n int) {
	s.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for time.Now().Before(deadline) {
		tokens, err := discovery.List(s.t.Context(), s.store)
		must(s.t, err)
		for _, t := range tokens {
			if t.Token == token && len(t.Members) == n {
				return
			}
		}
		<-time.After(10 * time.Millisecond)
	}
	s.t.Fatalf("%d members have not registered", n)
}

// TestOneTooMany: of many that register at once as many are taken as the token is for,
// each once, and the same member may come again.
func TestOneTooMany(t *testing.T) {
	s := newSite(t)
	token := s.token(5)
	c := s.client()
	var wg sync.WaitGroup
	for id := 1; id <= 12; id++ {
		wg.Go(func() {
			for range 2 {
				_, err := c.Put(t.Context(), fmt.Sprintf("%s%s/members/%x", root, token, id), fmt.Sprintf("m%d=https://10.0.0.%d:2380", id, id))
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	got, err := c.Get(t.Context(), root+token+"/members", clientv3.WithPrefix())
	must(t, err)
	seen := map[string]bool{}
	for i, kv := range got.Kvs {
		seen[string(kv.Key)] = true
		if kv.CreateRevision != int64(3+i) {
			t.Errorf("%s has the revision %d", kv.Key, kv.CreateRevision)
		}
	}
	if len(seen) != 5 || got.Header.Revision != 7 {
		t.Errorf("%d members at revision %d, want 5 at 7", len(seen), got.Header.Revision)
	}
	_, err = c.Put(t.Context(), string(got.Kvs[0].Key), "other=https://10.0.0.99:2380")
	if status.Code(err) != codes.FailedPrecondition && !strings.Contains(fmt.Sprint(err), "already") {
		t.Errorf("another member under a known ID: %v", err)
	}
}

// TestExpiry: a token that has expired or was deleted is as one that never was, and is
// swept; those who wait are told.
func TestExpiry(t *testing.T) {
	s := newSite(t)
	token := s.token(2)
	c := s.client()
	waiting := make(chan error, 1)
	go func() {
		_, err := meet(t.Context(), c, token, 1, 2)
		waiting <- err
	}()
	s.registered(token, 1)
	s.pass(2 * time.Hour)
	got, err := c.Get(t.Context(), root+token+"/_config/size")
	if err != nil || len(got.Kvs) != 0 {
		t.Errorf("the size of an expired token: %v, %v", got, err)
	}
	select {
	case err := <-waiting:
		if err == nil {
			t.Error("a member that waits is not told that the token has expired")
		}
	case <-time.After(20 * time.Second):
		t.Error("a member goes on waiting for an expired token")
	}
	s.stop()
	s.start() // it sweeps when it begins
	deadline := time.Now().Add(20 * time.Second)
	for {
		left, err := discovery.List(t.Context(), s.store)
		must(t, err)
		if len(left) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d tokens are left", len(left))
		}
		<-time.After(10 * time.Millisecond)
	}
	if err := discovery.Delete(t.Context(), s.store, token); !errors.Is(err, discovery.ErrUnknown) {
		t.Errorf("delete a token that is gone: %v", err)
	}
}

// TestTokenOfCluster: a cluster has one token, whoever asks and when, which another can't
// guess; a cluster made anew has another.
func TestTokenOfCluster(t *testing.T) {
	s := newSite(t)
	c := &v1alpha1.EtcdCluster{Spec: v1alpha1.EtcdClusterSpec{Replicas: 3}}
	c.Namespace, c.Name, c.UID = "default", "orders", "uid-1"
	first, err := s.svc.Open(t.Context(), c)
	must(t, err)
	s.stop()
	s.start()
	s.pass(13 * time.Hour)
	again, err := s.svc.Open(t.Context(), c)
	must(t, err)
	if again.Token != first.Token || len(first.Token) != 32 || first.CA != s.where.CA || first.Endpoints[0] != s.where.URL {
		t.Errorf("first %+v, then %+v", first, again)
	}
	s.pass(13 * time.Hour) // the second asking has prolonged it
	got, err := s.client().Get(t.Context(), root+first.Token+"/_config/size")
	if err != nil || len(got.Kvs) != 1 || string(got.Kvs[0].Value) != "3" {
		t.Errorf("size: %v, %v", got, err)
	}
	c.UID = "uid-2"
	other, err := s.svc.Open(t.Context(), c)
	must(t, err)
	if other.Token == first.Token {
		t.Error("a cluster made anew meets at the place of the one before")
	}
	objects, err := s.store.List(t.Context(), v1alpha1.KindSecret, store.ListOptions{Namespace: discovery.Namespace})
	must(t, err)
	for _, o := range objects {
		if strings.Contains(o.GetName(), first.Token) || strings.Contains(fmt.Sprint(o.GetLabels()), first.Token) {
			t.Errorf("the name %s shows the token", o.GetName())
		}
	}
}

// TestManyRequests: one address can't take more than members need.
func TestManyRequests(t *testing.T) {
	s := newSite(t)
	kv := pb.NewKVClient(s.conn())
	refused := 0
	for range 300 {
		_, err := kv.Range(t.Context(), &pb.RangeRequest{Key: []byte(root + strings.Repeat("e", 32) + "/_config/size")})
		if status.Code(err) == codes.ResourceExhausted {
			refused++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if refused == 0 {
		t.Error("300 requests in a row were all answered")
	}
}

// TestWhere: the address must be one that members can reach, and TLS is not optional.
// TestManyWatchesOfOneStream: watches that one stream begins and cancels are counted as
// requests are, since each asks the store.
func TestManyWatchesOfOneStream(t *testing.T) {
	s := newSite(t)
	mine := s.token(3)
	w, err := pb.NewWatchClient(s.conn()).Watch(t.Context())
	must(t, err)
	create := &pb.WatchCreateRequest{Key: []byte(root + mine + "/members"), RangeEnd: []byte(root + mine + "/membert")}
	for id := range int64(2000) {
		if err = w.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err == nil {
			_, err = w.Recv()
		}
		if err == nil {
			err = w.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: id}}})
		}
		if err == nil {
			_, err = w.Recv()
		}
		if err != nil {
			break
		}
	}
	if errors.Is(err, io.EOF) { // what Send says of a stream that has ended
		_, err = w.Recv()
	}
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("one stream began 2000 watches: %v", err)
	}
}

func TestWhere(t *testing.T) {
	for _, url := range []string{"http://10.0.0.1:1", "https://10.0.0.1", "https://0.0.0.0:7382", "https://[::]:7382", "10.0.0.1:1", "https://10.0.0.1:1/x"} {
		if _, err := discovery.Open(t.Context(), discovery.Options{Store: memory.New(memory.Options{}), URL: url}); err == nil {
			t.Errorf("%s was taken", url)
		}
	}
	s := newSite(t)
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", s.addr)
	must(t, err)
	defer c.Close() //nolint:errcheck // read from
	_, _ = c.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
	must(t, c.SetDeadline(time.Now().Add(15*time.Second)))
	if n, err := c.Read(make([]byte, 100)); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("plain text is neither refused nor answered: %d bytes", n)
	}
}
