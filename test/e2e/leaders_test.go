package e2e_test

import (
	"context"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/internal/process"
	"github.com/quorate/quorate/internal/version"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/test/fleetlab"
	"github.com/quorate/quorate/test/netlab"
)

// reign is a time in which one member led.
type reign struct {
	member, zone string
	from, to     time.Time
}

// court watches who leads.
type court struct {
	lab    *fleetlab.Lab
	zones  map[string]string
	reigns []reign
	// crowned counts how often leadership went to the third zone.
	crowned int
}

// look notes who leads now; who leads nobody, it passes over.
func (c *court) look(ctx context.Context) (reign, error) {
	v, err := c.lab.Client.View(ctx, store.Key{Namespace: fleetlab.Namespace, Name: "lab"})
	if err != nil {
		return reign{}, err
	}
	if v.Leader == "" {
		return reign{}, fmt.Errorf("nobody leads: %s", v.Message)
	}
	now := time.Now()
	if n := len(c.reigns); n == 0 || c.reigns[n-1].member != v.Leader {
		c.reigns = append(c.reigns, reign{member: v.Leader, zone: c.zones[v.Leader], from: now})
	}
	last := &c.reigns[len(c.reigns)-1]
	last.to = now
	return *last, nil
}

// TestLeaderZones has seven members, 2/3/2 over three zones, of which the third is 25 ms
// away. Whatever leader is lost, and be it to the third zone, leadership leaves that
// within 30 s and stays away.
func TestLeaderZones(t *testing.T) {
	const rounds, limit, calm = 5, 30 * time.Second, 8 * time.Second
	hosts := []netlab.HostSpec{
		{Name: "a1", Zone: "a"},
		{Name: "a2", Zone: "a"},
		{Name: "b1", Zone: "b"},
		{Name: "b2", Zone: "b"},
		{Name: "b3", Zone: "b"},
		{Name: "c1", Zone: "c"},
		{Name: "c2", Zone: "c"},
	}
	l := fleetlab.New(t, hosts)
	must(t, l.Net.Delay(l.Net.Zone("c"), 25*time.Millisecond))
	check := false
	two, three := int32(2), int32(3)
	cluster := &v1alpha1.EtcdCluster{Spec: v1alpha1.EtcdClusterSpec{Version: version.Etcd(), Replicas: 7}}
	cluster.Name = "lab"
	cluster.Spec.Placement = v1alpha1.PlacementSpec{
		Zones:       []v1alpha1.ZonePlacement{{Name: "a", Members: &two}, {Name: "b", Members: &three}, {Name: "c", Members: &two}},
		LeaderZones: []string{"a", "b"}, Spread: v1alpha1.SpreadRequired,
	}
	cluster.Spec.Etcd.InitialCorruptCheck = &check
	l.Create(cluster)
	l.Healthy("lab")

	c := &court{lab: l, zones: map[string]string{}}
	count := map[string]int{}
	for _, m := range l.Members("lab") {
		c.zones[m.Name] = l.Net.Host(m.Spec.Host).Zone
		count[c.zones[m.Name]]++
	}
	if count["a"] != 2 || count["b"] != 3 || count["c"] != 2 {
		t.Fatalf("members stand %v", count)
	}
	for round := range rounds {
		leader := c.settle(t, calm)
		if leader.zone == "c" {
			t.Fatalf("round %d begins with a leader in c: %+v", round, c.reigns)
		}
		lost := member(l, leader.member)
		id, err := process.Identify(int(lost.Status.Process.PID))
		must(t, err)
		must(t, id.Signal(syscall.SIGKILL))
		// Elections fall on the third zone now and then; here each does.
		c.crown(t)
		c.leaves(t, limit)
	}
	last := c.settle(t, calm)
	longest := time.Duration(0)
	for i, r := range c.reigns {
		if r.zone != "c" {
			continue
		}
		longest = max(longest, r.to.Sub(r.from))
		if i > 1 && c.reigns[i-1].zone != "c" && c.reigns[i-1].to.Sub(c.reigns[i-1].from) < time.Second && i > 2 && c.reigns[i-2].zone == "c" {
			t.Errorf("leadership went to and fro: %+v", c.reigns[i-2:i+1])
		}
	}
	if c.crowned != rounds || longest > limit {
		t.Errorf("the third zone led %d times in %d rounds, at most %s", c.crowned, rounds, longest)
	}
	if len(c.reigns) > 1+rounds*3 {
		t.Errorf("%d leaders in %d rounds: %+v", len(c.reigns), rounds, c.reigns)
	}
	t.Logf("leadership came to the third zone %d times and left it within %.1f s at most; %d leaders in %d rounds, the last is %s in %s",
		c.crowned, longest.Seconds(), len(c.reigns), rounds, last.member, last.zone)
}

func member(l *fleetlab.Lab, name string) *v1alpha1.EtcdMember {
	all := l.Members("lab")
	return all[slices.IndexFunc(all, func(m *v1alpha1.EtcdMember) bool { return m.Name == name })]
}

// settle waits until the cluster is healthy and one member has led for so long.
func (c *court) settle(t *testing.T, calm time.Duration) reign {
	t.Helper()
	c.lab.Healthy("lab")
	var now reign
	since := time.Now()
	c.lab.Eventually(func(ctx context.Context) error {
		r, err := c.look(ctx)
		if err != nil || r.member != now.member {
			now, since = r, time.Now()
		}
		if err == nil && time.Since(since) < calm {
			err = fmt.Errorf("%s leads since %s only", r.member, time.Since(since))
		}
		return err
	})
	return now
}

// crown hands leadership to a member in the third zone, once somebody leads: the one that
// was lost too, since it is back in no time and may be elected again. One that only led
// before, or is not there yet, has nothing to hand on.
func (c *court) crown(t *testing.T) {
	t.Helper()
	c.lab.Eventually(func(ctx context.Context) error {
		r, err := c.look(ctx)
		switch {
		case err != nil:
			return err
		case r.zone == "c":
			c.crowned++
			return nil
		}
		client := c.lab.Dial("lab", member(c.lab, r.member).Status.ClientURL) //nolint:contextcheck // the lab has the test's
		defer func() { _ = client.Close() }()
		for _, to := range c.lab.Members("lab") { //nolint:contextcheck // as above
			if c.zones[to.Name] == "c" && to.Spec.MemberID != "" {
				err = moveLeader(ctx, client, to.Spec.MemberID)
				break
			}
		}
		if err == nil {
			c.crowned++
		}
		return err
	})
}

func moveLeader(ctx context.Context, c *clientv3.Client, to string) error {
	var id uint64
	if _, err := fmt.Sscanf(to, "%x", &id); err != nil {
		return err
	}
	_, err := c.MoveLeader(ctx, id)
	return err
}

// leaves waits until somebody outside of the third zone leads.
func (c *court) leaves(t *testing.T, limit time.Duration) {
	t.Helper()
	began := time.Now()
	c.lab.Eventually(func(ctx context.Context) error {
		r, err := c.look(ctx)
		if time.Since(began) > limit {
			t.Fatalf("leadership has not left the third zone within %s: %+v, %v", limit, r, err)
		}
		if err == nil && r.zone == "c" {
			err = fmt.Errorf("%s still leads", r.member)
		}
		return err
	})
}
