package app_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/app"
	"github.com/quorate/quorate/fleet"
	"github.com/quorate/quorate/hosts/preflight"
	"github.com/quorate/quorate/internal/version"
	"github.com/quorate/quorate/release"
	"github.com/quorate/quorate/server"
	"github.com/quorate/quorate/server/servertest"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
	"github.com/quorate/quorate/store/remote/wire"
	"github.com/quorate/quorate/test/etcdlab"
)

// joined is a real agent with a member that is to come to it.
type joined struct {
	*servertest.Fixture

	member *v1alpha1.EtcdMember
}

// join runs an agent on dir until the test ends, which reaches the server at url.
func join(t *testing.T, f *servertest.Fixture, serverURL, dir string, more func(*app.AgentOptions)) *joined {
	t.Helper()
	releases, err := release.Open(dir+"/releases", release.Options{})
	must(t, err)
	builtin, err := releases.AddBuiltin(t.Context(), version.Etcd(), "/proc/self/exe")
	must(t, err)
	m := servertest.Member("prod", "m", "h")
	m.Spec.Release = v1alpha1.ReleaseRef{Version: builtin.Version, Digest: builtin.Digest}
	m.Spec.TLS.Mode, m.Spec.Run = v1alpha1.TLSDisabled, v1alpha1.RunPrepared
	f.Create(t, m)
	o := app.AgentOptions{
		DataDir: dir, Host: "h", Address: "127.0.0.1", FirstPort: 25379, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Client: remote.Config{Server: serverURL, Token: f.Token(t, server.RoleAgent, "h")},
	}
	if more != nil {
		more(&o)
	}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if ended := app.RunAgent(ctx, o); ended != nil && ctx.Err() == nil {
			t.Errorf("the agent ended: %v", ended)
		}
	})
	t.Cleanup(func() { stop(); running.Wait() })
	return &joined{f, m}
}

// refused waits until the member is turned away by that check, and returns what is said.
func (j *joined) refused(t *testing.T, check string) string {
	t.Helper()
	var said string
	etcdlab.Until(t, "the refusal of the member", func(ctx context.Context) error {
		if err := j.Store.Get(ctx, store.KeyOf(j.member), j.member); err != nil {
			return err
		}
		c := v1alpha1.FindCondition(j.member.Status.Conditions, v1alpha1.ConditionPrepared)
		if c == nil || c.Status != v1alpha1.False || c.Reason != fleet.ReasonHostUnfit {
			if c != nil && c.Status == v1alpha1.True {
				t.Errorf("it is prepared on a host that is unfit")
			}
			return errors.New("not yet: " + j.member.Status.Message)
		}
		said = c.Message
		return nil
	})
	if !strings.Contains(said, check+": ") || j.member.Status.Phase != v1alpha1.MemberPending || j.member.Status.Process != nil {
		t.Errorf("it says %q, in phase %s with %+v", said, j.member.Status.Phase, j.member.Status.Process)
	}
	return said
}

func (j *joined) fit(t *testing.T, want v1alpha1.Condition) *v1alpha1.EtcdHost {
	t.Helper()
	h := &v1alpha1.EtcdHost{}
	etcdlab.Until(t, "the condition Fit", func(ctx context.Context) error {
		if err := j.Store.Get(ctx, store.Key{Name: "h"}, h); err != nil {
			return err
		}
		if c := v1alpha1.FindCondition(h.Status.Conditions, v1alpha1.ConditionFit); c == nil || c.Status != want.Status || c.Reason != want.Reason {
			return errors.New("it is another, or none")
		}
		return nil
	})
	return h
}

// inMemory is a directory on a tmpfs.
func inMemory(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=16g"); err != nil {
		t.Skipf("no tmpfs can be mounted here (it needs root): %v", err)
	}
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	return dir
}

// TestUnfitHost: no member comes to a host whose disk is memory, and nothing of it is
// made there; with --allow-unfit it comes, and what is wrong is told all the same.
func TestUnfitHost(t *testing.T) {
	t.Parallel()
	f := servertest.New(t, nil)
	j := join(t, f, f.URL, inMemory(t), nil)
	if said := j.refused(t, preflight.DiskKind); !strings.Contains(said, "--data-dir") {
		t.Errorf("it does not say what to do: %s", said)
	}
	if j.member.Status.Ports.Client != 0 {
		t.Errorf("ports were chosen for it: %+v", j.member.Status.Ports)
	}
	h := j.fit(t, v1alpha1.Condition{Status: v1alpha1.False, Reason: "DiskKind"})
	if h.Status.Capacity == nil || h.Status.Capacity.CPU.IsZero() || h.Status.Capacity.Memory.IsZero() || h.Status.Capacity.Disk.Value() > 16<<30 || h.Status.Capacity.Disk.Value() < 15<<30 {
		t.Errorf("the capacity is %+v", h.Status.Capacity)
	}
	found, err := f.Client(t, server.RoleAdmin, "", remote.Options{}).CheckHost(t.Context(), "h", []string{"127.0.0.1"})
	peers := slices.ContainsFunc(found.Checks, func(c v1alpha1.HostCheck) bool { return c.Name == preflight.PeerRoundTrips })
	if failing := preflight.Failing(found.Checks); err != nil || len(failing) != 1 || failing[0].Name != preflight.DiskKind || !peers {
		t.Errorf("asked for: %+v, %v", found, err)
	}
}

func TestUnfitHostAllowed(t *testing.T) {
	t.Parallel()
	f := servertest.New(t, nil)
	j := join(t, f, f.URL, inMemory(t), func(o *app.AgentOptions) { o.AllowUnfit = true })
	until(t, f, j.member, v1alpha1.ConditionPrepared)
	j.fit(t, v1alpha1.Condition{Status: v1alpha1.True, Reason: preflight.ReasonAllowed})
}

// skewed is a way to the server on which its clock is off by what skew says, in
// nanoseconds.
func skewed(t *testing.T, to string, skew *atomic.Int64) string {
	t.Helper()
	u, err := url.Parse(to)
	must(t, err)
	p := httputil.NewSingleHostReverseProxy(u)
	p.FlushInterval = -1
	p.ErrorLog = slog.NewLogLogger(slog.NewTextHandler(t.Output(), nil), slog.LevelDebug)
	p.ModifyResponse = func(r *http.Response) error {
		if r.Request.URL.Path != wire.PathVersion || r.StatusCode != http.StatusOK {
			return nil
		}
		var v wire.Version
		if err := errors.Join(json.NewDecoder(r.Body).Decode(&v), r.Body.Close()); err != nil {
			return err
		}
		v.Time = v.Time.Add(time.Duration(skew.Load()))
		raw, err := json.Marshal(v)
		if err != nil {
			return err
		}
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(raw)), int64(len(raw))
		r.Header.Set("Content-Length", strconv.Itoa(len(raw)))
		return nil
	}
	s := httptest.NewServer(p)
	t.Cleanup(s.Close)
	return s.URL
}

// TestClockOff: a host whose clock is off gets no member, and says by how much; the
// member comes once the clock is right.
func TestClockOff(t *testing.T) {
	t.Parallel()
	for name, off := range map[string]time.Duration{"ahead": -5 * time.Second, "behind": 5 * time.Second} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := servertest.New(t, nil)
			var skew atomic.Int64
			skew.Store(int64(off))
			j := join(t, f, skewed(t, f.URL, &skew), t.TempDir(), nil)
			said := j.refused(t, preflight.ClockOffset)
			if !strings.Contains(said, name) || !strings.Contains(said, "5 s") && !strings.Contains(said, "5.0 s") {
				t.Errorf("it says %q", said)
			}
			j.fit(t, v1alpha1.Condition{Status: v1alpha1.False, Reason: "ClockOffset"})
			skew.Store(0)
			until(t, f, j.member, v1alpha1.ConditionPrepared)
		})
	}
}
