package preflight

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/internal/bytesize"
)

// The loads. An append is about what etcd's log writes for a small request: the figure
// that etcd's own pages have measured with fio.
var (
	fsyncLoad       = Load{Count: 300, Size: 2300, For: 1200 * time.Millisecond, Least: 5}
	fsyncLight      = Load{Count: 100, Size: 2300, For: 800 * time.Millisecond, Least: 5, Pause: 3 * time.Millisecond}
	throughputLoad  = Load{Count: 30, Size: mib, For: 700 * time.Millisecond, Least: 1}
	throughputLight = Load{Count: 3, Size: mib, For: 400 * time.Millisecond, Least: 1, Pause: 20 * time.Millisecond}
)

// checkFsync measures twice where the first time is bad: one bad second is no bad disk.
func checkFsync(ctx context.Context, x *exam) result {
	load := fsyncLoad
	if x.opts.Light {
		load = fsyncLight
	}
	times, err := x.probe.Append(ctx, x.opts.Dir, load)
	if err != nil {
		return diskProblem(x, err)
	}
	if percentile(times, 0.99) > fsyncFail {
		if again, err := x.probe.Append(ctx, x.opts.Dir, load); err == nil && percentile(again, 0.99) < percentile(times, 0.99) {
			times = again
		}
	}
	return judgeFsync(times)
}

func judgeFsync(times []time.Duration) result {
	p99 := percentile(times, 0.99)
	r := result{verdict: v1alpha1.VerdictPass, value: fmt.Sprintf("p99 %s, median %s of %d syncs", short(p99), short(percentile(times, 0.5)), len(times))}
	const fix = "put the members' directory on a local SSD, and move what else writes to that disk elsewhere"
	switch {
	case p99 > fsyncFail:
		r.verdict, r.fix = v1alpha1.VerdictFail, fix
		r.message = fmt.Sprintf("a sync of etcd's log takes up to %s: leaders would miss their heartbeats of %s, and be voted out", short(p99), short(heartbeat))
	case p99 > fsyncWarn:
		r.verdict, r.fix = v1alpha1.VerdictWarn, fix
		r.message = fmt.Sprintf("a sync of etcd's log takes up to %s, and every write waits for it", short(p99))
	}
	return r
}

// diskProblem says why the disk could not be measured, and whether that is its fault.
func diskProblem(x *exam, err error) result {
	at := x.at()
	switch {
	case errors.Is(err, errHangs), errors.Is(err, context.DeadlineExceeded):
		return result{
			verdict: v1alpha1.VerdictFail, value: "no answer",
			message: "a few small syncs in " + at + " did not end within " + short(patience),
			fix:     "look at the disk (`dmesg`, and its mount): etcd would hang on it",
		}
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return result{
			verdict: v1alpha1.VerdictFail, value: "the disk is full",
			message: "no file of a few KiB can be written in " + at,
			fix:     "free space or inodes there, or choose another disk with --data-dir",
		}
	case errors.Is(err, syscall.EROFS), errors.Is(err, syscall.EIO):
		return result{
			verdict: v1alpha1.VerdictFail, value: "the disk refuses writes",
			message: fmt.Sprintf("no file can be written in %s: %v", at, err),
			fix:     "look at the disk (`dmesg`, and its mount)",
		}
	case errors.Is(err, fs.ErrPermission):
		return result{
			verdict: v1alpha1.VerdictUnknown,
			message: "this user may not write in " + at,
			fix:     "run it as the user that the agent runs as, or name a directory with --data-dir",
		}
	}
	return result{verdict: v1alpha1.VerdictUnknown, message: fmt.Sprintf("the disk could not be measured in %s: %v", at, err), fix: "run `quorate host check` again"}
}

// at is the directory that was looked at.
func (x *exam) at() string {
	if x.fs.Dir != "" {
		return x.fs.Dir
	}
	return x.opts.Dir
}

// percentile by the nearest rank.
func percentile(times []time.Duration, p float64) time.Duration {
	if len(times) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(times))
	return sorted[max(int(math.Ceil(p*float64(len(sorted))))-1, 0)]
}

func checkThroughput(ctx context.Context, x *exam) result {
	load := throughputLoad
	if x.opts.Light {
		load = throughputLight
	}
	if x.fsErr == nil && x.fs.Free < spaceFail/4 {
		return result{
			verdict: v1alpha1.VerdictUnknown,
			message: "it was not measured, to leave what is left of the disk to others", fix: "free space first",
		}
	}
	times, err := x.probe.Append(ctx, x.opts.Dir, load)
	if err != nil {
		r := diskProblem(x, err)
		r.verdict = v1alpha1.VerdictUnknown // fsync-latency says what is wrong
		return r
	}
	var took time.Duration
	for _, t := range times {
		took += t
	}
	got := float64(len(times)*load.Size) / max(took.Seconds(), 1e-9)
	r := result{verdict: v1alpha1.VerdictPass, value: rate(got)}
	const fix = "put the members' directory on a local SSD"
	switch {
	case got < throughputFail:
		r.verdict, r.fix = v1alpha1.VerdictFail, fix
		r.message = fmt.Sprintf("the disk writes %s: a member that was away could not catch up", r.value)
	case got < throughputWarn:
		r.verdict, r.fix = v1alpha1.VerdictWarn, fix
		r.message = fmt.Sprintf("the disk writes %s: a member that was away takes long to catch up", r.value)
	}
	return r
}

func (x *exam) noFilesystem() result {
	return result{verdict: v1alpha1.VerdictUnknown, message: fmt.Sprintf("the filesystem of %s can't be looked at: %v", x.opts.Dir, x.fsErr), fix: "name a directory that this user may read, with --data-dir"}
}

func checkSpace(_ context.Context, x *exam) result {
	if x.fsErr != nil {
		return x.noFilesystem()
	}
	free := bytesize.Text(x.fs.Free)
	r := result{verdict: v1alpha1.VerdictPass, value: fmt.Sprintf("%s free of %s", free, bytesize.Text(x.fs.Size))}
	const fix = "free space there, enlarge the disk, or choose another with --data-dir"
	switch {
	case x.fs.Free < spaceFail:
		r.verdict, r.fix = v1alpha1.VerdictFail, fix
		r.message = fmt.Sprintf("%s has %s left, and a member asks for %s at least", x.at(), free, bytesize.Text(spaceFail))
	case x.fs.Free < spaceWarn:
		r.verdict, r.fix = v1alpha1.VerdictWarn, fix
		r.message = fmt.Sprintf("%s has %s left: a database that grows to its quota of 2 GiB fills it", x.at(), free)
	}
	return r
}

func checkInodes(_ context.Context, x *exam) result {
	if x.fsErr != nil {
		return x.noFilesystem()
	}
	if x.fs.Inodes == 0 {
		return result{verdict: v1alpha1.VerdictPass, value: "made as needed"}
	}
	r := result{verdict: v1alpha1.VerdictPass, value: fmt.Sprintf("%d free of %d", x.fs.FreeInodes, x.fs.Inodes)}
	const fix = "remove small files there (`df -i` counts them), or choose another disk with --data-dir"
	switch {
	case x.fs.FreeInodes < inodesFail:
		r.verdict, r.fix = v1alpha1.VerdictFail, fix
		r.message = fmt.Sprintf("%s has %d inodes left: etcd could not begin the next file of its log", x.at(), x.fs.FreeInodes)
	case x.fs.FreeInodes < inodesWarn:
		r.verdict, r.fix = v1alpha1.VerdictWarn, fix
		r.message = fmt.Sprintf("%s has %d inodes left", x.at(), x.fs.FreeInodes)
	}
	return r
}

// What filesystems are, by their kernel names.
var (
	inMemory = []string{"tmpfs", "ramfs", "devtmpfs", "rootfs"}
	overNet  = []string{
		"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "9p", "ceph", "fuse.ceph", "fuse.ceph-fuse", "fuse.glusterfs", "glusterfs", "lustre", "beegfs",
		"fuse.sshfs", "fuse.s3fs", "fuse.rclone", "fuse.juicefs", "fuse.goofys", "fuse.gcsfuse", "fuse.lizardfs", "fuse.moosefs", "gpfs", "pvfs2", "davfs", "fuse.davfs2",
	}
)

func checkKind(_ context.Context, x *exam) result {
	if x.fsErr != nil {
		return x.noFilesystem()
	}
	kind := x.fs.Kind
	r := result{verdict: v1alpha1.VerdictPass, value: described(x.fs)}
	const fix = "choose a directory on a local disk with --data-dir"
	warn := func(format string, args ...any) {
		r.verdict, r.fix, r.message = v1alpha1.VerdictWarn, fix, fmt.Sprintf(format, args...)
	}
	switch {
	case kind == "":
		return result{verdict: v1alpha1.VerdictUnknown, message: "the kernel does not say what filesystem " + x.at() + " is on", fix: fix}
	case slices.Contains(inMemory, kind):
		warn("%s lies in memory (%s): its members lose all data with the next boot", x.at(), kind)
		if !x.opts.Ephemeral {
			r.verdict = v1alpha1.VerdictFail
		}
	case slices.Contains(overNet, kind):
		warn("%s lies on a network filesystem (%s): etcd locks and maps its database, and waits for every sync", x.at(), kind)
		r.verdict = v1alpha1.VerdictFail
	case kind == "overlay":
		warn("%s lies in a container's own layer (overlay): it goes with the container", x.at())
		r.fix = "mount a volume there"
	case strings.HasPrefix(kind, "fuse") || kind == "virtiofs":
		warn("%s lies on %s: whether a sync reaches a disk is up to the program behind it", x.at(), kind)
	case x.fs.Rotational:
		warn("%s lies on a disk that turns: a sync waits for the platter", x.at())
		r.fix = "put the members' directory on a local SSD"
	}
	return r
}

func described(f Filesystem) string {
	text := f.Kind
	if f.Source != "" && f.Source != f.Kind {
		text += " on " + f.Source
	}
	if f.Rotational {
		text += ", rotational"
	}
	return text
}

func checkShared(_ context.Context, x *exam) result {
	if x.fsErr != nil {
		return x.noFilesystem()
	}
	r := result{verdict: v1alpha1.VerdictPass, value: "its own"}
	var with []string
	if x.fs.Device != 0 && x.fs.Device == x.fs.Root {
		with = append(with, "the root filesystem")
	}
	others := slices.DeleteFunc(x.foreign(), func(e Etcd) bool { return e.Device == 0 || e.Device != x.fs.Device })
	if n := len(others); n == 1 {
		with = append(with, "another etcd")
	} else if n > 1 {
		with = append(with, fmt.Sprintf("%d other etcds", n))
	}
	if len(with) > 0 {
		r.verdict, r.value = v1alpha1.VerdictWarn, "shared with "+listed(with, 2)
		r.message = "what else writes to the disk of " + x.at() + " makes etcd's syncs wait"
		r.fix = "give the members a disk of their own, and name it with --data-dir"
	}
	return r
}

// foreign are the etcds of others.
func (x *exam) foreign() []Etcd {
	return slices.DeleteFunc(slices.Clone(x.etcds), func(e Etcd) bool { return x.ours(e.DataDir) })
}

// ours reports whether a data directory is that of a member here.
func (x *exam) ours(dataDir string) bool {
	rel, err := filepath.Rel(x.opts.Dir, dataDir)
	return dataDir != "" && err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

// listed names at most some of a list, and counts the rest.
func listed(list []string, most int) string {
	if len(list) <= most {
		return strings.Join(list, " and ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:most], ", "), len(list)-most)
}

// Hosts reports whether one of the etcds is a member below the directory: checks are to
// be light then.
func (o Options) Hosts(etcds []Etcd) bool {
	x := exam{opts: o}
	return slices.ContainsFunc(etcds, func(e Etcd) bool { return x.ours(e.DataDir) })
}
