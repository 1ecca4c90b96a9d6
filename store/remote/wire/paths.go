package wire

import (
	"net/url"
	"strings"

	"github.com/quorate/quorate/api/v1alpha1"
)

// Paths that are no object's.
const (
	PathEvents   = "/events"
	PathReleases = "/releases"
	PathVersion  = "/version"
	PathMetrics  = "/metrics"
	PathBackup   = "/backup"
	// PathSealingKey, posted to, rotates the key that seals Secrets.
	PathSealingKey = "/sealingkey/rotate"
	PathAgents     = "/agents"
	// PathSessions, posted to, begins a session; PathLinks makes the code for one, and
	// PathSession is the caller's own.
	PathSessions = "/sessions"
	PathLinks    = "/sessions/links"
	PathSession  = "/sessions/current"
	// PathUsage is what members ask for and use, and PathRebalance what would place them
	// better.
	PathUsage     = "/usage"
	PathRebalance = "/rebalance"
	// PathOpenAPI describes the API to programs, and PathDocs to people.
	PathOpenAPI  = "/openapi.json"
	PathDocs     = "/docs"
	PathDocFiles = "/docs/{file}"
)

// KindRoot is the path under which the objects of a kind live, as in Kubernetes:
// /apis/<group>/<version>, or /api/v1 for Secrets.
func KindRoot(kind v1alpha1.Kind) string {
	if strings.Contains(kind.APIVersion, "/") {
		return "/apis/" + kind.APIVersion
	}
	return "/api/" + kind.APIVersion
}

// KindPath is the path of the objects of a kind: those of one namespace, or of
// all where namespace is empty.
func KindPath(kind v1alpha1.Kind, namespace string) string {
	if kind.Namespaced && namespace != "" {
		return KindRoot(kind) + "/namespaces/" + url.PathEscape(namespace) + "/" + kind.Plural
	}
	return KindRoot(kind) + "/" + kind.Plural
}

// ObjectPath is the path of one object, with more behind it such as "status".
func ObjectPath(kind v1alpha1.Kind, namespace, name string, more ...string) string {
	return strings.Join(append([]string{KindPath(kind, namespace), url.PathEscape(name)}, more...), "/")
}

// AgentPath is the path of an agent's channel, with more behind it. More
// is not escaped.
func AgentPath(host string, more ...string) string {
	return strings.Join(append([]string{PathAgents, url.PathEscape(host)}, more...), "/")
}
