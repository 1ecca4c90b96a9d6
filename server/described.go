package server

import (
	"maps"
	"net/http"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote/wire"
)

// description is what the API's document says of a route beside its path.
type description struct {
	// id is short and unique, for generated clients; summary is a line, and text more.
	id, summary, text string
	query             []parameter
	// in and out are values of the types of the JSON bodies; nil where there is none.
	// A string names an object's schema.
	in, out any
	// content is the type of an answer that is not JSON, and sent of a request's.
	content, sent string
	// code of success; 200 where it is 0.
	code int
}

type parameter struct {
	name, text, form string
	// in is query where it is empty.
	in string
}

// Parameters that several routes have.
var (
	watchParameter = parameter{
		name: "watch", form: "boolean",
		text: "true streams what changes as server-sent events instead; the connection stays open, and a comment comes at least every 10 seconds",
	}
	dryRunParameter = parameter{name: "dryRun", form: "string", text: "All checks everything and changes nothing"}
)

// descriptions are those of all routes but the objects'.
func descriptions() map[string]description {
	cluster, member := kindItem(v1alpha1.KindCluster), kindItem(v1alpha1.KindMember)
	all := map[string]description{
		"GET " + cluster + "/plan": {
			id: "getPlan", summary: "What would be done to the cluster, step by step", out: v1alpha1.Plan{},
		},
		"POST " + cluster + "/plan": {
			id: "planCluster", summary: "What would be done if the cluster were stored as sent", in: "EtcdCluster", out: v1alpha1.Plan{},
			text: "The object is checked as if it were written, and need not exist. Nothing is changed.",
		},
		"GET " + cluster + "/view": {
			id: "viewCluster", summary: "What the cluster's members answer at this moment", out: v1alpha1.ClusterView{},
			text: "Asked anew for each request: state, leader, raft positions, sizes, alarms and latencies.",
		},
		"GET " + cluster + "/placement": {
			id: "getPlacement", summary: "Where the cluster's members stand, and where those that are missing would come", out: v1alpha1.Placement{},
			text: "Each choice with its reason, and each host that is refused with the reason. Nothing is kept free by asking.",
		},
		"POST " + cluster + "/placement": {
			id: "placeCluster", summary: "Where the members would stand if the cluster were stored as sent", in: "EtcdCluster", out: v1alpha1.Placement{},
			text: "The object is checked as if it were written, and need not exist. Nothing is changed.",
		},
		"POST " + cluster + "/accept": {
			id: "acceptPlan", summary: "Let a cluster go on after the store was restored", in: wire.Accept{}, code: http.StatusNoContent,
			text: "The token is the one that stands in the plan that was read; 409 when the plan has changed since.",
		},
		"POST " + cluster + "/clientcertificate": {
			id: "signClient", summary: "Sign a client certificate for the cluster's etcd", in: wire.ClientCSR{}, out: wire.Certificate{},
			text: "The key stays with the caller: only the request is sent.",
		},
		"POST " + kindItem(v1alpha1.KindRestore) + "/preview": {
			id: "previewRestore", summary: "What a restore would do", in: "EtcdRestore", out: "EtcdRestore",
			text: "The object is checked as if it were created, and answered with the status that it would begin with: which backup it is, and what would be lost. Phase is Restoring where it would begin, and else Pending or Failed, with the reason in message. Nothing is changed. A snapshot that is in no catalog is fetched for this. Admins only: it reads any store that the server reaches.",
		},
		"POST " + member + "/certificate": {
			id: "signMember", summary: "Sign a certificate of the member", in: wire.MemberCSR{}, out: wire.Certificate{},
		},
		"GET " + member + "/log": {
			id: "readLog", summary: "The member's log, as it is written", content: "text/plain", text: ofAgents,
			query: []parameter{
				{name: "source", form: "string", text: "etcd (the default), error or supervisor"},
				{name: "tail", form: "integer", text: "how many of the last lines to begin with; all where it is missing or negative"},
				{name: "follow", form: "boolean", text: "true goes on until the client hangs up"},
			},
		},
		"GET " + member + "/metrics": {
			id: "readMetrics", summary: "The metrics of the member's etcd, in the text format of Prometheus", content: "text/plain", text: ofAgents,
		},
		"GET " + member + "/snapshot": {
			id: "readSnapshot", summary: "The backup that the member is to be formed from", content: "application/octet-stream",
			text: "A snapshot as etcd sends it, with its hash. It is for the agent of the member's host, while spec.bootstrap.state is Restored and the member has no data yet: 409 at any other time. What goes wrong half-way breaks the connection.",
		},
		"POST " + member + "/kill": {
			id: "killMember", summary: "Kill the member's etcd without warning", out: wire.Killed{},
			text: "As a crash would: its supervisor starts it again. Only on hosts whose agent allows faults (`quorate up`, or `quorate agent --allow-faults`); an event names who asked.",
		},
	}
	all["POST "+kindItem(v1alpha1.KindHost)+"/load"] = description{
		id: "driveLoad", summary: "Drive a load on a cluster from the host", content: "application/jsonl", sent: "application/json",
		text: "The body is the specification of a load, as `quorate bench worker` reads it; what the worker writes comes back as it comes, the result in its last line. The load ends when the connection does. Only on hosts whose agent allows it (`quorate agent --allow-load`); an event names who asked.",
	}
	all["POST "+kindItem(v1alpha1.KindHost)+"/check"] = description{
		id: "checkHost", summary: "Check whether the host is fit for etcd", in: wire.CheckHost{}, out: v1alpha1.HostPreflight{},
		text: "Its agent measures disk, clock, limits and network, for about five seconds, and writes some MiB to the members' disk meanwhile. What it finds becomes the host's status, save the round trips to the peers that are named (16 at most). 503 while the agent is not connected to this server.",
	}
	all["POST "+kindItem(v1alpha1.KindHost)+"/jointoken"] = description{
		id: "createJoinToken", summary: "A token by which the agent of the host joins, once", in: wire.JoinTokenRequest{}, out: wire.JoinToken{}, code: http.StatusCreated,
		text: "It is good for an hour, or up to a week, and for this host. The host need not exist yet: its agent makes it. 409 where the server has no TLS. The token carries the hash of the key by which the agent knows the server.", query: []parameter{dryRunParameter},
	}
	maps.Copy(all, fleetDescriptions())
	maps.Copy(all, channelDescriptions())
	return all
}

const ofAgents = "It comes through the agent of the member's host: 503 while that is not connected to this server. A stream that breaks off says so in the trailer Quorate-Error."

func fleetDescriptions() map[string]description {
	return map[string]description{
		"GET " + wire.PathEvents: {
			id: "listEvents", summary: "What has happened, oldest first", out: wire.List[store.Event]{},
			text: "The list says in `after` where a watch goes on from it. In a watch each message has an `id`; give the last one to `after`, or in the header Last-Event-ID as browsers do, to go on exactly behind it. 410 when that is no longer kept: list anew.",
			query: []parameter{
				watchParameter,
				{name: "after", form: "string", text: "begin a watch behind the event with this ID; without it, from now on"},
				{name: wire.HeaderLastEventID, form: "string", in: "header", text: "as after, and goes before it"},
				{name: "namespace", form: "string", text: "only events about objects there"},
				{name: "cluster", form: "string", text: "only events about that cluster, its members and tasks"},
				{name: "kind", form: "string", text: "only events about objects of that kind"},
				{name: "name", form: "string", text: "only events about objects of that name"},
			},
		},
		"POST " + wire.PathEvents: {id: "recordEvent", summary: "Record an event", in: store.Event{}, code: http.StatusAccepted},
		"GET " + wire.PathReleases: {
			id: "listReleases", summary: "The etcd releases that the server holds", out: wire.List[wire.Release]{},
		},
		"GET " + wire.PathReleases + "/{digest}": {
			id: "readRelease", summary: "A release's executable", content: "application/octet-stream",
		},
		"POST " + wire.PathReleases: {
			id: "addRelease", summary: "Give the server a release, as upstream's archive", sent: "application/gzip", out: wire.Release{}, code: http.StatusCreated,
			query: []parameter{
				{name: "version", form: "string", text: "the version it must have"},
				{name: "sha256", form: "string", text: "the SHA-256 the archive must have, in hex"},
			},
		},
		"GET " + wire.PathUsage: {
			id: "getUsage", summary: "What members ask for and use, against what hosts have", out: v1alpha1.Usage{},
			text:  "Amounts that are missing are not known: some host or member does not report them.",
			query: []parameter{{name: "by", form: "string", text: "host (the default), class, zone, pool, label=KEY (of clusters) or host-label=KEY"}},
		},
		"GET " + wire.PathRebalance: {
			id: "getRebalance", summary: "What would place the members better", out: v1alpha1.Rebalance{},
			text: "Each suggestion makes the fleet strictly better if those before it were carried out, and says with which commands. Nothing is changed.",
		},
		"GET " + wire.PathMetrics: {
			id: "getMetrics", summary: "The server's own metrics, in the text format of Prometheus", content: "text/plain",
			text: "Of requests, agents and backups. Prometheus sends a viewer's token as its bearer token.",
		},
		"GET " + wire.PathVersion:  {id: "getVersion", summary: "The server's version", out: wire.Version{}},
		"POST " + wire.PathBackup:  {id: "backUp", summary: "A backup of the fleet's store", content: "application/x-tar"},
		"GET " + wire.PathOpenAPI:  {id: "getOpenAPI", summary: "This document", out: map[string]any{}},
		"GET " + wire.PathDocs:     {id: "getDocs", summary: "This document, for people", content: "text/html"},
		"GET " + wire.PathDocFiles: {id: "getDocsFile", summary: "What the page for people needs", content: "text/plain"},
		"POST " + wire.PathSealingKey: {
			id: "rotateSealingKey", summary: "Seal every Secret with a new key", out: wire.KeyRotated{},
		},
		"POST " + wire.PathLinks: {
			id: "createLoginLink", summary: "A one-time code to log in with, in the caller's name", in: wire.LinkRequest{}, out: wire.LoginLink{}, code: http.StatusCreated,
			text: "It is good for 15 minutes, or up to an hour, and for one session with the caller's role.",
		},
		"POST " + wire.PathSessions: {
			id: "beginSession", summary: "A session of 12 hours, for a token or for a one-time code", in: wire.Login{}, out: wire.Session{}, code: http.StatusCreated,
			text: "With a token in the header, the session is in its name. With a code in the body it needs no token: this is the only thing that can be asked for without one.",
		},
		"GET " + wire.PathSession:    {id: "getSession", summary: "Whom the token that is sent stands for", out: wire.Session{}},
		"DELETE " + wire.PathSession: {id: "endSession", summary: "Log out", code: http.StatusNoContent},
	}
}

func channelDescriptions() map[string]description {
	agent := wire.PathAgents + "/{host}"
	return map[string]description{
		"GET " + agent + "/requests": {
			id: "takeRequests", summary: "What the server asks of an agent, as server-sent events", content: wire.ContentTypeStream,
		},
		"POST " + agent + "/responses/{id}": {
			id: "sendResponse", summary: "An agent's answer", sent: "application/octet-stream", code: http.StatusNoContent,
			query: []parameter{
				{name: "error", form: "string", text: "why there is no answer"},
				{name: "reason", form: "string", text: "error as a word, as in a Status"},
			},
		},
		"POST " + agent + "/join": {
			id: "join", summary: "An agent's first certificate, for a join token", in: wire.Join{}, out: wire.AgentCertificate{}, code: http.StatusCreated,
			text: "It needs no token but the join token in the body, which is good for one host and one key: the same request is answered again within the token's life, and with another key it is refused. Whoever is refused here is recorded as a Warning event.",
		},
		"POST " + agent + "/certificate": {
			id: "renewAgent", summary: "An agent's next certificate", in: wire.Renewal{}, out: wire.AgentCertificate{}, code: http.StatusCreated,
			text: "For agents that show the certificate they have. That one counts until the next is used first.",
		},
		"POST " + agent + "/heartbeat": {id: "beat", summary: "An agent lives", code: http.StatusNoContent},
	}
}

// describe returns what the document says of a route.
func describe(rt route) description {
	if d, ok := descriptions()[rt.method+" "+rt.path]; ok {
		return d
	}
	for _, kind := range v1alpha1.Kinds() {
		if kind.Plural == rt.resource {
			return describeObject(rt, kind)
		}
	}
	return description{}
}

// describeObject describes the routes that every kind has.
func describeObject(rt route, kind v1alpha1.Kind) description {
	name := kind.Kind
	dry := []parameter{dryRunParameter}
	switch rt.verb {
	case verbGet:
		return description{id: "get" + name, summary: "Read one " + name, out: name}
	case verbList:
		d := description{
			id: "list" + name, summary: "List every " + name + " in a namespace", out: name + "List",
			text: "A watch tells namespace and name of what may have changed, as events named `dirty`: first of everything there is, then of each change. Read the object to see what it is now.",
			query: []parameter{
				watchParameter,
				{name: "labelSelector", form: "string", text: "only those with all of these labels, as a=b,c=d"},
			},
		}
		if rt.path == wire.KindPath(kind, "") && kind.Namespaced {
			d.id, d.summary = "listAll"+name, "List every "+name
		} else if !kind.Namespaced {
			d.summary = "List every " + name
		}
		return d
	case verbCreate:
		return description{id: "create" + name, summary: "Make a new " + name, in: name, out: name, code: http.StatusCreated, query: dry}
	case verbUpdate:
		return description{
			id: "update" + name, summary: "Replace the spec and metadata of one " + name, in: name, out: name, query: dry,
			text: "metadata.uid and metadata.resourceVersion must be those that were read: 409 when it has changed since.",
		}
	case verbStatus:
		return description{id: "update" + name + "Status", summary: "Replace the status of one " + name, in: name, out: name, query: dry}
	case verbDelete:
		return description{
			id: "delete" + name, summary: "Delete one " + name, out: wire.Status{}, query: append([]parameter{
				{name: "uid", form: "string", text: "metadata.uid of the object that is meant; required, here or in the body"},
				{name: "resourceVersion", form: "string", text: "delete it only if it is still this version"},
			}, dry...),
		}
	default:
		return description{}
	}
}
