package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/etcd"
	"github.com/quorate/quorate/store"
)

const (
	reasonNoBackup  = "NoBackup"
	reasonNoRestore = "CannotRestore"
	reasonWaits     = "Waiting"
)

// storePatience is how long a restore waits for other stores once one has answered.
const storePatience = 20 * time.Second

var errSlowStore = errors.New("it did not answer in time, and another store has")

// restoreWrong is why a restore can't go on. Final: to try it again does not help.
type restoreWrong struct {
	problem

	final bool
}

func wrongly(p *problem) *restoreWrong {
	if p == nil {
		return nil
	}
	return &restoreWrong{problem: *p}
}

func refusedf(format string, args ...any) *restoreWrong {
	return &restoreWrong{problem{reasonNoRestore, fmt.Sprintf(format, args...)}, true}
}

func waitf(reason, format string, args ...any) *restoreWrong {
	return &restoreWrong{problem{reason, fmt.Sprintf(format, args...)}, false}
}

// foundBackup is a backup with all that is needed to read it.
type foundBackup struct {
	BackupFound

	trial BackupTrial
	// remembered is the newest revision that the cluster is known to have had, whether or
	// not a member answers.
	remembered int64
	// without are the stores that could not be asked, or don't have it, each with the cause.
	without []string
}

// sought is where to look for the backup of a restore.
type sought struct {
	what   BackupSought
	stores []BackupStore
	// points are its IDs by the names of the stores, where they are known.
	points map[string]string
}

// find finds the backup that a restore is made from.
func (c *RestoreController) find(ctx context.Context, r *v1alpha1.EtcdRestore, tell func(string)) (foundBackup, *restoreWrong, error) {
	s, wrong, err := c.seek(ctx, r)
	if wrong != nil || err != nil {
		return foundBackup{}, wrong, err
	}
	s.what.Progress = tell
	best, failed, final := c.ask(ctx, &s)
	if ctx.Err() != nil {
		return foundBackup{}, nil, ctx.Err()
	}
	if best == nil {
		return foundBackup{}, &restoreWrong{problem{reasonNoBackup, clip(strings.Join(failed, "; "))}, final}, nil
	}
	best.without = failed
	best.remembered, err = c.remembered(ctx, r)
	return *best, nil, err
}

// remembered is the newest revision of the cluster that records tell of: an earlier
// restore, which moved it on, or a backup. 0 where there are none. Members that don't
// answer may have gone any way beyond it.
func (c *RestoreController) remembered(ctx context.Context, r *v1alpha1.EtcdRestore) (newest int64, err error) {
	for _, kind := range []v1alpha1.Kind{v1alpha1.KindRestore, v1alpha1.KindBackup} {
		objects, err := c.opts.Store.List(ctx, kind, store.ListOptions{Namespace: r.Namespace})
		if err != nil {
			return 0, err
		}
		for _, o := range objects {
			switch o := o.(type) {
			case *v1alpha1.EtcdRestore:
				if o.Spec.ClusterName == r.Spec.ClusterName && o.UID != r.UID && o.Status.StartedAt != nil {
					newest = max(newest, o.Status.Revision)
				}
			case *v1alpha1.EtcdBackup:
				if o.Spec.ClusterName == r.Spec.ClusterName {
					newest = max(newest, o.Status.Revision)
				}
			}
		}
	}
	return newest, nil
}

// ask asks all stores at once. Once one has answered, the others have storePatience left:
// whoever restores in a disaster must not wait for the store that is part of it.
func (c *RestoreController) ask(ctx context.Context, s *sought) (best *foundBackup, failed []string, final bool) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	type answer struct {
		found *foundBackup
		err   error
	}
	answers := make([]chan answer, len(s.stores))
	one := make(chan struct{})
	var first sync.Once
	go func() {
		select {
		case <-one:
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(storePatience):
			cancel(errSlowStore)
		case <-ctx.Done():
		}
	}()
	for i, in := range s.stores {
		o := s.what
		o.Store = in
		if id, known := s.points[in.Name]; known {
			o.Point = id
		}
		answers[i] = make(chan answer, 1)
		go func() {
			f, err := c.opts.Restores.Find(ctx, o)
			if err == nil {
				first.Do(func() { close(one) })
			} else {
				err = because(ctx, err)
			}
			answers[i] <- answer{&foundBackup{BackupFound: f, trial: BackupTrial{
				BackupsOf: f.Of, Store: in, PointID: f.PointID, Object: o.Object, Identity: o.Identity, Progress: o.Progress,
			}}, err}
		}()
	}
	final = true
	for i, in := range s.stores {
		a := <-answers[i]
		switch {
		case a.err != nil:
			final = final && errors.Is(a.err, ErrHopeless)
			failed = append(failed, in.Name+": "+a.err.Error())
		case better(a.found, best):
			best = a.found
		}
	}
	return best, failed, final
}

// better prefers what is newer, then what is proven, then what no proof found wrong, then
// what came first.
func better(one, other *foundBackup) bool {
	if other == nil {
		return true
	}
	if d := one.TakenAt.Compare(other.TakenAt); d != 0 {
		return d > 0
	}
	return one.trust() > other.trust()
}

// trust is how much its proofs say for a backup.
func (f *foundBackup) trust() int {
	switch {
	case !f.ProvenAt.IsZero():
		return 1
	case f.Failed != "":
		return -1
	}
	return 0
}

// seek says where to look.
func (c *RestoreController) seek(ctx context.Context, r *v1alpha1.EtcdRestore) (s sought, wrong *restoreWrong, err error) {
	src := &r.Spec.Source
	s.what.Namespace, s.what.Cluster = r.Namespace, r.Spec.ClusterName
	if src.ClusterName != "" {
		s.what.Cluster = src.ClusterName
		if namespace, name, both := strings.Cut(src.ClusterName, "/"); both {
			s.what.Namespace, s.what.Cluster = namespace, name
		}
	}
	if s.what.Prefer, err = c.present(ctx, r); err != nil {
		return s, nil, err
	}
	if s.what.ClusterID, err = etcd.ParseID(src.ClusterID); err != nil {
		return s, refusedf("source.clusterID %q is not hexadecimal", src.ClusterID), nil //nolint:nilerr // it is told
	}
	s.what.Point, s.what.Object = orElse(src.Point, v1alpha1.PointLatestProven), src.Object
	if src.NotAfter != nil {
		s.what.NotAfter = src.NotAfter.Time
	}
	var destinations []v1alpha1.BackupDestination
	var encryption *v1alpha1.BackupEncryption
	switch {
	case src.BackupName != "":
		destinations, encryption, wrong, err = c.seekRecord(ctx, r, &s)
	case src.PolicyName != "":
		destinations, encryption, wrong, err = c.seekPolicy(ctx, r.Namespace, src.PolicyName)
	default:
		destinations, encryption = []v1alpha1.BackupDestination{*src.Destination}, &v1alpha1.BackupEncryption{IdentitySecretRef: src.IdentitySecretRef}
	}
	if wrong != nil || err != nil {
		return s, wrong, err
	}
	if src.DestinationName != "" {
		destinations = slices.DeleteFunc(slices.Clone(destinations), func(d v1alpha1.BackupDestination) bool { return d.Name != src.DestinationName })
	}
	if len(destinations) == 0 {
		return s, refusedf("there is no destination %s that has the backup", src.DestinationName), nil
	}
	var problem *problem
	if s.stores, problem, err = c.opts.Settings.stores(ctx, r.Namespace, destinations); problem != nil || err != nil {
		return s, wrongly(problem), err
	}
	s.what.Identity, problem, err = c.opts.Settings.identity(ctx, r.Namespace, encryption)
	return s, wrongly(problem), err
}

// present is the ID that the cluster has now, where it is that one which is restored in
// place; else 0.
func (c *RestoreController) present(ctx context.Context, r *v1alpha1.EtcdRestore) (etcd.ID, error) {
	of := r.Spec.Source.ClusterName
	if !r.Spec.InPlace || of != "" && of != r.Spec.ClusterName && of != r.Namespace+"/"+r.Spec.ClusterName {
		return 0, nil
	}
	cluster := &v1alpha1.EtcdCluster{}
	err := c.opts.Store.Get(ctx, store.Key{Namespace: r.Namespace, Name: r.Spec.ClusterName}, cluster)
	if errors.Is(err, store.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return etcd.ParseID(cluster.Status.ClusterID)
}

// seekRecord takes what an EtcdBackup says of the backup.
func (c *RestoreController) seekRecord(ctx context.Context, r *v1alpha1.EtcdRestore, s *sought) (destinations []v1alpha1.BackupDestination, encryption *v1alpha1.BackupEncryption, wrong *restoreWrong, err error) {
	name := r.Spec.Source.BackupName
	b := &v1alpha1.EtcdBackup{}
	err = c.opts.Store.Get(ctx, store.Key{Namespace: r.Namespace, Name: name}, b)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil, nil, waitf(reasonNoBackup, "there is no EtcdBackup %s in namespace %s: name a policy or a store instead, if only its record is gone", name, r.Namespace), nil
	case err != nil:
		return nil, nil, nil, err
	case !b.Finished():
		return nil, nil, waitf(reasonWaits, "EtcdBackup %s is %s", name, orElse(string(b.Status.Phase), "Pending")), nil
	case b.Status.Phase == v1alpha1.BackupFailed:
		return nil, nil, refusedf("EtcdBackup %s failed: %s", name, b.Status.Message), nil
	}
	settings, problem, err := c.opts.Settings.settings(ctx, b)
	if problem != nil || err != nil {
		return nil, nil, wrongly(problem), err
	}
	s.points = map[string]string{}
	for i := range settings.destinations {
		for _, had := range b.Status.Destinations {
			if had.Name == settings.destinations[i].Name && had.PointID != "" {
				s.points[had.Name] = had.PointID
				destinations = append(destinations, settings.destinations[i])
			}
		}
	}
	s.what.Namespace, s.what.Cluster = b.Namespace, b.Spec.ClusterName
	s.what.ClusterID, err = etcd.ParseID(b.Status.ClusterID)
	return destinations, settings.encryption, nil, err
}

func (c *RestoreController) seekPolicy(ctx context.Context, namespace, name string) ([]v1alpha1.BackupDestination, *v1alpha1.BackupEncryption, *restoreWrong, error) {
	p := &v1alpha1.EtcdBackupPolicy{}
	err := c.opts.Store.Get(ctx, store.Key{Namespace: namespace, Name: name}, p)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil, waitf(reasonNoPolicy, "there is no EtcdBackupPolicy %s in namespace %s: apply it, or name its store", name, namespace), nil
	}
	return p.Spec.Destinations, p.Spec.Encryption, nil, err
}

// pointOf says whose backup a point is.
func pointOf(p *v1alpha1.RestorePoint) (BackupsOf, error) {
	var of BackupsOf
	of.Namespace, of.Cluster, _ = strings.Cut(p.Cluster, "/")
	var err error
	of.ClusterID, err = etcd.ParseID(p.ClusterID)
	return of, err
}
