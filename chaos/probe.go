package chaos

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Capability is one thing that a machine can do, or not.
type Capability struct {
	// Name of it, such as "nftables".
	Name string `json:"name"`
	// For says what it is used for, and by which method.
	For string `json:"for"`
	// Missing says why it is not to be had; empty if it is.
	Missing string `json:"missing,omitempty"`
}

// Probe tries what this machine can do for this user. What is tried on the network is
// tried in a namespace that is thrown away.
func Probe() []Capability {
	list := []Capability{
		{Name: "root", For: "processes of other users, and everything on the network", Missing: reason(needRoot())},
		{Name: "ptrace", For: "pause: the kernel lets the threads go if the holder dies", Missing: reason(canTrace())},
		{Name: "kernel timer", For: "kills a holder that hangs", Missing: ""},
	}
	for _, c := range []struct {
		name, use string
		try       func() error
	}{
		{"network namespaces", "labs of several hosts on one machine", func() error { return nil }},
		{"nftables", "partition", canFilter},
		{"nftables table owner", "partition: the rules go with the holder; without it they end by their timeouts", tryOwner},
		{"nfqueue", "delay, where there is no netem", tryQueue},
		{"netem", "delay in the kernel; not used yet", tryNetem},
	} {
		err := needRoot()
		if err == nil {
			err = elsewhere(func() error {
				if unshareErr := unix.Unshare(unix.CLONE_NEWNET); unshareErr != nil {
					return fmt.Errorf("make a network namespace: %w", unshareErr)
				}
				return c.try()
			})
		}
		list = append(list, Capability{Name: c.name, For: c.use, Missing: reason(err)})
	}
	for _, f := range []struct{ name, use, file string }{
		{"cgroup v2", "limits of CPU, memory and disk; not used yet", "/sys/fs/cgroup/cgroup.controllers"},
		{"cgroup v1", "limits of CPU, memory and disk where there is no v2; not used yet", "/sys/fs/cgroup/cpu"},
		{"FUSE", "failing and slow disks; not used yet", "/dev/fuse"},
	} {
		_, err := os.Stat(f.file)
		list = append(list, Capability{Name: f.name, For: f.use, Missing: reason(err)})
	}
	return list
}

func reason(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func needRoot() error {
	if os.Geteuid() != 0 {
		return errors.New("it needs root: run it as root")
	}
	return nil
}

const probeTable = tablePrefix + "probe"

func tryOwner() error {
	conn, raw, closeNS, err := dialRules("")
	if err != nil {
		return err
	}
	defer closeNS()
	defer conn.CloseLasting() //nolint:errcheck // the namespace goes anyway
	return makeTable(raw, &nftables.Table{Name: probeTable, Family: nftables.TableFamilyINet}, owned)
}

// tryQueue makes a rule with the target of xtables, which some kernels have without
// nftables' own expression.
func tryQueue() error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	table := conn.AddTable(&nftables.Table{Name: probeTable, Family: nftables.TableFamilyIPv4})
	chain := conn.AddChain(&nftables.Chain{
		Table: table, Name: "out", Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityFilter,
	})
	info := make(xt.Unknown, 8)
	binary.NativeEndian.PutUint16(info[2:], 1)
	conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{&expr.Target{Name: "NFQUEUE", Rev: 3, Info: &info}}})
	return conn.Flush()
}

func tryNetem() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.QdiscAdd(netlink.NewNetem(
		netlink.QdiscAttrs{LinkIndex: lo.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT},
		netlink.NetemQdiscAttrs{Latency: 1000},
	))
}
