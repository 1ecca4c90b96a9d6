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
	files   []string
	dryRun  bool
	yes     bool
	wait    bool
	timeout time.Duration
}

func deleteCommand(e *env) *cobra.Command {
	var o deleteOptions
	cmd := &cobra.Command{
		Use:   "delete KIND NAME... | -f FILE",
		Short: "Delete objects; the data of members is renamed aside",
		Long: `Delete objects. A cluster's members are stopped one by one, the leader last, and
their data is renamed aside on their hosts: under deletionPolicy Retain (the
default) it is kept until a person removes it, under Delete it is collected after
retainFor.

With -f it deletes what files name. On a terminal it asks for the name; elsewhere it
wants --yes. It waits until the objects are gone, unless --wait=false.`,
		Example: `  quorate delete cluster playground
  quorate delete cluster playground --dry-run
  quorate delete cluster/playground --yes --wait=false
  quorate delete -f playground.yaml --yes`,
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: e.completeObjects,
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.delete(cmd, args, o)
		},
	}
	f := cmd.Flags()
	filesFlag(cmd, &o.files, "file or directory with the objects to delete")
	f.BoolVar(&o.dryRun, "dry-run", false, "only say what would be deleted")
	f.BoolVarP(&o.yes, "yes", "y", false, "delete without asking")
	f.BoolVar(&o.wait, "wait", true, "wait until they are gone")
	f.DurationVar(&o.timeout, "timeout", defaultTimeout, "how long to wait for each")
	return cmd
}

// doomed is an object that is to be deleted.
type doomed struct {
	target
	uid v1alpha1.UID
	// fate says what becomes of its data.
	fate string
}

// toDelete finds what the arguments or files name.
func (e *env) toDelete(cmd *cobra.Command, args []string, o deleteOptions) ([]target, error) {
	if len(o.files) == 0 {
		if len(args) == 0 {
			return nil, usagef(cmd, "name what to delete: KIND NAME, KIND/NAME, or -f FILE")
		}
		_, found, err := e.targets(cmd, args)
		if err == nil && len(found) == 0 {
			err = usagef(cmd, "name the objects: KIND NAME, or KIND/NAME")
		}
		return found, err
	}
	if len(args) > 0 {
		return nil, usagef(cmd, "-f says what to delete, and %q was given as well: leave one of them out", args[0])
	}
	sources, err := e.readSources(cmd, o.files)
	if err != nil {
		return nil, err
	}
	var found []target
	for _, s := range sources {
		found = append(found, target{v1alpha1.KindOf(s.doc.Object), store.KeyOf(s.doc.Object)})
	}
	return found, nil
}

func (e *env) delete(cmd *cobra.Command, args []string, o deleteOptions) error {
	found, err := e.toDelete(cmd, args, o)
	if err != nil {
		return err
	}
	c, err := e.connect()
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	var list []doomed
	var errs []error
	for _, t := range found {
		obj, readErr := read(ctx, c, t)
		if readErr != nil {
			// What files name may be gone already; that is said, and the rest goes on.
			if len(found) > 1 && errors.Is(readErr, store.ErrNotFound) {
				errs = append(errs, readErr)
				continue
			}
			return readErr
		}
		fate, fateErr := fateOf(ctx, c, obj)
		if fateErr != nil {
			return fateErr
		}
		list = append(list, doomed{target: t, uid: obj.GetUID(), fate: fate})
	}
	if o.dryRun {
		c = c.DryRun()
	} else if !o.yes && len(list) > 0 {
		if err = e.confirmDelete(cmd, list); err != nil {
			return err
		}
	}
	for _, d := range list {
		errs = append(errs, e.deleteOne(ctx, c, d, o))
	}
	return errors.Join(errs...)
}

func (e *env) confirmDelete(cmd *cobra.Command, list []doomed) error {
	names := make([]string, 0, len(list))
	fates := make([]string, 0, len(list))
	for _, d := range list {
		names = append(names, d.String())
		if d.fate != "" {
			fates = append(fates, d.fate)
		}
	}
	question := strings.Join(append([]string{"This deletes " + strings.Join(names, ", ") + "."}, fates...), " ")
	if len(list) == 1 {
		return e.confirm(cmd, question, list[0].key.Name)
	}
	return e.confirm(cmd, question, "delete")
}

func (e *env) deleteOne(ctx context.Context, c *remote.Client, d doomed, o deleteOptions) error {
	callCtx, cancel := call(ctx)
	defer cancel()
	err := c.Delete(callCtx, d.kind, d.key, store.Preconditions{UID: d.uid})
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return named(d.target, err)
	}
	if o.dryRun {
		e.printf("%s would be deleted (dry run)\n", d)
		if d.fate != "" {
			e.printf("%s\n", d.fate)
		}
		return nil
	}
	if o.wait {
		if err := e.awaitGone(ctx, c, d.target, d.uid, o.timeout); err != nil {
			return err
		}
		e.printf("%s deleted\n", d)
	} else {
		e.printf("%s is being deleted\n", d)
	}
	if d.fate != "" {
		e.errorf("%s\n", d.fate)
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
		if o.Observed() {
			return "It is forgotten; etcd itself is not touched.", nil
		}
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
