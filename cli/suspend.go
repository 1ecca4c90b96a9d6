package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
)

// changeOptions are those of commands that change a field of a cluster.
type changeOptions struct {
	dryRun  bool
	wait    bool
	timeout time.Duration
}

func (o *changeOptions) bind(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&o.dryRun, "dry-run", false, "only show the plan that it would lead to")
	f.BoolVar(&o.wait, "wait", false, "wait until it is done")
	f.DurationVar(&o.timeout, "timeout", defaultTimeout, "how long to wait")
}

// change is one thing that is changed about a cluster.
type change struct {
	// refuse says why it can't be made; nil where it always can.
	refuse func(*v1alpha1.EtcdCluster) error
	// apply makes it, and returns false where there is nothing to do.
	apply func(*v1alpha1.EtcdCluster) bool
	// did and already say in a word what was done, or need not be.
	did, already string
	// reached says when it has taken effect.
	reached func(*v1alpha1.EtcdCluster) (bool, string)
}

func suspendCommand(e *env) *cobra.Command {
	return e.changeCommand(&cobra.Command{
		Use:   "suspend NAME",
		Short: "Stop all members of a cluster, and keep its data",
		Long: `Stop every member of a cluster, the leader last, and keep its data. The cluster
serves nothing until it is resumed.`,
		Example: `  quorate suspend playground
  quorate suspend playground --dry-run
  quorate suspend playground --wait --timeout 1m`,
	}, change{
		apply: func(c *v1alpha1.EtcdCluster) bool {
			changed := !c.Spec.Suspended
			c.Spec.Suspended = true
			return changed
		},
		did: "suspended", already: "already suspended", reached: stopped,
	})
}

func resumeCommand(e *env) *cobra.Command {
	return e.changeCommand(&cobra.Command{
		Use:   "resume NAME",
		Short: "Start the members of a suspended cluster again",
		Long:  `Start every member of a suspended cluster again, on the data that was kept.`,
		Example: `  quorate resume playground
  quorate resume playground --wait`,
	}, change{
		apply: func(c *v1alpha1.EtcdCluster) bool {
			changed := c.Spec.Suspended
			c.Spec.Suspended = false
			return changed
		},
		did: "resumed", already: "not suspended", reached: settled,
	})
}

func restartCommand(e *env) *cobra.Command {
	return e.changeCommand(&cobra.Command{
		Use:   "restart NAME",
		Short: "Restart the members of a cluster, one at a time",
		Long: `Restart every member of a cluster, one at a time, only while all others are
healthy, and the leader last, after it has handed over.`,
		Example: `  quorate restart playground
  quorate restart playground --dry-run
  quorate restart playground --wait`,
	}, change{
		refuse: refuseSuspended,
		apply: func(c *v1alpha1.EtcdCluster) bool {
			at := time.Now().Truncate(time.Second)
			// Times are kept to the second: twice within one must still be a change.
			if last := c.Spec.RestartedAt; last != nil && !at.After(last.Time) {
				at = last.Add(time.Second)
			}
			stamp := v1alpha1.NewTime(at)
			c.Spec.RestartedAt = &stamp
			return true
		},
		did: "is being restarted", reached: settled,
	})
}

// refuseSuspended refuses what only a cluster that runs can do.
func refuseSuspended(c *v1alpha1.EtcdCluster) error {
	if !c.Spec.Suspended {
		return nil
	}
	return fmt.Errorf("it is suspended, so nothing of it runs: `quorate resume %s%s` starts it: %w", c.Name, inNamespace(c.Namespace), store.ErrForbidden)
}

// changeCommand completes a command that changes a cluster.
func (e *env) changeCommand(cmd *cobra.Command, ch change) *cobra.Command {
	var o changeOptions
	cmd.Args = argsBetween(1, 1, "NAME")
	cmd.ValidArgsFunction = e.completeCluster
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := e.connect()
		if err != nil {
			return err
		}
		return e.change(cmd.Context(), c, e.cluster(args[0]), ch, o)
	}
	o.bind(cmd)
	return cmd
}

func (e *env) change(ctx context.Context, c *remote.Client, key store.Key, ch change, o changeOptions) error {
	name := label(v1alpha1.KindCluster, key.Name)
	if o.dryRun {
		return e.planChange(ctx, c, key, ch)
	}
	cluster := &v1alpha1.EtcdCluster{}
	changed := false
	callCtx, cancel := call(ctx)
	defer cancel()
	err := store.Mutate(callCtx, c, key, cluster, func(c *v1alpha1.EtcdCluster) (bool, error) {
		if ch.refuse != nil {
			if err := ch.refuse(c); err != nil {
				return false, err
			}
		}
		changed = ch.apply(c)
		return changed, nil
	})
	if err != nil {
		return named(target{v1alpha1.KindCluster, key}, err)
	}
	if changed {
		e.printf("%s %s\n", name, ch.did)
	} else {
		e.printf("%s %s\n", name, ch.already)
	}
	if _, held := cluster.Annotations[v1alpha1.AnnotationRestored]; held {
		e.errorf("it is held since the fleet's store was restored: nothing happens until `quorate plan %s%s --accept`\n", key.Name, inNamespace(key.Namespace))
	}
	if !o.wait {
		return nil
	}
	if err := e.awaitCluster(ctx, c, cluster, o.timeout, ch.reached); err != nil {
		return err
	}
	e.printf("%s: done\n", name)
	return nil
}

// inNamespace is the flag that a command to type needs to find the namespace.
func inNamespace(namespace string) string {
	if namespace == "" || namespace == defaultNamespace {
		return ""
	}
	return " -n " + namespace
}

// planChange shows the plan there would be after a change.
func (e *env) planChange(ctx context.Context, c *remote.Client, key store.Key, ch change) error {
	cluster, err := readCluster(ctx, c, key)
	if err != nil {
		return err
	}
	if ch.refuse != nil {
		if err = ch.refuse(cluster); err != nil {
			return named(target{v1alpha1.KindCluster, key}, err)
		}
	}
	ch.apply(cluster)
	ctx, cancel := call(ctx)
	defer cancel()
	p, err := c.PlanFor(ctx, cluster)
	if err != nil {
		return err
	}
	return e.printPlan(p, outTable)
}
