// Package backup takes backups of etcd clusters into object stores, proves each by a
// restore, and brings them back.
//
// # How a backup is taken
//
// A member is chosen (Choose), its snapshot streamed into a local file at full speed
// (Spool) and packed beside that. The file is read offline, to its last record, while
// what was packed is uploaded. Only when both are done is the manifest written, and an
// upload without a manifest is no backup (package catalog).
//
// # What is believed
//
// What a backup holds is read from the file, never asked of the cluster beside it. It is
// Verified only by a proof: fetched from the store, restored, served by a real etcd, and
// compared with the manifest. A proof that could not be carried out is none, neither
// way.
package backup
