package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/quorate/quorate/internal/process"
	"github.com/quorate/quorate/test/load"
)

const (
	// gapLimit is the promise after the death of one member.
	gapLimit = 3 * time.Second
	// kills of etcds at least.
	kills = 6
	// calm is how long the load runs between faults.
	calm = 2 * time.Second
)

// site is a cluster under load.
type site struct {
	*up
	before sight
	w      *load.Writer
}

// loaded brings up a cluster and puts it under load.
func (e *env) loaded(ctx context.Context) (*site, error) {
	u, err := e.fresh(ctx)
	if err != nil {
		return nil, err
	}
	s := &site{up: u}
	if s.before, err = s.now(ctx); err != nil {
		return nil, err
	}
	if s.w, err = u.load(ctx, s.before, "1"); err != nil {
		return nil, err
	}
	return s, pause(ctx, calm)
}

// now waits until all is well and sees it in full.
func (s *site) now(ctx context.Context, not ...int64) (sight, error) {
	seen, err := s.settle(ctx, not...)
	if err != nil {
		return nil, err
	}
	return seen.withDigests()
}

// finish stops the load and judges what every item with a load promises: the load
// was real, no acknowledged write is lost, and the etcds are those that were pinned.
func (s *site) finish(ctx context.Context, after sight) (string, error) {
	s.w.Stop()
	sum := load.Summarize(s.w.Records())
	lost, err := s.w.Lost(ctx, after.endpoints())
	text := fmt.Sprintf("%d writes at %.0f/s, p99 %d ms, %d failed; %d acknowledged, %d lost; etcd %s, digests unchanged",
		sum.Sent, sum.Rate, sum.P99.Milliseconds(), sum.Failed, sum.Acked, len(lost), versions(after))
	return text, errors.Join(err, judgeLoad(sum), judgeLost(lost), sameEtcd(s.before, after))
}

func versions(s sight) string {
	var all []string
	for _, name := range names(s) {
		if v := s[name].version; !slices.Contains(all, v) {
			all = append(all, v)
		}
	}
	return strings.Join(all, ", ")
}

func proveKillEtcd(ctx context.Context, e *env) (string, error) {
	s, err := e.loaded(ctx)
	if err != nil {
		return "", err
	}
	defer s.w.Close() //nolint:errcheck // its connections are of no more use
	now := s.before
	var worst blow
	done, leaders := 0, 0
	// Should the leader have escaped all of them, it gets one more.
	for ; done < kills || leaders == 0; done++ {
		var b blow
		if b, err = s.strike(ctx, now, done); err != nil {
			return "", fmt.Errorf("kill %d: %w", done+1, err)
		}
		now = b.after
		worst.gap, worst.stall = max(worst.gap, b.gap), max(worst.stall, b.stall)
		if b.leader {
			leaders++
		}
	}
	text, err := s.finish(ctx, now)
	return fmt.Sprintf("%d kills, %d of the leader: next write at worst %.2f s after the kill (limit %.0f s), longest time without an acknowledgement %.2f s; other pids unchanged; %s",
			done, leaders, worst.gap.Seconds(), gapLimit.Seconds(), worst.stall.Seconds(), text),
		errors.Join(err, atMost("the time to the next write", worst.gap, gapLimit))
}

// blow is what came of killing one etcd.
type blow struct {
	after sight
	// leader says that it was the leader's.
	leader bool
	// gap until the next write, and stall: the longest time without one.
	gap, stall time.Duration
}

// strike kills the etcd whose turn it is, and waits until it is back.
func (s *site) strike(ctx context.Context, now sight, n int) (blow, error) {
	cluster, err := s.cluster(ctx)
	if err != nil {
		return blow{}, err
	}
	victim := now[names(now)[n%len(now)]]
	if n >= kills {
		victim = now[cluster.Status.Leader]
	}
	b := blow{leader: victim.name == cluster.Status.Leader}
	struck, gone, err := kill9(ctx, victim.pid, s.e.dir)
	if err != nil {
		return b, err
	}
	if b.after, err = s.now(ctx, victim.pid); err != nil {
		return b, fmt.Errorf("after %s: %w", victim.name, err)
	}
	if err = samePids(now, b.after, victim.name); err != nil {
		return b, fmt.Errorf("after %s: %w", victim.name, err)
	}
	if err = pause(ctx, calm); err != nil {
		return b, err
	}
	var ok bool
	if b.gap, ok = load.Gap(s.w.Records(), struck, gone); !ok {
		return b, fmt.Errorf("no write succeeded after %s was killed", victim.name)
	}
	b.stall = load.Stall(s.w.Records(), struck, time.Now())
	return b, nil
}

func proveKillSupervisor(ctx context.Context, e *env) (string, error) {
	s, err := e.loaded(ctx)
	if err != nil {
		return "", err
	}
	defer s.w.Close() //nolint:errcheck // its connections are of no more use
	now := s.before
	var adopted, restarted time.Duration
	for _, name := range names(now) {
		var o orphaned
		if o, err = s.orphan(ctx, now, name); err != nil {
			return "", fmt.Errorf("%s: %w", name, err)
		}
		now = o.after
		adopted, restarted = max(adopted, o.adopted), max(restarted, o.restarted)
	}
	text, err := s.finish(ctx, now)
	return fmt.Sprintf("%d supervisors killed: etcd pids unchanged, adopted within %.1f s; each adopted etcd killed: restarted by its new supervisor, 3/3 within %.1f s; %s",
		len(now), adopted.Seconds(), restarted.Seconds(), text), err
}

// orphaned is what came of killing a supervisor, and then its etcd.
type orphaned struct {
	after sight
	// adopted and restarted are the times until a new supervisor stood there, and
	// until all was healthy after the adopted etcd died.
	adopted, restarted time.Duration
}

// orphan kills a member's supervisor, sees its etcd adopted, and kills that: the new
// supervisor must notice, though the etcd is no child of it.
func (s *site) orphan(ctx context.Context, now sight, name string) (orphaned, error) {
	var o orphaned
	old := now[name]
	_, gone, err := kill9(ctx, old.supervisor, s.e.dir)
	if err != nil {
		return o, err
	}
	after, err := s.adoptedBy(ctx, old)
	if err != nil {
		return o, err
	}
	o.adopted = time.Since(gone)
	if err = samePids(now, after); err != nil {
		return o, fmt.Errorf("after its supervisor was killed: %w", err)
	}
	heir := after[name].supervisor
	if _, gone, err = kill9(ctx, old.pid, s.e.dir); err != nil {
		return o, err
	}
	if o.after, err = s.now(ctx, old.pid); err != nil {
		return o, fmt.Errorf("after the adopted etcd was killed: %w", err)
	}
	o.restarted = time.Since(gone)
	if is := o.after[name].supervisor; is != heir {
		return o, fmt.Errorf("the etcd was restarted by pid %d, and was adopted by %d", is, heir)
	}
	return o, samePids(after, o.after, name)
}

// adoptedBy waits until a member has another supervisor than before.
func (s *site) adoptedBy(ctx context.Context, old seen) (sight, error) {
	var after sight
	err := poll(ctx, "a new supervisor of "+old.name, func() (string, bool, error) {
		var err error
		if after, err = s.look(ctx); err != nil {
			return "", false, err
		}
		heir := after[old.name].supervisor
		_, gone := process.Identify(int(heir))
		return fmt.Sprintf("supervisor %d", heir), heir != old.supervisor && heir != 0 && gone == nil, nil
	})
	return after, err
}

func proveKillQuorate(ctx context.Context, e *env) (string, error) {
	s, err := e.loaded(ctx)
	if err != nil {
		return "", err
	}
	defer s.w.Close() //nolint:errcheck // its connections are of no more use
	after, text, err := s.replaceQuorate(ctx, 5*time.Second)
	if err != nil {
		return text, err
	}
	more, err := s.finish(ctx, after)
	return text + "; " + more, err
}

// replaceQuorate kills `up` under load, lets the members alone for a while, starts
// it again, and judges that no client and no etcd noticed.
func (s *site) replaceQuorate(ctx context.Context, alone time.Duration) (sight, string, error) {
	struck, _, err := kill9(ctx, s.pid(), s.e.dir)
	if err != nil {
		return nil, "", err
	}
	if err = pause(ctx, alone); err != nil {
		return nil, "", err
	}
	running := alive(s.before.ids())
	next, err := s.again(ctx)
	if err != nil {
		return nil, "", err
	}
	if err = next.ready(ctx); err != nil {
		return nil, "", err
	}
	s.up = next
	after, err := s.now(ctx)
	if err != nil {
		return nil, "", err
	}
	if err := pause(ctx, calm); err != nil {
		return nil, "", err
	}
	failed := load.Failed(s.w.Records(), struck, time.Now())
	text := fmt.Sprintf("server and agent killed: %d of %d etcds ran on alone for %.0f s, the next `up` found them in %.1f s, pids unchanged, %d writes failed meanwhile",
		running, len(s.before), alone.Seconds(), next.took().Seconds(), len(failed))
	errs := []error{samePids(s.before, after)}
	if running != len(s.before) {
		errs = append(errs, fmt.Errorf("%d etcds ended with `up`", len(s.before)-running))
	}
	if len(failed) > 0 {
		errs = append(errs, fmt.Errorf("%d writes failed, the first with: %w", len(failed), failed[0].Err))
	}
	return after, text, errors.Join(errs...)
}

func proveKillAll(ctx context.Context, e *env) (string, error) {
	s, err := e.loaded(ctx)
	if err != nil {
		return "", err
	}
	defer s.w.Close() //nolint:errcheck // its connections are of no more use
	return s.reboot(ctx, func() error { return nil })
}

// reboot kills everything at once under load, does what is to be done meanwhile, and
// starts `up` again.
func (s *site) reboot(ctx context.Context, meanwhile func() error) (string, error) {
	procs, err := below(s.dir)
	if err != nil {
		return "", err
	}
	procs = slices.DeleteFunc(procs, func(p proc) bool { return !p.runsFrom(s.e.dir) })
	for _, p := range procs {
		if err = p.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, process.ErrGone) {
			return "", err
		}
	}
	s.w.Stop()
	for _, p := range procs {
		if err = p.Wait(ctx); err != nil {
			return "", err
		}
	}
	if n := alive(s.before.ids()); n > 0 || len(procs) < 2*len(s.before)+1 {
		return "", fmt.Errorf("%d processes were killed and %d etcds live: this is no reboot", len(procs), n)
	}
	if err = meanwhile(); err != nil {
		return "", err
	}
	next, err := s.again(ctx)
	if err != nil {
		return "", err
	}
	if err = next.ready(ctx); err != nil {
		return "", err
	}
	s.up = next
	after, err := s.now(ctx)
	if err != nil {
		return "", err
	}
	text, err := s.finish(ctx, after)
	return fmt.Sprintf("%d processes killed at once; `up` again: healthy in %.1f s; %s", len(procs), next.took().Seconds(), text),
		errors.Join(err, otherPids(s.before, after))
}

func proveKillAllNewer(ctx context.Context, e *env) (string, error) {
	s, err := e.loaded(ctx)
	if err != nil {
		return "", err
	}
	defer s.w.Close() //nolint:errcheck // its connections are of no more use
	version, err := e.newer(ctx, s.bin)
	if err != nil {
		return "", err
	}
	// First, only Quorate is killed: the newer one must find everything as it is.
	after, text, err := s.replaceQuorate(ctx, time.Second)
	if err != nil {
		return text, err
	}
	if err = errors.Join(sameEtcd(s.before, after), s.isVersion(ctx, version)); err != nil {
		return text, err
	}
	// A supervisor of the newer Quorate takes over a member of the older one's.
	name := names(after)[0]
	if _, _, err = kill9(ctx, after[name].supervisor, s.e.dir); err != nil {
		return text, err
	}
	heirs, err := s.adoptedBy(ctx, after[name])
	if err != nil {
		return text, err
	}
	if err = samePids(after, heirs); err != nil {
		return text, fmt.Errorf("after a newer supervisor took over: %w", err)
	}
	more, err := s.reboot(ctx, func() error { return nil })
	return "newer " + version + " in place of the binary: " + text + "; a newer supervisor adopted " + name + ", etcd pid unchanged; then " + more,
		errors.Join(err, s.isVersion(ctx, version))
}

// isVersion makes sure that it is the newer Quorate that serves.
func (s *site) isVersion(ctx context.Context, want string) error {
	out, err := s.quorate(ctx, "version", "-o", "json")
	if err != nil {
		return err
	}
	if strings.Count(out, want) < 2 {
		return fmt.Errorf("client and server should both be %s: %s", want, out)
	}
	return nil
}
