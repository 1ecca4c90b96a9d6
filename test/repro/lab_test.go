package repro_test

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/quorate/quorate/test/etcdlab"
	"github.com/quorate/quorate/test/netlab"
)

// patience bounds what a test waits for.
const patience = etcdlab.Patience

// TestMain makes the test binary act as the etcd that it is built with.
func TestMain(m *testing.M) { etcdlab.Main(m) }

// lab is a cluster of real etcd processes of one release.
type lab struct {
	*etcdlab.Cluster
	t *testing.T
}

type member = etcdlab.Member

// labOptions say what to start.
type labOptions struct {
	release string
	members int
	// dirs are the data directories; empty ones by default.
	dirs []string
	// hosts of a network where members run, in place of this one.
	hosts []*netlab.Host
	// auth turns authentication on, and has root ask.
	auth bool
	// flags as etcd 3.5 has them.
	flags []string
}

// password of all users.
const password = "secret"

// linked is the release that this module is built with: the test itself is it.
const linked = "3.7.3"

// newLab starts a cluster and waits until each member serves.
func newLab(t *testing.T, o labOptions) *lab {
	t.Helper()
	lo := etcdlab.Options{Members: o.members, Hosts: o.hosts, Flags: append(flagsOf(o.release, o.flags), "--log-level=info")}
	if o.members > 1 {
		// Nobody is to be elected just because the machine is busy.
		lo.Flags = append(lo.Flags, "--heartbeat-interval=100", "--election-timeout=1000")
	}
	if o.release != linked {
		binary, err := etcdlab.Built(o.release)
		if err != nil {
			t.Fatal(err)
		}
		lo.Binary = binary
	}
	lo.Edit = func(members []*member) {
		for i, m := range members {
			if i < len(o.dirs) {
				m.Dir = o.dirs[i]
			}
			if m.Host != nil {
				m.Listen = m.Client
				m.Client = "http://" + forward(t, m.Host)
			}
		}
	}
	return &lab{etcdlab.New(t, lo).Ready(), t}
}

// until tries again until it works.
func (l *lab) until(what string, try func(ctx context.Context) error) {
	l.t.Helper()
	etcdlab.Until(l.t, what, try)
}

// flagsOf are flags of etcd 3.5 as a release has them.
func flagsOf(release string, flags []string) []string {
	if release != linked {
		return flags
	}
	list := make([]string, 0, len(flags))
	for _, f := range flags {
		if f == sharedBufferOff {
			f = "--feature-gates=TxnModeWriteWithSharedBuffer=false"
		}
		list = append(list, strings.Replace(f, "--experimental-", "--", 1))
	}
	return list
}

// forward gives a host's etcd an address here. It is dialled from the host itself,
// so that no partition cuts it.
func forward(t *testing.T, h *netlab.Host) string {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = in.Close() }()
				out, err := h.Dial(context.WithoutCancel(t.Context()), h.Addr.String()+":2379")
				if err != nil {
					return
				}
				go func() {
					_, _ = io.Copy(out, in) // it ends with either of them
					_ = out.Close()
				}()
				_, _ = io.Copy(in, out)
				_ = out.Close()
			}()
		}
	}()
	return ln.Addr().String()
}
