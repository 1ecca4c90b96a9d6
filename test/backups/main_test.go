// Package backups takes backups of real clusters while much happens to them, and
// compares what comes of each restore with what clients were told.
package backups

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/etcdctl/v3/ctlv3"

	"github.com/quorate/quorate/backup"
	"github.com/quorate/quorate/backup/bucket"
	"github.com/quorate/quorate/backup/catalog"
	"github.com/quorate/quorate/etcd"
	"github.com/quorate/quorate/test/etcdlab"
)

// envTake has the test binary take the backup that it describes, so that it can be
// killed.
const envTake = "QUORATE_TEST_TAKE"

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "etcdctl" {
		ctlv3.MustStart()
		os.Exit(0)
	}
	if spec := os.Getenv(envTake); spec != "" {
		if err := takeSpec(spec); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	etcdlab.Main(m)
}

var prod = catalog.Cluster{Namespace: "default", Name: "prod"}

// spec of a backup that another process takes.
type spec struct {
	Endpoints            []string
	User, Password       string
	Store, Spool, Member string
}

func (s spec) take(ctx context.Context) (*backup.Taken, error) {
	b, err := bucket.Open(ctx, bucket.Config{Provider: bucket.File, Prefix: s.Store}, bucket.Options{})
	if err != nil {
		return nil, err
	}
	defer func() { _ = b.Close() }()
	return backup.Take(ctx, backup.TakeOptions{
		Cluster: prod, Access: etcd.Access{Endpoints: s.Endpoints, Username: s.User, Password: s.Password},
		Wanted:       backup.Wanted{Member: s.Member},
		Destinations: []backup.Destination{{Name: "store", Bucket: b}}, SpoolDir: s.Spool, SpoolFloor: 1,
	})
}

func takeSpec(raw string) error {
	var s spec
	if err := json.Unmarshal([]byte(raw), &s); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	_, err := s.take(ctx)
	return err
}

// takeApart is a process that takes the backup.
func takeApart(t *testing.T, s spec) *exec.Cmd {
	t.Helper()
	raw, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), envTake+"="+string(raw))
	return cmd
}

// etcdctl asks as a person would, with etcd's own tool.
func etcdctl(t *testing.T, endpoint, user string, args ...string) []byte {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args = append([]string{"etcdctl", "--endpoints", endpoint, "--command-timeout", "30s", "-w", "json"}, args...)
	if user != "" {
		args = append(args, "--user", user)
	}
	var complaint strings.Builder
	cmd := &exec.Cmd{Path: self, Args: args, Stderr: &complaint}
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, complaint.String())
	}
	return out
}

func open(t *testing.T, dir string) bucket.Bucket {
	t.Helper()
	b, err := bucket.Open(t.Context(), bucket.Config{Provider: bucket.File, Prefix: dir}, bucket.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// entry is that of a reference.
func entry(t *testing.T, b bucket.Bucket, ref catalog.Ref) *catalog.Entry {
	t.Helper()
	cat, err := backup.ReadCatalog(t.Context(), b, catalog.ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range cat.Entries {
		if cat.Entries[i].Ref.Compare(ref) == 0 {
			return &cat.Entries[i]
		}
	}
	t.Fatalf("the store has no %s", ref)
	return nil
}

// restored starts a cluster of one member on a backup, and ends it with the test.
func restored(t *testing.T, o backup.Origin, binary string) *etcdlab.Cluster {
	t.Helper()
	return etcdlab.New(t, etcdlab.Options{Binary: binary, Edit: func(members []*etcdlab.Member) {
		m := members[0]
		m.Dir = filepath.Join(t.TempDir(), "data")
		_, err := backup.Restore(t.Context(), backup.RestoreOptions{
			Origin: o, Members: []backup.RestoreMember{{Name: m.Name, Dir: m.Dir}}, InitialCluster: map[string][]string{m.Name: {m.Peer}},
		})
		if err != nil {
			t.Fatal(err)
		}
	}})
}
