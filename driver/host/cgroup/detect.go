package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// detected is where this process's own groups are.
type detected struct {
	version int
	bases   map[string]string
}

// detect reads where control groups are mounted and which this process is in. Version 1
// is used where it has one of the controllers, since the other has none of it then.
func detect(proc string) (detected, error) {
	mounts, err := readMounts(filepath.Join(proc, "self/mountinfo"))
	if err != nil {
		return detected{}, err
	}
	own, err := readOwn(filepath.Join(proc, "self/cgroup"))
	if err != nil {
		return detected{}, err
	}
	d := detected{bases: map[string]string{}}
	for _, c := range controllers[1] {
		if dir := mounts[c].dir(own[c]); dir != "" {
			d.version, d.bases[c] = 1, dir
		}
	}
	if d.version == 1 {
		return d, nil
	}
	if dir := mounts[unified].dir(own[unified]); dir != "" {
		return detected{version: 2, bases: map[string]string{unified: dir}}, nil
	}
	return detected{}, errors.New("no control groups are mounted, or none that this process is in")
}

// unified names version 2 among the controllers.
const unified = ""

// mount of control groups: root is which part of the tree is seen at point.
type mount struct{ root, point string }

// dir returns the directory of the group at path, empty where it is out of sight.
func (m mount) dir(path string) string {
	if m.point == "" || path == "" {
		return ""
	}
	rel, err := filepath.Rel(m.root, path)
	if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		// In a container the group's path may be told from outside of it.
		rel = "."
	}
	dir := filepath.Join(m.point, rel)
	if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err != nil {
		return ""
	}
	return dir
}

func readMounts(file string) (map[string]mount, error) {
	raw, err := os.ReadFile(file) //nolint:gosec // of /proc
	if err != nil {
		return nil, err
	}
	mounts := map[string]mount{}
	for line := range strings.Lines(string(raw)) {
		before, after, ok := strings.Cut(strings.TrimSpace(line), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 6 || len(right) < 3 {
			continue
		}
		m := mount{root: left[3], point: left[4]}
		switch right[0] {
		case "cgroup2":
			// The first is the system's own; later ones are somebody's views of it.
			if _, known := mounts[unified]; !known {
				mounts[unified] = m
			}
		case "cgroup":
			for option := range strings.SplitSeq(right[2], ",") {
				if _, known := mounts[option]; !known {
					mounts[option] = m
				}
			}
		}
	}
	return mounts, nil
}

func readOwn(file string) (map[string]string, error) {
	raw, err := os.ReadFile(file) //nolint:gosec // of /proc
	if err != nil {
		return nil, err
	}
	own := map[string]string{}
	for line := range strings.Lines(string(raw)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		for c := range strings.SplitSeq(parts[1], ",") {
			own[c] = parts[2]
		}
	}
	return own, nil
}

// useV2 finds the directory in which groups can be made. A group that holds processes,
// as the agent's own does, can't have others with controllers below it, save the root:
// so they stand beside the agent's own.
func (g *Groups) useV2() {
	own := g.bases[unified]
	g.bases = map[string]string{}
	base := own
	if _, err := os.Stat(filepath.Join(own, "cgroup.type")); err == nil {
		base = filepath.Dir(own)
		if _, err := os.Stat(filepath.Join(base, "cgroup.procs")); err != nil {
			g.why = own + " holds processes and is the top of what is seen: no groups can be made in it"
			return
		}
	}
	raw, err := os.ReadFile(filepath.Join(base, "cgroup.controllers")) //nolint:gosec // of the kernel
	if err != nil {
		g.why = err.Error()
		return
	}
	for c := range strings.FieldsSeq(string(raw)) {
		switch c {
		case "cpu", "memory", "io":
			if err := enable(base, c); err != nil {
				g.why = err.Error()
				continue
			}
			g.bases[c] = base
		}
	}
}

// enable makes a controller of version 2 work in the groups below dir.
func enable(dir, controller string) error {
	return write(filepath.Join(dir, "cgroup.subtree_control"), "+"+controller)
}

// diskOf returns the disk of a directory as MAJOR:MINOR: of the whole one, since its
// parts can't be limited. Empty where it stands on none, or on several.
func diskOf(dir string) string {
	for dir != "" {
		var st unix.Stat_t
		err := unix.Stat(dir, &st)
		if err == nil {
			return wholeDisk(fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)))
		}
		if !errors.Is(err, unix.ENOENT) || dir == filepath.Dir(dir) {
			return ""
		}
		dir = filepath.Dir(dir)
	}
	return ""
}

func wholeDisk(device string) string {
	sys, err := filepath.EvalSymlinks("/sys/dev/block/" + device)
	if err != nil {
		return ""
	}
	if _, partErr := os.Stat(filepath.Join(sys, "partition")); partErr != nil {
		return device
	}
	raw, err := os.ReadFile(filepath.Join(filepath.Dir(sys), "dev"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(raw))
}
