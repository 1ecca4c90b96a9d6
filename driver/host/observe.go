package host

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/datadir"
	"github.com/quorate/quorate/driver/host/supervisor"
	"github.com/quorate/quorate/etcd"
)

// view is what the files of a home and /proc say.
type view struct {
	home  supervisor.Home
	there bool

	order    *supervisor.Order
	orderErr error
	state    *supervisor.State
	stateErr error
	identity datadir.Identity
	idErr    error
	ports    v1alpha1.Ports
	portsErr error

	// copied: the home is a copy of another, which is still there.
	copied error
	// held: a supervisor lives, or is being started.
	held bool
	// restoring: this driver makes the data directory, under the lock of the home.
	restoring bool
	// process is the etcd that runs, or nil.
	process *supervisor.Process
	scanErr error
}

// look reads a home. What is not there is nil; what can't be read is an error of
// its own, and never taken for nothing.
func (d *Driver) look(h supervisor.Home) *view {
	v := &view{home: h}
	v.there, v.stateErr = exists(string(h))
	if !v.there {
		return v
	}
	if v.order, v.orderErr = h.ReadOrder(); errors.Is(v.orderErr, fs.ErrNotExist) {
		v.orderErr = nil
	}
	if v.state, v.stateErr = h.ReadState(); errors.Is(v.stateErr, fs.ErrNotExist) {
		v.stateErr = nil
	}
	v.identity, v.idErr = h.LoadIdentity()
	if v.ports, v.portsErr = readPorts(h); errors.Is(v.portsErr, fs.ErrNotExist) {
		v.portsErr = nil
	}
	v.copied = h.CopyOf(v.order, v.state)
	held, restoring, err := d.holder(h)
	v.held, v.restoring = held || err != nil || d.starting(h), restoring
	v.findProcess()
	return v
}

// findProcess looks at the process that the state names. Where the state can't
// say, all processes are looked through.
func (v *view) findProcess() {
	if v.copied != nil {
		return // what runs is the other home's
	}
	if v.state != nil && v.state.Process != nil && v.state.Process.ID.Alive() {
		v.process = v.state.Process
		return
	}
	certain := v.state != nil && (v.state.Intent == nil || v.held)
	if certain || v.state == nil && v.stateErr == nil && !v.identity.StartedOnce && v.idErr == nil {
		return
	}
	order := v.order
	if order == nil {
		order = &supervisor.Order{DataDir: v.home.DataDir()}
	}
	v.process, v.scanErr = supervisor.FindProcess(order)
}

// neverStarted: nothing in the home, or missing from it, leaves room for an etcd.
func (v *view) neverStarted() bool {
	return v.there && v.process == nil && !v.held && v.stateErr == nil && v.scanErr == nil && v.idErr == nil && !v.identity.StartedOnce &&
		(v.state == nil || v.state.Process == nil && v.state.Intent == nil && v.state.Ended == nil)
}

// proof returns the proof that stands, or nil.
func (v *view) proof() *v1alpha1.StopProof {
	switch {
	case v.process != nil || v.held || v.scanErr != nil || v.stateErr != nil || v.copied != nil:
		return nil
	case v.neverStarted():
		return &v1alpha1.StopProof{At: v1alpha1.Now(), Evidence: supervisor.EvidenceNeverStarted}
	case v.state == nil || v.state.Process != nil || v.state.Intent != nil:
		return nil
	}
	return v.state.StopProof
}

// Observe implements driver.Driver. It reads small files and /proc, and takes well
// below a millisecond.
func (d *Driver) Observe(_ context.Context, m *v1alpha1.EtcdMember) (v1alpha1.EtcdMemberStatus, error) {
	if err := named(m); err != nil {
		return v1alpha1.EtcdMemberStatus{}, err
	}
	return d.observe(m, d.home(m)), nil
}

func (d *Driver) observe(m *v1alpha1.EtcdMember, h supervisor.Home) v1alpha1.EtcdMemberStatus {
	v, note := d.look(h), d.noteOf(h)
	if why := d.missing(m, v); why != "" {
		reason := ReasonHomeMissing
		if v.copied != nil {
			reason = ReasonHomeCopied
		}
		return d.observeMissing(m, reason, why)
	}
	s := v1alpha1.EtcdMemberStatus{
		ObservedGeneration: m.Generation,
		DataDir:            h.DataDir(),
		LogFile:            h.LogsFor(m.Name, m.Spec.Etcd.Logging).Etcd,
		// Kept, so that the times of transitions stay.
		Conditions: slices.Clone(m.Status.Conditions),
		Mark:       m.Status.Mark,
		StopProof:  v.proof(),
		Used:       d.usedBy(h),
	}
	if p := m.Status.StopProof; p != nil && s.StopProof != nil && p.PID == s.StopProof.PID && p.Evidence == s.StopProof.Evidence {
		s.StopProof.At = p.At // "never started" has no time of its own
	}
	if v.ports.Client != 0 {
		s.Ports = v.ports
		f := etcd.MemberFlags{Address: d.opts.Address, Ports: v.ports}
		if tlsDir(m, h) != "" {
			f.TLS = &etcd.MemberTLS{}
		}
		s.ClientURL, s.PeerURL, s.MetricsURL = f.ClientURL(), f.PeerURL(), f.MetricsURL()
	}
	if mark := v.identity.Mark; v.idErr == nil && mark != (datadir.Mark{}) {
		s.Mark = &v1alpha1.RaftMark{Term: int64(mark.Term), Index: int64(mark.Index)} //nolint:gosec // far below
	}
	v.fillProcess(&s)
	var running v1alpha1.Condition
	s.Phase, running = v.phase(&m.Spec, note)
	s.Message = running.Message
	if running.Status == v1alpha1.True && v.held {
		s.Message = ""
	}
	conditions := []v1alpha1.Condition{v.preparedCondition(m, note), running, v.dataCondition(), d.certificateCondition(m, h, note, time.Now())}
	if formedFromBackup(m) {
		conditions = append(conditions, v.restoredCondition(m))
	}
	if c := v.formedCondition(m, note, time.Now()); c != nil {
		conditions = append(conditions, *c)
	}
	for _, c := range conditions {
		c.ObservedGeneration = m.Generation
		v1alpha1.SetCondition(&s.Conditions, c)
	}
	return s
}

func (v *view) fillProcess(s *v1alpha1.EtcdMemberStatus) {
	if v.state != nil {
		s.LastExit = v.state.LastExit
	}
	if v.process == nil {
		return
	}
	s.Process = &v1alpha1.ProcessStatus{
		PID: int64(v.process.ID.PID), StartedAt: v1alpha1.NewTime(v.process.StartedAt),
		ConfigHash: v.process.ConfigHash, Digest: v.process.Digest,
	}
	if v.state != nil {
		s.Process.Restarts, s.Process.Crashes = v.state.Restarts, v.state.CrashRestarts
		if v.held && v.state.Supervisor.Alive() {
			s.Process.SupervisorPID = int64(v.state.Supervisor.PID)
		}
	}
}

func (v *view) preparedCondition(m *v1alpha1.EtcdMember, note prepareNote) v1alpha1.Condition {
	c := v1alpha1.Condition{Type: v1alpha1.ConditionPrepared, Status: v1alpha1.True, Reason: ReasonPrepared}
	switch {
	case note.problem != nil:
		c.Status, c.Reason, c.Message = v1alpha1.False, note.problem.reason, note.problem.message
	case v.portsErr != nil:
		c.Status, c.Reason, c.Message = v1alpha1.False, ReasonHomeCorrupt, v.portsErr.Error()
	case v.ports.Client == 0:
		c.Status, c.Reason, c.Message = v1alpha1.False, ReasonNotPrepared, "the member's home on this host is not prepared yet"
	case m.Spec.TLS.Mode != v1alpha1.TLSDisabled:
		for _, l := range []string{tlsPaths(tlsDir(m, v.home)).ServerCert, tlsPaths(tlsDir(m, v.home)).PeerCert} {
			if there, err := exists(l); !there {
				c.Status, c.Reason, c.Message = v1alpha1.False, ReasonNotPrepared, l+" is missing"
				if err != nil {
					c.Message = err.Error()
				}
			}
		}
	}
	return c
}

func (v *view) dataCondition() v1alpha1.Condition {
	c := v1alpha1.Condition{Type: v1alpha1.ConditionDataDirectory, Status: v1alpha1.Unknown, Reason: "NotChecked", Message: "it is checked before each start of etcd"}
	switch {
	case v.idErr != nil:
		c.Status, c.Reason, c.Message = v1alpha1.False, string(datadir.ReasonUnreadable), v.idErr.Error()
	case v.state == nil || v.state.Data == nil:
	case v.state.Data.Refused:
		c.Status, c.Reason, c.Message = v1alpha1.False, v.state.Data.Reason, v.state.Data.Message
	default:
		c.Status, c.Reason, c.Message = v1alpha1.True, v.state.Data.Reason, ""
	}
	return c
}
