package web

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/quorate/quorate/api/v1alpha1"
)

// states in the order of concern, as they are counted above the fleet.
var states = []v1alpha1.ClusterState{
	v1alpha1.StateUnavailable, v1alpha1.StateDegraded, v1alpha1.StateUnknown, v1alpha1.StateHealthy, v1alpha1.StateStopped,
}

// concern is the place of a state in states.
func concern(state v1alpha1.ClusterState) int {
	for i, s := range states {
		if s == state {
			return i
		}
	}
	return len(states)
}

// stateOf puts the conditions that are stored with a cluster into an operator's
// word, and says why it is not healthy. A View of it says the same from now.
func stateOf(c *v1alpha1.EtcdCluster) (v1alpha1.ClusterState, string) {
	available := v1alpha1.FindCondition(c.Status.Conditions, v1alpha1.ConditionAvailable)
	degraded := v1alpha1.FindCondition(c.Status.Conditions, v1alpha1.ConditionDegraded)
	switch {
	case c.DeletionTimestamp != nil || v1alpha1.IsTrue(c.Status.Conditions, v1alpha1.ConditionSuspended):
		return v1alpha1.StateStopped, c.Status.Summary
	case available == nil || available.Status == v1alpha1.Unknown:
		return v1alpha1.StateUnknown, messageOf(available, c.Status.Summary)
	case available.Status != v1alpha1.True:
		return v1alpha1.StateUnavailable, available.Message
	case degraded != nil && degraded.Status == v1alpha1.True:
		return v1alpha1.StateDegraded, degraded.Message
	}
	return v1alpha1.StateHealthy, ""
}

func messageOf(c *v1alpha1.Condition, otherwise string) string {
	if c == nil || c.Message == "" {
		return otherwise
	}
	return c.Message
}

// dot is a member as it stands in a row of the fleet.
type dot struct {
	// Name is empty where only the number of members is known.
	Name   string
	Up     bool
	Leader bool
}

// dotsOf draws the members from what is stored: how many are healthy of how many,
// and which leads.
func dotsOf(c *v1alpha1.EtcdCluster) []dot {
	healthy, wanted := readyOf(c)
	const most = 9
	dots := make([]dot, 0, most)
	for i := range min(wanted, most) {
		dots = append(dots, dot{Up: i < healthy, Leader: i == 0 && c.Status.Leader != "" && healthy > 0})
	}
	return dots
}

// dotsOfView draws the members that answered.
func dotsOfView(v *v1alpha1.ClusterView) []dot {
	dots := make([]dot, 0, len(v.Members))
	for i := range v.Members {
		m := &v.Members[i]
		dots = append(dots, dot{Name: m.Name, Up: m.Healthy, Leader: m.Role == v1alpha1.RoleLeader})
	}
	return dots
}

// part is the key of what to call a member: its role, or why it has none.
func part(m *v1alpha1.MemberView) string {
	switch {
	case m.Answered && m.Role != "":
		return "role." + string(m.Role)
	case m.Answered:
		return "role.leaderless"
	case m.Phase != "" && m.Phase != v1alpha1.MemberRunning:
		return "phase." + string(m.Phase)
	}
	return "role.silent"
}

// sign is how a condition is marked: whether it is good to be true depends on it.
type sign struct{ Icon, Class string }

func signOf(c v1alpha1.Condition) sign {
	neutral := c.Type == v1alpha1.ConditionProgressing || c.Type == v1alpha1.ConditionSuspended
	switch {
	case c.Status == v1alpha1.Unknown:
		return sign{"Unknown", "state-Unknown"}
	case c.Type == v1alpha1.ConditionDegraded && c.Status == v1alpha1.True:
		return sign{"Degraded", "state-Degraded"}
	case c.Type == v1alpha1.ConditionDegraded || neutral && c.Status == v1alpha1.False:
		return sign{}
	case neutral:
		return sign{"play", "cond-on"}
	case c.Status == v1alpha1.True:
		return sign{"check", "state-Healthy"}
	}
	return sign{"Unavailable", "state-Unavailable"}
}

// readyOf is how many members are healthy, and of how many.
func readyOf(c *v1alpha1.EtcdCluster) (healthy, wanted int) {
	have, want, ok := strings.Cut(c.Status.Ready, "/")
	if ok {
		healthy, _ = strconv.Atoi(have)
		wanted, _ = strconv.Atoi(want)
	}
	if wanted <= 0 {
		wanted = int(c.Spec.Replicas)
	}
	return max(0, healthy), wanted
}

// quorumOf is how many of n voters must be up to decide.
func quorumOf(n int) int { return n/2 + 1 }

// inNamespace is what a command needs to find a name in its namespace.
func inNamespace(namespace string) string {
	if namespace == "" || namespace == "default" {
		return ""
	}
	return " -n " + namespace
}

func clusterPath(namespace, name string) string {
	return fmt.Sprintf("/clusters/%s/%s", namespace, name)
}
