// Package remote is the fleet's store as an agent or a command line sees it:
// through the HTTP API of a server. Client is a store.Store with the same meaning
// as the one behind the server, has the API's other actions as methods, and serves
// the agent's side of the channel by which servers ask agents.
//
// Every response carries the position of the server's store. A Client holds it
// against the furthest one it has seen, before it looks at the data, and refuses a
// store that is older or another one with store.ErrStale. So an agent never acts
// on a fleet that was put back from a copy unnoticed.
package remote
