package server

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/quorate/quorate/store/remote/wire"
)

// Role is what a token may do.
type Role string

// The roles.
const (
	// RoleAdmin may do everything.
	RoleAdmin Role = "admin"
	// RoleViewer may read everything but Secrets.
	RoleViewer Role = "viewer"
	// RoleAgent serves one host: it sees and reports what is bound to it.
	RoleAgent Role = "agent"
)

// verb is what is done to a resource.
type verb string

const (
	verbGet         verb = "get"
	verbList        verb = "list"
	verbCreate      verb = "create"
	verbUpdate      verb = "update"
	verbStatus      verb = "update the status of"
	verbDelete      verb = "delete"
	verbPlan        verb = "plan"
	verbAccept      verb = "accept the plan of"
	verbLog         verb = "read the log of"
	verbMetrics     verb = "read the metrics of"
	verbKill        verb = "kill"
	verbSnapshot    verb = "read the backup for"
	verbLoad        verb = "drive a load from"
	verbCheck       verb = "check"
	verbCertificate verb = "sign certificates of"
	verbClient      verb = "sign client certificates of"
	verbChannel     verb = "answer for"
	verbJoin        verb = "let join"
	verbRenew       verb = "renew the certificate of"
)

// scope is how much of a resource a role reaches.
type scope int

const (
	// none of it.
	none scope = iota
	// own: what is bound to the caller's host.
	own
	// all of it.
	all
)

// grant is a line of the table: what the roles beside admin reach. What no line
// names is the admin's alone.
type grant struct {
	resource string
	verbs    []verb
	viewer   scope
	agent    scope
}

// grants is the table.
var grants = []grant{
	{"etcdclusters", []verb{verbGet, verbList, verbPlan}, all, none},
	{"etcdmembers", []verb{verbGet, verbList}, all, own},
	{"etcdmembers", []verb{verbUpdate, verbStatus, verbCertificate, verbSnapshot}, none, own},
	{"etcdmembers", []verb{verbLog, verbMetrics}, all, none},
	{"etcdhosts", []verb{verbGet, verbList}, all, own},
	{"etcdhosts", []verb{verbCreate, verbStatus}, none, own},
	{"etcdtasks", []verb{verbGet, verbList}, all, none},
	{"etcdbackuppolicies", []verb{verbGet, verbList}, all, none},
	{"etcdbackups", []verb{verbGet, verbList}, all, none},
	{"etcdrestores", []verb{verbGet, verbList}, all, none},
	{"metrics", []verb{verbGet}, all, none},
	{"fleet", []verb{verbGet}, all, none},
	{"events", []verb{verbList}, all, none},
	{"events", []verb{verbCreate}, none, own},
	{"releases", []verb{verbGet, verbList}, all, all},
	{"version", []verb{verbGet}, all, all},
	{"documentation", []verb{verbGet}, all, all},
	{"agents", []verb{verbChannel, verbRenew}, none, own},
	{"loginlinks", []verb{verbCreate}, all, none},
	{"sessions", []verb{verbCreate, verbDelete}, all, none},
	{"sessions", []verb{verbGet}, all, own},
}

// caller is who makes a request.
type caller struct {
	// token is the name of the Secret, for logs.
	token string
	// name is the same, or of the token that a session stands for.
	name string
	role Role
	// host of an agent.
	host string
	// hash of the token that was sent, as its Secret has it.
	hash string
	// key names the key of an agent's certificate by its hash; empty for who sends a
	// token.
	key string
	// expires is when a session ends; zero for tokens that are none.
	expires time.Time
	// beside says that another agent stands for the host; nil where none does.
	beside error
	// scope of the request at hand.
	scope scope
}

// who is the caller as texts call it.
func (c caller) who() string {
	if c.key != "" {
		return fmt.Sprintf("the certificate of host %q", c.host)
	}
	return fmt.Sprintf("the token %q", c.name)
}

// session reports whether the caller's token is a session's.
func (c caller) session() bool { return !c.expires.IsZero() }

// reach returns how much of the resource the role may do that to.
func reach(role Role, v verb, resource string) scope {
	if role == RoleAdmin {
		return all
	}
	for _, g := range grants {
		if g.resource != resource || !slices.Contains(g.verbs, v) {
			continue
		}
		switch role {
		case RoleViewer:
			return g.viewer
		case RoleAgent:
			return g.agent
		default:
			return none
		}
	}
	return none
}

// authorize returns the caller with its scope, or why it may not.
func authorize(c caller, v verb, resource string) (caller, error) {
	c.scope = reach(c.role, v, resource)
	if c.scope != none {
		return c, nil
	}
	var can []string
	for _, r := range []Role{RoleAdmin, RoleViewer, RoleAgent} {
		if reach(r, v, resource) != none {
			can = append(can, string(r))
		}
	}
	why := fmt.Sprintf("%s has the role %s and may not %s %s", c.who(), c.role, v, resource)
	needs := "that needs a token with the role " + strings.Join(can, " or ")
	if c.key != "" {
		return c, &deniedError{host: c.host, reason: reasonNotAllowed, text: why, fix: needs, code: http.StatusForbidden}
	}
	return c, forbidden("%s: %s", why, needs)
}

// owns refuses what is bound to another host than the caller's.
func (c caller) owns(host, what string) error {
	if c.scope == all || (c.host != "" && c.host == host) {
		return nil
	}
	text := fmt.Sprintf("the token %q is for the agent of host %q, and %s is bound to host %q", c.name, c.host, what, host)
	if c.key != "" {
		text = fmt.Sprintf("%s was shown, and %s is bound to host %q", c.who(), what, host)
	}
	return &deniedError{
		host: c.host, reason: reasonForeignHost, code: http.StatusForbidden, text: text,
		fix: "that needs its own agent or a token with the role admin",
	}
}

func unauthorized(why string) error {
	return wire.Failure(http.StatusUnauthorized, wire.ReasonUnauthorized,
		why+": send a token of this server as `Authorization: Bearer TOKEN`")
}
