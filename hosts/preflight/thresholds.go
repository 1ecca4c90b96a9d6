package preflight

import (
	"fmt"
	"time"

	"github.com/quorate/quorate/internal/bytesize"
)

const (
	kib = 1 << 10
	mib = 1 << 20
	gib = 1 << 30
)

// What etcd has by default, and what it does.
const (
	firstPort = 2379
	peerPort  = "2380"
	heartbeat = 100 * time.Millisecond
	election  = time.Second
)

// The thresholds, each with where its figure comes from.
const (
	// etcd's FAQ: "the 99th percentile of wal_fsync_duration_seconds should be less than
	// 10 ms" (https://etcd.io/docs/latest/faq).
	fsyncWarn = 10 * time.Millisecond
	// etcd's default heartbeat interval: a leader whose log waits that long for its disk
	// sends heartbeats late, and says so ("leader is overloaded likely from slow disk").
	fsyncFail = heartbeat
	// etcd's hardware page: "10MB/s will recover 100MB data within 15 seconds"
	// (https://etcd.io/docs/latest/op-guide/hardware).
	throughputWarn = 10e6
	// Quorate's own: a snapshot of etcd's default quota, 2 GiB, would take over half an
	// hour to write.
	throughputFail = 1e6
	// Two and a half times etcd's default quota of 2 GiB: the database, one copy of it
	// while it is received or defragmented, and the log.
	spaceWarn = 5 * gib
	// The disk that a member asks for by default (spec.resources.disk).
	spaceFail = 1 * gib
	// Quorate's own: a member has some thirty files; a hundred of them, and three.
	inodesWarn = 3000
	inodesFail = 100
	// Quorate's own: a tenth of what etcd warns of. Time-outs of two members differ by
	// this.
	clockWarn = 100 * time.Millisecond
	// etcd warns of a peer whose clock is one second off ("prober found high clock drift").
	clockFail = time.Second
	// LimitNOFILE of etcd's own systemd unit.
	filesWarn = 40000
	// etcd keeps 150 descriptors to itself, and gives each listener the rest; by this
	// some 870 clients can connect.
	filesFail = 1024
	// etcd's hardware page: "typical clusters need two to four cores".
	cpusWarn = 2
	// Quorate's own: etcd keeps its database in memory as far as it is used, and the
	// default quota is 2 GiB. What a member asks for by default is 256 MiB.
	memoryWarn = 2 * gib
	memoryFail = 256 * mib
)

// etcd's tuning page: the heartbeat interval is "around the maximum of the average
// round-trip time between members", and "the election timeout at least 10 times the
// round-trip time" (https://etcd.io/docs/latest/tuning). Half a heartbeat is Quorate's
// own: half of the interval is then left for all else.
func (o *Options) peerWarn() time.Duration { return o.Heartbeat / 2 }
func (o *Options) peerFail() time.Duration { return o.Election / 10 }

// threshold is what a check is held against, in words.
func (o *Options) threshold(name string) string {
	switch name {
	case FsyncLatency:
		return "p99 at most " + short(fsyncWarn) + "; fails above " + short(fsyncFail)
	case DiskThroughput:
		return "at least " + rate(throughputWarn) + "; fails below " + rate(throughputFail)
	case DiskSpace:
		return "at least " + bytesize.Text(spaceWarn) + " free; fails below " + bytesize.Text(spaceFail)
	case DiskInodes:
		return fmt.Sprintf("at least %d free; fails below %d", inodesWarn, inodesFail)
	case DiskKind:
		return "a local disk; fails in memory and over the network"
	case DiskShared:
		return "a disk of its own"
	case ClockOffset:
		return "at most " + short(clockWarn) + "; fails above " + short(clockFail)
	case ClockSync:
		return "kept by NTP or the like"
	case PeerRoundTrips:
		return "at most " + short(o.peerWarn()) + "; fails above " + short(o.peerFail())
	case Address:
		return "an address of this machine"
	case Ports:
		return fmt.Sprintf("%d to %d free, or a member's", o.FirstPort, o.FirstPort+portsOfMember-1)
	case OtherEtcd:
		return "none"
	case OpenFiles:
		return fmt.Sprintf("at least %d; fails below %d", filesWarn, filesFail)
	case CPUs:
		return fmt.Sprintf("at least %d", cpusWarn)
	case Memory:
		return "at least " + bytesize.Text(memoryWarn) + "; fails below " + bytesize.Text(memoryFail)
	case Swap:
		return "off"
	case HugePages:
		return "madvise or never"
	}
	return ""
}

// short writes a duration as people read it, such as 2.1 ms.
func short(d time.Duration) string {
	switch {
	case d < 0:
		return "-" + short(-d)
	case d < time.Millisecond:
		return fmt.Sprintf("%.2g ms", float64(d)/1e6)
	case d < 100*time.Millisecond && d%time.Millisecond != 0: // p99 is held against 10 ms
		return fmt.Sprintf("%.1f ms", float64(d)/1e6)
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Round(time.Millisecond).Milliseconds())
	case d < 10*time.Second && d%time.Second != 0:
		return fmt.Sprintf("%.1f s", d.Seconds())
	default:
		return fmt.Sprintf("%d s", int64(d.Round(time.Second).Seconds()))
	}
}

// rate writes bytes per second, as disks are sold: in powers of ten.
func rate(bytesPerSecond float64) string {
	const mega = 1e6
	if v := bytesPerSecond / mega; v < 10 && v != float64(int(v)) {
		return fmt.Sprintf("%.1f MB/s", v)
	}
	return fmt.Sprintf("%.0f MB/s", bytesPerSecond/mega)
}
