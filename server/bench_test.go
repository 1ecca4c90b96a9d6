package server_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/server"
	"github.com/quorate/quorate/server/servertest"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
)

// thousand fills a fixture with 1,000 clusters as they look while they run.
func thousand(b *testing.B) (*servertest.Fixture, *remote.Client) {
	b.Helper()
	f := servertest.New(b, nil)
	for i := range 1000 {
		c := servertest.Cluster("prod", fmt.Sprintf("c-%04d", i))
		c.Labels = map[string]string{"team": fmt.Sprintf("t%d", i%10)}
		for _, condition := range []string{"Available", "Progressing", "Degraded"} {
			v1alpha1.SetCondition(&c.Status.Conditions, v1alpha1.Condition{
				Type: condition, Status: v1alpha1.True, Reason: "AllHealthy", Message: "all 3 members are healthy, and the cluster serves",
			})
		}
		f.Create(b, c)
	}
	return f, f.Client(b, server.RoleAdmin, "", remote.Options{})
}

// BenchmarkList lists 1,000 clusters as raw bytes, as objects, and as none: by a
// label that nothing has.
func BenchmarkList(b *testing.B) {
	f, c := thousand(b)
	token := f.Token(b, server.RoleAdmin, "")
	b.Run("bytes", func(b *testing.B) {
		for b.Loop() {
			req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, f.URL+"/apis/quorate.io/v1alpha1/etcdclusters", nil)
			fine(b, "make the request", err)
			req.Header.Set("Authorization", "Bearer "+token)
			resp, err := http.DefaultTransport.RoundTrip(req)
			fine(b, "ask", err)
			n, err := io.Copy(io.Discard, resp.Body)
			fine(b, "read", err)
			_ = resp.Body.Close()
			b.SetBytes(n)
		}
	})
	for name, labels := range map[string]map[string]string{"objects": nil, "none": {"team": "none"}} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				objs, err := c.List(b.Context(), v1alpha1.KindCluster, store.ListOptions{Labels: labels})
				fine(b, "list", err)
				if (len(objs) == 1000) != (labels == nil) {
					b.Fatalf("%d objects", len(objs))
				}
			}
		})
	}
}

// BenchmarkWatch tells how long a change of one of 1,000 clusters takes to reach a
// watcher, with 50 others watching.
func BenchmarkWatch(b *testing.B) {
	f, c := thousand(b)
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	for range 50 {
		other := c.Watch(ctx, v1alpha1.KindCluster, "")
		go func() {
			for range other {
				continue
			}
		}()
	}
	keys := c.Watch(ctx, v1alpha1.KindCluster, "")
	for range 1000 {
		<-keys
	}
	var took []time.Duration
	n := 0
	for b.Loop() {
		n++
		key := store.Key{Namespace: "prod", Name: fmt.Sprintf("c-%04d", n%1000)}
		began := time.Now()
		fine(b, "change", store.MutateStatus(ctx, f.Store, key, &v1alpha1.EtcdCluster{}, func(c *v1alpha1.EtcdCluster) (bool, error) {
			c.Status.Ready = strconv.Itoa(n)
			return true, nil
		}))
		for key != <-keys {
			continue
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
	b.ReportMetric(float64(took[len(took)-1].Microseconds())/1000, "worst-ms")
}
