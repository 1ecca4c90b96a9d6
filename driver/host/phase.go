package host

import (
	"cmp"
	"fmt"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/driver/host/supervisor"
)

// Reasons of the condition Running, beside those of the supervisor.
const (
	ReasonRunning              = "Running"
	ReasonSupervisorGone       = "SupervisorGone"
	ReasonConfigurationPending = "ConfigurationPending"
	ReasonStarting             = "Starting"
	ReasonStopped              = "Stopped"
	ReasonStateUnreadable      = "StateUnreadable"
	ReasonNotWatched           = "NotWatched"
)

// phase sums up a view. Running is said only of an etcd that is seen to run with
// the wanted configuration.
func (v *view) phase(spec *v1alpha1.EtcdMemberSpec, note prepareNote) (v1alpha1.MemberPhase, v1alpha1.Condition) {
	c := v1alpha1.Condition{Type: v1alpha1.ConditionRunning, Status: v1alpha1.False}
	say := func(phase v1alpha1.MemberPhase, reason, format string, args ...any) (v1alpha1.MemberPhase, v1alpha1.Condition) {
		c.Reason, c.Message = reason, fmt.Sprintf(format, args...)
		return phase, c
	}
	switch {
	case v.scanErr != nil:
		c.Status = v1alpha1.Unknown
		return say(v1alpha1.MemberFailed, ReasonStateUnreadable, "it can't be told whether etcd runs: %v", v.scanErr)
	case v.process != nil:
		return v.alivePhase(spec, c)
	case !v.there && v.stateErr != nil:
		c.Status = v1alpha1.Unknown
		return say(v1alpha1.MemberFailed, ReasonStateUnreadable, "the member's home can't be looked at: %v", v.stateErr)
	case v.held:
		return v.heldPhase(c)
	case note.problem != nil && spec.Run != v1alpha1.RunStopped && !v.wasStarted():
		return say(v1alpha1.MemberPending, note.problem.reason, "%s", note.problem.message)
	case note.formation != nil && spec.Run == v1alpha1.RunRunning && v.neverStarted():
		return say(v1alpha1.MemberRefused, note.formation.reason, "%s", note.formation.message)
	case !v.there:
		return say(v1alpha1.MemberPending, ReasonNotPrepared, "the member has no home on this host yet")
	case v.stateErr != nil:
		c.Status = v1alpha1.Unknown
		return say(v1alpha1.MemberFailed, ReasonStateUnreadable, "no etcd of the member was found running, but how it ended is not known: %v", v.stateErr)
	case v.proof() != nil && v.wasStarted():
		return say(v1alpha1.MemberStopped, ReasonStopped, "etcd is stopped: %s", v.proof().Evidence)
	case v.orderErr != nil:
		return say(v1alpha1.MemberFailed, supervisor.ReasonOrderUnreadable, "%v; it is written anew when the member is next looked after", v.orderErr)
	case v.neverStarted() && v.ports.Client != 0:
		return say(v1alpha1.MemberPrepared, ReasonPrepared, "etcd was never started")
	case v.neverStarted():
		return say(v1alpha1.MemberPending, ReasonNotPrepared, "the member's home is not prepared yet")
	default:
		return say(v1alpha1.MemberFailed, ReasonNotWatched, "neither etcd nor its supervisor runs, and there is no proof of how it ended; the supervisor is started anew when the member is next looked after")
	}
}

func (v *view) wasStarted() bool { return v.there && !v.neverStarted() }

// alivePhase is that of a member whose etcd runs.
func (v *view) alivePhase(spec *v1alpha1.EtcdMemberSpec, c v1alpha1.Condition) (v1alpha1.MemberPhase, v1alpha1.Condition) {
	want := v1alpha1.MemberConfigHash(spec)
	p := v.process
	switch {
	case v.held && v.state != nil && v.state.Reason == supervisor.ReasonStopping:
		c.Reason, c.Message = v.state.Reason, v.state.Message
		return v1alpha1.MemberStarting, c
	case p.ConfigHash != want:
		c.Reason = ReasonConfigurationPending
		c.Message = fmt.Sprintf("etcd (pid %d) still runs with its earlier configuration, not yet with the wanted one", p.ID.PID)
		if p.ConfigHash == "" {
			c.Message = fmt.Sprintf("etcd (pid %d) was found running with a configuration that is not known", p.ID.PID)
		}
		return v1alpha1.MemberStarting, c
	case v.held && v.state != nil && v.state.Phase == v1alpha1.MemberCrashLoop:
		c.Reason, c.Message = cmp.Or(v.state.Reason, string(v.state.Phase)), v.state.Message
		return v1alpha1.MemberCrashLoop, c
	}
	c.Status, c.Reason = v1alpha1.True, ReasonRunning
	if !v.held {
		c.Reason = ReasonSupervisorGone
		c.Message = fmt.Sprintf("etcd (pid %d) runs without its supervisor; a new one adopts it when the member is next looked after", p.ID.PID)
	}
	return v1alpha1.MemberRunning, c
}

// heldPhase is that of a member whose supervisor lives and whose etcd does not.
func (v *view) heldPhase(c v1alpha1.Condition) (v1alpha1.MemberPhase, v1alpha1.Condition) {
	switch {
	case v.stateErr != nil:
		c.Status, c.Reason, c.Message = v1alpha1.Unknown, ReasonStateUnreadable, v.stateErr.Error()
		return v1alpha1.MemberStarting, c
	case v.state == nil || !v.state.Supervisor.Alive():
		c.Reason, c.Message = ReasonStarting, "the member's supervisor is starting"
		return v1alpha1.MemberStarting, c
	case v.state.Phase == v1alpha1.MemberRunning:
		c.Reason, c.Message = ReasonStarting, "etcd has just ended, and is started again"
		return v1alpha1.MemberStarting, c
	case v.state.Phase == v1alpha1.MemberStopped:
		// Stopped is said with its proof, once no supervisor is left to start another.
		c.Reason, c.Message = supervisor.ReasonStopping, "etcd has ended, and its supervisor is ending too"
		return v1alpha1.MemberStarting, c
	}
	c.Reason = cmp.Or(v.state.Reason, string(v.state.Phase))
	c.Message = cmp.Or(v.state.Message, "etcd is being started")
	return v.state.Phase, c
}
