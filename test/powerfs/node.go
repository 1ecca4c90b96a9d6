package powerfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	fuse "github.com/hanwen/go-fuse/v2/fs"
	fuseapi "github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// node is a file or a directory. What is not here only reads, and goes through.
type node struct {
	fuse.LoopbackNode
	disk *Disk
}

var (
	_ fuse.NodeWrapChilder    = (*node)(nil)
	_ fuse.NodeCreater        = (*node)(nil)
	_ fuse.NodeOpener         = (*node)(nil)
	_ fuse.NodeOpendirHandler = (*node)(nil)
	_ fuse.NodeMkdirer        = (*node)(nil)
	_ fuse.NodeUnlinker       = (*node)(nil)
	_ fuse.NodeRmdirer        = (*node)(nil)
	_ fuse.NodeRenamer        = (*node)(nil)
	_ fuse.NodeSetattrer      = (*node)(nil)
	_ fuse.NodeLinker         = (*node)(nil)
	_ fuse.NodeSymlinker      = (*node)(nil)
	_ fuse.NodeMknoder        = (*node)(nil)
	_ fuse.NodeCopyFileRanger = (*node)(nil)
)

// WrapChild makes every node one of ours.
func (n *node) WrapChild(context.Context, fuse.InodeEmbedder) fuse.InodeEmbedder {
	return &node{LoopbackNode: fuse.LoopbackNode{RootData: n.RootData}, disk: n.disk}
}

// path in the backing directory.
func (n *node) path() string { return filepath.Join(n.disk.now, n.Path(n.Root())) }

func (n *node) Create(ctx context.Context, name string, flags, mode uint32, out *fuseapi.EntryOut) (*fuse.Inode, fuse.FileHandle, uint32, syscall.Errno) {
	d, path := n.disk, filepath.Join(n.path(), name)
	d.mu.Lock()
	defer d.mu.Unlock()
	_, before := os.Lstat(path)
	// Never cut by it: that is noted when it is opened below.
	inode, opened, _, errno := n.LoopbackNode.Create(ctx, name, flags&^syscall.O_TRUNC, mode, out)
	if errno != 0 {
		return nil, nil, 0, errno
	}
	if f, ok := opened.(fuse.FileReleaser); ok {
		_ = f.Release(ctx) // nothing was written by it
	}
	if before != nil {
		d.names = append(d.names, change{undo: func() error { return os.Remove(path) }})
	}
	h, errno := d.open(path, flags)
	if errno != 0 {
		return nil, nil, 0, errno
	}
	return inode, h, 0, 0
}

func (n *node) Open(_ context.Context, flags uint32) (fuse.FileHandle, uint32, syscall.Errno) {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	h, errno := n.disk.open(n.path(), flags)
	if errno != 0 {
		return nil, 0, errno
	}
	return h, 0, 0
}

// open wants mu to be held.
func (d *Disk) open(path string, flags uint32) (*handle, syscall.Errno) {
	const mine = syscall.O_APPEND | syscall.O_TRUNC | syscall.O_CREAT | syscall.O_EXCL | syscall.O_SYNC | fuseapi.FMODE_EXEC
	file, err := os.OpenFile(path, int(flags&^mine), 0)
	if err != nil {
		return nil, fuse.ToErrno(err)
	}
	st, err := file.Stat()
	if err != nil {
		return nil, fuse.ToErrno(errors.Join(err, file.Close()))
	}
	h := &handle{disk: d, file: file, ino: inode(st), sync: flags&syscall.O_DSYNC != 0}
	if flags&syscall.O_TRUNC != 0 {
		if err = d.touch(h.path(), h.ino, 0, -1); err == nil {
			err = file.Truncate(0)
		}
		if err != nil {
			return nil, fuse.ToErrno(errors.Join(err, file.Close()))
		}
	}
	return h, 0
}

func (n *node) Setattr(ctx context.Context, _ fuse.FileHandle, in *fuseapi.SetAttrIn, out *fuseapi.AttrOut) syscall.Errno {
	d := n.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if size, ok := in.GetSize(); ok {
		st, err := os.Lstat(n.path())
		if err != nil {
			return fuse.ToErrno(err)
		}
		if err := d.touch(n.path(), inode(st), int64(size), -1); err != nil {
			return fuse.ToErrno(err)
		}
	}
	return n.LoopbackNode.Setattr(ctx, nil, in, out)
}

func (n *node) Mkdir(ctx context.Context, name string, mode uint32, out *fuseapi.EntryOut) (*fuse.Inode, syscall.Errno) {
	d, path := n.disk, filepath.Join(n.path(), name)
	d.mu.Lock()
	defer d.mu.Unlock()
	inode, errno := n.LoopbackNode.Mkdir(ctx, name, mode, out)
	if errno == 0 {
		d.names = append(d.names, change{undo: func() error { return os.Remove(path) }})
	}
	return inode, errno
}

func (n *node) Unlink(_ context.Context, name string) syscall.Errno {
	return n.remove(filepath.Join(n.path(), name))
}

func (n *node) Rmdir(_ context.Context, name string) syscall.Errno {
	path := filepath.Join(n.path(), name)
	if entries, err := os.ReadDir(path); err != nil {
		return fuse.ToErrno(err)
	} else if len(entries) > 0 {
		return syscall.ENOTEMPTY
	}
	return n.remove(path)
}

func (n *node) remove(path string) syscall.Errno {
	d := n.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	c, err := d.setAside(path)
	if err == nil {
		d.names = append(d.names, c)
	}
	return fuse.ToErrno(err)
}

func (n *node) Rename(_ context.Context, name string, newParent fuse.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	to, ok := newParent.(*node)
	if !ok {
		return syscall.EXDEV
	}
	if flags&^uint32(unix.RENAME_NOREPLACE) != 0 {
		return syscall.EINVAL
	}
	d := n.disk
	from, dest := filepath.Join(n.path(), name), filepath.Join(to.path(), newName)
	d.mu.Lock()
	defer d.mu.Unlock()
	if st, err := os.Lstat(dest); err == nil {
		if flags&unix.RENAME_NOREPLACE != 0 {
			return syscall.EEXIST
		}
		if st.IsDir() {
			if entries, err := os.ReadDir(dest); err != nil || len(entries) > 0 {
				return syscall.ENOTEMPTY
			}
		}
		c, err := d.setAside(dest)
		if err != nil {
			return fuse.ToErrno(err)
		}
		d.names = append(d.names, c)
	}
	if err := os.Rename(from, dest); err != nil {
		return fuse.ToErrno(err)
	}
	d.names = append(d.names, change{undo: func() error { return os.Rename(dest, from) }})
	return 0
}

func (n *node) Link(context.Context, fuse.InodeEmbedder, string, *fuseapi.EntryOut) (*fuse.Inode, syscall.Errno) {
	return nil, syscall.ENOTSUP
}

func (n *node) Symlink(context.Context, string, string, *fuseapi.EntryOut) (*fuse.Inode, syscall.Errno) {
	return nil, syscall.ENOTSUP
}

func (n *node) Mknod(context.Context, string, uint32, uint32, *fuseapi.EntryOut) (*fuse.Inode, syscall.Errno) {
	return nil, syscall.ENOTSUP
}

// Tmpfile has no name that could be undone.
func (n *node) Tmpfile(context.Context, uint32, uint32, *fuseapi.EntryOut) (*fuse.Inode, fuse.FileHandle, uint32, syscall.Errno) {
	return nil, nil, 0, syscall.ENOTSUP
}

// CopyFileRange is refused, so that the copy comes as writes.
func (n *node) CopyFileRange(context.Context, fuse.FileHandle, uint64, *fuse.Inode, fuse.FileHandle, uint64, uint64, uint64) (uint32, syscall.Errno) {
	return 0, syscall.ENOTSUP
}

func (n *node) OpendirHandle(ctx context.Context, flags uint32) (fuse.FileHandle, uint32, syscall.Errno) {
	h, _, errno := n.LoopbackNode.OpendirHandle(ctx, flags)
	if errno != 0 {
		return nil, 0, errno
	}
	entries, ok := h.(entries)
	if !ok {
		return nil, 0, syscall.ENOTSUP
	}
	return &directory{entries: entries, disk: n.disk}, 0, 0
}

// entries of a directory that is open.
type entries interface {
	fuse.FileReaddirenter
	fuse.FileSeekdirer
	fuse.FileReleasedirer
}

// directory that is open.
type directory struct {
	entries
	disk *Disk
}

var _ fuse.FileFsyncdirer = (*directory)(nil)

func (h *directory) Fsyncdir(context.Context, uint32) syscall.Errno {
	h.disk.mu.Lock()
	defer h.disk.mu.Unlock()
	return fuse.ToErrno(h.disk.keep(0))
}

// handle is a file that is open.
type handle struct {
	disk *Disk
	file *os.File
	ino  uint64
	// sync: each write is synced.
	sync bool
}

var (
	_ fuse.FileReader    = (*handle)(nil)
	_ fuse.FileWriter    = (*handle)(nil)
	_ fuse.FileFsyncer   = (*handle)(nil)
	_ fuse.FileFlusher   = (*handle)(nil)
	_ fuse.FileReleaser  = (*handle)(nil)
	_ fuse.FileGetattrer = (*handle)(nil)
	_ fuse.FileAllocater = (*handle)(nil)
)

// path leads to the file wherever it is now, and also when it has no name any more.
func (h *handle) path() string { return fmt.Sprintf("/proc/self/fd/%d", h.file.Fd()) }

func (h *handle) Read(_ context.Context, dest []byte, off int64) (fuseapi.ReadResult, syscall.Errno) {
	return fuseapi.ReadResultFd(h.file.Fd(), off, len(dest)), 0
}

func (h *handle) Write(_ context.Context, data []byte, off int64) (uint32, syscall.Errno) {
	d := h.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.touch(h.path(), h.ino, off, int64(len(data))); err != nil {
		return 0, fuse.ToErrno(err)
	}
	n, err := h.file.WriteAt(data, off)
	if err == nil && h.sync {
		err = d.keep(h.ino)
	}
	return uint32(n), fuse.ToErrno(err)
}

func (h *handle) Fsync(context.Context, uint32) syscall.Errno {
	d := h.disk
	if d.opts.BeforeSync != nil {
		at, err := os.Readlink(h.path())
		if err == nil {
			at, err = filepath.Rel(d.now, at)
		}
		if err == nil {
			err = d.opts.BeforeSync(at)
		}
		if err != nil {
			return syscall.EIO
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return fuse.ToErrno(d.keep(h.ino))
}

func (h *handle) Allocate(_ context.Context, off, size uint64, mode uint32) syscall.Errno {
	if mode&^uint32(unix.FALLOC_FL_KEEP_SIZE) != 0 {
		return syscall.ENOTSUP
	}
	d := h.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.touch(h.path(), h.ino, 0, 0); err != nil { // contents stay, the size may not
		return fuse.ToErrno(err)
	}
	return fuse.ToErrno(unix.Fallocate(int(h.file.Fd()), mode, int64(off), int64(size)))
}

func (h *handle) Getattr(_ context.Context, out *fuseapi.AttrOut) syscall.Errno {
	var st syscall.Stat_t
	if err := syscall.Fstat(int(h.file.Fd()), &st); err != nil {
		return fuse.ToErrno(err)
	}
	out.FromStat(&st)
	return 0
}

func (h *handle) Flush(context.Context) syscall.Errno { return 0 }

func (h *handle) Release(context.Context) syscall.Errno { return fuse.ToErrno(h.file.Close()) }
