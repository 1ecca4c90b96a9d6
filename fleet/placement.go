package fleet

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/fleet/place"
	"github.com/quorate/quorate/store"
)

// wholeFleet is all that placement looks at.
type wholeFleet struct {
	hosts    []*v1alpha1.EtcdHost
	members  []*v1alpha1.EtcdMember
	clusters map[string]*v1alpha1.EtcdCluster
}

func (c *ClusterController) readFleet(ctx context.Context) (wholeFleet, error) {
	f := wholeFleet{clusters: map[string]*v1alpha1.EtcdCluster{}}
	objects, err := c.opts.Store.List(ctx, v1alpha1.KindHost, store.ListOptions{})
	if err != nil {
		return f, err
	}
	for _, o := range objects {
		if h, ok := o.(*v1alpha1.EtcdHost); ok {
			f.hosts = append(f.hosts, h)
		}
	}
	if objects, err = c.opts.Store.List(ctx, v1alpha1.KindCluster, store.ListOptions{}); err != nil {
		return f, err
	}
	for _, o := range objects {
		if cluster, ok := o.(*v1alpha1.EtcdCluster); ok {
			f.clusters[clusterName(cluster.Namespace, cluster.Name)] = cluster
		}
	}
	if objects, err = c.opts.Store.List(ctx, v1alpha1.KindMember, store.ListOptions{}); err != nil {
		return f, err
	}
	for _, o := range objects {
		if m, ok := o.(*v1alpha1.EtcdMember); ok {
			f.members = append(f.members, m)
		}
	}
	for _, key := range c.created.unlisted(f.members) {
		m := &v1alpha1.EtcdMember{}
		err = c.opts.Store.Get(ctx, key, m)
		switch {
		case err == nil:
			f.members = append(f.members, m)
		case errors.Is(err, store.ErrNotFound):
			c.created.forget(key)
		default:
			return f, err
		}
	}
	return f, nil
}

// bound are the members of each host, but for those of one cluster.
func (f *wholeFleet) bound(but string) map[string][]place.Member {
	on := map[string][]place.Member{}
	for _, m := range f.members {
		if cluster := clusterName(m.Namespace, m.Spec.ClusterName); cluster != but {
			on[m.Spec.Host] = append(on[m.Spec.Host], placeMember(m, f.clusters[cluster]))
		}
	}
	return on
}

// places are the hosts as placement sees them, with all their members, and what the
// clusters that Quorate runs ask for.
func (f *wholeFleet) places() (hosts []place.Host, clusters []place.Request) {
	bound := f.bound("")
	for _, h := range f.hosts {
		p := placeHost(h, v1alpha1.IsTrue(h.Status.Conditions, v1alpha1.ConditionReady))
		p.Members = bound[h.Name]
		hosts = append(hosts, p)
	}
	for _, name := range slices.Sorted(maps.Keys(f.clusters)) {
		if c := f.clusters[name]; !c.Observed() && c.DeletionTimestamp == nil {
			clusters = append(clusters, requestOf(c))
		}
	}
	return hosts, clusters
}

// Placement says where the members of a stored cluster stand, and where those that are
// missing would come; with a proposed one, as if the proposal had been applied. What
// members stand does not change with the proposal.
func (c *ClusterController) Placement(ctx context.Context, key store.Key, proposed *v1alpha1.EtcdCluster) (v1alpha1.Placement, error) {
	cluster := &v1alpha1.EtcdCluster{}
	err := c.opts.Store.Get(ctx, key, cluster)
	switch {
	case errors.Is(err, store.ErrNotFound) && proposed != nil:
		cluster = proposed.DeepCopy()
		cluster.Namespace, cluster.Name = key.Namespace, key.Name
	case err != nil:
		return v1alpha1.Placement{}, err
	case proposed != nil:
		cluster.Spec = *proposed.Spec.DeepCopy()
	}
	if cluster.Observed() {
		return v1alpha1.Placement{}, fmt.Errorf("%s is only observed: others decide where its members stand: %w", key, store.ErrInvalid)
	}
	f, err := c.readFleet(ctx)
	if err != nil {
		return v1alpha1.Placement{}, err
	}
	s := &State{Cluster: cluster, Releases: map[string]v1alpha1.ReleaseRef{}}
	name := clusterName(key.Namespace, key.Name)
	for _, m := range f.members {
		if clusterName(m.Namespace, m.Spec.ClusterName) == name {
			s.Members = append(s.Members, MemberState{Object: m})
			s.LastNumber = max(s.LastNumber, memberNumber(key.Name, m.Name))
		}
	}
	bound := f.bound(name)
	for _, h := range f.hosts {
		c.addHost(s, h, bound[h.Name])
	}
	r := requestOf(cluster)
	return place.Place(s.placeHosts(&r, nil), &r, s.newName), nil
}

// Rebalance says what would make the fleet's placement better.
func (c *ClusterController) Rebalance(ctx context.Context) (v1alpha1.Rebalance, error) {
	f, err := c.readFleet(ctx)
	if err != nil {
		return v1alpha1.Rebalance{}, err
	}
	hosts, clusters := f.places()
	return place.Suggest(hosts, clusters), nil
}

// Usage adds up what members ask for and use, by what place.Use takes. ErrInvalid for
// anything else.
func (c *ClusterController) Usage(ctx context.Context, by string) (v1alpha1.Usage, error) {
	f, err := c.readFleet(ctx)
	if err != nil {
		return v1alpha1.Usage{}, err
	}
	hosts, _ := f.places()
	u, err := place.Use(hosts, by)
	if err != nil {
		err = fmt.Errorf("%w: %w", err, store.ErrInvalid)
	}
	return u, err
}
