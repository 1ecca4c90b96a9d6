package backup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/quorate/quorate/backup/bucket"
	"github.com/quorate/quorate/backup/catalog"
	"github.com/quorate/quorate/datadir"
	"github.com/quorate/quorate/internal/version"
)

// ErrUnproven says that the proof could not be carried out, which says nothing about the backup.
var ErrUnproven = errors.New("the backup could not be tried")

// ProveOptions say how a backup is proven.
type ProveOptions struct {
	Bucket bucket.Bucket
	// Identities that open an encrypted backup.
	Identities []age.Identity
	// ScratchDir needs room for the database twice; ScratchFloor bytes stay free on its
	// disk, 256 MiB if 0.
	ScratchDir   string
	ScratchFloor int64
	// Etcd that is started on the restored data.
	Etcd     EtcdCommand
	Progress func(Progress)
	Logger   *slog.Logger
}

// Prove restores a backup as it lies in the store, starts an etcd on it, compares what
// that says with the manifest, and writes the proof beside it. The proof it returns may
// be one of a failure. The error is ErrUnproven when it could not be tried: nothing
// is written then.
func Prove(ctx context.Context, entry *catalog.Entry, o ProveOptions) (*catalog.Proof, error) {
	if entry.Point == nil {
		return nil, fmt.Errorf("%s: %w: it has no manifest that can be read: %w", entry.Ref, ErrUnproven, entry.Err)
	}
	if older(o.Etcd.Version, entry.Point.EtcdVersion) {
		return nil, fmt.Errorf("prove %s: %w: it is of etcd %s, on whose data etcd %s does not start: name a newer one", entry.Ref, ErrUnproven, entry.Point.EtcdVersion, o.Etcd.Version)
	}
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	host, err := os.Hostname()
	if err != nil {
		host = "an unnamed host"
	}
	p := &prover{ProveOptions: o, entry: entry, point: entry.Point, proof: catalog.Proof{
		StoredSHA256: entry.Point.StoredSHA256, Started: time.Now(), EtcdVersion: o.Etcd.Version, Where: host, Tool: version.Version(),
	}}
	found, err := p.try(ctx)
	if err != nil {
		return nil, fmt.Errorf("prove %s: %w: %w", entry.Ref, ErrUnproven, err)
	}
	p.proof.Ended, p.proof.Result = time.Now(), catalog.Verified
	if found != nil {
		p.proof.Result, p.proof.Reason = catalog.ResultFailed, found.Error()
	}
	o.Progress(Progress{Stage: StageCommit})
	if err := catalog.WriteProof(ctx, objects{bucket: o.Bucket}, catalog.Layout{}, entry.Ref, p.proof); err != nil {
		return nil, fmt.Errorf("prove %s: %w: %w", entry.Ref, ErrUnproven, err)
	}
	p.proof.Format, p.proof.Point = catalog.ProofFormat, entry.Ref.ID()
	return &p.proof, nil
}

// older reports whether an etcd has an older minor version than another; what can't be
// read is not.
func older(a, b string) bool {
	var majorA, minorA, majorB, minorB int
	if _, err := fmt.Sscanf(a, "%d.%d", &majorA, &minorA); err != nil {
		return false
	}
	if _, err := fmt.Sscanf(b, "%d.%d", &majorB, &minorB); err != nil {
		return false
	}
	return majorA < majorB || majorA == majorB && minorA < minorB
}

type prover struct {
	ProveOptions
	entry *catalog.Entry
	point *catalog.Point
	proof catalog.Proof
}

// try returns what is wrong with the backup, and the error that kept it from being
// tried.
func (p *prover) try(ctx context.Context) (found, err error) {
	if err = os.MkdirAll(p.ScratchDir, 0o700); err != nil {
		return nil, err
	}
	if err = SweepSpools(p.ScratchDir); err != nil {
		return nil, err
	}
	// A spool keeps the directory from being swept while this process lives.
	spool, err := NewSpool(p.ScratchDir, max(p.ScratchFloor, spoolFloor), 2*p.point.DBSize)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, spool.Close()) }()
	home := spool.Dir()
	restored, found, err := p.restore(ctx, filepath.Join(home, scratchData))
	if found != nil || err != nil {
		return found, err
	}
	p.Progress(Progress{Stage: StageStart, Total: p.point.DBSize})
	began := time.Now()
	s, err := startScratch(ctx, p.Etcd, home, p.point.DBSize)
	p.proof.Durations.Start = time.Since(began).Seconds()
	if errors.Is(err, errRejected) && ctx.Err() == nil {
		return err, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() {
		err = errors.Join(err, s.stop())
		p.proof.PeakMemory = s.peak()
	}()
	p.Progress(Progress{Stage: StageCompare})
	began = time.Now()
	found, err = p.compare(ctx, s.client, restored)
	p.proof.Durations.Hash = time.Since(began).Seconds()
	return found, err
}

// restore brings the backup from the store into a data directory, in one go.
func (p *prover) restore(ctx context.Context, dir string) (restored datadir.Restored, found, err error) {
	p.Progress(Progress{Stage: StageDownload, Total: p.point.StoredSize})
	began := time.Now()
	db, stored, err := open(ctx, p.Bucket, p.entry, p.Identities)
	if err == nil {
		restored, err = datadir.Restore(ctx, datadir.RestoreOptions{
			Snapshot: db, Size: p.point.DBSize, AllowNoHash: true, Dir: dir, Name: scratchMember,
			InitialCluster: map[string][]string{scratchMember: {scratchPeer}}, DisarmCorrupt: true, DisableAuth: true,
		})
		if err == nil {
			err = stored.drain()
		}
		err = errors.Join(err, db.Close())
	}
	p.proof.Durations.Download = stored.waited().Seconds()
	p.proof.Durations.Restore = time.Since(began).Seconds() - p.proof.Durations.Download
	p.proof.Bytes = stored.read()
	switch {
	case err == nil:
	case ctx.Err() != nil || !blamesBackup(err):
		return restored, nil, err
	default:
		return restored, err, nil
	}
	if sum := stored.sum(); sum != p.point.StoredSHA256 {
		return restored, fmt.Errorf("the stored object has SHA-256 %s, and the manifest says %s", sum, p.point.StoredSHA256), nil
	}
	if restored.SHA256 != p.point.DBSHA256 {
		return restored, fmt.Errorf("the database has SHA-256 %s, and the manifest says %s", restored.SHA256, p.point.DBSHA256), nil
	}
	return restored, nil, nil
}

// blamesBackup tells what is wrong with the backup from what is wrong with the way to
// it or with this machine.
func blamesBackup(err error) bool {
	for _, its := range []error{
		bucket.ErrNotFound, bucket.ErrCorrupt, ErrPacked, datadir.ErrEmpty, datadir.ErrTruncated, datadir.ErrAltered,
		datadir.ErrNotDatabase, datadir.ErrNotEtcd, datadir.ErrStructure, datadir.ErrNoHash,
	} {
		if errors.Is(err, its) {
			return true
		}
	}
	return false
}

// compare asks the etcd that runs on the backup.
func (p *prover) compare(ctx context.Context, c *clientv3.Client, restored datadir.Restored) (found, err error) {
	at := p.point.Revision
	count, err := c.Get(ctx, "\x00", clientv3.WithFromKey(), clientv3.WithCountOnly(), clientv3.WithRev(at))
	if err != nil {
		return nil, fmt.Errorf("count the keys: %w", err)
	}
	hash, err := pb.NewMaintenanceClient(c.ActiveConnection()).HashKV(ctx, &pb.HashKVRequest{Revision: at})
	if err != nil {
		return nil, fmt.Errorf("hash the keys: %w", err)
	}
	users, err := c.UserList(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the users: %w", err)
	}
	roles, err := c.RoleList(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the roles: %w", err)
	}
	p.proof.Counts = catalog.Counts{Keys: count.Count, Leases: int64(restored.Source.Leases), Revisions: p.point.Counts.Revisions}
	p.proof.HashKV = catalog.HashKV{Hash: hash.GetHash(), Revision: at, CompactRevision: hash.GetCompactRevision()}
	var differs []string
	for _, d := range []struct {
		what      string
		got, want int64
	}{
		{"keys", count.Count, p.point.Counts.Keys},
		{"HashKV", int64(hash.GetHash()), int64(p.point.HashKV.Hash)},
		{"compact revision", max(0, hash.GetCompactRevision()), max(0, p.point.HashKV.CompactRevision)},
		{"leases", int64(restored.Source.Leases), p.point.Counts.Leases},
		{"users", int64(len(users.Users)), int64(restored.Source.Users)},
		{"roles", int64(len(roles.Roles)), int64(restored.Source.Roles)},
	} {
		if d.got != d.want {
			differs = append(differs, fmt.Sprintf("%s: %d in the restored etcd, %d in the manifest", d.what, d.got, d.want))
		}
	}
	if len(differs) > 0 {
		return errors.New(strings.Join(differs, "; ")), nil
	}
	return nil, nil //nolint:nilnil // nothing is wrong and nothing went wrong
}

// open reads a backup from the store as the database it holds.
func open(ctx context.Context, b bucket.Bucket, entry *catalog.Entry, identities []age.Identity) (io.ReadCloser, *meter, error) {
	m := &meter{hash: sha256.New()}
	r, err := b.Get(ctx, entry.Dir+entry.Point.Object)
	if err != nil {
		return nil, m, err
	}
	m.from = r
	db, err := unpack(m, entry.Point, identities)
	return db, m, err
}

// meter hashes and times what is read from a store.
type meter struct {
	from io.ReadCloser
	hash interface {
		io.Writer
		Sum(b []byte) []byte
	}
	n    int64
	took time.Duration
}

func (m *meter) Read(p []byte) (int, error) {
	began := time.Now()
	n, err := m.from.Read(p)
	m.took += time.Since(began)
	m.n += int64(n)
	_, _ = m.hash.Write(p[:n]) // a hash never fails
	return n, err
}

// drain reads to the end: behind what was unpacked the end itself may not have been
// read.
func (m *meter) drain() error {
	_, err := io.Copy(io.Discard, m)
	return err
}

func (m *meter) Close() error {
	if m.from == nil {
		return nil
	}
	return m.from.Close()
}

func (m *meter) sum() string           { return hex.EncodeToString(m.hash.Sum(nil)) }
func (m *meter) read() int64           { return m.n }
func (m *meter) waited() time.Duration { return m.took }
