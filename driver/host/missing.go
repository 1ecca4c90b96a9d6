package host

import (
	"fmt"
	"path/filepath"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/driver/host/supervisor"
)

// ReasonHomeMissing says that the member has run and its home is not here.
const ReasonHomeMissing = "HomeMissing"

// ReasonHomeCopied says that the home is a copy of one that is still there.
const ReasonHomeCopied = "HomeCopied"

// missing says why nothing can be told of a member: its home is a copy of another, or
// it is known to have joined its cluster, but nothing in this place was ever started:
// its disk is not mounted, or this is another data directory than the one it runs in.
// Its etcd may be running. Empty where the home is as it should be, or was retired.
func (d *Driver) missing(m *v1alpha1.EtcdMember, v *view) string {
	if v.copied != nil {
		return v.copied.Error()
	}
	if m.Spec.MemberID == "" || v.stateErr != nil || v.there && (!v.neverStarted() || v.identity.Restore.Done()) || d.wasRetired(v.home) {
		return ""
	}
	return fmt.Sprintf("the member has joined its cluster as %s, but its home %s is not there or was never used; "+
		"mount its disk, or run the agent with the data directory that holds it", m.Spec.MemberID, v.home)
}

// wasRetired reports whether the home went where Retire puts it.
func (d *Driver) wasRetired(h supervisor.Home) bool {
	found, err := filepath.Glob(filepath.Join(d.retiredDir(), filepath.Base(string(h))+".retired-*"))
	return err == nil && len(found) > 0
}

// observeMissing is what stands of a member whose home is missing: what was last
// known, and that nothing is known now.
func (d *Driver) observeMissing(m *v1alpha1.EtcdMember, reason, why string) v1alpha1.EtcdMemberStatus {
	s := *m.Status.DeepCopy()
	s.ObservedGeneration, s.StopProof = m.Generation, nil
	s.Phase, s.Message = v1alpha1.MemberFailed, why
	for _, kind := range []string{v1alpha1.ConditionPrepared, v1alpha1.ConditionRunning, v1alpha1.ConditionDataDirectory} {
		v1alpha1.SetCondition(&s.Conditions, v1alpha1.Condition{
			Type: kind, Status: v1alpha1.Unknown, Reason: reason, Message: why, ObservedGeneration: m.Generation,
		})
	}
	return s
}
