package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
)

type deleteOptions struct {
	dryRun  bool
	yes     bool
	wait    bool
	timeout time.Duration
}

func deleteCommand(e *env) *cobra.Command {
	var o deleteOptions
	cmd := &cobra.Command{
		Use:   "delete KIND NAME",
		Short: "Delete an object; the data of its members is renamed aside",
		Long: `Delete an object. A cluster's members are stopped one by one, the leader last, and
their data is renamed aside on their hosts: under deletionPolicy Retain (the
default) it is kept until a person removes it, under Delete it is collected after
retainFor.

On a terminal it asks for the name; elsewhere it wants --yes. It waits until the
object is gone, unless --wait=false.`,
		Example: `  quorate delete cluster playground
  quorate delete cluster playground --dry-run
  quorate delete cluster/playground --yes --wait=false`,
		Args:              argsBetween(1, 2, "KIND NAME"),
		ValidArgsFunction: e.completeOne,
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.delete(cmd, args, o)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.dryRun, "dry-run", false, "only say what would be deleted")
	f.BoolVarP(&o.yes, "yes", "y", false, "delete without asking")
	f.BoolVar(&o.wait, "wait", true, "wait until it is gone")
	f.DurationVar(&o.timeout, "timeout", defaultTimeout, "how long to wait")
	return cmd
}

func (e *env) delete(cmd *cobra.Command, args []string, o deleteOptions) error {
	t, err := e.oneTarget(cmd, args)
	if err != nil {
		return err
	}
	c, err := e.connect()
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	obj, err := read(ctx, c, t)
	if err != nil {
		return err
	}
	fate, err := fateOf(ctx, c, obj)
	if err != nil {
		return err
	}
	if o.dryRun {
		c = c.DryRun()
	} else if !o.yes {
		question := fmt.Sprintf("This deletes %s.", t)
		if fate != "" {
			question += " " + fate
		}
		if err = e.confirm(cmd, question, t.key.Name); err != nil {
			return err
		}
	}
	callCtx, cancel := call(ctx)
	defer cancel()
	err = c.Delete(callCtx, t.kind, t.key, store.Preconditions{UID: obj.GetUID()})
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return named(t, err)
	}
	if o.dryRun {
		e.printf("%s would be deleted (dry run)\n", t)
		if fate != "" {
			e.printf("%s\n", fate)
		}
		return nil
	}
	if o.wait {
		if err := e.awaitGone(ctx, c, t, obj.GetUID(), o.timeout); err != nil {
			return err
		}
		e.printf("%s deleted\n", t)
	} else {
		e.printf("%s is being deleted\n", t)
	}
	if fate != "" {
		e.errorf("%s\n", fate)
	}
	return nil
}

// fateOf says what becomes of the data when an object is deleted.
func fateOf(ctx context.Context, c *remote.Client, obj v1alpha1.Object) (string, error) {
	var members []*v1alpha1.EtcdMember
	var policy v1alpha1.DeletionPolicy
	var keep string
	switch o := obj.(type) {
	case *v1alpha1.EtcdCluster:
		var err error
		if members, err = membersOf(ctx, c, store.KeyOf(o)); err != nil {
			return "", err
		}
		policy, keep = o.Spec.DeletionPolicy, o.Spec.RetainFor
	case *v1alpha1.EtcdMember:
		members = []*v1alpha1.EtcdMember{o}
		policy, keep = o.Spec.DeletionPolicy, o.Spec.RetainFor
	default:
		return "", nil
	}
	if len(members) == 0 {
		return "It has no members, and so no data.", nil
	}
	var where []string
	for _, m := range members {
		where = append(where, m.Name+" on "+m.Spec.Host)
	}
	until := "kept until a person removes it (deletionPolicy Retain)"
	if policy == v1alpha1.DeletionDelete {
		until = "collected after " + keep + " (deletionPolicy Delete)"
	}
	return fmt.Sprintf("The data of %s is renamed aside, below retired/ in the data directory of each host, and %s.", strings.Join(where, ", "), until), nil
}

// awaitGone waits until the object is gone, or is another one of the same name.
func (e *env) awaitGone(ctx context.Context, c *remote.Client, t target, uid v1alpha1.UID, timeout time.Duration) error {
	p := newProgress(e)
	defer p.done()
	return await(ctx, c, t, timeout, p.step, func(obj v1alpha1.Object) (bool, string, error) {
		if obj == nil || obj.GetUID() != uid {
			return true, "", nil
		}
		if cluster, ok := obj.(*v1alpha1.EtcdCluster); ok {
			if moving := v1alpha1.FindCondition(cluster.Status.Conditions, v1alpha1.ConditionProgressing); moving != nil && moving.Reason != "AsWanted" {
				return false, moving.Message, nil
			}
		}
		if len(obj.GetFinalizers()) == 0 {
			return false, "being deleted", nil
		}
		return false, "waiting for what holds it: " + strings.Join(obj.GetFinalizers(), ", "), nil
	})
}
