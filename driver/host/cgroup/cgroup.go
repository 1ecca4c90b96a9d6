// Package cgroup keeps the members of a host apart by their service classes: by the
// weights and limits of control groups, version 1 or 2, and by what the kernel takes of
// single processes where it has no groups.
//
// Each class has a group below that of the agent, and each member one below its class:
//
//	<the agent's group>/quorate-<name>-<class>/<member>
//
// so that nothing leaves what the agent itself is confined to, and that BestEffort
// members give way to everything on the host and not to other members alone. Processes
// are moved while they run; their children are born in the same group.
//
// What is limited: BestEffort members, in memory always, in CPU and disk while
// Guaranteed ones are on the host. All others have weights only, since a limit that is
// hit makes etcd lose its leader.
//
// What can't be had: version 1 does not see who caused what the kernel writes back
// later, so its limits of the disk hold for what a process writes through, as etcd does
// with its log and its database, and not for what it leaves to the kernel, such as its
// own log file.
package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/quorate/quorate/api/v1alpha1"
)

// Options are what Open takes.
type Options struct {
	// Name tells the groups of one agent from those of another under the same parent:
	// letters, digits and underscores.
	Name string
	// Dir is the directory that holds the members: its disk is the one that is shared.
	Dir string
	// Proc is where /proc is. Default: /proc. Why another: tests look at other machines.
	Proc   string
	Logger *slog.Logger
}

// Groups are those of one agent. A nil one does nothing.
type Groups struct {
	opts Options
	// version is 1 or 2; 0 where there are no groups to be had.
	version int
	// bases are the directories to make groups in, by controller: cpu, memory, blkio (1)
	// or io (2). With version 2 they are all the same.
	bases map[string]string
	// why there is less than there could be.
	why string
	// disk of Dir as MAJOR:MINOR, and the speed that BestEffort members may have of it.
	disk string

	mu sync.Mutex
	// guarded says that the limits for the sake of Guaranteed members stand.
	guarded bool
}

// controllers that are used, in the order in which they are told.
var controllers = map[int][]string{1: {"cpu", "memory", "blkio"}, 2: {"cpu", "memory", "io"}}

// classes of members, each with a group of its own.
var classes = []v1alpha1.ServiceClass{v1alpha1.ClassGuaranteed, v1alpha1.ClassBurstable, v1alpha1.ClassBestEffort}

// Open finds out what can be used. It makes a group for each class, so that what it says
// it can do is what it has done; it never fails, since members run without groups too.
func Open(ctx context.Context, opts Options) *Groups {
	if opts.Proc == "" {
		opts.Proc = "/proc"
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	g := &Groups{opts: opts}
	g.disk = diskOf(opts.Dir)
	found, err := detect(opts.Proc)
	if err != nil {
		g.why = err.Error()
		return g
	}
	g.version, g.bases = found.version, found.bases
	if g.version == 2 {
		g.useV2()
	}
	for _, c := range controllers[g.version] {
		if g.bases[c] == "" {
			continue
		}
		if err := g.prepareClasses(c); err != nil {
			g.why = err.Error()
			opts.Logger.DebugContext(ctx, "a control group can't be used", slog.String("controller", c), slog.Any("error", err))
			delete(g.bases, c)
		}
	}
	if len(g.bases) == 0 {
		g.version = 0
	}
	return g
}

// String says what the classes are kept apart with, as EtcdHost's status has it.
func (g *Groups) String() string {
	if g == nil {
		return "none"
	}
	used := g.controllers()
	if len(used) == 0 {
		return "none: nice and I/O priority instead"
	}
	return fmt.Sprintf("v%d: %s", g.version, strings.Join(used, ", "))
}

// Why says what kept more from being used; empty where all is.
func (g *Groups) Why() string { return g.why }

func (g *Groups) controllers() []string {
	var used []string
	for _, c := range controllers[g.version] {
		if g.bases[c] != "" {
			used = append(used, c)
		}
	}
	return used
}

// Member is what is kept apart.
type Member struct {
	// Name of its home, which no other member has.
	Name      string
	Class     v1alpha1.ServiceClass
	Resources v1alpha1.Resources
}

// Place puts the processes into the group of the member, and gives the group its weights
// and limits. A member whose class has changed leaves its earlier group. It goes on after
// an error, so that all that can be set is.
func (g *Groups) Place(m Member, pids ...int) error {
	if g == nil {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	m.Class = classOr(m.Class)
	var errs []error
	for _, c := range g.controllers() {
		if err := g.placeIn(c, m, pids); err != nil {
			errs = append(errs, fmt.Errorf("control group %s: %w", c, err))
		}
	}
	errs = append(errs, g.divide())
	for _, pid := range pids {
		errs = append(errs, g.tune(m.Class, pid))
	}
	return errors.Join(errs...)
}

// divide gives each BestEffort member its part of what they may write to the disk
// together. Version 1 takes such limits of a group for its own processes alone, and not
// for those of the groups below it.
func (g *Groups) divide() error {
	if g.version != 1 || g.bases["blkio"] == "" || g.disk == "" {
		return nil
	}
	class := g.classDir("blkio", v1alpha1.ClassBestEffort)
	entries, err := os.ReadDir(class)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var members []string
	for _, e := range entries {
		if e.IsDir() {
			members = append(members, filepath.Join(class, e.Name()))
		}
	}
	var errs []error
	for _, m := range members {
		writes, bytes := 0, 0 // none
		if g.guarded {
			writes, bytes = max(BestEffortWrites/len(members), leastWrites), max(BestEffortBytes/len(members), leastBytes)
		}
		err := writeAll(m, []setting{
			{"blkio.throttle.write_iops_device", fmt.Sprintf("%s %d", g.disk, writes), true},
			{"blkio.throttle.write_bps_device", fmt.Sprintf("%s %d", g.disk, bytes), true},
		})
		if !errors.Is(err, fs.ErrNotExist) { // swept away meanwhile
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (g *Groups) placeIn(controller string, m Member, pids []int) error {
	dir := filepath.Join(g.classDir(controller, m.Class), m.Name)
	var errs []error
	for try := range 2 {
		errs = nil
		if err := g.keepClasses(controller); err != nil {
			return err
		}
		if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // as all groups are
			return err
		}
		errs = append(errs, writeAll(dir, g.memberSettings(controller, m)))
		for _, pid := range pids {
			errs = append(errs, move(dir, pid))
		}
		// Another agent may just have swept the group away while it was empty.
		if try > 0 || !errors.Is(errors.Join(errs...), fs.ErrNotExist) {
			break
		}
	}
	for _, c := range classes {
		if c != m.Class {
			_ = os.Remove(filepath.Join(g.classDir(controller, c), m.Name))
		}
	}
	return errors.Join(errs...)
}

// Guard sets or lifts the limits that BestEffort members have while Guaranteed ones are
// on the host.
func (g *Groups) Guard(guaranteed bool) error {
	if g == nil || g.version == 0 {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.guarded == guaranteed {
		return nil
	}
	g.guarded = guaranteed
	var errs []error
	for _, c := range g.controllers() {
		errs = append(errs, g.keepClasses(c), writeAll(g.classDir(c, v1alpha1.ClassBestEffort), g.guard(c)))
	}
	return errors.Join(append(errs, g.divide())...)
}

// Remove removes the groups of a member. Those that still hold a process stay, and go
// with Sweep.
func (g *Groups) Remove(name string) {
	if g == nil {
		return
	}
	for _, c := range g.controllers() {
		for _, class := range classes {
			_ = os.Remove(filepath.Join(g.classDir(c, class), name))
		}
	}
}

// Sweep removes groups that hold no process: those of members that have ended, and those
// of agents that will not come back. The kernel refuses to remove one that is in use.
func (g *Groups) Sweep() {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.controllers() {
		found, _ := filepath.Glob(filepath.Join(g.bases[c], prefix+"*"))
		for _, class := range found {
			members, _ := os.ReadDir(class)
			for _, m := range members {
				if m.IsDir() {
					_ = os.Remove(filepath.Join(class, m.Name()))
				}
			}
			if !strings.HasPrefix(filepath.Base(class), prefix+g.opts.Name+"-") {
				_ = os.Remove(class)
			}
		}
	}
}

// Close removes the groups that hold no process, those of the classes too.
func (g *Groups) Close() {
	if g == nil {
		return
	}
	g.Sweep()
	for _, c := range g.controllers() {
		for _, class := range classes {
			_ = os.Remove(g.classDir(c, class))
		}
	}
}

// Group returns the member's directory of a controller, empty where that is not used.
func (g *Groups) Group(controller string, m Member) string {
	if g == nil || g.bases[controller] == "" {
		return ""
	}
	return filepath.Join(g.classDir(controller, classOr(m.Class)), m.Name)
}

const prefix = "quorate-"

func (g *Groups) classDir(controller string, class v1alpha1.ServiceClass) string {
	return filepath.Join(g.bases[controller], prefix+g.opts.Name+"-"+strings.ToLower(string(class)))
}

// keepClasses makes the groups of the classes again where another agent has swept them
// away while they were empty.
func (g *Groups) keepClasses(controller string) error {
	for _, class := range classes {
		if _, err := os.Stat(g.classDir(controller, class)); errors.Is(err, fs.ErrNotExist) {
			return g.prepareClasses(controller)
		}
	}
	return nil
}

func (g *Groups) prepareClasses(controller string) error {
	for _, class := range classes {
		dir := g.classDir(controller, class)
		if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // as all groups are
			return err
		}
		if g.version == 2 {
			if err := enable(dir, controller); err != nil {
				return err
			}
		}
		if err := writeAll(dir, g.classSettings(controller, class)); err != nil {
			return err
		}
	}
	return writeAll(g.classDir(controller, v1alpha1.ClassBestEffort), g.guard(controller))
}

// classOr takes Burstable for a member that says nothing, as clusters do.
func classOr(c v1alpha1.ServiceClass) v1alpha1.ServiceClass {
	if !slices.Contains(classes, c) {
		return v1alpha1.ClassBurstable
	}
	return c
}
