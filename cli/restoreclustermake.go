package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/etcd"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
)

// makeCluster says how the cluster is to be that is formed: like the one that was backed
// up, as far as that is not its own.
func (r *restoreOrder) makeCluster(cmd *cobra.Command) error {
	o, point := r.opts, r.seen.Point
	fresh := &v1alpha1.EtcdCluster{}
	v1alpha1.SetType(fresh, v1alpha1.KindCluster.Kind, v1alpha1.KindCluster.APIVersion)
	fresh.Namespace, fresh.Name = r.restore.Namespace, r.restore.Spec.ClusterName
	if r.like != nil {
		fresh.Spec = *r.like.Spec.DeepCopy()
		fresh.Spec.Version = cmp.Or(fresh.Spec.Version, r.like.Status.Version)
		// Two clusters can't have the same ports on a host, and how the other is managed, or
		// was restored, is no matter of this one.
		fresh.Spec.Management, fresh.Spec.Import, fresh.Spec.Ports = "", nil, nil
		fresh.Spec.Suspended, fresh.Spec.RestartedAt = false, nil
	}
	fresh.Spec.RestoreName = r.restore.Name
	fresh.Spec.Version = cmp.Or(o.version, fresh.Spec.Version)
	fresh.Spec.Replicas = cmp.Or(o.replicas, fresh.Spec.Replicas)
	held := ""
	if point.EtcdVersion != "" {
		held = "; the backup is of etcd " + point.EtcdVersion
	}
	if fresh.Spec.Version == "" {
		return usagef(cmd, "--version is missing: the fleet does not have the cluster that was backed up, whose version would be taken%s: name an etcd release, such as --version 3.7.3", held)
	}
	if have, wants := etcd.Minor(point.EtcdVersion), etcd.Minor(fresh.Spec.Version); wants > 0 && have > wants {
		return fmt.Errorf("%s is not restored: etcd %s does not read the data%s: give a --version of 3.%d or newer: %w", r.cluster(), fresh.Spec.Version, held, have, store.ErrForbidden)
	}
	r.fresh = fresh
	return nil
}

// createAs creates an object, which is then as the server has it.
func createAs(ctx context.Context, c *remote.Client, obj v1alpha1.Object) error {
	ctx, cancel := call(ctx)
	defer cancel()
	if err := c.Create(ctx, obj); err != nil {
		return named(target{v1alpha1.KindOf(obj), store.KeyOf(obj)}, err)
	}
	return nil
}

// createRestore creates the cluster, where there is none, and the restore.
func (e *env) createRestore(ctx context.Context, c *remote.Client, r *restoreOrder) error {
	tell := func(obj v1alpha1.Object) {
		if r.opts.output == outTable {
			e.printf("%s %s\n", label(v1alpha1.KindOf(obj), obj.GetName()), wasCreated)
		}
	}
	if r.fresh != nil {
		if err := createAs(ctx, c, r.fresh); err != nil {
			return err
		}
		tell(r.fresh)
	}
	err := createAs(ctx, c, r.restore)
	if err == nil {
		tell(r.restore)
		return nil
	}
	if r.fresh == nil {
		return err
	}
	name, ns := r.fresh.Name, inNamespace(r.fresh.Namespace)
	return fmt.Errorf("%w\n%s was created, has no members, and waits for an EtcdRestore of the name %s\nto go on, give the same command once more\nto undo it, `quorate delete cluster %s%s --yes`",
		err, r.cluster(), r.restore.Name, name, ns)
}

// watchHint says how a restore is watched.
func watchHint(r *v1alpha1.EtcdRestore) string {
	ns := inNamespace(r.Namespace)
	return fmt.Sprintf("`quorate get restores%s -w` shows how far it is, and `quorate describe restore %s%s` what came of it", ns, r.Name, ns)
}

// followRestore waits until a restore is over, and says what came of it.
func (e *env) followRestore(ctx context.Context, c *remote.Client, r *restoreOrder) error {
	t := target{v1alpha1.KindRestore, store.KeyOf(r.restore)}
	p := newProgress(e)
	defer p.done()
	last := r.restore
	err := await(ctx, c, t, r.opts.timeout, p.step, func(obj v1alpha1.Object) (bool, string, error) {
		got, ok := obj.(*v1alpha1.EtcdRestore)
		if !ok || got.UID != r.restore.UID {
			return false, "", fmt.Errorf("%s was deleted while it was carried out: %s holds still until an EtcdRestore is applied: %w", t, r.cluster(), store.ErrNotFound)
		}
		last = got
		return got.Finished(), stageText(got), nil
	})
	p.done()
	switch {
	case errors.Is(err, errTimedOut):
		return fmt.Errorf("%w; it goes on: %s", err, watchHint(last))
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("%w: the wait is over, and the restore goes on: %s", errCancelled, watchHint(last))
	case err != nil:
		return err
	}
	if r.opts.output != outTable {
		err = e.printObjects([]v1alpha1.Object{last}, shown{form: r.opts.output, single: true})
	}
	if last.Status.Phase == v1alpha1.RestoreFailed {
		return errors.Join(err, r.failed(last))
	}
	if r.opts.output == outTable {
		e.printClusterRestored(r, last, e.whereOldData(ctx, c, last))
	}
	return err
}

// stageText says how far a restore is; its name is said before.
func stageText(r *v1alpha1.EtcdRestore) string {
	if r.Status.Message == "" {
		return "waiting for the server to look at it"
	}
	return string(r.Status.Phase) + ": " + strings.TrimPrefix(r.Status.Message, "the cluster is being restored (EtcdRestore "+r.Name+"): ")
}

// failed says what a restore that failed has left.
func (r *restoreOrder) failed(last *v1alpha1.EtcdRestore) error {
	text := fmt.Sprintf("%s failed: %s", label(v1alpha1.KindRestore, last.Name), last.Status.Message)
	if r.fresh != nil {
		text += fmt.Sprintf("\n%s was created for it, and has no members: `quorate delete cluster %s%s --yes` removes it", r.cluster(), r.fresh.Name, inNamespace(r.fresh.Namespace))
	}
	return errors.New(text)
}

// wentTo stands before the directory in the event of a deleted member.
const wentTo = "its data was retired to "

// whereOldData says where the data of the former members is, by their names. What no
// event tells is left out.
func (e *env) whereOldData(ctx context.Context, c *remote.Client, r *v1alpha1.EtcdRestore) map[string]string {
	found := map[string]string{}
	if len(r.Status.Places) == 0 || r.Status.StartedAt == nil {
		return found
	}
	events, err := recent(ctx, c, store.EventOptions{Namespace: r.Namespace, Cluster: r.Spec.ClusterName})
	if err != nil {
		return found // the rest is worth telling without it
	}
	for _, ev := range events {
		_, dir, ok := strings.Cut(ev.Message, wentTo)
		// Times in objects are kept to the second.
		if ok && ev.Kind == v1alpha1.KindMember.Kind && !ev.Time.Before(r.Status.StartedAt.Add(-time.Second)) {
			found[ev.Name] = dir
		}
	}
	return found
}
