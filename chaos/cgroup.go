package chaos

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// cgroupsOf reads which control groups a process is in, by its directory in /proc: a
// path for each hierarchy, which is named by its controllers, version 2 by "".
func cgroupsOf(dir string) map[string]string {
	raw, err := read(dir + "cgroup")
	if err != nil {
		return nil
	}
	groups := map[string]string{}
	for line := range bytes.Lines(raw) {
		parts := strings.SplitN(strings.TrimSpace(string(line)), ":", 3)
		if len(parts) == 3 {
			groups[parts[1]] = parts[2]
		}
	}
	return groups
}

// rejoin puts a process into the control groups that its predecessor was in, as far as
// they are there still and this user may: they bound what it uses, and no more.
func rejoin(pid int, want map[string]string) {
	now := cgroupsOf(fmt.Sprintf("/proc/%d/", pid))
	for controllers, path := range want {
		if now[controllers] == path {
			continue
		}
		if mount := hierarchy(controllers); mount != "" {
			file := filepath.Join(mount, path, "cgroup.procs")
			_ = os.WriteFile(file, []byte(strconv.Itoa(pid)), 0) // the group may be gone
		}
	}
}

// hierarchy is where the hierarchy with these controllers is mounted; empty if nowhere.
func hierarchy(controllers string) string {
	raw, err := read("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	const root, point = 3, 4
	for line := range bytes.Lines(raw) {
		before, after, _ := strings.Cut(string(line), " - ")
		place, kind := strings.Fields(before), strings.Fields(after)
		if len(place) <= point || len(kind) < 3 || place[root] != "/" {
			continue
		}
		options := strings.Split(kind[2], ",")
		if controllers == "" && kind[0] == "cgroup2" || kind[0] == "cgroup" && controllers != "" &&
			!slices.ContainsFunc(strings.Split(controllers, ","), func(c string) bool { return !slices.Contains(options, c) }) {
			return place[point]
		}
	}
	return ""
}
