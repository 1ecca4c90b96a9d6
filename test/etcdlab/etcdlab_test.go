package etcdlab_test

import (
	"context"
	"strings"
	"syscall"
	"testing"

	"github.com/quorate/quorate/test/etcdlab"
)

func TestMain(m *testing.M) { etcdlab.Main(m) }

func TestCluster(t *testing.T) {
	ca := etcdlab.NewAuthority(t)
	l := etcdlab.New(t, etcdlab.Options{
		Members: 3, CA: ca, ClientCerts: true, Peers: etcdlab.NewAuthority(t), Flags: []string{"--log-level=info"},
		Edit: func(members []*etcdlab.Member) { members[2].Flags = []string{"--log-level=error"} },
	}).Ready()
	m := l.Members[0]
	c := m.Dial()
	etcdlab.Until(t, "written", func(ctx context.Context) error {
		_, err := c.Put(ctx, "key", "value")
		return err
	})
	if text := m.Log(); !strings.Contains(text, "ready to serve") || l.Members[2].Log() != "" {
		t.Errorf("flags are lost: %q, %q", text, l.Members[2].Log())
	}
	before, gone := m.PID(), m.Exited()
	m.Restart()
	<-gone
	if m.PID() == before {
		t.Errorf("process %d is there still", before)
	}
	l.Ready(m)
	m.Stop()
	if err := m.Signal(syscall.SIGKILL); err == nil {
		t.Error("a member that was stopped runs")
	}
	if err := m.TryStart(); err != nil {
		t.Fatal(err)
	}
	l.Ready()
	if r, err := c.Get(t.Context(), "key"); err != nil || len(r.Kvs) != 1 {
		t.Errorf("%v, %v", r, err)
	}
}
