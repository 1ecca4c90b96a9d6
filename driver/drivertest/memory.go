package drivertest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/driver"
	"github.com/quorate/quorate/etcd"
)

// Memory is a driver of many hosts without a process: its etcds are Ensembles. It is for
// tests of whole fleets, of which a machine could not run the processes. It is safe for
// concurrent use.
type Memory struct {
	// Address of a host, by its name.
	Address func(host string) string

	mu        sync.Mutex
	members   map[v1alpha1.UID]*resident
	urls      map[string]*resident
	ensembles map[string]*Ensemble
	ports     int32
	// quorumLost are the moments at which a cluster that served did not any more.
	quorumLost []string
	served     map[string]bool
}

var (
	_ driver.Driver = (*Memory)(nil)
	_ driver.Data   = memoryData{}
)

// resident is one member.
type resident struct {
	name    string
	ports   v1alpha1.Ports
	url     string
	token   string
	hash    string
	running bool
	stopped bool
	// looks that its host has had at it since it was started: it takes some to be up, and
	// to catch up.
	looks int
}

// Looks that a member takes.
const (
	looksToBeUp    = 1
	looksToCatchUp = 3
)

// NewMemory returns a driver with no members.
func NewMemory(address func(host string) string) *Memory {
	return &Memory{
		Address: address, members: map[v1alpha1.UID]*resident{}, urls: map[string]*resident{}, ensembles: map[string]*Ensemble{},
		ports: 2379, served: map[string]bool{},
	}
}

// up reports whether the etcd at a peer URL answers.
func (d *Memory) up(url string) bool {
	r := d.urls[url]
	return r != nil && r.running && r.looks >= looksToBeUp
}

// Ensure implements driver.Driver.
func (d *Memory) Ensure(_ context.Context, m *v1alpha1.EtcdMember) (v1alpha1.EtcdMemberStatus, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.members[m.UID]
	if r == nil {
		r = &resident{name: m.Name, ports: m.Spec.Ports}
		if r.ports.Client == 0 {
			r.ports = v1alpha1.Ports{Client: d.ports, Peer: d.ports + 1, Metrics: d.ports + 2}
			const step = 10
			d.ports += step
		}
		r.url = fmt.Sprintf("https://%s:%d", d.Address(m.Spec.Host), r.ports.Peer)
		d.members[m.UID], d.urls[r.url] = r, r
	}
	if m.Spec.Run == v1alpha1.RunRunning {
		if err := d.run(m, r); err != nil {
			s := d.see(m, r)
			s.Phase, s.Message = v1alpha1.MemberCrashLoop, err.Error()
			return s, nil
		}
	}
	return d.see(m, r), nil
}

func (d *Memory) run(m *v1alpha1.EtcdMember, r *resident) error {
	b := m.Spec.Bootstrap
	if b == nil {
		return errors.New("it was not told how to bootstrap")
	}
	r.token = b.Token
	e := d.ensembles[r.token]
	if e == nil {
		if b.State == v1alpha1.BootstrapExisting {
			return errors.New("there is no cluster to join")
		}
		e = NewEnsemble(r.token, b.InitialCluster, d.up)
		d.ensembles[r.token] = e
	}
	if hash := v1alpha1.MemberConfigHash(&m.Spec); !r.running || r.hash != hash {
		if err := e.Start(m.Name, r.url); err != nil {
			r.running = false
			d.note(e)
			return err
		}
		r.running, r.stopped, r.hash, r.looks = true, false, hash, 0
	} else if r.looks++; r.looks >= looksToCatchUp && e.Serves() {
		e.CatchUp(r.url)
	}
	d.note(e)
	return nil
}

// note remembers clusters that cease to serve.
func (d *Memory) note(e *Ensemble) {
	serves := e.Serves()
	if all, up := e.Voters(); d.served[e.token] && !serves {
		d.quorumLost = append(d.quorumLost, fmt.Sprintf("%s: %d of %d voters are up", e.token, up, all))
	}
	d.served[e.token] = serves
}

// QuorumLost are the moments at which a cluster that had served did not.
func (d *Memory) QuorumLost() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]string(nil), d.quorumLost...)
}

// Observe implements driver.Driver.
func (d *Memory) Observe(_ context.Context, m *v1alpha1.EtcdMember) (v1alpha1.EtcdMemberStatus, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.members[m.UID]
	if r == nil {
		return v1alpha1.EtcdMemberStatus{Phase: v1alpha1.MemberPending}, nil
	}
	return d.see(m, r), nil
}

func (d *Memory) see(m *v1alpha1.EtcdMember, r *resident) v1alpha1.EtcdMemberStatus {
	s := v1alpha1.EtcdMemberStatus{
		Phase: v1alpha1.MemberPrepared, Ports: r.ports, PeerURL: r.url,
		ClientURL: fmt.Sprintf("https://%s:%d", d.Address(m.Spec.Host), r.ports.Client),
	}
	v1alpha1.SetCondition(&s.Conditions, v1alpha1.Condition{Type: v1alpha1.ConditionPrepared, Status: v1alpha1.True, Reason: "Prepared"})
	switch {
	case r.running:
		s.Phase = v1alpha1.MemberRunning
		s.Process = &v1alpha1.ProcessStatus{PID: int64(r.ports.Client), ConfigHash: r.hash}
	case r.stopped:
		s.Phase, s.StopProof = v1alpha1.MemberStopped, &v1alpha1.StopProof{Evidence: "it is a model"}
	}
	return s
}

// Stop implements driver.Driver.
func (d *Memory) Stop(_ context.Context, m *v1alpha1.EtcdMember) (v1alpha1.StopProof, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r := d.members[m.UID]; r != nil {
		r.running, r.stopped = false, true
		if e := d.ensembles[r.token]; e != nil {
			d.note(e)
		}
	}
	return v1alpha1.StopProof{Evidence: "it is a model"}, nil
}

// Data implements driver.Driver.
func (d *Memory) Data(m *v1alpha1.EtcdMember) driver.Data { return memoryData{d, m} }

// Logs implements driver.Driver: there are none.
func (*Memory) Logs(context.Context, *v1alpha1.EtcdMember, driver.LogOptions) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader("")), nil
}

type memoryData struct {
	driver *Memory
	member *v1alpha1.EtcdMember
}

// Retire implements driver.Data.
func (o memoryData) Retire(context.Context) (string, error) {
	o.driver.mu.Lock()
	defer o.driver.mu.Unlock()
	r := o.driver.members[o.member.UID]
	if r == nil {
		return "", nil
	}
	if r.running {
		return "", driver.ErrNotStopped
	}
	delete(o.driver.members, o.member.UID)
	delete(o.driver.urls, r.url)
	return "retired/" + o.member.Name, nil
}

// Restore implements driver.Data: there is no data to be restored.
func (memoryData) Restore(context.Context, driver.Snapshot) error { return driver.ErrNotRestorable }

// Status asks the member's etcd what it is.
func (d *Memory) Status(m *v1alpha1.EtcdMember) (etcd.Status, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.members[m.UID]
	if r == nil || !d.up(r.url) {
		return etcd.Status{}, etcd.ErrRefused
	}
	return d.ensembles[r.token].Status(r.url)
}

// Through makes one request at the member's etcd, and notes whether its cluster serves
// afterwards. Processes of members that it removes end.
func (d *Memory) Through(m *v1alpha1.EtcdMember, do func(e *Ensemble, peerURL string) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.members[m.UID]
	if r == nil || !d.up(r.url) {
		return etcd.ErrRefused
	}
	e := d.ensembles[r.token]
	err := do(e, r.url)
	for _, other := range d.members {
		if other.token == r.token && e.Removed(other.url) {
			other.running = false
		}
	}
	d.note(e)
	return err
}
