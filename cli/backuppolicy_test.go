package cli

import (
	"errors"
	"fmt"
	"testing"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/app"
	"github.com/quorate/quorate/backup"
)

// TestPolicyExitCodes: --once ends with 0 only if every destination has the backup as
// the policy wants it, and the codes mean what they mean for a backup by flags.
func TestPolicyExitCodes(t *testing.T) {
	proven := policyStored{Name: "near", ID: "a", Proven: true, tried: true}
	missing := policyStored{Name: "far", Error: "the disk is full"}
	for _, tc := range []struct {
		name   string
		phase  v1alpha1.BackupPhase
		taking error
		stores []policyStored
		want   int
	}{
		{"proven everywhere", v1alpha1.BackupVerified, nil, []policyStored{proven, proven}, exitOK},
		{"not to be proven", v1alpha1.BackupTaken, nil, []policyStored{{Name: "near", ID: "a"}}, exitOK},
		{"one store does not have it", v1alpha1.BackupVerified, nil, []policyStored{proven, missing}, exitPartly},
		{"it failed its proof", v1alpha1.BackupFailed, nil, []policyStored{proven, {Name: "far", ID: "a", tried: true, Error: "keys differ"}}, exitUnsound},
		{"it failed its proof, and a store does not have it", v1alpha1.BackupFailed, nil, []policyStored{{Name: "near", ID: "a", tried: true, Error: "keys differ"}, missing}, exitUnsound},
		{"it could not be tried", v1alpha1.BackupTaken, nil, []policyStored{{Name: "near", ID: "a", Error: "no identity opens the backup"}}, exitUntried},
		{"nobody has it", v1alpha1.BackupFailed, nil, []policyStored{missing}, exitFailed},
		{"no member is fit", v1alpha1.BackupFailed, fmt.Errorf("m1: %w", backup.ErrNoSource), []policyStored{{Name: "near"}, {Name: "far"}}, exitUnreachable},
		{"no member answers", v1alpha1.BackupFailed, fmt.Errorf("%w: refused", app.ErrUnanswered), nil, exitUnreachable},
		{"old ones could not be deleted", v1alpha1.BackupVerified, nil, []policyStored{{Name: "near", ID: "a", Proven: true, tried: true, PruneError: "denied"}}, exitFailed},
		{"it ended badly all the same", v1alpha1.BackupFailed, nil, []policyStored{proven}, exitFailed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := policyBackup{Cluster: "default/prod", Phase: tc.phase, Message: "what came of it", Stores: tc.stores}
			if err := errors.Join(b.err(tc.taking)); exitCode(err) != tc.want {
				t.Errorf("code %d, want %d: %v", exitCode(err), tc.want, err)
			}
		})
	}
}
