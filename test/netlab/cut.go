package netlab

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// Source and destination stand next to each other in an IPv4 header: one key.
const (
	sourceOffset = 12
	addressLen   = 4
)

// rules lays the router's table: what is in the set cut is dropped.
func (l *Lab) rules() error {
	var err error
	if l.nft, err = nftables.New(nftables.WithNetNSFd(int(l.router.handle)), nftables.AsLasting()); err != nil {
		return fmt.Errorf("speak to nftables on the router: %w", err)
	}
	l.table = l.nft.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "quorate-lab"})
	pair, err := nftables.ConcatSetType(nftables.TypeIPAddr, nftables.TypeIPAddr)
	if err != nil {
		return err
	}
	l.cut = &nftables.Set{Table: l.table, Name: "cut", KeyType: pair, Concatenation: true}
	if err = l.nft.AddSet(l.cut, nil); err != nil {
		return err
	}
	l.chain = l.nft.AddChain(&nftables.Chain{
		Table: l.table, Name: "forward", Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
	})
	l.nft.AddRule(&nftables.Rule{Table: l.table, Chain: l.chain, Exprs: []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: sourceOffset, Len: 2 * addressLen},
		&expr.Lookup{SourceRegister: 1, SetName: l.cut.Name, SetID: l.cut.ID},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}})
	if err = l.nft.Flush(); err != nil {
		return fmt.Errorf("lay nftables rules on the router: %w", err)
	}
	return nil
}

// Partition cuts every host of the one side off from every host of the other, both ways.
// It adds to the partitions that are there.
func (l *Lab) Partition(a, b []string) error {
	one, err := l.addresses(a)
	if err != nil {
		return err
	}
	other, err := l.addresses(b)
	if err != nil {
		return err
	}
	return errors.Join(l.drop(one, other), l.drop(other, one))
}

// Drop cuts one way: nothing that a sends reaches b; what b sends arrives.
func (l *Lab) Drop(a, b []string) error {
	from, err := l.addresses(a)
	if err != nil {
		return err
	}
	to, err := l.addresses(b)
	if err != nil {
		return err
	}
	return l.drop(from, to)
}

// PartitionZones cuts two zones off from each other.
func (l *Lab) PartitionZones(a, b string) error {
	for _, zone := range []string{a, b} {
		if len(l.Zone(zone)) == 0 {
			return fmt.Errorf("the lab has no host in zone %q", zone)
		}
	}
	return l.Partition(l.Zone(a), l.Zone(b))
}

// Isolate cuts a host off from all others.
func (l *Lab) Isolate(host string) error {
	var rest []string
	for _, h := range l.hosts {
		if h.Name != host {
			rest = append(rest, h.Name)
		}
	}
	return l.Partition([]string{host}, rest)
}

// Heal ends all partitions; delays stay.
func (l *Lab) Heal() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.nft.FlushSet(l.cut)
	if err := l.nft.Flush(); err != nil {
		return fmt.Errorf("heal the partitions: %w", err)
	}
	return nil
}

func (l *Lab) drop(from, to []netip.Addr) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var elements []nftables.SetElement
	for _, a := range from {
		for _, b := range to {
			elements = append(elements, nftables.SetElement{Key: append(a.AsSlice(), b.AsSlice()...)})
		}
	}
	if len(elements) == 0 {
		return nil
	}
	if err := l.nft.SetAddElements(l.cut, elements); err != nil {
		return err
	}
	if err := l.nft.Flush(); err != nil {
		return fmt.Errorf("cut %v off from %v: %w", from, to, err)
	}
	return nil
}

func (l *Lab) addresses(names []string) ([]netip.Addr, error) {
	list := make([]netip.Addr, 0, len(names))
	for _, name := range names {
		h := l.Host(name)
		if h == nil {
			return nil, fmt.Errorf("the lab has no host %q", name)
		}
		list = append(list, h.Addr)
	}
	return list, nil
}
