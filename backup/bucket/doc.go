// Package bucket keeps objects in stores: a directory, S3 and what speaks its protocol, COS,
// OSS, GCS and Azure, behind one small interface.
//
// What all of them promise stands at Bucket, and the suite in buckettest asks it of each that
// can be run here. It knows nothing of backups.
//
// What it does not do:
//   - It does not see that a store damaged an object that lies there, but for S3's of up to 8 MiB:
//     keep a hash of your own. On the way in, S3 refuses other bytes than were meant (SHA-256
//     and MD5), COS and OSS compare a CRC; the way out is guarded by TLS, and for GCS by a CRC.
//   - It does not make buckets: one that is missing is an error, since a typing error would
//     otherwise be a new, empty bucket.
//   - It has no conditional writes: who stores last, wins.
//
// # Memory
//
// A Put keeps up to 24 MiB on S3, 16 MiB on GCS and Azure, and less than 1 MiB elsewhere,
// where a body that can't be read again takes its size on disk meanwhile. Everything else
// streams.
//
// # Why a body is repeated in parts
//
// A backup is compressed while it is sent, so its end is not known at the beginning and its
// beginning is gone at the end. S3 therefore gets parts of 8 MiB, each kept until it is
// stored.
package bucket
