package agent

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/driver"
	"github.com/quorate/quorate/fleet"
	"github.com/quorate/quorate/hosts/preflight"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/memory"
)

// checked are checks as a test says.
type checked struct {
	mu    sync.Mutex
	made  int
	list  []v1alpha1.HostCheck
	light []bool
	peers []string
	takes time.Duration
}

func (c *checked) Check(_ context.Context, peers []string, light bool) []v1alpha1.HostCheck {
	time.Sleep(c.takes)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.made++
	c.light, c.peers = append(c.light, light), peers
	list := append([]v1alpha1.HostCheck(nil), c.list...)
	if len(peers) > 0 {
		list = append(list, v1alpha1.HostCheck{Name: preflight.PeerRoundTrips, Verdict: v1alpha1.VerdictFail, Message: "far", Fix: "come nearer"})
	}
	return list
}

func (*checked) Capacity(context.Context) v1alpha1.Resources {
	return v1alpha1.NewResources(2000, 4<<30, 50<<30)
}

func (c *checked) set(v v1alpha1.Verdict) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = []v1alpha1.HostCheck{{Name: preflight.ClockOffset, Verdict: v, Value: "5 s", Message: "the clock is 5 s ahead", Fix: "set the clock"}}
}

func (c *checked) times() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.made
}

// running is a driver with one member that runs.
type running struct{ Driver }

func (running) List(context.Context) ([]driver.Found, error) {
	return []driver.Found{{Name: "m", PID: 7}}, nil
}

// checkingAgent is an agent whose host has those checks, and its store.
func checkingAgent(t *testing.T, c *checked) (*Agent, store.Store) {
	t.Helper()
	s := memory.New(memory.Options{})
	host := &v1alpha1.EtcdHost{}
	host.Name, host.Spec.Address = "h1", "127.0.0.1"
	if err := s.Create(t.Context(), host); err != nil {
		t.Fatal(err)
	}
	return New(Options{Host: "h1", Store: s, Recorder: &told{}, Driver: running{}, Preflight: c, Logger: slog.New(slog.DiscardHandler)}), s
}

// told are the reasons of events.
type told struct{ reasons []string }

func (t *told) Record(_ context.Context, e store.Event) { t.reasons = append(t.reasons, e.Reason) }

func hostOf(t *testing.T, s store.Store) *v1alpha1.EtcdHost {
	t.Helper()
	h := &v1alpha1.EtcdHost{}
	if err := s.Get(t.Context(), store.Key{Name: "h1"}, h); err != nil {
		t.Fatal(err)
	}
	return h
}

func member(uid v1alpha1.UID) *v1alpha1.EtcdMember {
	m := &v1alpha1.EtcdMember{}
	m.Namespace, m.Name, m.UID = "prod", "m", uid
	return m
}

// TestMayCome: a new member waits for checks that are young, and for none to fail;
// once taken it is not asked again.
func TestMayCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &checked{takes: 2 * time.Second}
		c.set(v1alpha1.VerdictWarn)
		a, _ := checkingAgent(t, c)
		ctx, stop := context.WithCancel(t.Context())
		var done sync.WaitGroup
		done.Go(func() { a.keepChecking(ctx) })
		defer func() { stop(); done.Wait() }()
		reason := func(uid v1alpha1.UID) string {
			if r := a.mayCome(member(uid)); r != nil {
				if r.Reason == fleet.ReasonHostUnfit && (!strings.Contains(r.Message, "clock is 5 s ahead: set the clock") || !strings.Contains(r.Message, "host h1")) {
					t.Errorf("it says %q", r.Message)
				}
				return r.Reason
			}
			return ""
		}
		expect := func(what string, uid v1alpha1.UID, want string) {
			t.Helper()
			if got := reason(uid); got != want {
				t.Errorf("%s: %q, want %q", what, got, want)
			}
		}
		expect("before the first checks", "a", fleet.ReasonHostNotChecked)
		time.Sleep(3 * time.Second)
		expect("a warning", "a", "")
		made := c.times()

		c.set(v1alpha1.VerdictFail)
		time.Sleep(2 * time.Minute)
		if c.times() != made {
			t.Errorf("checked %d times while nobody waited", c.times()-made)
		}
		expect("the one that came", "a", "")
		expect("old checks", "b", fleet.ReasonHostNotChecked)
		time.Sleep(3 * time.Second)
		expect("a failure", "b", fleet.ReasonHostUnfit)
		if c.times() != made+1 {
			t.Errorf("checked %d times", c.times()-made)
		}
		expect("the one that came", "a", "")
		// While it waits, they are made again by and by, and not each time it asks.
		for range 60 {
			expect("a failure", "b", fleet.ReasonHostUnfit)
			time.Sleep(time.Second)
		}
		if n := c.times() - made - 1; n < 4 || n > 7 {
			t.Errorf("checked %d times in a minute", n)
		}
		c.set(v1alpha1.VerdictPass)
		for range 15 {
			reason("b")
			time.Sleep(time.Second)
		}
		expect("put right", "b", "")
		for _, light := range c.light {
			if !light {
				t.Error("the disk of a member that runs was not spared")
			}
		}
	})
}

// TestChecksAreReported: as status and condition, when a verdict changes, and as an
// event when that changes what the host is fit for.
func TestChecksAreReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &checked{}
		c.set(v1alpha1.VerdictPass)
		a, s := checkingAgent(t, c)
		ctx, stop := context.WithCancel(t.Context())
		var done sync.WaitGroup
		done.Go(func() { a.keepChecking(ctx) })
		defer func() { stop(); done.Wait() }()
		synctest.Wait()
		h := hostOf(t, s)
		if h.Status.Preflight == nil || len(h.Status.Preflight.Checks) != 1 || !v1alpha1.IsTrue(h.Status.Conditions, v1alpha1.ConditionFit) {
			t.Fatalf("reported: %+v", h.Status)
		}
		if offers := h.Offers(); offers.CPU.String() != "2" || offers.Memory.String() != "4Gi" || offers.Disk.String() != "50Gi" {
			t.Errorf("the capacity is %+v", h.Status.Capacity)
		}
		first := h.ResourceVersion
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		if h = hostOf(t, s); h.ResourceVersion != first || c.times() < 3 {
			t.Errorf("written though nothing changed, after %d checks", c.times())
		}
		c.set(v1alpha1.VerdictFail)
		time.Sleep(12 * time.Minute)
		synctest.Wait()
		h = hostOf(t, s)
		fit := v1alpha1.FindCondition(h.Status.Conditions, v1alpha1.ConditionFit)
		if fit.Status != v1alpha1.False || fit.Reason != "ClockOffset" || h.Status.Preflight.Checks[0].Verdict != v1alpha1.VerdictFail {
			t.Errorf("reported: %+v", h.Status)
		}
		c.set(v1alpha1.VerdictPass)
		time.Sleep(12 * time.Minute)
		synctest.Wait()
		var reasons []string
		if heard, ok := a.opts.Recorder.(*told); ok {
			reasons = heard.reasons
		}
		if got := strings.Join(reasons, " "); got != "HostUnfit HostFit" {
			t.Errorf("the events are %q", got)
		}
	})
}

// TestUnfitAllowed: what fails is reported, and keeps nobody away.
func TestUnfitAllowed(t *testing.T) {
	c := &checked{}
	c.set(v1alpha1.VerdictFail)
	a, s := checkingAgent(t, c)
	a.opts.AllowUnfit = true
	a.examine(t.Context(), nil)
	if err := a.tell(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	fit := v1alpha1.FindCondition(hostOf(t, s).Status.Conditions, v1alpha1.ConditionFit)
	if fit == nil || fit.Status != v1alpha1.True || fit.Reason != preflight.ReasonAllowed || !strings.Contains(fit.Message, "5 s ahead") {
		t.Errorf("%+v", fit)
	}
}

// TestCheckOnDemand: who asks is told all, and the host's status has all but the round
// trips, which are of the asker's making.
func TestCheckOnDemand(t *testing.T) {
	c := &checked{}
	c.set(v1alpha1.VerdictPass)
	a, s := checkingAgent(t, c)
	r, err := a.answer(t.Context(), Request{Action: Check, Peers: []string{"10.0.0.8"}})
	var got v1alpha1.HostPreflight
	if err = errors.Join(err, json.Unmarshal([]byte(read(t, r, err)), &got)); err != nil || len(got.Checks) != 2 || got.At.IsZero() || len(c.peers) != 1 {
		t.Errorf("answered %+v, %v", got, err)
	}
	h := hostOf(t, s)
	if h.Status.Preflight == nil || len(h.Status.Preflight.Checks) != 1 || !v1alpha1.IsTrue(h.Status.Conditions, v1alpha1.ConditionFit) {
		t.Errorf("reported: %+v", h.Status)
	}
	if why := a.mayCome(member("a")); why != nil {
		t.Errorf("a far peer keeps members away: %+v", why)
	}
	a.opts.Preflight = nil
	if _, err := a.answer(t.Context(), Request{Action: Check}); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("of an agent that makes no checks: %v", err)
	}
}
