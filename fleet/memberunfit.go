package fleet

import (
	"context"

	"github.com/quorate/quorate/api/v1alpha1"
)

// Reasons of the condition Prepared of a member that its host does not take.
const (
	// ReasonHostUnfit: the host fails a check that etcd needs.
	ReasonHostUnfit = "HostUnfit"
	// ReasonHostNotChecked: the host is being checked.
	ReasonHostNotChecked = "HostNotChecked"
)

// Refusal is why a host does not take a member, as a condition says it.
type Refusal struct{ Reason, Message string }

// newcomer reports whether nothing of the member has been on this host yet: what was
// reported once, or was ever started, is never turned away.
func newcomer(m *v1alpha1.EtcdMember, seen *v1alpha1.EtcdMemberStatus) bool {
	return m.Spec.Run == v1alpha1.RunPrepared && !v1alpha1.IsTrue(m.Status.Conditions, v1alpha1.ConditionPrepared) &&
		seen.Process == nil && (seen.Phase == v1alpha1.MemberPending || seen.Phase == v1alpha1.MemberPrepared)
}

// turnedAway asks whether the host takes a new member. Where it does not, it returns what
// is to be reported: the member's home is not made.
func (c *MemberController) turnedAway(ctx context.Context, m *v1alpha1.EtcdMember) (*v1alpha1.EtcdMemberStatus, error) {
	if c.opts.MayCome == nil || m.Spec.Run != v1alpha1.RunPrepared || v1alpha1.IsTrue(m.Status.Conditions, v1alpha1.ConditionPrepared) {
		return nil, nil //nolint:nilnil // nothing speaks against it
	}
	seen, err := c.opts.Driver.Observe(ctx, m)
	if err != nil || !newcomer(m, &seen) {
		return nil, err
	}
	why := c.opts.MayCome(m)
	if why == nil {
		return nil, nil //nolint:nilnil // nothing speaks against it
	}
	seen.Phase, seen.Message = v1alpha1.MemberPending, why.Message
	v1alpha1.SetCondition(&seen.Conditions, v1alpha1.Condition{
		Type: v1alpha1.ConditionPrepared, Status: v1alpha1.False, Reason: why.Reason, Message: why.Message,
	})
	return &seen, nil
}

func orNothing(seen *v1alpha1.EtcdMemberStatus) v1alpha1.EtcdMemberStatus {
	if seen == nil {
		return v1alpha1.EtcdMemberStatus{}
	}
	return *seen
}
