package fleet

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
)

const (
	// movesPerHost is how many clusters are moved off a draining host at a time: each
	// sends its database over the network once.
	movesPerHost = 1
	// turnPatience is how long a cluster whose turn has come may take to begin.
	turnPatience = 10 * time.Second
	// stalledAfter is how long a cluster may be under change before it no longer keeps
	// others from their turn.
	stalledAfter = 10 * time.Minute
)

// turns says which clusters may begin to move a member off a draining host. What is under
// way is read from the store; the memory only bridges the moment between a decision and
// its first write.
type turns struct {
	mu sync.Mutex
	// given is, by host, who was let in, and when.
	given map[string]map[store.Key]time.Time
}

func newTurns() *turns { return &turns{given: map[string]map[store.Key]time.Time{}} }

// take says why the cluster may not move its next member yet; empty if it may.
func (t *turns) take(ctx context.Context, from store.Store, s *State, now time.Time) (string, error) {
	c := s.changes()
	if len(c.voters) < int(s.Cluster.Spec.Replicas) || len(c.leaving) == 0 {
		return "", nil // nothing is moved: a member is missing
	}
	gone := c.goners()
	host := gone[0].Object.Spec.Host
	if !s.draining(gone[0]) {
		return "", nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	others, err := neighbours(ctx, from, host)
	if err != nil {
		return "", err
	}
	mine := store.KeyOf(s.Cluster)
	given := t.given[host]
	if given == nil {
		given = map[store.Key]time.Time{}
		t.given[host] = given
	}
	var moving []string
	for key, o := range others {
		if key == mine {
			continue
		}
		began, let := given[key]
		if o.moving(now) || let && now.Sub(began) < turnPatience && o.able(now) {
			moving = append(moving, key.String())
		}
	}
	for key, began := range given {
		if now.Sub(began) >= turnPatience {
			delete(given, key)
		}
	}
	slices.Sort(moving)
	if len(moving) >= movesPerHost {
		return fmt.Sprintf("host %s is emptied one cluster at a time, and %s is on its way", host, strings.Join(moving, ", ")), nil
	}
	if first := firstOf(others, s.Cluster, now); first != "" {
		return fmt.Sprintf("host %s is emptied one cluster at a time, and %s goes first", host, first), nil
	}
	given[mine] = now
	return "", nil
}

// neighbour is a cluster with members on a host that is to be emptied.
type neighbour struct {
	cluster *v1alpha1.EtcdCluster
	// members that it has, anywhere.
	members []*v1alpha1.EtcdMember
}

// neighbours are the clusters with members on the host.
func neighbours(ctx context.Context, from store.Store, host string) (map[store.Key]*neighbour, error) {
	objects, err := from.List(ctx, v1alpha1.KindMember, store.ListOptions{})
	if err != nil {
		return nil, err
	}
	all := map[store.Key][]*v1alpha1.EtcdMember{}
	here := map[store.Key]bool{}
	for _, o := range objects {
		if m, ok := o.(*v1alpha1.EtcdMember); ok {
			key := store.Key{Namespace: m.Namespace, Name: m.Spec.ClusterName}
			all[key] = append(all[key], m)
			here[key] = here[key] || m.Spec.Host == host
		}
	}
	found := map[store.Key]*neighbour{}
	if objects, err = from.List(ctx, v1alpha1.KindCluster, store.ListOptions{}); err != nil {
		return nil, err
	}
	for _, o := range objects {
		if c, ok := o.(*v1alpha1.EtcdCluster); ok && here[store.KeyOf(c)] {
			found[store.KeyOf(c)] = &neighbour{cluster: c, members: all[store.KeyOf(c)]}
		}
	}
	return found, nil
}

// able reports whether, by what was last said of it, the cluster can be moved.
func (n *neighbour) able(now time.Time) bool {
	c := n.cluster
	st := c.Status.Conditions
	if c.Observed() || c.DeletionTimestamp != nil || c.Spec.Suspended || held(c) ||
		!v1alpha1.IsTrue(st, v1alpha1.ConditionAvailable) || v1alpha1.IsTrue(st, v1alpha1.ConditionDegraded) {
		return false
	}
	p := v1alpha1.FindCondition(st, v1alpha1.ConditionProgressing)
	if p != nil && p.Status == v1alpha1.True {
		return now.Sub(p.LastTransitionTime.Time) <= stalledAfter
	}
	return p == nil || p.Reason == HeldTurn || p.Reason == "AsWanted"
}

// moving reports whether a member of the cluster is half-way in or out, and comes on.
func (n *neighbour) moving(now time.Time) bool {
	if !n.able(now) {
		return false // what is stuck keeps nobody else waiting
	}
	there := 0
	for _, m := range n.members {
		if m.Spec.Leaving || m.DeletionTimestamp != nil {
			return true
		}
		there++
	}
	return there > int(n.cluster.Spec.Replicas)
}

// firstOf is who goes before the cluster, of those that can be moved; empty if it is first.
func firstOf(others map[store.Key]*neighbour, c *v1alpha1.EtcdCluster, now time.Time) string {
	first := c
	for _, o := range others {
		if o.cluster.UID != c.UID && o.able(now) && moveOrder(o.cluster, first) < 0 {
			first = o.cluster
		}
	}
	if first == c {
		return ""
	}
	return store.KeyOf(first).String()
}

// moveOrder is the order in which clusters leave a host: those that may be disturbed most
// go first, so that what goes wrong goes wrong there.
func moveOrder(a, b *v1alpha1.EtcdCluster) int {
	rank := func(c *v1alpha1.EtcdCluster) int {
		switch c.Spec.Class {
		case v1alpha1.ClassBestEffort:
			return 0
		case v1alpha1.ClassGuaranteed:
			return 2 //nolint:mnd // the last of three
		case v1alpha1.ClassBurstable:
		}
		return 1
	}
	return cmp.Or(cmp.Compare(rank(a), rank(b)), strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
}
