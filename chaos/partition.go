package chaos

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// owned is NFT_TABLE_F_OWNER: the table goes with the socket that made it, and nobody
// else can change it. Linux has it since 5.12.
const owned = 2

// tablePrefix is what the names of our tables begin with.
const tablePrefix = "quorate-"

// late is by how much the timeout of a cut in the kernel is later than the deadline at
// which the holder undoes it.
const late = time.Second

// canFilter says whether nftables can be changed.
func canFilter() error {
	if os.Geteuid() != 0 {
		return errors.New("to drop packets needs root: run it as root")
	}
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("speak to nftables: %w", err)
	}
	if _, err = conn.ListTables(); err != nil {
		return fmt.Errorf("this kernel has no nftables: %w", err)
	}
	return nil
}

func preparePartition(h *hold) error {
	h.Table = tablePrefix + h.ID
	return inNetwork(h.Disturbance.NetNS, func() error { return passes(h.Disturbance.Cuts) })
}

// passes says why nothing between the addresses of the cuts passes here: a partition that
// cuts nothing must not look like one that a cluster has stood.
func passes(cuts []Cut) error {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return fmt.Errorf("read the own addresses: %w", err)
	}
	here := map[netip.Addr]bool{}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			here[p.Addr().Unmap()] = true
		}
	}
	forwards := func(file string) bool {
		raw, err := read(file)
		return err == nil && len(raw) > 0 && raw[0] == '1'
	}
	four, six := forwards("/proc/sys/net/ipv4/ip_forward"), forwards("/proc/sys/net/ipv6/conf/all/forwarding")
	for _, c := range cuts {
		from, to := c.From.Unmap(), c.To.Unmap()
		if router := from.Is4() && four || !from.Is4() && six; !here[from] && !here[to] && !router {
			return fmt.Errorf("nothing that %s and %s send to each other passes here: make the partition on the machine of one of them", from, to)
		}
	}
	return nil
}

// inNetwork runs f on a thread in a network namespace; "": this process's own.
func inNetwork(path string, f func() error) error {
	if path == "" {
		return f()
	}
	ns, err := os.Open(path) //nolint:gosec // the caller's
	if err != nil {
		return fmt.Errorf("the network namespace: %w", err)
	}
	defer ns.Close() //nolint:errcheck // nothing is written to it
	return elsewhere(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter the network namespace: %w", err)
		}
		return f()
	})
}

// elsewhere runs f on a thread that ends with it.
func elsewhere(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked
		done <- f()
	}()
	return <-done
}

// beginPartition lays a table with one set of address pairs for each family.
func beginPartition(_ context.Context, h *hold) error {
	conn, raw, closeNS, err := dialRules(h.Disturbance.NetNS)
	if err != nil {
		return err
	}
	defer closeNS()
	h.rules = conn
	table := &nftables.Table{Name: h.Table, Family: nftables.TableFamilyINet}
	if err = ownTable(raw, table); err != nil {
		return err
	}
	for _, fam := range families {
		if err = fam.lay(conn, table, h.Disturbance); err != nil {
			return err
		}
	}
	if err = conn.Flush(); err != nil {
		return fmt.Errorf("lay the rules of a partition: %w", err)
	}
	return nil
}

// dialRules opens a socket to nftables in a namespace, and returns it raw as well.
func dialRules(path string) (conn *nftables.Conn, raw *netlink.Conn, closeNS func(), err error) {
	options := []nftables.ConnOption{nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error {
		raw = c
		return nil
	})}
	closeNS = func() {}
	if path != "" {
		ns, openErr := os.Open(path) //nolint:gosec // the caller's
		if openErr != nil {
			return nil, nil, nil, fmt.Errorf("the network namespace of a partition: %w", openErr)
		}
		closeNS = func() { _ = ns.Close() } // nothing is written to it
		options = append(options, nftables.WithNetNSFd(int(ns.Fd())))
	}
	if conn, err = nftables.New(options...); err != nil {
		closeNS()
		return nil, nil, nil, fmt.Errorf("speak to nftables: %w", err)
	}
	return conn, raw, closeNS, nil
}

// ownTable makes a table that this socket owns; on an old kernel, one that it does not:
// then the cuts end by their timeouts, and the empty table goes with the next sweep.
func ownTable(raw *netlink.Conn, table *nftables.Table) error {
	err := makeTable(raw, table, owned)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) {
		err = makeTable(raw, table, 0)
	}
	if err != nil {
		return fmt.Errorf("make the nftables table %s: %w", table.Name, err)
	}
	return nil
}

// makeTable does what the library can't: it gives no flags to a table.
func makeTable(raw *netlink.Conn, table *nftables.Table, flags uint32) error {
	attributes, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_TABLE_NAME, Data: []byte(table.Name + "\x00")},
		{Type: unix.NFTA_TABLE_FLAGS, Data: binary.BigEndian.AppendUint32(nil, flags)},
	})
	if err != nil {
		return err
	}
	batch := func(kind netlink.HeaderType) netlink.Message {
		return netlink.Message{
			Header: netlink.Header{Type: kind, Flags: netlink.Request},
			Data:   []byte{0, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES},
		}
	}
	_, err = raw.SendMessages([]netlink.Message{
		batch(unix.NFNL_MSG_BATCH_BEGIN),
		{
			Header: netlink.Header{
				Type:  netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWTABLE),
				Flags: netlink.Request | netlink.Acknowledge | netlink.Create | netlink.Excl,
			},
			Data: append([]byte{byte(table.Family), unix.NFNETLINK_V0, 0, 0}, attributes...),
		},
		batch(unix.NFNL_MSG_BATCH_END),
	})
	if err != nil {
		return err
	}
	_, err = raw.Receive() // the one acknowledgement
	return err
}

// family is how the addresses of one family are matched.
type family struct {
	name  string
	proto byte
	key   nftables.SetDatatype
	is4   bool
	// source and destination stand next to each other in the header.
	offset, length uint32
}

var families = []family{
	{name: "cut4", proto: unix.NFPROTO_IPV4, key: nftables.TypeIPAddr, is4: true, offset: 12, length: 4},
	{name: "cut6", proto: unix.NFPROTO_IPV6, key: nftables.TypeIP6Addr, offset: 8, length: 16},
}

// lay adds the set and the rules of a family, if there is a cut in it.
func (f family) lay(conn *nftables.Conn, table *nftables.Table, d Disturbance) error {
	var elements []nftables.SetElement
	add := func(from, to []byte) {
		elements = append(elements, nftables.SetElement{Key: append(append([]byte{}, from...), to...), Timeout: d.For + late})
	}
	for _, c := range d.Cuts {
		if from, to := c.From.Unmap(), c.To.Unmap(); from.Is4() == f.is4 {
			add(from.AsSlice(), to.AsSlice())
			if !c.OneWay {
				add(to.AsSlice(), from.AsSlice())
			}
		}
	}
	if len(elements) == 0 {
		return nil
	}
	pair, err := nftables.ConcatSetType(f.key, f.key)
	if err != nil {
		return err
	}
	set := &nftables.Set{Table: table, Name: f.name, KeyType: pair, Concatenation: true, HasTimeout: true}
	if err = conn.AddSet(set, unique(elements)); err != nil {
		return err
	}
	ports, err := portSet(conn, table, f.name+"-ports", d.Ports)
	if err != nil {
		return err
	}
	for _, hook := range []struct {
		name string
		at   *nftables.ChainHook
	}{{"in", nftables.ChainHookInput}, {"out", nftables.ChainHookOutput}, {"forward", nftables.ChainHookForward}} {
		chain := conn.AddChain(&nftables.Chain{
			Table: table, Name: f.name + "-" + hook.name, Type: nftables.ChainTypeFilter,
			Hooknum: hook.at, Priority: nftables.ChainPriorityFilter,
		})
		for _, rule := range f.rules(set, ports) {
			conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: rule})
		}
	}
	return nil
}

// unique drops elements that are there twice, which the kernel would refuse.
func unique(elements []nftables.SetElement) []nftables.SetElement {
	seen := map[string]bool{}
	var list []nftables.SetElement
	for _, e := range elements {
		if !seen[string(e.Key)] {
			seen[string(e.Key)] = true
			list = append(list, e)
		}
	}
	return list
}

func portSet(conn *nftables.Conn, table *nftables.Table, name string, ports []uint16) (*nftables.Set, error) {
	if len(ports) == 0 {
		return nil, nil //nolint:nilnil // no set is a set of all ports
	}
	var elements []nftables.SetElement
	for _, p := range ports {
		elements = append(elements, nftables.SetElement{Key: binaryutil.BigEndian.PutUint16(p)})
	}
	set := &nftables.Set{Table: table, Name: name, KeyType: nftables.TypeInetService}
	return set, conn.AddSet(set, unique(elements))
}

// rules drop the pairs in a set; with ports, TCP from and TCP to one of them.
func (f family) rules(cut, ports *nftables.Set) [][]expr.Any {
	const first, second = 1, 2 // registers of 16 bytes: the key of a set begins in the first
	match := []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: first},
		&expr.Cmp{Op: expr.CmpOpEq, Register: first, Data: []byte{f.proto}},
	}
	if f.is4 {
		match = append(match, &expr.Payload{DestRegister: first, Base: expr.PayloadBaseNetworkHeader, Offset: f.offset, Len: 2 * f.length})
	} else {
		match = append(match,
			&expr.Payload{DestRegister: first, Base: expr.PayloadBaseNetworkHeader, Offset: f.offset, Len: f.length},
			&expr.Payload{DestRegister: second, Base: expr.PayloadBaseNetworkHeader, Offset: f.offset + f.length, Len: f.length})
	}
	match = append(match, &expr.Lookup{SourceRegister: first, SetName: cut.Name, SetID: cut.ID})
	drop := &expr.Verdict{Kind: expr.VerdictDrop}
	if ports == nil {
		return [][]expr.Any{append(match, drop)}
	}
	var rules [][]expr.Any
	for _, offset := range []uint32{0, 2} { // of the source port, of the destination port
		rules = append(rules, append(append([]expr.Any{}, match...),
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: first},
			&expr.Cmp{Op: expr.CmpOpEq, Register: first, Data: []byte{unix.IPPROTO_TCP}},
			&expr.Payload{DestRegister: first, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 2},
			&expr.Lookup{SourceRegister: first, SetName: ports.Name, SetID: ports.ID}, drop))
	}
	return rules
}

// endPartition removes the table, by the socket that may.
func endPartition(_ context.Context, h *hold) error {
	if h.rules == nil {
		return nil
	}
	err := dropTable(h.rules, h.Table)
	return errors.Join(err, h.rules.CloseLasting())
}

// undoPartition removes a table that its owner has left. Where tables are owned there
// is none.
func undoPartition(_ context.Context, h *hold) error {
	conn, _, closeNS, err := dialRules(h.Disturbance.NetNS)
	if errors.Is(err, os.ErrNotExist) {
		return nil // the namespace is gone, with all that was in it
	}
	if err != nil {
		return err
	}
	defer closeNS()
	return errors.Join(dropTable(conn, h.Table), conn.CloseLasting())
}

func dropTable(conn *nftables.Conn, name string) error {
	conn.DelTable(&nftables.Table{Name: name, Family: nftables.TableFamilyINet})
	if err := conn.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove the nftables table %s: %w", name, err)
	}
	return nil
}
