// Package server is Quorate's HTTP API: the objects of a Store as Kubernetes has
// them, what a cluster can be asked to do, and the channel by which agents, who
// only dial out, are asked in return.
//
// Every route needs a bearer token (see EnsureToken), which may be a session's, or the
// certificate of an agent that has joined (see join.go and identity.go). What
// its role may do stands in one table, in access.go. A request goes through
//
//	authenticate → route → authorize → decode strictly → default → validate →
//	admit → Store
//
// Only a one-time log-in code and a join token are taken without one. Whoever is refused
// as an agent is recorded (see audit.go). Cookies mean nothing here:
// what a browser sends by itself gives no page of another site any right. The
// console, which answers all other paths, calls the API in this process (InProcess)
// with the token of its visitor's session, so that there is one authorization path.
//
// and its failure through one mapper to a Status in Kubernetes' shape. Every
// response carries the store's epoch and revision, by which clients refuse a
// store older than one they have seen.
//
// The handlers hold no state of their own but three caches that a watch of the
// store keeps fresh (tokens, which member is bound to which host) or that end with
// the process (who is connected), so any number of servers may share a store. The
// logs and metrics of a member are read through the server its agent is connected to.
// Sessions are Secrets as tokens are.
//
// The API describes itself, at /openapi.json: objects by their CRDs, the rest by the
// table in described.go, which a test holds against the routes.
package server
