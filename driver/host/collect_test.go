package host_test

import (
	"errors"
	"io/fs"
	"os"
	"testing"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/driver/drivertest"
)

// TestCollect: what was retired under Delete goes when its time is over, and what
// was retired under Retain stays.
func TestCollect(t *testing.T) {
	t.Parallel()
	p := open(t)
	where := map[v1alpha1.DeletionPolicy]string{}
	for _, policy := range []v1alpha1.DeletionPolicy{v1alpha1.DeletionDelete, v1alpha1.DeletionRetain} {
		m := newMember("gone-" + string(policy[0]|0x20))
		m.Spec.DeletionPolicy, m.Spec.RetainFor = policy, "1ms"
		drivertest.Prepare(t, p.driver, m)
		if _, err := p.driver.Stop(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		dir, err := p.driver.Data(m).Retire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		where[policy] = dir
	}
	drivertest.Eventually(t, func() (bool, string) {
		if _, err := p.driver.Collect(t.Context()); err != nil {
			t.Fatal(err)
		}
		_, err := os.Stat(where[v1alpha1.DeletionDelete])
		return errors.Is(err, fs.ErrNotExist), "the directory is still there"
	})
	if _, err := os.Stat(where[v1alpha1.DeletionRetain]); err != nil {
		t.Errorf("what was to be retained: %v", err)
	}
}
