package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/fleet"
)

// storeDir is where `up` keeps the fleet's store, and keyFile its sealing key.
func (u *up) storeDir() string { return filepath.Join(u.dir, "server", "store") }
func (u *up) keyFile() string  { return filepath.Join(u.dir, "server", "sealing.key") }

// heldFor is how long it is watched that nothing is carried out.
const heldFor = 8 * time.Second

func proveStoreLost(ctx context.Context, e *env) (string, error) {
	s, err := e.loaded(ctx)
	if err != nil {
		return "", err
	}
	defer s.w.Close() //nolint:errcheck // its connections are of no more use
	backup, key := filepath.Join(e.dir, "fleet.tar"), filepath.Join(e.dir, "sealing.key.copy")
	if _, err = s.quorate(ctx, "server", "backup", backup); err != nil {
		return "", err
	}
	if err = copyFile(s.keyFile(), key); err != nil {
		return "", err
	}
	if _, _, err = kill9(ctx, s.pid(), e.dir); err != nil {
		return "", err
	}
	if err = os.RemoveAll(s.storeDir()); err != nil {
		return "", err
	}
	refusal, err := s.refusesToStart(ctx, "server restore")
	if err != nil {
		return "", err
	}
	if _, err = s.quorate(ctx, "server", "restore", backup, "--sealing-key-file", key); err != nil {
		return "", err
	}
	next, err := s.again(ctx)
	if err != nil {
		return "", err
	}
	s.up = next
	held, err := s.held(ctx)
	if err != nil {
		return "", err
	}
	accepted, err := s.heldUntilAccepted(ctx)
	if err != nil {
		return "", err
	}
	text, err := s.finish(ctx, accepted)
	return fmt.Sprintf("without its store `up` said %q; restored; %s, etcd pids unchanged; a change applied then was not carried out in %.0f s, and after `plan --accept --yes` it was; %s",
		refusal, held, heldFor.Seconds(), text), err
}

// refusesToStart starts `up`, which must end by itself, say what to do, and leave the
// members alone.
func (s *site) refusesToStart(ctx context.Context, says string) (string, error) {
	next, err := s.again(ctx)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case <-next.done:
	case <-ctx.Done():
		return "", fmt.Errorf("`up` should refuse to start: %s", tail(next.text(), 800))
	}
	line := lastLine(next.text())
	if next.err == nil {
		return "", fmt.Errorf("`up` ended with code 0: %s", line)
	}
	if n := alive(s.before.ids()); n != len(s.before) {
		return "", fmt.Errorf("`up` refused to start, and ended %d etcds: %s", len(s.before)-n, tail(next.text(), 1200))
	}
	return shortened(line, s.dir), contains("the refusal of `up`", next.text(), says)
}

// held waits until the cluster is held since the restore, with the etcds that ran.
func (s *site) held(ctx context.Context) (string, error) {
	var summary string
	err := poll(ctx, "the cluster is held", func() (string, bool, error) {
		c, err := s.cluster(ctx)
		if err != nil {
			return "", false, err
		}
		summary = c.Status.Summary
		return c.Status.Ready + ", " + summary, c.Status.Ready == "3/3" && strings.Contains(summary, fleet.HeldRestored), nil
	})
	if err != nil {
		return "", err
	}
	p, err := s.plan(ctx)
	if err != nil {
		return "", err
	}
	if p.HeldReason != fleet.HeldRestored {
		return "", fmt.Errorf("`plan` does not say that it is held: %+v", p)
	}
	now, err := s.look(ctx)
	return "summary " + fmt.Sprintf("%q", summary) + " and `plan` say why it is held", errors.Join(err, samePids(s.before, now))
}

func (u *up) plan(ctx context.Context) (v1alpha1.Plan, error) {
	var p v1alpha1.Plan
	out, err := u.quorate(ctx, "plan", playground, "-o", "json")
	if err != nil {
		return p, err
	}
	return p, json.Unmarshal([]byte(out), &p)
}

// heldUntilAccepted applies a change, sees that nothing comes of it, accepts, and
// sees it carried out.
func (s *site) heldUntilAccepted(ctx context.Context) (sight, error) {
	if _, err := s.applyChange(ctx, 5000); err != nil {
		return nil, err
	}
	if err := pause(ctx, heldFor); err != nil {
		return nil, err
	}
	still, err := s.look(ctx)
	if err != nil {
		return nil, err
	}
	if err = samePids(s.before, still); err != nil {
		return nil, fmt.Errorf("a change was carried out before the plan was accepted: %w", err)
	}
	p, err := s.plan(ctx)
	if err != nil {
		return nil, err
	}
	if err := judgeHeldPlan(p, names(s.before)); err != nil {
		return nil, err
	}
	if _, err := s.quorate(ctx, "plan", playground, "--accept", "--yes"); err != nil {
		return nil, err
	}
	var pids []int64
	for _, m := range s.before {
		pids = append(pids, m.pid)
	}
	return s.now(ctx, pids...)
}

// judgeHeldPlan: the plan must be held since the restore, and hold an update of each
// member.
func judgeHeldPlan(p v1alpha1.Plan, members []string) error {
	if p.HeldReason != fleet.HeldRestored {
		return fmt.Errorf("the plan is not held since the restore, but %q", p.HeldReason)
	}
	updated := map[string]bool{}
	for _, s := range p.Steps {
		if s.Action == v1alpha1.ActionUpdateMember {
			updated[s.Member] = true
		}
	}
	for _, name := range members {
		if !updated[name] {
			return fmt.Errorf("the plan has no update of %s: %+v", name, p.Steps)
		}
	}
	return nil
}

func proveStoreStale(ctx context.Context, e *env) (string, error) {
	s, err := e.loaded(ctx)
	if err != nil {
		return "", err
	}
	defer s.w.Close() //nolint:errcheck // its connections are of no more use
	older := filepath.Join(e.dir, "older-store")
	if _, _, err = kill9(ctx, s.pid(), e.dir); err != nil {
		return "", err
	}
	if err = copyTree(s.storeDir(), older); err != nil {
		return "", err
	}
	if s.up, err = s.again(ctx); err != nil {
		return "", err
	}
	if err = s.ready(ctx); err != nil {
		return "", err
	}
	if _, err = s.applyChange(ctx, 5000); err != nil {
		return "", err
	}
	var pids []int64
	for _, m := range s.before {
		pids = append(pids, m.pid)
	}
	if s.before, err = s.now(ctx, pids...); err != nil {
		return "", err
	}
	if _, _, err = kill9(ctx, s.pid(), e.dir); err != nil {
		return "", err
	}
	newer := filepath.Join(e.dir, "newer-store")
	if err = errors.Join(os.Rename(s.storeDir(), newer), os.Rename(older, s.storeDir())); err != nil {
		return "", err
	}
	refusal, err := s.refusesToStart(ctx, "older than the one seen before")
	if err != nil {
		return "", err
	}
	// The right store put back must be taken as if nothing had been.
	if err = errors.Join(os.Rename(s.storeDir(), older), os.Rename(newer, s.storeDir())); err != nil {
		return "", err
	}
	if s.up, err = s.again(ctx); err != nil {
		return "", err
	}
	if err = s.ready(ctx); err != nil {
		return "", err
	}
	after, err := s.now(ctx)
	if err != nil {
		return "", err
	}
	text, err := s.finish(ctx, after)
	return fmt.Sprintf("an older copy of the store in place: `up` said %q; etcd pids unchanged; the right store put back: healthy in %.1f s; %s",
		refusal, s.took().Seconds(), text), errors.Join(err, samePids(s.before, after))
}

// shortened is a line without the long paths of this run.
func shortened(line, dir string) string {
	return tail(strings.ReplaceAll(line, dir, "…"), 260)
}
