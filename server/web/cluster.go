package web

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
)

// Sizes of the lists on a page.
const (
	shownEvents = 12
	shownTasks  = 6
)

// clusterData is a cluster's page, and its part that is asked for again.
type clusterData struct {
	frame

	Cluster *v1alpha1.EtcdCluster
	View    v1alpha1.ClusterView
	// ViewError is why there is no view now; the rest is shown as stored.
	ViewError string
	Plan      v1alpha1.Plan
	Tasks     []*v1alpha1.EtcdTask
	Events    []store.Event
	// Healthy of Voters members are; Quorum of them are needed.
	Healthy, Voters, Quorum  int
	Leader                   *v1alpha1.MemberView
	Revision                 int64
	Term                     uint64
	DBSize, DBInUse, DBQuota int64
	Latency                  float64
	Version                  string
	Drawing                  drawing
	Endpoints                []string
	// Breakable: the leader's host lets faults be tried.
	Breakable bool
	// Observed: Quorate watches the cluster and does not run it.
	Observed bool
	Deleting bool
}

func (c *console) clusterPage(v *visit) error {
	ctx, cancel := v.bounded()
	defer cancel()
	d, err := c.cluster(ctx, v, firstTime)
	if err != nil {
		return err
	}
	events, err := v.api.Events(ctx, store.EventOptions{Namespace: d.Cluster.Namespace, Cluster: d.Cluster.Name})
	if err != nil {
		return err
	}
	d.Events = latest(events, shownEvents)
	return c.pages.render(v, http.StatusOK, "cluster", d)
}

func (c *console) clusterLive(v *visit) error {
	ctx, cancel := v.bounded()
	defer cancel()
	d, err := c.cluster(ctx, v, pageTime)
	if err != nil {
		return err
	}
	return c.pages.render(v, http.StatusOK, "cluster/live", d)
}

// cluster gathers all but the events. Members that don't answer hold it up for no
// longer than patience; then it shows what is stored.
func (c *console) cluster(ctx context.Context, v *visit, patience time.Duration) (*clusterData, error) {
	key := v.key()
	d := &clusterData{Cluster: &v1alpha1.EtcdCluster{}}
	if err := v.api.Get(ctx, key, d.Cluster); err != nil {
		return nil, err
	}
	d.frame = c.frame(v, "cluster", d.Cluster.Name).with("quorate status " + key.Name + inNamespace(key.Namespace))
	d.Path = clusterPath(key.Namespace, key.Name)
	view, late, err := viewWithin(ctx, v, key, patience)
	if late || err != nil {
		if !late {
			d.ViewError = err.Error()
		}
		view = v1alpha1.ClusterView{Namespace: key.Namespace, Cluster: key.Name}
		view.State, view.Message = stateOf(d.Cluster)
	}
	d.View = view
	if d.Plan, err = v.api.Plan(ctx, key); err != nil {
		return nil, err
	}
	if d.Tasks, err = tasksOf(ctx, v, key); err != nil {
		return nil, err
	}
	d.Tasks = d.Tasks[:min(len(d.Tasks), shownTasks)]
	d.sum()
	d.Breakable = breakable(ctx, v, d.Leader)
	return d, nil
}

// viewWithin asks a cluster's members; late says that they took longer than that.
func viewWithin(ctx context.Context, v *visit, key store.Key, patience time.Duration) (view v1alpha1.ClusterView, late bool, err error) {
	asked, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	view, err = v.api.View(asked, key)
	return view, err != nil && asked.Err() != nil, err
}

// sum draws from the members what is said of the whole.
func (d *clusterData) sum() {
	d.Deleting = d.Cluster.DeletionTimestamp != nil
	d.Observed = d.Cluster.Observed()
	d.Endpoints = d.Cluster.Status.Endpoints
	d.Version = versionOf(d.Cluster)
	for i := range d.View.Members {
		m := &d.View.Members[i]
		// Learners don't count: they serve, and decide nothing.
		if m.Role != v1alpha1.RoleLearner {
			d.Voters++
			if m.Healthy {
				d.Healthy++
			}
		}
		if m.Role == v1alpha1.RoleLeader {
			d.Leader = m
		}
		if !m.Answered {
			continue
		}
		d.Revision, d.Term = max(d.Revision, m.Revision), max(d.Term, m.RaftTerm)
		d.Latency = max(d.Latency, m.LatencyMilliseconds)
		if m.DBSize > d.DBSize {
			d.DBSize, d.DBInUse, d.DBQuota = m.DBSize, m.DBSizeInUse, m.DBQuota
		}
	}
	if d.Voters == 0 {
		d.Voters = int(d.Cluster.Spec.Replicas)
	}
	d.Quorum = quorumOf(d.Voters)
	d.Drawing = draw(d.View.Members, d.Voters)
}

// versionOf is what the members run, or are meant to before one has answered.
func versionOf(c *v1alpha1.EtcdCluster) string { return cmp.Or(c.Status.Version, c.Spec.Version) }

// TLS is how the members are reached, in the words of a cluster's spec.
func (d *clusterData) TLS() string {
	switch {
	case !d.Observed:
		return string(d.Cluster.Spec.TLS.Mode)
	case slices.ContainsFunc(d.Endpoints, func(u string) bool { return strings.HasPrefix(u, "http:") }):
		return string(v1alpha1.TLSDisabled)
	}
	return "Imported"
}

// Spare is how many members may still be lost.
func (d *clusterData) Spare() int { return max(0, d.Healthy-d.Quorum) }

// tasksOf lists a cluster's tasks, the latest first.
func tasksOf(ctx context.Context, v *visit, key store.Key) ([]*v1alpha1.EtcdTask, error) {
	return tasks(ctx, v, store.ListOptions{Namespace: key.Namespace, Labels: map[string]string{v1alpha1.LabelCluster: key.Name}})
}

func tasks(ctx context.Context, v *visit, opts store.ListOptions) ([]*v1alpha1.EtcdTask, error) {
	objects, err := v.api.List(ctx, v1alpha1.KindTask, opts)
	if err != nil {
		return nil, err
	}
	list := make([]*v1alpha1.EtcdTask, 0, len(objects))
	for _, obj := range objects {
		if t, ok := obj.(*v1alpha1.EtcdTask); ok {
			list = append(list, t)
		}
	}
	slices.SortStableFunc(list, func(a, b *v1alpha1.EtcdTask) int {
		if order := b.CreationTimestamp.Compare(a.CreationTimestamp.Time); order != 0 {
			return order
		}
		return int(b.Spec.Number - a.Spec.Number)
	})
	return list, nil
}

// latest returns the last n events, newest first.
func latest(events []store.Event, n int) []store.Event {
	events = slices.Clone(events)
	slices.SortStableFunc(events, func(a, b store.Event) int { return b.Time.Compare(a.Time) })
	return events[:min(n, len(events))]
}
