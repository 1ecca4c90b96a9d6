// Package bench loads an etcd cluster and says what it carried: the engine of
// `quorate bench`.
//
// A Spec is what to do, a Result what came of it; both are data that can be sent to
// another host, and results of several hosts merge. In a closed loop each client
// sends its next request when the last was answered, as most load generators do: a
// cluster that stalls for a second then stalls the load too, and the second shows up
// as one slow request for each client. In an open loop requests are due at a rate,
// and latency counts from when each was due, so that the stall is in the figures of
// all who would have met it.
//
// Nothing is left out in silence: a request that could not be sent because too many
// were under way is an error of its own class, a server whose metrics can't be read
// is named, and what is still under way at the end is waited for.
//
// All keys lie below one prefix that is empty before, and are deleted at the end in
// bounded ranges.
package bench
