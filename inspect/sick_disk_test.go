package inspect_test

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/quorate/quorate/inspect"
)

// slowNode is a file or directory whose fsync takes its time.
type slowNode struct {
	*fs.LoopbackNode

	takes time.Duration
}

// file is what a loopback file can do.
type file interface {
	fs.FileReader
	fs.FileWriter
	fs.FileFsyncer
	fs.FileFlusher
	fs.FileReleaser
}

type slowFile struct {
	file

	takes time.Duration
}

func (f *slowFile) Fsync(ctx context.Context, flags uint32) syscall.Errno {
	<-time.After(f.takes)
	return f.file.Fsync(ctx, flags)
}

func (n *slowNode) slow(handle fs.FileHandle, path string) fs.FileHandle {
	f, ok := handle.(file)
	if !ok {
		return handle
	}
	return &slowFile{f, n.slowness(path)}
}

func (n *slowNode) WrapChild(_ context.Context, ops fs.InodeEmbedder) fs.InodeEmbedder {
	child, ok := ops.(*fs.LoopbackNode)
	if !ok {
		return ops
	}
	return &slowNode{child, n.takes}
}

func (n *slowNode) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	inode, handle, more, errno := n.LoopbackNode.Create(ctx, name, flags, mode, out)
	return inode, n.slow(handle, name), more, errno
}

func (n *slowNode) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	handle, more, errno := n.LoopbackNode.Open(ctx, flags)
	return n.slow(handle, n.Path(nil)), more, errno
}

// slowness spares the database, whose commits would only make the test long.
func (n *slowNode) slowness(path string) time.Duration {
	if filepath.Base(path) == "db" {
		return 0
	}
	return n.takes
}

// slowDisk is a directory on such a disk. Root alone may mount it.
func slowDisk(t *testing.T, takes time.Duration) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root mounts a slow disk")
	}
	root := &fs.LoopbackRoot{Path: t.TempDir()}
	node := &slowNode{&fs.LoopbackNode{RootData: root}, takes}
	root.RootNode = node
	dir := t.TempDir()
	server, err := fs.Mount(dir, node, &fs.Options{MountOptions: fuse.MountOptions{DirectMountStrict: true}})
	if err != nil {
		t.Skipf("no file system in user space here: %v", err)
	}
	t.Cleanup(func() {
		if err := server.Unmount(); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// TestSlowDisk: a disk whose fsync takes longer than etcd's manual bears.
func TestSlowDisk(t *testing.T) {
	t.Parallel()
	dir := slowDisk(t, 110*time.Millisecond)
	l := newLab(t, labOptions{Edit: func(members []*node) { members[0].Dir = dir + "/etcd" }}).ready()
	c := l.client(l.Members[0])
	l.must("write", func(ctx context.Context) error {
		for i := range 110 {
			if _, err := c.Put(ctx, strconv.Itoa(i), "x"); err != nil {
				return err
			}
		}
		return nil
	})
	r := look(t, inspect.Options{Endpoints: l.URLs()})
	f := finding(t, r, "slow-disk")
	if f.Severity != inspect.Warning || !strings.HasPrefix(f.Evidence[0], "fsync of the WAL: 99 % below ") {
		t.Errorf("%s %q", f.Severity, f.Evidence)
	}
}
