package host

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/driver/host/cgroup"
	"github.com/quorate/quorate/driver/host/supervisor"
	"github.com/quorate/quorate/internal/process"
)

// systemdPatience bounds what systemd is asked without a caller's own limit.
const systemdPatience = 10 * time.Second

// units starts each supervisor as a systemd unit of its own, which stands in a file: it
// comes back after a boot before agent and server do, and it outlives both.
//
// A unit that a person stops is started again where the member is to run: what is wanted
// is said to Quorate, and not to systemd. Until the agent comes to it, it is stopped, with
// proof.
type units struct {
	driver  *Driver
	systemd *Systemd

	mu      sync.Mutex
	guarded bool
}

func (*units) supervision() v1alpha1.Supervision { return v1alpha1.SupervisionSystemd }

// unitOf is the name of the home's unit, which systemd wants shorter than file names are.
func unitOf(h supervisor.Home) string {
	const longest = 200
	name := filepath.Base(string(h))
	if len(name) > longest {
		sum := sha256.Sum256([]byte(name))
		name = name[:longest] + hex.EncodeToString(sum[:4])
	}
	return "quorate-member-" + name + ".service"
}

func (*units) log(h supervisor.Home) string { return "`journalctl -u " + unitOf(h) + "`" }

func (u *units) launch(ctx context.Context, h supervisor.Home) (launched, error) {
	o, err := h.ReadOrder()
	if err != nil {
		// Also one to stop needs a supervisor.
		o = &supervisor.Order{}
	}
	unit := unitOf(h)
	var l launched
	err = u.systemd.ask(ctx, func(c *dbus.Conn) error {
		if _, installErr := u.systemd.install(ctx, c, unit, u.text(h, o)); installErr != nil {
			return installErr
		}
		pid, startErr := u.systemd.start(ctx, c, unit)
		if startErr == nil {
			l.id, _ = process.Identify(pid)
		}
		return startErr
	})
	l.wait = func(ctx context.Context) error {
		if waitErr := l.id.Wait(ctx); waitErr != nil {
			return waitErr
		}
		return u.systemd.result(ctx, unit)
	}
	return l, err
}

func (u *units) keepApart(ctx context.Context, h supervisor.Home, o *supervisor.Order, pids []int) error {
	unit := unitOf(h)
	if len(pids) > 0 && !inUnit(pids[0], unit) {
		if err := u.takeOver(ctx, h, unit); err != nil {
			return err
		}
	}
	err := u.systemd.ask(ctx, func(c *dbus.Conn) error {
		changed, err := u.systemd.install(ctx, c, unit, u.text(h, o))
		if err != nil {
			return err
		}
		var strangers []uint32
		for _, pid := range pids[min(len(pids), 1):] {
			if !inUnit(pid, unit) {
				strangers = append(strangers, uint32(pid)) //nolint:gosec // process IDs are small
			}
		}
		if len(strangers) > 0 {
			// What began elsewhere would end with the group that it began in.
			if err := c.AttachProcessesToUnit(ctx, unit, "", strangers); err != nil {
				return fmt.Errorf("move etcd to %s: %w", unit, err)
			}
		}
		if !changed {
			return nil
		}
		return c.SetUnitPropertiesContext(ctx, unit, true, u.properties(h, o)...)
	})
	return errors.Join(err, cgroup.Tune(o.Class, u.systemd.weighs(), pids...))
}

// takeOver ends a supervisor that has no unit, so that one that has adopts its etcd: at
// once, since one that is asked to end stops its etcd first.
func (u *units) takeOver(ctx context.Context, h supervisor.Home, unit string) error {
	state, err := h.ReadState()
	if err != nil || state.Intent != nil || state.Process == nil || !state.Process.ID.Alive() {
		return nil //nolint:nilerr // while etcd is about to start or to end, it is left alone
	}
	u.driver.log.InfoContext(ctx, "a member's supervisor becomes a unit; its etcd runs on", slog.String("home", string(h)), slog.String("unit", unit))
	if err := state.Supervisor.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, process.ErrGone) {
		return err
	}
	if err := state.Supervisor.Wait(ctx); err != nil {
		return err
	}
	return u.driver.spawn(ctx, h)
}

// inUnit reports whether a process is in the unit's control group.
func inUnit(pid int, unit string) bool {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	return err != nil || strings.Contains(string(raw), "/"+unit)
}

func (u *units) guard(ctx context.Context, guaranteed bool) error {
	u.mu.Lock()
	same := u.guarded == guaranteed
	u.guarded = guaranteed
	u.mu.Unlock()
	if same {
		return nil
	}
	u.driver.mu.Lock()
	var homes []supervisor.Home
	for h, a := range u.driver.apart {
		if a.class == v1alpha1.ClassBestEffort {
			homes = append(homes, supervisor.Home(h))
		}
	}
	u.driver.mu.Unlock()
	var errs []error
	for _, h := range homes {
		if o, err := h.ReadOrder(); err == nil {
			errs = append(errs, u.keepApart(ctx, h, o, nil))
		}
	}
	return errors.Join(errs...)
}

func (u *units) limited(o *supervisor.Order) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.guarded && o.Class == v1alpha1.ClassBestEffort
}

func (u *units) remove(ctx context.Context, h supervisor.Home) {
	if err := u.systemd.uninstall(ctx, unitOf(h)); err != nil {
		u.driver.log.WarnContext(ctx, "a member is gone, but its unit is not; it starts nothing without a home", slog.String("unit", unitOf(h)), slog.Any("error", err))
	}
}

// sweep does nothing: a home that is missing may be on a disk that is not mounted.
func (*units) sweep(context.Context) {}

// text of the home's unit.
func (u *units) text(h supervisor.Home, o *supervisor.Order) string {
	home := string(h)
	quoted := make([]string, 0, len(u.driver.opts.Command)+3)
	for _, a := range append(append([]string{u.systemd.opts.Executable}, u.driver.opts.Command...), "--home", home) {
		// In commands a dollar sign would begin a variable.
		quoted = append(quoted, strings.ReplaceAll(quote(a), "$", "$$"))
	}
	var b strings.Builder
	fmt.Fprintf(&b, `# Written by Quorate's agent, which writes it anew where the member changes.
[Unit]
Description=Supervisor of etcd member %s
RequiresMountsFor=%s
ConditionPathExists=%s
Wants=network-online.target
After=network-online.target time-sync.target
StartLimitIntervalSec=120
StartLimitBurst=20

[Service]
Type=exec
ExecStart=%s
# It ends well only when it was told to, and etcd has stopped.
Restart=on-failure
RestartSec=1
# etcd outlives the end of its supervisor, and is adopted by the next.
KillMode=process
OOMPolicy=continue
# An etcd that began before its unit did is moved here, which takes this.
Delegate=yes
TimeoutStopSec=60
LimitNOFILE=1048576
TasksMax=infinity
StandardOutput=journal
StandardError=journal
SyslogIdentifier=quorate-member
Slice=quorate.slice
`, escape(o.Namespace+"/"+o.Name), quote(home), escape(h.OrderFile()), strings.Join(quoted, " "))
	s := u.share(h, o)
	fmt.Fprintf(&b, "# %s\nCPUWeight=%d\nIOWeight=%d\nMemoryLow=%d\nOOMScoreAdjust=%d\nIOSchedulingClass=best-effort\nIOSchedulingPriority=%d\n",
		s.class, s.cpuWeight, s.ioWeight, s.memoryLow, s.oomScore, s.ioLevel)
	if s.memoryMax != math.MaxUint64 {
		fmt.Fprintf(&b, "MemoryMax=%d\n", s.memoryMax)
	}
	if s.limited {
		fmt.Fprintf(&b, "CPUQuota=%.0f%%\nIOWriteBandwidthMax=%s %d\nIOWriteIOPSMax=%s %d\n",
			cgroup.BestEffortCPUs()*100, quote(home), cgroup.BestEffortBytes, quote(home), cgroup.BestEffortWrites)
	}
	b.WriteString("\n[Install]\nWantedBy=multi-user.target\n")
	return b.String()
}

// share of the host that a member has.
type share struct {
	class               v1alpha1.ServiceClass
	cpuWeight, ioWeight uint64
	memoryLow           uint64
	memoryMax           uint64
	oomScore, ioLevel   int
	limited             bool
}

func (u *units) share(_ supervisor.Home, o *supervisor.Order) share {
	w := cgroup.WeightsOf(o.Class, o.Resources)
	s := share{
		class: w.Class, cpuWeight: uint64(w.CPU), ioWeight: uint64(w.IO), oomScore: w.OOMScore, ioLevel: w.IOLevel, //nolint:gosec // not negative
		memoryMax: math.MaxUint64, limited: u.limited(o),
	}
	if w.MemoryLow > 0 {
		s.memoryLow = uint64(w.MemoryLow)
	}
	if w.MemoryMax > 0 {
		s.memoryMax = uint64(w.MemoryMax)
	}
	return s
}

// properties are those of text that a running unit can be given.
func (u *units) properties(h supervisor.Home, o *supervisor.Order) []dbus.Property {
	s := u.share(h, o)
	type limit struct {
		Path  string
		Value uint64
	}
	quota, bytes, writes := uint64(math.MaxUint64), []limit{}, []limit{}
	if s.limited {
		quota = uint64(cgroup.BestEffortCPUs() * float64(time.Second/time.Microsecond))
		bytes, writes = []limit{{string(h), cgroup.BestEffortBytes}}, []limit{{string(h), cgroup.BestEffortWrites}}
	}
	p := func(name string, v any) dbus.Property { return dbus.Property{Name: name, Value: godbus.MakeVariant(v)} }
	return []dbus.Property{
		p("CPUWeight", s.cpuWeight), p("IOWeight", s.ioWeight), p("MemoryLow", s.memoryLow), p("MemoryMax", s.memoryMax),
		p("CPUQuotaPerSecUSec", quota), p("IOWriteBandwidthMax", bytes), p("IOWriteIOPSMax", writes),
	}
}

// quote writes a word as units have it.
func quote(word string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(escape(word)) + `"`
}

// escape keeps systemd from taking a percent sign for one of its own.
func escape(text string) string { return strings.ReplaceAll(text, "%", "%%") }
