// Package fleet turns what is wanted of clusters into what is: it observes each
// cluster, makes a plan of mutating steps (a pure function), and takes the first
// one, whose intent it has recorded before.
//
// # How a step is taken
//
// An EtcdTask is created first. Its name carries the next number of its cluster,
// so that of two controllers, or of one that acts on stale knowledge, only one can
// create it: at most one task of a cluster is unfinished. Then the act is taken,
// and when its effect has been seen the task is finished. Every act is idempotent
// and its effect can be read back from the objects or from etcd, so a controller
// that died at any point is followed by one that finds the unfinished task and
// either goes on with it or, when it is no longer wanted, abandons it.
//
// # What is believed
//
// A probe counts only if it was sent after the objects were read: an older answer
// may come from a process that has been restarted since. What is not known is
// never taken for healthy, and no step that needs healthy members is taken on it.
//
// # Members that join and leave
//
// planMembers compares who is there with who is wanted: voters, learners, members that are
// only prepared, and those that etcd has removed. A member joins as a learner and is promoted
// when it has caught up; one leaves after its replacement votes. Where a change depends on
// it, etcd's own list of members is read from a quorum after the objects (State.Roster).
// Hosts are drained one cluster at a time (turns).
//
// # Clusters that others run
//
// One with management Observe is only asked (ReconcileImported): there is no plan,
// task, member object or CA, and nothing is written to its etcd. What is wrong is
// told by kind, by the layer that fails (etcd.Surveyor). The ID it had at first is
// kept, so that another cluster behind the same address is told and not believed.
//
// # Backups
//
// ReconcilePolicy orders what is due, as EtcdBackups whose names tell the run, so that of
// two servers only one can; ReconcileBackup carries each out: take, prove, prune. What
// does that is behind the interface Backups. Of one cluster there is never more than one
// under way. A record is only a record: what a store holds is read from the store, and a
// point is deleted by the rules of the policy that took it, and by nothing else.
//
// Times are compared, never counted on: runs that were missed make one, and what is dated
// in the future is passed over. A server that dies leaves a record that says since when
// it was silent.
//
// # Restores
//
// RestoreController finds and proves the backup of an EtcdRestore, and names the restore in
// the cluster's spec; from there on it is the cluster's plan (planrestore.go): former members
// are stopped, all of them, then renamed aside, then replaced.
//
// # What the fleet does not do
//
// It runs no process and touches no disk: it writes EtcdMember specs, which the
// member's host carries out (MemberController, over a driver.Driver).
package fleet
