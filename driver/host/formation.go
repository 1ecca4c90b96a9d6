package host

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/driver/host/supervisor"
	"github.com/quorate/quorate/etcd/srv"
	"github.com/quorate/quorate/internal/atomicfile"
	"github.com/quorate/quorate/internal/backoff"
)

// Reasons of the condition Formed, beside those of the supervisor and of package srv.
const (
	ReasonFormed         = "Formed"
	ReasonForming        = "Forming"
	ReasonNoQuorumFormed = "NoQuorumFormed"
)

// formationPatience is how long founding members are waited for before the condition
// says so. They go on waiting for each other.
const formationPatience = 3 * time.Minute

// discoveryCA is where the CA of a discovery service lies.
func discoveryCA(h supervisor.Home) string { return filepath.Join(h.TLSDir(), "discovery-ca.crt") }

// founding reports whether the member has yet to become part of its cluster, without
// data of its own.
func founding(m *v1alpha1.EtcdMember) bool {
	return m.Spec.MemberID == "" && m.Spec.Bootstrap != nil && !formedFromBackup(m)
}

// writeDiscoveryCA puts the CA of the member's discovery service into the home, and
// returns its path; empty where there is none.
func writeDiscoveryCA(m *v1alpha1.EtcdMember, h supervisor.Home) (string, error) {
	b := m.Spec.Bootstrap
	if b == nil || b.Discovery == nil || b.Discovery.CA == "" {
		return "", nil
	}
	path, ca := discoveryCA(h), []byte(b.Discovery.CA)
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, ca) { //nolint:gosec // a file of the home
		return path, nil
	}
	return path, atomicfile.Write(path, ca, 0o644)
}

// formationOrder is what the supervisor watches the member's first steps by.
func (d *Driver) formationOrder(m *v1alpha1.EtcdMember) *supervisor.FormationOrder {
	b := m.Spec.Bootstrap
	if b == nil || formedFromBackup(m) {
		return nil
	}
	peers := len(b.InitialCluster)
	if b.Discovery != nil {
		// The list holds the member alone; nine is as many as a cluster has.
		peers = 9
	}
	return &supervisor.FormationOrder{Peers: peers, PatienceSeconds: d.opts.FormationPatience.Seconds()}
}

// lookup is the latest look at the SRV records of a founding member.
type lookup struct {
	wrong *problem
	again time.Time
	wait  backoff.Backoff
}

// records looks at the SRV records that a founding member is to find the others by,
// with the eyes of this host, and says what is wrong with them; nil where nothing is.
// etcd itself would found a cluster of whatever part of them it finds. A member that
// has been started is past them.
func (d *Driver) records(ctx context.Context, m *v1alpha1.EtcdMember, h supervisor.Home) *problem {
	if !founding(m) || m.Spec.Bootstrap.DNS == nil {
		return nil
	}
	if v := d.look(h); v.held || v.idErr != nil || v.identity.MemberID != "" {
		return nil
	}
	now := time.Now()
	d.mu.Lock()
	l := d.lookups[string(h)]
	if l == nil {
		l = &lookup{wait: backoff.Backoff{Min: time.Second, Max: 30 * time.Second}}
		d.lookups[string(h)] = l
	}
	wrong, due := l.wrong, !now.Before(l.again)
	d.mu.Unlock()
	if !due {
		return wrong
	}
	found := srv.Check(ctx, m.Spec.Bootstrap)
	d.mu.Lock()
	defer d.mu.Unlock()
	if found == nil {
		delete(d.lookups, string(h))
		return nil
	}
	l.wrong = &problem{reason: found.Reason, message: found.Message}
	l.again = time.Now().Add(l.wait.Next())
	return l.wrong
}

// formedCondition tells whether the member has become part of its cluster.
func (v *view) formedCondition(m *v1alpha1.EtcdMember, note prepareNote, now time.Time) *v1alpha1.Condition {
	c := &v1alpha1.Condition{Type: v1alpha1.ConditionFormed, Status: v1alpha1.False, Reason: ReasonForming}
	var steps *supervisor.FormationState
	if v.state != nil {
		steps = v.state.Formation
	}
	switch {
	case m.Spec.MemberID != "" || steps != nil && steps.Formed:
		c.Status, c.Reason = v1alpha1.True, ReasonFormed
	case m.Spec.Bootstrap == nil, m.Spec.Run == v1alpha1.RunPrepared && steps == nil:
		return nil // its turn has not come
	case note.formation != nil:
		c.Reason, c.Message = note.formation.reason, note.formation.message
	case steps != nil && steps.Refused:
		c.Reason, c.Message = steps.Reason, steps.Message
	case v.process != nil && now.Sub(v.process.StartedAt) > formationPatience:
		c.Reason = ReasonNoQuorumFormed
		c.Message = fmt.Sprintf("etcd has run since %s and has found no quorum; it goes on waiting for %s; see that they run and that %s can be reached",
			v.process.StartedAt.UTC().Format(time.RFC3339), others(m), hostsOf(m))
	case v.process != nil:
		c.Message = "etcd runs and waits for " + others(m)
	default:
		c.Message = "etcd does not run yet"
	}
	return c
}

func others(m *v1alpha1.EtcdMember) string {
	b := m.Spec.Bootstrap
	if b.Discovery != nil {
		return "as many members as its discovery token is for"
	}
	var names []string
	for _, p := range b.InitialCluster {
		if p.Name != m.Name {
			names = append(names, p.Name)
		}
	}
	return cmp.Or(strings.Join(names, ", "), "its own election")
}

func hostsOf(m *v1alpha1.EtcdMember) string {
	b := m.Spec.Bootstrap
	if b.Discovery != nil {
		return "the discovery service"
	}
	var all []string
	for _, p := range b.InitialCluster {
		if u, err := url.Parse(p.URL); err == nil && p.Name != m.Name {
			all = append(all, u.Host)
		}
	}
	return cmp.Or(strings.Join(all, ", "), "its own address")
}
