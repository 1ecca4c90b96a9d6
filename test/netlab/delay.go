package netlab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// MaxDelay is the longest delay: beyond it etcd's own timeouts are what is tested.
const MaxDelay = 10 * time.Second

// delay holds packets back: a set of address pairs whose packets the kernel puts into a
// queue, and what serves the queue.
type delay struct {
	log   *slog.Logger
	after time.Duration
	queue uint16
	set   *nftables.Set
	conn  *netlink.Conn

	mu     sync.Mutex
	held   []packet
	closed bool
	// more says that held was empty and is not any more, or that it is closed.
	more chan struct{}
	done sync.WaitGroup
}

// packet waits for its time.
type packet struct {
	id  uint32
	due time.Time
}

// Delay holds back what the hosts send to any other host: a round trip to one of them
// takes after longer, between two of them twice that. It replaces earlier delays of
// these packets; 0 ends them. Partitions go before delays.
func (l *Lab) Delay(hosts []string, after time.Duration) error {
	rest := make([]string, 0, len(l.hosts))
	for _, h := range l.hosts {
		rest = append(rest, h.Name)
	}
	return l.delayPairs(hosts, rest, after)
}

// DelayBetween holds back what the hosts of one side send to those of the other, both
// ways: a round trip takes twice after longer. Else it is as Delay.
func (l *Lab) DelayBetween(a, b []string, after time.Duration) error {
	if err := l.delayPairs(a, b, after); err != nil {
		return err
	}
	return l.delayPairs(b, a, after)
}

// DelayZones is DelayBetween for all hosts of two zones.
func (l *Lab) DelayZones(a, b string, after time.Duration) error {
	return l.DelayBetween(l.Zone(a), l.Zone(b), after)
}

func (l *Lab) delayPairs(from, to []string, after time.Duration) error {
	if after < 0 || after > MaxDelay {
		return fmt.Errorf("a delay of %s: give 0 to %s", after, MaxDelay)
	}
	sources, err := l.addresses(from)
	if err != nil {
		return err
	}
	targets, err := l.addresses(to)
	if err != nil {
		return err
	}
	var pairs []nftables.SetElement
	for _, a := range sources {
		for _, b := range targets {
			if a != b {
				pairs = append(pairs, nftables.SetElement{Key: append(a.AsSlice(), b.AsSlice()...)})
			}
		}
	}
	if len(pairs) == 0 {
		return errors.New("there is nothing to delay: name hosts on both sides")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, d := range l.delays {
		if err = l.forget(d, pairs); err != nil {
			return err
		}
	}
	if after == 0 {
		return nil
	}
	i := slices.IndexFunc(l.delays, func(d *delay) bool { return d.after == after })
	if i < 0 {
		d, makeErr := l.newDelay(after)
		if makeErr != nil {
			return fmt.Errorf("delay packets by %s: %w", after, makeErr)
		}
		i, l.delays = len(l.delays), append(l.delays, d)
	}
	if err = l.nft.SetAddElements(l.delays[i].set, pairs); err != nil {
		return err
	}
	return l.nft.Flush()
}

// forget takes pairs out of a delay.
func (l *Lab) forget(d *delay, pairs []nftables.SetElement) error {
	present, err := l.nft.GetSetElements(d.set)
	if err != nil {
		return fmt.Errorf("read what is delayed by %s: %w", d.after, err)
	}
	gone := slices.DeleteFunc(present, func(e nftables.SetElement) bool {
		return !slices.ContainsFunc(pairs, func(p nftables.SetElement) bool { return slices.Equal(p.Key, e.Key) })
	})
	if len(gone) == 0 {
		return nil
	}
	if err = l.nft.SetDeleteElements(d.set, gone); err != nil {
		return err
	}
	return l.nft.Flush()
}

// newDelay binds a queue, then leads packets into it.
func (l *Lab) newDelay(after time.Duration) (*delay, error) {
	d := &delay{log: l.log, after: after, queue: uint16(len(l.delays) + 1), more: make(chan struct{}, 1)}
	if err := d.bind(int(l.router.handle)); err != nil {
		return nil, err
	}
	pair, err := nftables.ConcatSetType(nftables.TypeIPAddr, nftables.TypeIPAddr)
	if err != nil {
		return nil, err
	}
	d.set = &nftables.Set{Table: l.table, Name: fmt.Sprintf("delay%d", d.queue), KeyType: pair, Concatenation: true}
	if err = l.nft.AddSet(d.set, nil); err != nil {
		return nil, errors.Join(err, d.close())
	}
	l.nft.AddRule(&nftables.Rule{Table: l.table, Chain: l.chain, Exprs: []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: sourceOffset, Len: 2 * addressLen},
		&expr.Lookup{SourceRegister: 1, SetName: d.set.Name, SetID: d.set.ID},
		nfqueue(d.queue),
	}})
	if err = l.nft.Flush(); err != nil {
		return nil, errors.Join(fmt.Errorf("lead packets into a queue: %w", err), d.close())
	}
	return d, nil
}

// nfqueue is the target of xtables rather than nftables' own expression, which not
// every kernel has. Packets pass when nobody serves the queue.
func nfqueue(queue uint16) expr.Any {
	const revision, bypass = 3, 1
	info := make(xt.Unknown, 8) // first queue, number of queues, flags, padding
	binary.NativeEndian.PutUint16(info, queue)
	binary.NativeEndian.PutUint16(info[2:], 1)
	binary.NativeEndian.PutUint16(info[4:], bypass)
	return &expr.Target{Name: "NFQUEUE", Rev: revision, Info: &info}
}

// What is said to a queue: linux/netfilter/nfnetlink_queue.h.
const (
	queueMessage   = unix.NFNL_SUBSYS_QUEUE << 8
	msgPacket      = 0
	msgConfig      = 2
	msgVerdicts    = 3
	configCommand  = 1
	configParams   = 2
	configLength   = 3
	configMask     = 4
	configFlags    = 5
	commandBind    = 1
	copyMeta       = 1
	packetHeader   = 1
	verdictHeader  = 2
	accept         = 1
	failOpen       = 1 // let packets pass when the queue is full
	wholeSegments  = 4 // don't split what is larger than a packet
	queueLength    = 1 << 16
	receiveBuffer  = 8 << 20
	attributeType  = 0x3fff
	generationLess = 4 // bytes before the attributes
)

// bind makes the queue ours and begins to serve it.
func (d *delay) bind(ns int) error {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: ns})
	if err != nil {
		return err
	}
	d.conn = conn
	// A socket that overflows loses packets, as a network does; it must not stop.
	err = errors.Join(conn.SetReadBuffer(receiveBuffer), conn.SetOption(netlink.NoENOBUFS, true))
	for _, attributes := range [][]netlink.Attribute{
		{{Type: configCommand, Data: []byte{commandBind, 0, 0, 0}}},
		{{Type: configParams, Data: append(be32(0), copyMeta)}},
		{{Type: configLength, Data: be32(queueLength)}},
		{{Type: configFlags, Data: be32(failOpen | wholeSegments)}, {Type: configMask, Data: be32(failOpen | wholeSegments)}},
	} {
		if err != nil {
			break
		}
		var m netlink.Message
		if m, err = d.message(msgConfig, netlink.Request|netlink.Acknowledge, attributes); err == nil {
			_, err = conn.Execute(m)
		}
	}
	if err != nil {
		return errors.Join(fmt.Errorf("bind queue %d: %w", d.queue, err), conn.Close())
	}
	d.done.Go(d.receive)
	d.done.Go(d.release)
	return nil
}

func (d *delay) message(kind int, flags netlink.HeaderFlags, attributes []netlink.Attribute) (netlink.Message, error) {
	data, err := netlink.MarshalAttributes(attributes)
	head := binary.BigEndian.AppendUint16([]byte{0, 0}, d.queue)
	return netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(queueMessage | kind), Flags: flags},
		Data:   append(head, data...),
	}, err
}

func be32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }

// receive notes when each packet is due.
func (d *delay) receive() {
	for {
		messages, err := d.conn.Receive()
		due := time.Now().Add(d.after)
		d.mu.Lock()
		closed, empty := d.closed, len(d.held) == 0
		for _, m := range messages {
			if id, ok := packetID(m); ok {
				d.held = append(d.held, packet{id, due})
			}
		}
		d.mu.Unlock()
		if closed {
			return
		}
		if err != nil {
			d.log.Error("a queue of delayed packets broke", slog.Duration("delay", d.after), slog.Any("error", err))
			return
		}
		if empty {
			d.wake()
		}
	}
}

func packetID(m netlink.Message) (uint32, bool) {
	if m.Header.Type != queueMessage|msgPacket || len(m.Data) < generationLess {
		return 0, false
	}
	attributes, err := netlink.UnmarshalAttributes(m.Data[generationLess:])
	if err != nil {
		return 0, false
	}
	for _, a := range attributes {
		if a.Type&attributeType == packetHeader && len(a.Data) >= 4 {
			return binary.BigEndian.Uint32(a.Data), true
		}
	}
	return 0, false
}

func (d *delay) wake() {
	select {
	case d.more <- struct{}{}:
	default: // it is about to look anyway
	}
}

// release lets packets go in the order they came: with one delay for all of them that is
// the order of their times.
func (d *delay) release() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		d.mu.Lock()
		now, due := time.Now(), 0
		for due < len(d.held) && (d.closed || !d.held[due].due.After(now)) {
			due++
		}
		var last uint32
		if due > 0 {
			last = d.held[due-1].id
			d.held = slices.Delete(d.held, 0, due)
		}
		var next time.Time
		if len(d.held) > 0 {
			next = d.held[0].due
		}
		closed := d.closed
		d.mu.Unlock()
		if due > 0 {
			d.accept(last)
		}
		switch {
		case closed:
			return
		case next.IsZero():
			<-d.more
		default:
			timer.Reset(time.Until(next))
			select {
			case <-timer.C:
			case <-d.more:
			}
		}
	}
}

// accept lets all packets go up to this one.
func (d *delay) accept(last uint32) {
	m, err := d.message(msgVerdicts, netlink.Request, []netlink.Attribute{{Type: verdictHeader, Data: append(be32(accept), be32(last)...)}})
	if err == nil {
		_, err = d.conn.Send(m)
	}
	if err != nil {
		d.log.Error("delayed packets can't be let go", slog.Duration("delay", d.after), slog.Any("error", err))
	}
}

// close lets go what is held, and ends.
func (d *delay) close() error {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.wake()
	// It ends a Receive that waits.
	err := d.conn.SetReadDeadline(time.Now())
	d.done.Wait()
	return errors.Join(err, d.conn.Close())
}
