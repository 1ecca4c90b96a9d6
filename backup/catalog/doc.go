// Package catalog is what the names and manifests of a backup store mean, and which
// backups may be deleted. All of it is learned from the store alone: a server that
// was lost loses no backup.
//
// A backup is a point. It lies in a directory of its own:
//
//	<root>/v1/<namespace>/<name>/<cluster ID>/e<epoch>/full/<time>-r<revision>-<nonce>/
//	    snapshot.db.zst.age   the data
//	    point.json            the manifest, written last: without it there is no point
//	    proof-<time>.json     what came of a restore, any number of them
//
// Path elements are compared as a whole, so prod never shows prod-eu. A lineage is one
// cluster ID and one epoch, within which revisions only grow; clusters of equal names
// that were made anew, or whose data was reset, are lineages of their own. Points are
// ordered by their numbers, never by the text of their names.
//
// Read makes the catalog, Policy.Decide says what to keep and is a pure function,
// Prune deletes what was decided and looks again just before each deletion.
//
// What this package doesn't do: it reads no data, only names, sizes and the small JSON
// documents beside it, so that a Complete point's data may be rotten (a proof tells);
// and it takes no lock, since object stores have none that all of them share. Why two
// pruners, or a pruner and a prover, can't delete the last proven point of a lineage
// between them is told at Prune.
package catalog
