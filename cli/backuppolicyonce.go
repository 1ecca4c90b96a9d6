package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/app"
	"github.com/quorate/quorate/backup"
	"github.com/quorate/quorate/inspect"
)

// policyBackup is what came of one backup of one cluster by a policy.
type policyBackup struct {
	Policy  string `json:"policy"`
	Cluster string `json:"cluster"`
	// Phase is Verified, Taken or Failed, and Message says why.
	Phase      v1alpha1.BackupPhase `json:"phase"`
	Message    string               `json:"message"`
	Member     string               `json:"member,omitempty"`
	Revision   int64                `json:"revision,omitempty"`
	Keys       int64                `json:"keys,omitempty"`
	DBSize     int64                `json:"dbSize,omitempty"`
	StoredSize int64                `json:"storedSize,omitempty"`
	// Stores in the order of the policy.
	Stores []policyStored `json:"stores"`
}

// policyStored is what came of it in one destination.
type policyStored struct {
	Name  string `json:"name"`
	Store string `json:"store"`
	ID    string `json:"id,omitempty"`
	Error string `json:"error,omitempty"`
	// Proven: it was restored from there and is right; that took RestoreSeconds.
	Proven         bool    `json:"proven"`
	RestoreSeconds float64 `json:"restoreSeconds,omitempty"`
	// Deleted are the IDs that retention has deleted, and their bytes.
	Deleted      []string `json:"deleted,omitempty"`
	DeletedBytes int64    `json:"deletedBytes,omitempty"`
	PruneError   string   `json:"pruneError,omitempty"`

	// tried says that the proof was carried out.
	tried bool
}

// policyOnce takes one backup of each cluster, and ends.
func (e *env) policyOnce(ctx context.Context, f *app.BackupFile, p *progress, form string) error {
	results, err := f.Once(ctx)
	p.done()
	if err != nil {
		return err
	}
	backups := make([]policyBackup, 0, len(results))
	var errs []error
	for i := range results {
		b := policyBackupOf(&results[i])
		backups = append(backups, b)
		errs = append(errs, b.err(results[i].Err))
	}
	if err = e.printChecked(form, backups, func() { e.printPolicyBackups(backups) }); err != nil {
		return err
	}
	return errors.Join(errs...)
}

func policyBackupOf(r *app.BackupFileResult) policyBackup {
	st := &r.Status
	b := policyBackup{
		Policy: r.Policy.String(), Cluster: r.Cluster.String(), Phase: st.Phase, Message: st.Message,
		Revision: st.Revision, Keys: st.Keys, DBSize: st.DBSize, StoredSize: st.StoredSize, Stores: []policyStored{},
	}
	if st.Source != nil {
		b.Member = st.Source.Member
	}
	for _, d := range r.Destinations {
		s := policyStored{
			Name: d.Name, Store: d.URL, ID: d.PointID, Error: d.Error, Proven: d.Proven, tried: d.ProofAt != nil,
			RestoreSeconds: (time.Duration(d.RestoreMilliseconds) * time.Millisecond).Seconds(), Deleted: d.Pruned.PointIDs, DeletedBytes: d.Pruned.Bytes,
		}
		if d.PruneErr != nil {
			s.PruneError = d.PruneErr.Error()
		}
		b.Stores = append(b.Stores, s)
	}
	return b
}

// err is for the exit code; nil where every destination has the backup, proven if the
// policy wants that. Taking is why nobody has it.
func (b *policyBackup) err(taking error) error {
	var errs []error
	missing := 0
	for _, s := range b.Stores {
		switch {
		case s.ID == "":
			missing++
		case s.tried && !s.Proven:
			errs = append(errs, fmt.Errorf("%s: %s in %s: %w: %s", b.Cluster, s.ID, s.Name, errUnsound, s.Error))
		case !s.Proven && s.Error != "":
			errs = append(errs, fmt.Errorf("%s: %s in %s: %w: %s", b.Cluster, s.ID, s.Name, backup.ErrUnproven, s.Error))
		}
		if s.PruneError != "" {
			errs = append(errs, fmt.Errorf("%s: prune %s: %s", b.Cluster, s.Name, s.PruneError))
		}
	}
	switch {
	case missing == len(b.Stores):
		return fmt.Errorf("%s: %w", b.Cluster, cmp.Or(taking, errors.New(b.Message)))
	case missing > 0:
		errs = append(errs, fmt.Errorf("%s: %w (%d of %d)", b.Cluster, backup.ErrDestinations, missing, len(b.Stores)))
	case len(errs) == 0 && b.Phase == v1alpha1.BackupFailed:
		errs = append(errs, fmt.Errorf("%s: %s", b.Cluster, b.Message))
	}
	return errors.Join(errs...)
}

func (e *env) printPolicyBackups(backups []policyBackup) {
	for i := range backups {
		b := &backups[i]
		e.printf("%s by policy %s: %s\n", e.painted(bold, b.Cluster), b.Policy, b.Phase)
		if b.Member != "" {
			e.fact("of", fmt.Sprintf("%s: revision %d, %s, %s; stored in %s", b.Member, b.Revision, plural64(b.Keys, "key", "keys"), inspect.Size(b.DBSize), inspect.Size(b.StoredSize)))
		} else {
			e.fact("why", b.Message)
		}
		for j := range b.Stores {
			e.printPolicyStored(&b.Stores[j])
		}
	}
}

func (e *env) printPolicyStored(s *policyStored) {
	switch {
	case s.ID == "":
		if s.Error == "" {
			return // why nobody has it was said
		}
		e.printf("%s does not have it\n", e.painted(red, "✗ "+s.Name))
	case s.Proven:
		e.printf("%s has %s, proven: restored in %s\n", e.painted(green, "✓ "+s.Name), s.ID, seconds(s.RestoreSeconds))
	case s.tried:
		e.printf("%s has %s, and it failed its proof\n", e.painted(red, "✗ "+s.Name), s.ID)
	case s.Error != "":
		e.printf("%s has %s, and it could not be tried\n", e.painted(yellow, "! "+s.Name), s.ID)
	default:
		e.printf("%s has %s, not proven\n", e.painted(green, "✓ "+s.Name), s.ID)
	}
	if s.Error != "" {
		e.fact("why", s.Error)
	}
	if len(s.Deleted) > 0 {
		e.fact("pruned", fmt.Sprintf("%s, %s", plural(len(s.Deleted), "old backup", "old backups"), inspect.Size(s.DeletedBytes)))
	}
	if s.PruneError != "" {
		e.fact("prune", s.PruneError)
	}
}
