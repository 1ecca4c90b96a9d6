package powerfs_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/quorate/quorate/test/powerfs"
)

// hold has the test binary mount a disk, say so, and wait to be killed.
const hold = "POWERFS_HOLD"

func TestMain(m *testing.M) {
	dir := os.Getenv(hold)
	if dir == "" {
		os.Exit(m.Run())
	}
	if _, err := powerfs.Mount(filepath.Join(dir, "disk"), filepath.Join(dir, "files"), powerfs.Options{}); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("mounted")
	select {}
}

// TestADiskOfADeadProcessIsUnmounted kills the process that serves a disk.
func TestADiskOfADeadProcessIsUnmounted(t *testing.T) {
	disk(t, powerfs.Options{})
	self, err := os.Executable()
	ok(t, err)
	dir := t.TempDir()
	dead := filepath.Join(dir, "disk")
	ok(t, os.Mkdir(dead, 0o700))
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), hold+"="+dir)
	out, err := cmd.StdoutPipe()
	ok(t, err, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	ok(t, err)
	ok(t, cmd.Process.Kill())
	_ = cmd.Wait() // it was killed
	if line != "mounted\n" {
		t.Fatal(line)
	}
	if _, err = os.Stat(dead); !errors.Is(err, syscall.ENOTCONN) {
		t.Fatalf("the disk of a dead process: %v", err)
	}
	disk(t, powerfs.Options{})
	if _, err = os.Stat(dead); err != nil {
		t.Errorf("after another was mounted: %v", err)
	}
}

// disk is mounted, or the test is skipped where it can't be.
func disk(t *testing.T, o powerfs.Options) (*powerfs.Disk, string) {
	t.Helper()
	if _, err := os.Stat("/dev/fuse"); err != nil || os.Geteuid() != 0 {
		t.Skip("a disk that loses power needs /dev/fuse, and root")
	}
	dir := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	d, err := powerfs.Mount(dir, t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d, dir
}

// fails ends a test where there is an error.
type fails interface {
	Helper()
	Fatal(args ...any)
}

func ok(t fails, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func lose(t fails, d *powerfs.Disk) powerfs.Loss {
	t.Helper()
	loss, err := d.PowerLoss()
	ok(t, err)
	return loss
}

// files maps each path to its content; directories end in a slash.
func files(t fails, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	ok(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if e.IsDir() {
			found[name+"/"] = ""
			return nil
		}
		data, err := os.ReadFile(path)
		found[name] = string(data)
		return err
	}))
	return found
}

func open(t fails, path string, flags int) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, flags, 0o600)
	ok(t, err)
	return f
}

func write(t fails, f *os.File, off int64, s string) {
	t.Helper()
	_, err := f.WriteAt([]byte(s), off)
	ok(t, err)
}

func TestOnlyWhatWasSyncedIsKept(t *testing.T) {
	d, dir := disk(t, powerfs.Options{})
	long := strings.Repeat("0123456789", 2000)
	for _, tc := range []struct {
		name string
		// do changes what before holds, which was synced.
		before map[string]string
		do     func(t fails, at func(string) string)
		want   map[string]string
	}{
		{"a write that was synced", nil, func(t fails, at func(string) string) {
			f := open(t, at("a"), os.O_CREATE|os.O_RDWR)
			write(t, f, 0, "kept")
			ok(t, f.Sync())
			write(t, f, 0, "lost and longer")
			ok(t, f.Close())
		}, map[string]string{"a": "kept"}},
		{"a file that was never synced", nil, func(t fails, at func(string) string) {
			ok(t, os.WriteFile(at("a"), []byte("lost"), 0o600))
		}, map[string]string{}},
		{"a file whose name was kept with another's content", nil, func(t fails, at func(string) string) {
			ok(t, os.WriteFile(at("a"), []byte("lost"), 0o600))
			f := open(t, at("b"), os.O_CREATE|os.O_WRONLY)
			ok(t, f.Sync(), f.Close())
		}, map[string]string{"a": "", "b": ""}},
		{"an overwrite in the middle of pages", map[string]string{"a": long}, func(t fails, at func(string) string) {
			f := open(t, at("a"), os.O_WRONLY)
			write(t, f, 4000, strings.Repeat("x", 9000))
			ok(t, f.Close())
		}, map[string]string{"a": long}},
		{"what is cut and written again", map[string]string{"a": long}, func(t fails, at func(string) string) {
			ok(t, os.Truncate(at("a"), 5000))
			f := open(t, at("a"), os.O_WRONLY)
			write(t, f, 4999, strings.Repeat("x", 30000))
			ok(t, f.Close())
		}, map[string]string{"a": long}},
		{"an open that cuts", map[string]string{"a": long}, func(t fails, at func(string) string) {
			ok(t, os.WriteFile(at("a"), []byte("new"), 0o600))
		}, map[string]string{"a": long}},
		{"an append", map[string]string{"a": "kept"}, func(t fails, at func(string) string) {
			f := open(t, at("a"), os.O_WRONLY|os.O_APPEND)
			_, err := f.WriteString(" lost")
			ok(t, err, f.Close())
		}, map[string]string{"a": "kept"}},
		{"space that was allocated", map[string]string{"a": "kept"}, func(t fails, at func(string) string) {
			f := open(t, at("a"), os.O_RDWR)
			ok(t, unix.Fallocate(int(f.Fd()), 0, 0, 1<<20), f.Close())
		}, map[string]string{"a": "kept"}},
		{"each write of a synchronous file", map[string]string{"a": "----"}, func(t fails, at func(string) string) {
			f := open(t, at("a"), os.O_RDWR|syscall.O_DSYNC)
			write(t, f, 0, "kept")
			ok(t, f.Close())
		}, map[string]string{"a": "kept"}},
		{"a copy within the kernel", map[string]string{"a": long}, func(t fails, at func(string) string) {
			from, to := open(t, at("a"), os.O_RDONLY), open(t, at("b"), os.O_CREATE|os.O_RDWR)
			ok(t, to.Sync())
			_, err := io.Copy(to, from)
			ok(t, err, from.Close(), to.Close())
		}, map[string]string{"a": long, "b": ""}},
		{"a file that was removed", map[string]string{"a": "kept"}, func(t fails, at func(string) string) {
			ok(t, os.Remove(at("a")))
		}, map[string]string{"a": "kept"}},
		{"a removal behind which something was synced", map[string]string{"a": "gone", "b": "kept"}, func(t fails, at func(string) string) {
			ok(t, os.Remove(at("a")))
			f := open(t, at("b"), os.O_RDWR)
			ok(t, f.Sync(), f.Close())
		}, map[string]string{"b": "kept"}},
		{"a rename over another, which was changed before", map[string]string{"a": "one", "b": "two"}, func(t fails, at func(string) string) {
			ok(t, os.WriteFile(at("b"), []byte("lost"), 0o600), os.Rename(at("a"), at("b")))
		}, map[string]string{"a": "one", "b": "two"}},
		{"a rename with its directory synced", map[string]string{"d/": "", "d/a": "one", "d/b": "two"}, func(t fails, at func(string) string) {
			ok(t, os.Rename(at("d/a"), at("d/b")))
			dir := open(t, at("d"), os.O_RDONLY)
			ok(t, dir.Sync(), dir.Close())
		}, map[string]string{"d/": "", "d/b": "one"}},
		{"directories", map[string]string{"d/": "", "d/a": "one"}, func(t fails, at func(string) string) {
			ok(t, os.Mkdir(at("e"), 0o700), os.Rename(at("d/a"), at("e/a")), os.Remove(at("d")), os.Rename(at("e"), at("d")))
		}, map[string]string{"d/": "", "d/a": "one"}},
		{"a write behind a rename, to a file that stays open", map[string]string{"a": "kept"}, func(t fails, at func(string) string) {
			f := open(t, at("a"), os.O_RDWR)
			ok(t, os.Rename(at("a"), at("b")))
			write(t, f, 0, "lost")
			ok(t, os.Remove(at("b")))
			write(t, f, 0, "LOST")
			ok(t, f.Close())
		}, map[string]string{"a": "kept"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ok(t, clear(dir))
			for _, name := range slices.Sorted(maps.Keys(tc.before)) {
				if strings.HasSuffix(name, "/") {
					ok(t, os.Mkdir(filepath.Join(dir, name), 0o700))
					continue
				}
				f := open(t, filepath.Join(dir, name), os.O_CREATE|os.O_RDWR)
				write(t, f, 0, tc.before[name])
				ok(t, f.Sync(), f.Close())
			}
			f := open(t, dir, os.O_RDONLY)
			ok(t, f.Sync(), f.Close())
			tc.do(t, func(name string) string { return filepath.Join(dir, name) })
			lose(t, d)
			if diff := cmp.Diff(tc.want, files(t, dir)); diff != "" {
				t.Errorf("after the power loss (-want +got):\n%s", diff)
			}
		})
	}
}

func TestNothingIsLostWithoutAPowerLoss(t *testing.T) {
	d, dir := disk(t, powerfs.Options{})
	ok(t, os.WriteFile(filepath.Join(dir, "a"), []byte("there"), 0o600), os.Rename(filepath.Join(dir, "a"), filepath.Join(dir, "b")))
	if diff := cmp.Diff(map[string]string{"b": "there"}, files(t, dir)); diff != "" {
		t.Error(diff)
	}
	if loss := lose(t, d); loss.Names != 2 || loss.Files != 1 || loss.Bytes != 5 {
		t.Errorf("lost %+v", loss)
	}
}

func TestASyncThatFailsKeepsNothing(t *testing.T) {
	asked := make(chan string, 1)
	d, dir := disk(t, powerfs.Options{BeforeSync: func(path string) error {
		asked <- path
		return errors.New("the disk is gone")
	}})
	ok(t, os.Mkdir(filepath.Join(dir, "d"), 0o700))
	f := open(t, filepath.Join(dir, "d", "a"), os.O_CREATE|os.O_RDWR)
	write(t, f, 0, "lost")
	if err := f.Sync(); !errors.Is(err, syscall.EIO) {
		t.Errorf("Sync: %v", err)
	}
	ok(t, f.Close())
	if path := <-asked; path != "d/a" {
		t.Errorf("asked for %q", path)
	}
	lose(t, d)
	if found := files(t, dir); len(found) > 0 {
		t.Errorf("found %v", found)
	}
}

func TestAFileThatIsOpenHoldsThePower(t *testing.T) {
	d, dir := disk(t, powerfs.Options{})
	f := open(t, filepath.Join(dir, "a"), os.O_CREATE|os.O_RDWR)
	if _, err := d.PowerLoss(); err == nil || !strings.Contains(err.Error(), "kill what uses it") {
		t.Errorf("PowerLoss: %v", err)
	}
	ok(t, f.Close())
}

func TestLinksAreRefused(t *testing.T) {
	_, dir := disk(t, powerfs.Options{})
	ok(t, os.WriteFile(filepath.Join(dir, "a"), nil, 0o600))
	if err := os.Link(filepath.Join(dir, "a"), filepath.Join(dir, "b")); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Link: %v", err)
	}
	if err := os.Symlink("a", filepath.Join(dir, "b")); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Symlink: %v", err)
	}
}

// TestAgainstAModel does random things, and compares what is left with a model of
// what was synced.
func TestAgainstAModel(t *testing.T) {
	d, dir := disk(t, powerfs.Options{})
	names := []string{"a", "b", "c"}
	rapid.Check(t, func(t *rapid.T) {
		ok(t, clear(dir))
		f := open(t, dir, os.O_RDONLY)
		ok(t, f.Sync(), f.Close())
		m := model{}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			name := rapid.SampledFrom(names).Draw(t, "name")
			m.step(t, dir, name, rapid.SampledFrom(names).Draw(t, "other"))
		}
		if diff := cmp.Diff(m.now.contents(), files(t, dir)); diff != "" {
			t.Fatalf("before the power loss (-want +got):\n%s", diff)
		}
		lose(t, d)
		for _, f := range m.kept {
			f.now = f.kept
		}
		if diff := cmp.Diff(m.kept.contents(), files(t, dir)); diff != "" {
			t.Fatalf("after the power loss (-want +got):\n%s", diff)
		}
	})
}

// model knows files by their inodes: what they hold, and held when they were synced.
type model struct {
	now, kept tree
}

type file struct{ now, kept string }

type tree map[string]*file

// contents that are to be found.
func (m tree) contents() map[string]string {
	found := map[string]string{}
	for name, f := range m {
		found[name] = f.now
	}
	return found
}

func (m *model) step(t *rapid.T, dir, name, other string) {
	path := filepath.Join(dir, name)
	f := m.now[name]
	switch op := rapid.SampledFrom([]string{"write", "write", "cut", "sync", "rename", "remove"}).Draw(t, "op"); {
	case op == "write":
		if f == nil {
			f = &file{}
			if m.now == nil {
				m.now = tree{}
			}
			m.now[name] = f
		}
		off := rapid.IntRange(0, 10000).Draw(t, "off")
		data := strings.Repeat(rapid.StringMatching("[a-z]").Draw(t, "data"), rapid.IntRange(1, 9000).Draw(t, "size"))
		file := open(t, path, os.O_CREATE|os.O_WRONLY)
		write(t, file, int64(off), data)
		ok(t, file.Close())
		for len(f.now) < off+len(data) {
			f.now += "\x00"
		}
		f.now = f.now[:off] + data + f.now[off+len(data):]
	case f == nil:
	case op == "cut":
		size := rapid.IntRange(0, len(f.now)).Draw(t, "size")
		ok(t, os.Truncate(path, int64(size)))
		f.now = f.now[:size]
	case op == "sync":
		file := open(t, path, os.O_RDWR)
		ok(t, file.Sync(), file.Close())
		f.kept = f.now
		m.kept = maps.Clone(m.now)
	case op == "rename" && name != other:
		ok(t, os.Rename(path, filepath.Join(dir, other)))
		m.now[other] = f
		delete(m.now, name)
	case op == "remove":
		ok(t, os.Remove(path))
		delete(m.now, name)
	}
}

// clear removes all that is in a directory.
func clear(dir string) error {
	list, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range list {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("clear: %w", err)
		}
	}
	return nil
}
