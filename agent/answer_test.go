package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/driver"
	"github.com/quorate/quorate/store"
)

// played is a driver of one member, that does nothing.
type played struct {
	Driver

	status v1alpha1.EtcdMemberStatus
}

func (p *played) Observe(context.Context, *v1alpha1.EtcdMember) (v1alpha1.EtcdMemberStatus, error) {
	return p.status, nil
}

func (p *played) Logs(_ context.Context, m *v1alpha1.EtcdMember, opts driver.LogOptions) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader(fmt.Sprintf("%s of %s", opts.Source, m.Name))), nil
}

// one is a store of one member.
type one struct {
	store.Store

	member *v1alpha1.EtcdMember
}

func (o one) Get(_ context.Context, key store.Key, obj v1alpha1.Object) error {
	m, ok := obj.(*v1alpha1.EtcdMember)
	if !ok || key != store.KeyOf(o.member) {
		return store.ErrNotFound
	}
	o.member.DeepCopyInto(m)
	return nil
}

func newAgent(t *testing.T, faults bool) (*Agent, *played) {
	t.Helper()
	m := &v1alpha1.EtcdMember{}
	m.Namespace, m.Name, m.UID, m.Spec.Host = "prod", "m", "u1", "h1"
	m.Status.MetricsURL = "http://192.0.2.1:1" // not the agent's word
	p := &played{}
	return New(Options{Host: "h1", Store: one{member: m}, Driver: p, AllowFaults: faults, Logger: slog.New(slog.DiscardHandler)}), p
}

func ask(action Action) Request {
	return Request{Action: action, Member: store.Key{Namespace: "prod", Name: "m"}, UID: "u1", Log: driver.LogOptions{Source: "error"}}
}

func read(t *testing.T, r io.ReadCloser, err error) string {
	t.Helper()
	if err != nil {
		t.Fatalf("ask: %v", err)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	if err = r.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	return string(text)
}

func TestAnswer(t *testing.T) {
	a, _ := newAgent(t, true)
	r, err := a.answer(t.Context(), ask(ReadLog))
	if text := read(t, r, err); text != "error of m" {
		t.Errorf("the log is %q", text)
	}
	for name, req := range map[string]Request{
		"another":   {Action: ReadLog, Member: store.Key{Namespace: "prod", Name: "x"}, UID: "u1"},
		"before it": {Action: Kill, Member: store.Key{Namespace: "prod", Name: "m"}, UID: "u0"},
	} {
		if _, err := a.answer(t.Context(), req); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	a.opts.Host = "h2"
	if _, err := a.answer(t.Context(), ask(ReadLog)); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a member of another host: %v", err)
	}
	a.opts.Host = "h1"
	if _, err := a.answer(t.Context(), ask("dance")); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("an unknown request: %v", err)
	}
}

func TestMetrics(t *testing.T) {
	a, p := newAgent(t, false)
	if _, err := a.answer(t.Context(), ask(ReadMetrics)); !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "no etcd") {
		t.Fatalf("of a member that does not run: %v", err)
	}
	code := http.StatusOK
	etcd := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(code)
		_, _ = io.WriteString(w, r.URL.Path)
	}))
	defer etcd.Close()
	p.status = v1alpha1.EtcdMemberStatus{Process: &v1alpha1.ProcessStatus{PID: 1}, MetricsURL: etcd.URL}
	r, err := a.answer(t.Context(), ask(ReadMetrics))
	if text := read(t, r, err); text != "/metrics" {
		t.Errorf("read %q", text)
	}
	code = http.StatusTeapot
	if _, err := a.answer(t.Context(), ask(ReadMetrics)); !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "418") {
		t.Errorf("of an etcd that refuses: %v", err)
	}
	etcd.Close()
	if _, err := a.answer(t.Context(), ask(ReadMetrics)); !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "refused") {
		t.Errorf("of an etcd that is gone: %v", err)
	}
}

// TestKill kills a real process, and only where faults are allowed.
func TestKill(t *testing.T) {
	sleep := exec.CommandContext(t.Context(), "sleep", "600")
	if err := sleep.Start(); err != nil {
		t.Fatalf("start a process: %v", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- sleep.Wait() }()
	status := v1alpha1.EtcdMemberStatus{Process: &v1alpha1.ProcessStatus{PID: int64(sleep.Process.Pid), StartedAt: v1alpha1.NewTime(time.Now())}}

	careful, p := newAgent(t, false)
	p.status = status
	if _, err := careful.answer(t.Context(), ask(Kill)); !errors.Is(err, store.ErrForbidden) || !strings.Contains(err.Error(), "--allow-faults") {
		t.Fatalf("without --allow-faults: %v", err)
	}
	a, p := newAgent(t, true)
	if _, err := a.answer(t.Context(), ask(Kill)); !errors.Is(err, store.ErrUnavailable) {
		t.Fatalf("of a member that does not run: %v", err)
	}
	select {
	case err := <-ended:
		t.Fatalf("it ended too early: %v", err)
	default:
	}
	p.status = status
	r, err := a.answer(t.Context(), ask(Kill))
	if text := read(t, r, err); text != fmt.Sprintf(`{"pid":%d}`, sleep.Process.Pid) {
		t.Errorf("read %q", text)
	}
	select {
	case err := <-ended:
		if err == nil || !strings.Contains(err.Error(), "killed") {
			t.Fatalf("it ended with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it lives")
	}
	if _, err := a.answer(t.Context(), ask(Kill)); !errors.Is(err, store.ErrUnavailable) {
		t.Fatalf("killed twice: %v", err)
	}
}
