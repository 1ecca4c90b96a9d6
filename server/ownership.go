package server

import (
	"slices"
	"strings"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
)

// ownsObject refuses an object that is bound to another host than the caller's.
func ownsObject(c caller, kind v1alpha1.Kind, obj v1alpha1.Object) error {
	if c.scope == all {
		return nil
	}
	host := ""
	switch o := obj.(type) {
	case *v1alpha1.EtcdMember:
		host = o.Spec.Host
	case *v1alpha1.EtcdHost:
		host = o.Name
	}
	return c.owns(host, kind.Kind+" "+store.KeyOf(obj).String())
}

// bareHost refuses a host that its agent makes with more than a spec and labels: what
// holds an object, or is Quorate's own, is not an agent's to say.
func bareHost(c caller, obj v1alpha1.Object) error {
	host, ok := obj.(*v1alpha1.EtcdHost)
	if !ok || c.scope == all {
		return nil
	}
	own := ""
	for l := range host.Labels {
		if strings.HasPrefix(l, v1alpha1.Group+"/") {
			own = l
		}
	}
	switch {
	case len(host.Finalizers)+len(host.OwnerReferences)+len(host.Annotations) > 0:
		return forbidden("%s may make EtcdHost %s with labels and a spec, and without finalizers, owners and annotations", c.who(), host.Name)
	case own != "":
		return forbidden("%s may not set the label %s of EtcdHost %s: labels below %s/ are Quorate's own", c.who(), own, host.Name, v1alpha1.Group)
	}
	return nil
}

// onlyFinalizers reports whether obj differs from old in nothing but finalizers
// and what the store sets.
func onlyFinalizers(obj, old v1alpha1.Object) bool {
	a, okA := obj.DeepCopyObject().(v1alpha1.Object)
	b, okB := old.DeepCopyObject().(v1alpha1.Object)
	if !okA || !okB {
		return false
	}
	for _, o := range []v1alpha1.Object{a, b} {
		o.SetFinalizers(nil)
		o.SetResourceVersion("")
		o.SetManagedFields(nil)
		kind := v1alpha1.KindOf(o)
		v1alpha1.SetType(o, kind.Kind, kind.APIVersion)
	}
	return v1alpha1.Equal(a, b)
}

// releasesMember reports whether the finalizers of a member that is being deleted
// stay as they are, or lose FinalizerMember.
func releasesMember(obj, old v1alpha1.Object) bool {
	if slices.Equal(obj.GetFinalizers(), old.GetFinalizers()) {
		return true
	}
	rest := slices.DeleteFunc(slices.Clone(old.GetFinalizers()), func(f string) bool { return f == v1alpha1.FinalizerMember })
	return old.GetDeletionTimestamp() != nil && slices.Equal(obj.GetFinalizers(), rest)
}

// releasing reports whether an agent lets go of a member, of which only that counts:
// an agent that is older than the server sends the object without what it does not
// know.
func releasing(obj, old v1alpha1.Object) bool {
	return releasesMember(obj, old) && len(obj.GetFinalizers()) < len(old.GetFinalizers())
}

// withFinalizersOf is a copy of obj with the finalizers of another.
func withFinalizersOf(obj, other v1alpha1.Object) v1alpha1.Object {
	next, ok := obj.DeepCopyObject().(v1alpha1.Object)
	if !ok {
		return other
	}
	next.SetFinalizers(other.GetFinalizers())
	return next
}

// hasStatus reports whether objects of the kind have a status of their own.
func hasStatus(kind v1alpha1.Kind) bool { return kind.Kind != v1alpha1.KindSecret.Kind }

// copyStatus gives dst the status of src, which is of the same kind.
func copyStatus(dst, src v1alpha1.Object) {
	switch d := dst.(type) {
	case *v1alpha1.EtcdCluster:
		if s, ok := src.(*v1alpha1.EtcdCluster); ok {
			d.Status = s.Status
		}
	case *v1alpha1.EtcdMember:
		if s, ok := src.(*v1alpha1.EtcdMember); ok {
			d.Status = s.Status
		}
	case *v1alpha1.EtcdHost:
		if s, ok := src.(*v1alpha1.EtcdHost); ok {
			d.Status = s.Status
		}
	case *v1alpha1.EtcdTask:
		if s, ok := src.(*v1alpha1.EtcdTask); ok {
			d.Status = s.Status
		}
	case *v1alpha1.EtcdBackupPolicy:
		if s, ok := src.(*v1alpha1.EtcdBackupPolicy); ok {
			d.Status = s.Status
		}
	case *v1alpha1.EtcdBackup:
		if s, ok := src.(*v1alpha1.EtcdBackup); ok {
			d.Status = s.Status
		}
	case *v1alpha1.EtcdRestore:
		if s, ok := src.(*v1alpha1.EtcdRestore); ok {
			d.Status = s.Status
		}
	}
}
