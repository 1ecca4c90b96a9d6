package etcd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/etcdutl/v3/snapshot"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/internal/atomicfile"
	"github.com/quorate/quorate/store"
)

// revisionBump is added to the revision of a restored store: far more than was
// written since any backup, so that no resourceVersion is given out twice.
const revisionBump = 1_000_000_000

// RestoreOptions say what is restored, and to where.
type RestoreOptions struct {
	// Archive is what Snapshot wrote.
	Archive io.Reader
	// Dir is where the store will be. It must be missing or empty.
	Dir string
	// MarkerFile as in Options; it may exist.
	MarkerFile string
	// Keyring is the path of the keyring's file.
	Keyring string
	// Logger, or nil for slog.Default.
	Logger *slog.Logger
	// Now tells the time; nil means time.Now.
	Now func() time.Time
}

// Restored says what was restored.
type Restored struct {
	// Manifest of the backup.
	Manifest Manifest
	// Epoch that begins now.
	Epoch Epoch
	// Revision of the store now.
	Revision int64
	// Age of the backup: what happened in that time is not known to the store.
	Age time.Duration
	// Suspended counts the clusters that stay as they are until their plan is accepted.
	Suspended int
}

// Restore makes a store from a backup, offline.
//
// The new store has a new epoch and later revisions, and holds every cluster and
// member still (AnnotationRestored) until a person has accepted the cluster's plan.
// It is made in Dir+".restoring", checked, which includes that the keyring opens
// every Secret, and only then renamed to Dir. Nothing that was there is removed:
// it fails when Dir is not empty or is in use.
func Restore(ctx context.Context, opts RestoreOptions) (Restored, error) {
	r, err := newRestorer(ctx, opts)
	if err != nil {
		return Restored{}, fmt.Errorf("restore the store: %w", err)
	}
	out, err := r.run(ctx)
	r.store.end()
	if err = errors.Join(err, r.lock.release()); err != nil {
		return Restored{}, fmt.Errorf("restore the store: %w", err)
	}
	return out, nil
}

type restorer struct {
	opts RestoreOptions
	// work is where the store is made; spool is the unpacked database.
	work, spool string
	seen        *store.Position
	store       *Store
	lock        *lockFile
}

func newRestorer(ctx context.Context, opts RestoreOptions) (*restorer, error) {
	opts.Dir = filepath.Clean(opts.Dir)
	if err := checkEmpty(opts.Dir); err != nil {
		return nil, err
	}
	keyring, err := OpenKeyring(opts.Keyring)
	if err != nil {
		return nil, err
	}
	seen, err := readMarker(opts.MarkerFile)
	if err != nil {
		return nil, err
	}
	if err = os.MkdirAll(parent(opts.Dir), 0o700); err != nil {
		return nil, fmt.Errorf("the data directory: %w", err)
	}
	l, err := lock(opts.Dir)
	if err != nil {
		return nil, err
	}
	return &restorer{
		opts: opts, work: opts.Dir + ".restoring", spool: opts.Dir + ".restoring.db", seen: seen, lock: l,
		store: newStore(ctx, Options{Dir: opts.Dir, Keyring: keyring, Logger: opts.Logger, Now: opts.Now}),
	}, nil
}

func checkEmpty(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("the data directory: %w", err)
	case len(entries) > 0:
		return fmt.Errorf("the data directory %s is not empty, and nothing in it is removed: move it aside first, with `mv %s %s.old`", dir, dir, dir)
	}
	return nil
}

func (r *restorer) run(ctx context.Context) (Restored, error) {
	// What an earlier attempt left is a part of a backup that is still there.
	if err := r.clean(); err != nil {
		return Restored{}, err
	}
	out, err := r.make(ctx)
	if err == nil {
		err = r.switchOn(out)
	}
	if err != nil {
		return Restored{}, errors.Join(err, r.clean())
	}
	return out, os.Remove(r.spool)
}

func (r *restorer) clean() error {
	if err := errors.Join(os.RemoveAll(r.work), os.RemoveAll(r.spool)); err != nil {
		return fmt.Errorf("clean up: %w", err)
	}
	return nil
}

// make makes the new store beside where it will be.
func (r *restorer) make(ctx context.Context) (Restored, error) {
	m, err := readArchive(r.opts.Archive, r.spool)
	if err != nil {
		return Restored{}, err
	}
	epoch, err := r.nextEpoch(m)
	if err != nil {
		return Restored{}, err
	}
	out := Restored{Manifest: m, Epoch: epoch, Age: max(0, r.store.now().Sub(m.Created))}
	if err = r.unpack(ctx, epoch); err != nil {
		return out, err
	}
	server, err := launch(ctx, r.work, true, r.store.log)
	if err != nil {
		return out, err
	}
	r.store.server = server
	r.store.use(server.client())
	out.Suspended, err = r.revise(ctx, m, epoch)
	out.Revision = r.store.Revision()
	return out, errors.Join(err, r.store.shut())
}

// nextEpoch is later than any epoch that this host, or the backup, knows of, and
// by the clock also than those that neither does.
func (r *restorer) nextEpoch(m Manifest) (Epoch, error) {
	now := r.store.now().UTC().Truncate(time.Second)
	number := max(m.Epoch.Number+1, now.Unix())
	if r.seen != nil {
		number = max(number, r.seen.Epoch+1)
	}
	epoch, err := newEpoch(number)
	epoch.RestoredAt = &now
	return epoch, err
}

// unpack turns the database into a data directory of etcd: a member alone, under a
// new cluster ID.
func (r *restorer) unpack(ctx context.Context, epoch Epoch) error {
	e := newEmbedded(ctx, r.work)
	defer e.ended()
	log := newZap(ctx, r.store.log, &e.ready, e.halt)
	return e.guard(func() error {
		return snapshot.NewV3(log).Restore(snapshot.RestoreConfig{
			SnapshotPath: r.spool, Name: memberName, OutputDataDir: r.work, PeerURLs: []string{peerURL},
			InitialCluster: memberName + "=" + peerURL, InitialClusterToken: "quorate-" + epoch.ID,
			RevisionBump: revisionBump, MarkCompacted: true,
		})
	})
}

// revise checks the contents and makes them those of a restored store. It returns
// how many clusters are held still.
func (r *restorer) revise(ctx context.Context, m Manifest, epoch Epoch) (int, error) {
	before, err := r.store.Epoch(ctx)
	if err != nil {
		return 0, err
	}
	if before.ID != m.Epoch.ID {
		return 0, fmt.Errorf("%w: the backup's manifest belongs to another store: use another backup", ErrCorrupt)
	}
	if _, err = r.store.List(ctx, v1alpha1.KindSecret, store.ListOptions{}); err != nil {
		return 0, fmt.Errorf("the keyring %s does not open what is in this backup: give the keyring of the time it was made: %w", r.opts.Keyring, err)
	}
	clusters, err := r.hold(ctx, v1alpha1.KindCluster, epoch)
	if err != nil {
		return 0, err
	}
	if _, err = r.hold(ctx, v1alpha1.KindMember, epoch); err != nil {
		return 0, err
	}
	raw, err := json.Marshal(epoch)
	if err != nil {
		return 0, fmt.Errorf("encode the epoch: %w", err)
	}
	ctx, cancel := r.store.deadline(ctx)
	defer cancel()
	resp, err := r.store.client.Do(ctx, clientv3.OpPut(epochKey, string(raw)))
	if err != nil {
		return 0, fmt.Errorf("write the epoch: %w", r.store.fail(err))
	}
	r.store.saw(resp.Put().Header.GetRevision())
	return clusters, nil
}

// hold marks every object of a kind as restored, and returns how many there are.
func (r *restorer) hold(ctx context.Context, kind v1alpha1.Kind, epoch Epoch) (int, error) {
	list, err := r.store.List(ctx, kind, store.ListOptions{})
	if err != nil {
		return 0, err
	}
	for _, obj := range list {
		annotations := obj.GetAnnotations()
		if annotations == nil {
			annotations = map[string]string{}
		}
		annotations[v1alpha1.AnnotationRestored] = strconv.FormatInt(epoch.Number, 10)
		obj.SetAnnotations(annotations)
		if err := r.store.Update(ctx, obj); err != nil {
			return 0, err
		}
	}
	return len(list), nil
}

// switchOn puts the new store in its place. The rename is the moment it counts; the
// marker may lag behind, since an older epoch in it is no reason to refuse.
func (r *restorer) switchOn(out Restored) error {
	if err := checkEmpty(r.opts.Dir); err != nil {
		return err
	}
	if err := os.Remove(r.opts.Dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("switch the restored store on: %w", err)
	}
	if err := os.Rename(r.work, r.opts.Dir); err != nil {
		return fmt.Errorf("switch the restored store on: %w", err)
	}
	if err := atomicfile.SyncDir(parent(r.opts.Dir)); err != nil {
		return err
	}
	return writeMarker(r.opts.MarkerFile, store.Position{Epoch: out.Epoch.Number, EpochID: out.Epoch.ID, Revision: out.Revision})
}
