package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/fleet"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
)

const (
	// drainTimeout is longer than that of other commands: data moves.
	drainTimeout = 30 * time.Minute
	// heldPatience is how long a drain may be held by what only a person changes before
	// the command gives up: a host may just be joining.
	heldPatience = 20 * time.Second
)

// passingHolds are the reasons of held plans that pass by themselves.
var passingHolds = []string{fleet.HeldTurn, fleet.HeldNotPrepared, fleet.HeldLearner, fleet.HeldUnknownLeader, fleet.HeldUnhealthy, fleet.HeldMemberList}

type drainOptions struct {
	wait    bool
	dryRun  bool
	timeout time.Duration
}

func hostDrainCommand(e *env) *cobra.Command {
	var o drainOptions
	cmd := &cobra.Command{
		Use:   "drain NAME",
		Short: "Move the members of a host to other hosts",
		Long: `Keep new members away from a host, and move those that it has to other hosts, one
cluster at a time, by setting spec.drain: a new member joins as a learner and is
promoted before the old one leaves. "quorate host uncordon NAME" takes it back; what
has moved stays where it is.

With --wait it shows what is left, and ends when the host is empty. When a cluster's
move is held by something that only a person can change, such as that no other host
has room, it says so and ends with code 4; the drain itself goes on when that has
changed.`,
		Example: `  quorate host drain localhost --dry-run
  quorate host drain db1
  quorate host drain db1 --wait --timeout 1h`,
		Args:              argsBetween(1, 1, "NAME"),
		ValidArgsFunction: e.completeHost,
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.hostDrain(cmd.Context(), args[0], o)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.wait, "wait", false, "wait until the host is empty, and show what is left")
	f.DurationVar(&o.timeout, "timeout", drainTimeout, "with --wait: how long to wait")
	f.BoolVar(&o.dryRun, "dry-run", false, "only have the server check it, and say what would be moved")
	return cmd
}

func (e *env) hostDrain(ctx context.Context, name string, o drainOptions) error {
	c, err := e.connect()
	if err != nil {
		return err
	}
	t := e.target(v1alpha1.KindHost, name)
	writer, note := c, ""
	if o.dryRun {
		writer, note = c.DryRun(), " (dry run)"
	}
	changed := false
	callCtx, cancel := call(ctx)
	defer cancel()
	err = store.Mutate(callCtx, writer, t.key, &v1alpha1.EtcdHost{}, func(h *v1alpha1.EtcdHost) (bool, error) {
		changed = !h.Spec.Drain
		h.Spec.Drain = true
		return changed, nil
	})
	if err != nil {
		return named(t, err)
	}
	left, err := membersOn(ctx, c, name)
	if err != nil {
		return err
	}
	switch {
	case !changed:
		e.printf("%s already draining%s\n", t, note)
	case o.dryRun:
		e.printf("%s would be drained%s\n", t, note)
	default:
		e.printf("%s draining\n", t)
	}
	if len(left) == 0 {
		e.printf("it has no members\n")
		return nil
	}
	if !o.wait || o.dryRun {
		e.printf("it has %s\n", memberNames(left))
		return nil
	}
	if err = e.awaitEmpty(ctx, c, t, o.timeout); err != nil {
		return err
	}
	e.printf("%s is empty\n", t)
	return nil
}

// awaitEmpty waits until no member is bound to the host, and says what is left.
func (e *env) awaitEmpty(ctx context.Context, c *remote.Client, t target, timeout time.Duration) error {
	p := newProgress(e)
	defer p.done()
	var since time.Time
	return await(ctx, c, t, timeout, p.step, func(obj v1alpha1.Object) (bool, string, error) {
		host, ok := obj.(*v1alpha1.EtcdHost)
		switch {
		case !ok:
			return false, "", named(t, store.ErrNotFound)
		case !host.Spec.Drain:
			return false, "", fmt.Errorf("%s: the drain was taken back meanwhile: %w", t, store.ErrForbidden)
		}
		left, err := membersOn(ctx, c, t.key.Name)
		if err != nil || len(left) == 0 {
			return err == nil, "", err
		}
		missing := "it still has " + memberNames(left)
		holds, stuck, err := holdsOf(ctx, c, left)
		if err != nil {
			return false, "", err
		}
		if len(holds) > 0 {
			missing += "; " + strings.Join(holds, "; ")
		}
		switch {
		case !stuck:
			since = time.Time{}
		case since.IsZero():
			since = time.Now()
		case time.Since(since) >= heldPatience:
			return false, "", fmt.Errorf("%s: %s: the drain goes on when that has changed: %w", t, missing, store.ErrForbidden)
		}
		return false, missing, nil
	})
}

// holdsOf says what holds the plans of the members' clusters, and whether none of them
// goes on without a person.
func holdsOf(ctx context.Context, c *remote.Client, members []*v1alpha1.EtcdMember) (holds []string, stuck bool, err error) {
	var keys []store.Key
	for _, m := range members {
		key := store.Key{Namespace: m.Namespace, Name: m.Spec.ClusterName}
		if !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	stuck = true
	for _, key := range keys {
		callCtx, cancel := call(ctx)
		p, err := c.Plan(callCtx, key)
		cancel()
		if err != nil {
			return nil, false, err
		}
		if p.Held == "" || slices.Contains(passingHolds, p.HeldReason) {
			stuck = false
		}
		switch p.HeldReason {
		case "", fleet.HeldTurn:
		case fleet.HeldLearner, fleet.HeldNotPrepared:
			holds = append(holds, "cluster "+key.String()+" is being moved: "+p.Held)
		default:
			holds = append(holds, "cluster "+key.String()+" is held: "+p.Held)
		}
	}
	return holds, stuck, nil
}
