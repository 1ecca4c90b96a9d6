package store

import (
	"context"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
)

// EventType is Normal or Warning.
type EventType string

// The event types.
const (
	Normal  EventType = "Normal"
	Warning EventType = "Warning"
)

// Event is something that happened to an object, for people to read.
type Event struct {
	// ID orders events and says where to go on from; the recorder sets it, and it
	// means nothing else to anyone.
	ID string `json:"id"`
	// Time of the latest occurrence.
	Time time.Time `json:"time"`
	// Count of occurrences folded into this one.
	Count int64 `json:"count"`
	// Type is Normal or Warning.
	Type EventType `json:"type"`
	// Kind, Namespace and Name of the object it happened to.
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	// Cluster is the EtcdCluster concerned, where there is one.
	Cluster string `json:"cluster,omitempty"`
	// Reason in CamelCase, such as MemberStarted.
	Reason string `json:"reason"`
	// Message in a sentence.
	Message string `json:"message"`
	// Source is the component: fleet, agent/<host>, server.
	Source string `json:"source"`
}

// Recorder takes events. It never fails its caller: an event that can't be
// stored is logged and dropped.
type Recorder interface {
	Record(ctx context.Context, e Event)
}

// EventOptions narrow the events that are read.
type EventOptions struct {
	Namespace string
	// Cluster limits to events about a cluster, its members and tasks.
	Cluster string
	// Kind and Name limit to one object.
	Kind string
	Name string
}

// EventReader reads recorded events.
type EventReader interface {
	// Events returns those recorded, oldest first.
	Events(ctx context.Context, opts EventOptions) ([]Event, error)
	// WatchEvents yields those recorded from now on. The channel closes when ctx ends.
	WatchEvents(ctx context.Context, opts EventOptions) <-chan Event
}

// EventLog reads events from any place in the past that is still kept. Each place
// has an ID: that of the event before it.
type EventLog interface {
	EventReader

	// EventsAt is Events, and returns the place behind all that was recorded.
	EventsAt(ctx context.Context, opts EventOptions) (events []Event, after string, err error)
	// LastEvent returns the place behind all that was recorded.
	LastEvent(ctx context.Context) (after string, err error)
	// WatchEventsAfter yields those recorded behind a place: none is left out, and none
	// comes twice. ErrGone when not all of them are kept any more, ErrInvalid when after
	// is no ID.
	WatchEventsAfter(ctx context.Context, opts EventOptions, after string) (<-chan Event, error)
}

// About fills in an event's object.
func About(obj v1alpha1.Object, e Event) Event {
	k := v1alpha1.KindOf(obj)
	e.Kind, e.Namespace, e.Name = k.Kind, obj.GetNamespace(), obj.GetName()
	switch o := obj.(type) {
	case *v1alpha1.EtcdCluster:
		e.Cluster = o.Name
	case *v1alpha1.EtcdMember:
		e.Cluster = o.Spec.ClusterName
	case *v1alpha1.EtcdTask:
		e.Cluster = o.Spec.ClusterName
	case *v1alpha1.EtcdBackup:
		e.Cluster = o.Spec.ClusterName
	case *v1alpha1.EtcdBackupPolicy:
		e.Cluster = o.Spec.ClusterName
	}
	return e
}
