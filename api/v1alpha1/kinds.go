package v1alpha1

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
)

// Names of Kubernetes' types, so that packages outside api need not import it.
type (
	// Secret is core/v1's.
	Secret = corev1.Secret
	// SecretList is core/v1's.
	SecretList = corev1.SecretList
	// ObjectMeta is meta/v1's.
	ObjectMeta = metav1.ObjectMeta
	// TypeMeta is meta/v1's.
	TypeMeta = metav1.TypeMeta
	// Condition is meta/v1's.
	Condition = metav1.Condition
	// Time is meta/v1's, to the second.
	Time = metav1.Time
	// MicroTime is meta/v1's, to the microsecond.
	MicroTime = metav1.MicroTime
	// OwnerReference is meta/v1's.
	OwnerReference = metav1.OwnerReference
	// UID tells an object from a later one of the same name.
	UID = types.UID
)

// SecretTypeTLS is the type of a Secret with tls.crt and tls.key.
const SecretTypeTLS = corev1.SecretTypeTLS

// Object is what a Store holds.
//
// +kubebuilder:object:generate=false
type Object interface {
	metav1.Object
	runtime.Object
}

// Kind describes one kind of object.
//
// +kubebuilder:object:generate=false
type Kind struct {
	// Kind as in YAML, such as EtcdCluster.
	Kind string
	// APIVersion as in YAML: quorate.io/v1alpha1, or v1 for Secret.
	APIVersion string
	// Plural as in URLs, such as etcdclusters.
	Plural string
	// ShortNames that the command line accepts beside Kind and Plural.
	ShortNames []string
	// Namespaced kinds live in a namespace.
	Namespaced bool
	// New returns an empty object of the kind, with its TypeMeta set.
	New func() Object
}

const groupVersion = Group + "/" + Version

func kind[T any, P interface {
	*T
	Object
}](name, apiVersion, plural string, namespaced bool, short ...string,
) Kind {
	return Kind{
		Kind: name, APIVersion: apiVersion, Plural: plural, Namespaced: namespaced, ShortNames: short,
		New: func() Object {
			obj := P(new(T))
			SetType(obj, name, apiVersion)
			return obj
		},
	}
}

// The kinds.
var (
	KindCluster = kind[EtcdCluster]("EtcdCluster", groupVersion, "etcdclusters", true, "qec", "cluster", "clusters")
	KindMember  = kind[EtcdMember]("EtcdMember", groupVersion, "etcdmembers", true, "qem", "member", "members")
	KindHost    = kind[EtcdHost]("EtcdHost", groupVersion, "etcdhosts", false, "qeh", "host", "hosts")
	KindTask    = kind[EtcdTask]("EtcdTask", groupVersion, "etcdtasks", true, "qet", "task", "tasks")
	KindSecret  = kind[Secret]("Secret", "v1", "secrets", true)

	KindBackupPolicy = kind[EtcdBackupPolicy]("EtcdBackupPolicy", groupVersion, "etcdbackuppolicies", true, "qebp", "backuppolicy", "backuppolicies")
	KindBackup       = kind[EtcdBackup]("EtcdBackup", groupVersion, "etcdbackups", true, "qeb", "backup", "backups")
	KindRestore      = kind[EtcdRestore]("EtcdRestore", groupVersion, "etcdrestores", true, "qer", "restore", "restores")
)

// Kinds lists every kind.
func Kinds() []Kind {
	return []Kind{KindCluster, KindMember, KindHost, KindTask, KindBackupPolicy, KindBackup, KindRestore, KindSecret}
}

// KindNamed finds a kind by its Kind, plural, singular or short name, in any case.
func KindNamed(name string) (Kind, bool) {
	name = strings.ToLower(name)
	for _, k := range Kinds() {
		if name == k.Plural || name == strings.ToLower(k.Kind) || slices.Contains(k.ShortNames, name) {
			return k, true
		}
	}
	return Kind{}, false
}

// KindOf finds the kind of an object by its Go type.
func KindOf(obj Object) Kind {
	switch obj.(type) {
	case *EtcdCluster:
		return KindCluster
	case *EtcdMember:
		return KindMember
	case *EtcdHost:
		return KindHost
	case *EtcdTask:
		return KindTask
	case *EtcdBackupPolicy:
		return KindBackupPolicy
	case *EtcdBackup:
		return KindBackup
	case *EtcdRestore:
		return KindRestore
	case *Secret:
		return KindSecret
	}
	return Kind{}
}

// SetType sets an object's kind and apiVersion.
func SetType(obj Object, kind, apiVersion string) {
	obj.GetObjectKind().SetGroupVersionKind(gvk(kind, apiVersion))
}
