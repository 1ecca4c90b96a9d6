package v1alpha1

// ClusterState is how operators call the state of a cluster.
type ClusterState string

// The states of a cluster.
const (
	// StateHealthy: every member that should serve does.
	StateHealthy ClusterState = "Healthy"
	// StateDegraded: it serves, and something is wrong.
	StateDegraded ClusterState = "Degraded"
	// StateUnavailable: no quorum serves. Members that live still answer
	// serializable reads.
	StateUnavailable ClusterState = "Unavailable"
	// StateUnknown: nobody answered, or nobody could be asked.
	StateUnknown ClusterState = "Unknown"
	// StateStopped: the cluster is not meant to serve now.
	StateStopped ClusterState = "Stopped"
)

// MemberRole is a member's part in its cluster.
type MemberRole string

// The roles of a member; empty while it does not answer.
const (
	RoleLeader   MemberRole = "Leader"
	RoleFollower MemberRole = "Follower"
	RoleLearner  MemberRole = "Learner"
)

// ClusterView is what the members of a cluster answer at one moment. It is asked
// for, never stored: raft positions change with every write.
//
// +kubebuilder:object:generate=false
type ClusterView struct {
	// Namespace and Cluster it is about.
	Namespace string `json:"namespace"`
	Cluster   string `json:"cluster"`
	// AskedAt is when the members were asked.
	AskedAt MicroTime `json:"askedAt"`
	// State in one word, and Message why it is not Healthy.
	State   ClusterState `json:"state"`
	Message string       `json:"message,omitempty"`
	// ClusterID in hex, and Leader, the name of the member that leads, once known.
	ClusterID string `json:"clusterID,omitempty"`
	Leader    string `json:"leader,omitempty"`
	// Members in the order of their names.
	Members []MemberView `json:"members"`
	// Alarms that etcd has raised.
	Alarms []AlarmView `json:"alarms,omitempty"`
}

// MemberView is what one member answers.
//
// +kubebuilder:object:generate=false
type MemberView struct {
	// Name of the member; its ID in hex where it has none yet.
	Name string `json:"name"`
	// ID is etcd's, in hex.
	ID string `json:"id,omitempty"`
	// Host it runs on, where Quorate runs it.
	Host string `json:"host,omitempty"`
	// Endpoint is its client URL.
	Endpoint string `json:"endpoint,omitempty"`
	// PID of its etcd on its host, where Quorate runs it.
	PID int64 `json:"pid,omitempty"`
	// Phase that its host reports, where Quorate runs it.
	Phase MemberPhase `json:"phase,omitempty"`
	// Healthy: it answers, follows a leader, votes unless it is a learner, and knows
	// of no alarm. Message says why it is not.
	Healthy bool   `json:"healthy"`
	Message string `json:"message,omitempty"`
	// Answered: the figures below are from now, not missing.
	Answered bool `json:"answered"`
	// Role it has; empty if it did not answer.
	Role MemberRole `json:"role,omitempty"`
	// Version of etcd it runs.
	Version string `json:"version,omitempty"`
	// DBSize, DBSizeInUse and DBQuota in bytes; DBQuota is 0 where it is not known.
	DBSize      int64 `json:"dbSize,omitempty"`
	DBSizeInUse int64 `json:"dbSizeInUse,omitempty"`
	DBQuota     int64 `json:"dbQuota,omitempty"`
	// Revision of its key-value store.
	Revision int64 `json:"revision,omitempty"`
	// RaftTerm, RaftIndex and RaftAppliedIndex are its raft position.
	RaftTerm         uint64 `json:"raftTerm,omitempty"`
	RaftIndex        uint64 `json:"raftIndex,omitempty"`
	RaftAppliedIndex uint64 `json:"raftAppliedIndex,omitempty"`
	// LatencyMilliseconds is how long the answer took.
	LatencyMilliseconds float64 `json:"latencyMilliseconds,omitempty"`
}

// AlarmView is one raised alarm.
//
// +kubebuilder:object:generate=false
type AlarmView struct {
	// Type is NOSPACE or CORRUPT.
	Type string `json:"type"`
	// Member that raised it, by name, or by ID in hex.
	Member string `json:"member"`
}
