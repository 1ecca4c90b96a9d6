// Package powerfs is a disk that can lose power: a directory, mounted by FUSE, that
// forgets on demand whatever was not synced.
//
// A write counts as kept when its file was synced behind it. A name (a file or
// directory that was made, renamed or removed) counts as kept when anything was
// synced behind it, files and directories alike: a journal is committed as a whole,
// as ext4's is. What was not kept is undone by PowerLoss, in units of pages, and all
// of it: real disks may keep any part of it, so a program that passes here may still
// be wrong, and one that fails is.
//
// Modes, owners and times are not undone. Hard links, symbolic links and devices are
// refused. It needs /dev/fuse, and to be root.
package powerfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	fuse "github.com/hanwen/go-fuse/v2/fs"
	fuseapi "github.com/hanwen/go-fuse/v2/fuse"
)

// pageSize is the unit in which contents are undone.
const pageSize = 4096

// Options of a disk.
type Options struct {
	// BeforeSync is asked before a file is synced, with its path below the mount
	// point; it may wait. An error fails the sync, which then keeps nothing.
	BeforeSync func(path string) error
}

// Disk is a mounted directory.
type Disk struct {
	// dir is where it is mounted; now holds what it shows, gone what was removed
	// from it and may come back.
	dir, now, gone string
	opts           Options
	server         *fuseapi.Server

	mu    sync.Mutex
	files map[uint64]*unkept
	names []change
	kept  int // of all names that were ever changed, to number those in gone
}

// unkept is what has to be put back into one file, by its inode.
type unkept struct {
	file *os.File
	// size and pages are those of the last sync, as far as they changed.
	size  int64
	pages map[int64][]byte
}

// change is one of names: undo takes it back, and keep makes it final.
type change struct {
	undo func() error
	keep func() error
}

// Loss is what a power loss took.
type Loss struct {
	// Files whose content went back to that of their last sync, with Bytes in pages
	// that differ and behind their end.
	Files int
	Bytes int64
	// Names that were made, renamed or removed, and were not after all.
	Names int
}

// kind is what mounts of this package are, as /proc/self/mounts has it.
const kind = "fuse.powerfs"

// Mount mounts a disk on an empty directory, dir. Its files lie in backing, which is
// made. Disks whose process was killed are unmounted first: they answer nobody.
func Mount(dir, backing string, o Options) (*Disk, error) {
	if err := sweep(); err != nil {
		return nil, err
	}
	d := &Disk{dir: dir, now: filepath.Join(backing, "now"), gone: filepath.Join(backing, "gone"), opts: o, files: map[uint64]*unkept{}}
	for _, p := range []string{d.now, d.gone} {
		if err := os.MkdirAll(p, 0o700); err != nil {
			return nil, fmt.Errorf("make the files of a disk: %w", err)
		}
	}
	if err := d.mount(); err != nil {
		return nil, err
	}
	return d, nil
}

func (d *Disk) mount() error {
	root := &fuse.LoopbackRoot{Path: d.now}
	root.RootNode = &node{LoopbackNode: fuse.LoopbackNode{RootData: root}, disk: d}
	server, err := fuse.Mount(d.dir, root.RootNode, &fuse.Options{MountOptions: fuseapi.MountOptions{
		DirectMountStrict: true, FsName: "powerfs", Name: "powerfs", DisableXAttrs: true,
	}})
	if err != nil {
		return fmt.Errorf("mount a disk on %s (it needs /dev/fuse, and to be root): %w", d.dir, err)
	}
	d.server = server
	return nil
}

// sweep unmounts what dead processes have left.
func sweep() error {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return fmt.Errorf("look for disks of dead processes: %w", err)
	}
	for line := range strings.Lines(string(mounts)) {
		fields := strings.Fields(line)
		if len(fields) < 3 || fields[2] != kind {
			continue
		}
		// The kernel writes a space in a name as \040.
		dir := strings.ReplaceAll(fields[1], `\040`, " ")
		if _, err := os.Stat(dir); !errors.Is(err, syscall.ENOTCONN) {
			continue
		}
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil && !errors.Is(err, syscall.EINVAL) {
			return fmt.Errorf("unmount %s, which a dead process has left: %w", dir, err)
		}
	}
	return nil
}

// PowerLoss undoes everything that was not kept, and mounts the disk again. The
// processes that use it have to be dead: it fails if a file is still open.
func (d *Disk) PowerLoss() (Loss, error) {
	if err := d.server.Unmount(); err != nil {
		return Loss{}, fmt.Errorf("unmount %s (kill what uses it first): %w", d.dir, err)
	}
	loss, err := d.undo()
	if err != nil {
		return loss, fmt.Errorf("put %s back to what was synced: %w", d.dir, err)
	}
	return loss, d.mount()
}

// Close unmounts the disk; its files stay as they are.
func (d *Disk) Close() error {
	if err := d.server.Unmount(); err != nil {
		return fmt.Errorf("unmount %s: %w", d.dir, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for ino := range d.files {
		d.forget(ino)
	}
	return nil
}

// undo puts contents back first, while each file can be reached, then the names,
// newest first.
func (d *Disk) undo() (Loss, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var loss Loss
	var errs []error
	for ino, u := range d.files {
		lost, err := u.restore()
		errs = append(errs, err)
		if lost > 0 {
			loss.Files++
			loss.Bytes += lost
		}
		d.forget(ino)
	}
	loss.Names = len(d.names)
	for _, c := range slices.Backward(d.names) {
		errs = append(errs, c.undo())
	}
	d.names = nil
	return loss, errors.Join(errs...)
}

// restore returns how many bytes it changed, a size that changed among them.
func (u *unkept) restore() (int64, error) {
	st, err := u.file.Stat()
	if err != nil {
		return 0, err
	}
	lost := max(st.Size()-u.size, u.size-st.Size())
	if err = u.file.Truncate(u.size); err != nil {
		return lost, err
	}
	buf := make([]byte, pageSize)
	for page, old := range u.pages {
		if _, err = u.file.ReadAt(buf[:len(old)], page*pageSize); err != nil {
			return lost, err
		}
		if string(buf[:len(old)]) != string(old) {
			lost += int64(len(old))
		}
		if _, err = u.file.WriteAt(old, page*pageSize); err != nil {
			return lost, err
		}
	}
	return lost, nil
}

// touch has to be called before a file changes from offset on, for length bytes, or
// to its end where length is negative. Whoever calls it holds mu.
func (d *Disk) touch(path string, ino uint64, offset, length int64) error {
	u := d.files[ino]
	if u == nil {
		file, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		st, err := file.Stat()
		if err != nil {
			return errors.Join(err, file.Close())
		}
		u = &unkept{file: file, size: st.Size(), pages: map[int64][]byte{}}
		d.files[ino] = u
	}
	end := u.size
	if length >= 0 {
		end = min(end, offset+length)
	}
	for page := offset / pageSize; page*pageSize < end; page++ {
		if _, ok := u.pages[page]; ok {
			continue
		}
		old := make([]byte, min(pageSize, u.size-page*pageSize))
		// It was not touched before, so it is all there.
		if _, err := u.file.ReadAt(old, page*pageSize); err != nil {
			return fmt.Errorf("read what %s held: %w", path, err)
		}
		u.pages[page] = old
	}
	return nil
}

// keep makes a file's content final, and all names. Whoever calls it holds mu.
func (d *Disk) keep(ino uint64) error {
	if ino != 0 {
		d.forget(ino)
	}
	var errs []error
	for _, c := range d.names {
		if c.keep != nil {
			errs = append(errs, c.keep())
		}
	}
	d.names = nil
	return errors.Join(errs...)
}

func (d *Disk) forget(ino uint64) {
	if u := d.files[ino]; u != nil {
		_ = u.file.Close() // it was only kept open to find the file again
		delete(d.files, ino)
	}
}

// setAside takes a file out of the directory, and returns how it comes back. Its
// inode lives on until that is final, so that its number is not given to another.
func (d *Disk) setAside(path string) (change, error) {
	st, err := os.Lstat(path)
	if err != nil {
		return change{}, err
	}
	d.kept++
	aside := filepath.Join(d.gone, strconv.Itoa(d.kept))
	if err := os.Rename(path, aside); err != nil {
		return change{}, err
	}
	return change{
		undo: func() error { return os.Rename(aside, path) },
		keep: func() error {
			d.forget(inode(st))
			return os.Remove(aside)
		},
	}, nil
}

func inode(st fs.FileInfo) uint64 {
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		return sys.Ino
	}
	return 0
}
