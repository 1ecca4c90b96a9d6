package drivertest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/driver"
)

// Snapshot runs a member of that name, puts key=value, and returns a snapshot of it.
// The member goes on.
func Snapshot(t *testing.T, h Harness, name, key, value string) (*v1alpha1.EtcdMember, []byte) {
	t.Helper()
	m := h.Member(name)
	Start(t, h, m)
	put(t, h, m, key, value)
	r, err := client(t, h, m).Snapshot(t.Context())
	if err != nil {
		t.Fatalf("snapshot of %s: %v", name, err)
	}
	defer r.Close() //nolint:errcheck // reading only
	raw, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("snapshot of %s: %v", name, err)
	}
	return m, raw
}

// PrepareRestored brings m to Prepared, and records in its spec what the fleet would
// for a member that is formed from a backup as the only one.
func PrepareRestored(t *testing.T, d driver.Driver, m *v1alpha1.EtcdMember) {
	t.Helper()
	Prepare(t, d, m)
	m.Spec.RestoreName, m.Spec.Bootstrap.State = "back", v1alpha1.BootstrapRestored
	Ensure(t, d, m)
}

// unread is a snapshot that must not be read.
func unread(t *testing.T) driver.Snapshot {
	t.Helper()
	return driver.Snapshot{Reader: readerFunc(func([]byte) (int, error) {
		t.Error("a snapshot was read for data that is there")
		return 0, io.EOF
	})}
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// held gives half of raw, then tells so and waits for goOn or the end of ctx.
func held(ctx context.Context, raw []byte) (r io.Reader, half, goOn chan struct{}) {
	half, goOn = make(chan struct{}), make(chan struct{})
	wait := readerFunc(func([]byte) (int, error) {
		close(half)
		select {
		case <-goOn:
			return 0, io.EOF
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	})
	cut := len(raw) / 2
	return io.MultiReader(bytes.NewReader(raw[:cut]), wait, bytes.NewReader(raw[cut:])), half, goOn
}

func restoredIs(t *testing.T, m *v1alpha1.EtcdMember, want bool) {
	t.Helper()
	c := v1alpha1.FindCondition(m.Status.Conditions, v1alpha1.ConditionRestored)
	if c == nil || (c.Status == v1alpha1.True) != want || !want && c.Status != v1alpha1.False || c.Reason == "" || c.Message == "" {
		t.Errorf("condition Restored is %+v, want %t", c, want)
	}
}

// neverWithout: a member without its data is not started, whatever its spec says.
func neverWithout(t *testing.T, d driver.Driver, m *v1alpha1.EtcdMember) {
	t.Helper()
	m.Spec.Run = v1alpha1.RunRunning
	Ensure(t, d, m)
	c := v1alpha1.FindCondition(m.Status.Conditions, v1alpha1.ConditionPrepared)
	if c.Status != v1alpha1.False || c.Reason != "NotRestored" || m.Status.Process != nil || m.Status.Phase != v1alpha1.MemberPending {
		t.Errorf("to run without data: phase %s, process %v, condition %+v", m.Status.Phase, m.Status.Process, c)
	}
	if proof := stop(t, Harness{Driver: d}, m); proof.PID != 0 {
		t.Errorf("an etcd was started: %+v", proof)
	}
	m.Spec.Run = v1alpha1.RunPrepared
	Ensure(t, d, m)
	if m.Status.Phase != v1alpha1.MemberPrepared || !v1alpha1.IsTrue(m.Status.Conditions, v1alpha1.ConditionPrepared) {
		t.Errorf("prepared: phase %s, %+v", m.Status.Phase, m.Status.Conditions)
	}
}

// testRestore: a member begins with the data of another, once it is whole.
func testRestore(t *testing.T, h Harness) {
	t.Helper()
	old, raw := Snapshot(t, h, "source", "saved", "in a backup")
	m := h.Member("restored")
	Prepare(t, h.Driver, m)
	if err := h.Driver.Data(m).Restore(t.Context(), unread(t)); !errors.Is(err, driver.ErrNotRestorable) {
		t.Errorf("a member that forms a new cluster: %v", err)
	}
	PrepareRestored(t, h.Driver, m)
	restoredIs(t, m, false)
	neverWithout(t, h.Driver, m)
	refusals(t, h, m, raw)
	neverWithout(t, h.Driver, m)
	restoreWatched(t, h, m, raw)
	restoredIs(t, m, true)
	if err := h.Driver.Data(m).Restore(t.Context(), unread(t)); err != nil {
		t.Errorf("restored again: %v", err)
	}
	Start(t, h, m)
	if got := get(t, h, m, "saved"); got != "in a backup" {
		t.Errorf("read %q", got)
	}
	restoredIs(t, m, true)
	if err := h.Driver.Data(m).Restore(t.Context(), unread(t)); err != nil {
		t.Errorf("restored once more, while it runs: %v", err)
	}
	stop(t, h, m)
	for what, ran := range map[string]*v1alpha1.EtcdMember{"a member that ran": old, "a restored member, from another": m} {
		stop(t, h, ran)
		ran.Spec.Bootstrap.State, ran.Spec.Bootstrap.Token = v1alpha1.BootstrapRestored, "another"
		if err := h.Driver.Data(ran).Restore(t.Context(), unread(t)); !errors.Is(err, driver.ErrNotRestorable) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// refusals: what is not the whole snapshot leaves nothing.
func refusals(t *testing.T, h Harness, m *v1alpha1.EtcdMember, raw []byte) {
	t.Helper()
	broken := errors.New("the store is gone")
	altered := bytes.Clone(raw)
	altered[len(raw)/2] ^= 4
	cut, size := raw[:len(raw)/2], int64(len(raw))
	for name, c := range map[string]struct {
		from driver.Snapshot
		want error
		says string
	}{
		"cut short":          {driver.Snapshot{Reader: bytes.NewReader(cut), Size: size}, nil, "cut short"},
		"cut, size unknown":  {driver.Snapshot{Reader: bytes.NewReader(cut), Size: -1}, nil, "cut short"},
		"without its end":    {driver.Snapshot{Reader: bytes.NewReader(raw[:len(raw)-1])}, nil, ""},
		"longer than said":   {driver.Snapshot{Reader: bytes.NewReader(raw), Size: size - 1}, nil, "more than"},
		"altered":            {driver.Snapshot{Reader: bytes.NewReader(altered), Size: size}, nil, "altered"},
		"empty":              {driver.Snapshot{Reader: bytes.NewReader(nil)}, nil, "empty"},
		"broken":             {driver.Snapshot{Reader: io.MultiReader(bytes.NewReader(cut), iotest.ErrReader(broken))}, broken, "broke off after"},
		"broken like an end": {driver.Snapshot{Reader: io.MultiReader(bytes.NewReader(raw), iotest.ErrReader(io.ErrUnexpectedEOF))}, io.ErrUnexpectedEOF, "broke off after"},
		"more than fits":     {driver.Snapshot{Reader: bytes.NewReader(raw), Size: 1 << 60}, nil, "MiB are free"},
	} {
		c.from.Name = "the snapshot of a test"
		err := h.Driver.Data(m).Restore(t.Context(), c.from)
		if err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), m.Name) {
			t.Errorf("%s: %v, want %v and %q", name, err, c.want, c.says)
		}
		gone(t, m, name)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r, half, _ := held(ctx, raw)
	go func() { <-half; cancel() }()
	if err := h.Driver.Data(m).Restore(ctx, driver.Snapshot{Reader: r, Size: size}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled half-way: %v", err)
	}
	gone(t, m, "cancelled half-way")
	Ensure(t, h.Driver, m)
	restoredIs(t, m, false)
}

func gone(t *testing.T, m *v1alpha1.EtcdMember, when string) {
	t.Helper()
	if _, err := os.Stat(m.Status.DataDir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s: there is a data directory: %v", when, err)
	}
}

// restoreWatched restores m, and looks at it half-way.
func restoreWatched(t *testing.T, h Harness, m *v1alpha1.EtcdMember, raw []byte) {
	t.Helper()
	r, half, goOn := held(t.Context(), raw)
	var last int64
	from := driver.Snapshot{Reader: r, Size: int64(len(raw)), Progress: func(done int64) { last = done }}
	ended := make(chan error, 1)
	go func() { ended <- h.Driver.Data(m).Restore(t.Context(), from) }()
	select {
	case <-half:
	case err := <-ended:
		t.Fatalf("restore: %v", err)
	}
	Ensure(t, h.Driver, m)
	if m.Status.Phase != v1alpha1.MemberPrepared || m.Status.StopProof == nil {
		t.Errorf("half-way: phase %s (%s), proof %v", m.Status.Phase, m.Status.Message, m.Status.StopProof)
	}
	restoredIs(t, m, false)
	gone(t, m, "half-way")
	neverWithout(t, h.Driver, m)
	if err := h.Driver.Data(m).Restore(t.Context(), unread(t)); err == nil {
		t.Error("two restores at once")
	}
	if where, err := h.Driver.Data(m).Retire(t.Context()); !errors.Is(err, driver.ErrNotStopped) {
		t.Errorf("retired half-way to %q: %v", where, err)
	}
	close(goOn)
	if err := <-ended; err != nil {
		t.Fatalf("restore: %v", err)
	}
	if last != int64(len(raw)) {
		t.Errorf("the last progress was %d of %d bytes", last, len(raw))
	}
	Ensure(t, h.Driver, m)
}

// testRestoredDataLost: without its data a restored member is not started, so that no
// empty cluster takes the place of the restored one.
func testRestoredDataLost(t *testing.T, h Harness) {
	t.Helper()
	_, raw := Snapshot(t, h, "source", "saved", "in a backup")
	m := h.Member("lost")
	PrepareRestored(t, h.Driver, m)
	if err := h.Driver.Data(m).Restore(t.Context(), driver.Snapshot{Reader: bytes.NewReader(raw)}); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(m.Status.DataDir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, h, m) })
	m.Spec.Run = v1alpha1.RunRunning
	Ensure(t, h.Driver, m)
	Until(t, h.Driver, m, "refused", func(s v1alpha1.EtcdMemberStatus) bool { return s.Phase == v1alpha1.MemberRefused })
	c := v1alpha1.FindCondition(m.Status.Conditions, v1alpha1.ConditionDataDirectory)
	if c.Status != v1alpha1.False || c.Reason != "Empty" || m.Status.Process != nil {
		t.Errorf("condition %+v, process %v", c, m.Status.Process)
	}
}
