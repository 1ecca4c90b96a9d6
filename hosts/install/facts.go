package install

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Where things lie on a host. They are the same on every host, so that people find them.
const (
	// BinaryPath is the agent's program.
	BinaryPath = "/usr/local/bin/quorate"
	// ConfigDir holds how the agent was installed, and the join token until it is used.
	ConfigDir = "/etc/quorate"
	// DefaultDataDir holds the members.
	DefaultDataDir = "/var/lib/quorate"
	// identityFile below it is there once an agent has joined.
	identityFile = "agent/identity.json"
	// positionFile is how far an agent has seen the store come, and joiningFile the key
	// of a join under way.
	positionFile = "agent/position.json"
	joiningFile  = "agent/joining.json"
	// UnitName is the agent's unit of systemd.
	UnitName = "quorate-agent.service"

	unitPath   = "/etc/systemd/system/" + UnitName
	recordPath = ConfigDir + "/host.json"
	tokenPath  = ConfigDir + "/join.token"
	// startPath starts the agent where no systemd runs, and pidPath says which it is.
	startPath = ConfigDir + "/start-agent"
	pidPath   = "/run/quorate-agent.pid"
	logPath   = "/var/log/quorate-agent.log"
)

// record is what an installation notes on the machine.
type record struct {
	// Host is the name of the EtcdHost.
	Host string `json:"host"`
	// Server is the URL that the agent was told.
	Server string `json:"server"`
}

// facts are what a machine is like before anything is changed.
type facts struct {
	os, machine, name string
	// init is the name of process 1.
	init    string
	systemd bool
	// missing are tools that the steps need.
	missing   []string
	addresses []string
	// free space in bytes, and the file system it is on, by what is to lie there.
	free  map[string]int64
	mount map[string]string
	// binarySHA of what lies at BinaryPath, empty without; binaryVersion is what it
	// says of itself.
	binarySHA, binaryVersion string
	// sums are the SHA-256 of files, by path; without those that are missing.
	sums map[string]string
	// dataMode of the data directory, such as 700; empty without one.
	dataMode string
	configOK bool
	record   *record
	// identity is set where an agent has joined some server.
	identity bool
	// used is set where an agent has talked to some server.
	used    bool
	token   bool
	enabled bool
	// pid of the agent; 0 while none runs. What runs it is told by the SHA-256 of its
	// command line, and by whether BinaryPath is still its program.
	pid     int64
	cmdline string
	stale   bool
	// dropIns says that a person has changed the unit beside it.
	dropIns bool
	// locked says that some agent has the data directory.
	locked bool
	// occupied says that something at BinaryPath is no file.
	occupied bool
	// homes of members there are.
	homes int
	// offset of the machine's clock to ours, give or take margin.
	offset, margin time.Duration
}

// platform is GOOS/GOARCH.
func (f *facts) platform() string {
	arch := f.machine
	switch arch {
	case "x86_64":
		arch = "amd64"
	case "aarch64":
		arch = "arm64"
	}
	return strings.ToLower(f.os) + "/" + arch
}

// tools are what the steps run.
var tools = []string{"awk", "cat", "chmod", "cut", "date", "df", "dirname", "head", "mkdir", "mktemp", "mv", "rm", "sha256sum", "stat", "uname"}

// prelude begins each script: the words of the tools, and where they are for a user
// whose PATH leaves the administrator's out.
const prelude = `set -u; export LC_ALL=C; export PATH="$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
`

// factsScript prints facts as name=value, and changes nothing.
func factsScript(dataDir string) string {
	return prelude + `
echo "os=$(uname -s)"; echo "machine=$(uname -m)"; echo "name=$(uname -n)"
for t in ` + strings.Join(tools, " ") + `; do command -v "$t" >/dev/null 2>&1 || echo "missing=$t"; done
[ -d /run/systemd/system ] && echo systemd=yes
[ -r /proc/1/comm ] && echo "init=$(cat /proc/1/comm)"
if command -v ip >/dev/null 2>&1; then
  ip -o addr show | awk '{split($4, a, "/"); print "address=" a[1]}'
elif command -v hostname >/dev/null 2>&1; then
  for a in $(hostname -I 2>/dev/null); do echo "address=$a"; done
fi
room() { d="$2"; while [ ! -d "$d" ]; do d=$(dirname "$d"); done
  df -Pk "$d" | awk -v n="$1" 'NR == 2 {print "free." n "=" $4; print "mount." n "=" $6}'; }
room bin ` + BinaryPath + `; room config ` + ConfigDir + `; room data ` + dataDir + `
sum() { [ -f "$1" ] && echo "sum.$1=$(sha256sum < "$1" | cut -d " " -f 1)"; }
for f in ` + strings.Join([]string{BinaryPath, unitPath, recordPath, startPath}, " ") + `; do sum "$f"; done
[ -e ` + BinaryPath + ` ] && echo "version=$(` + BinaryPath + ` --version 2>/dev/null </dev/null | head -n 1)"
[ -e ` + BinaryPath + ` ] && [ ! -f ` + BinaryPath + ` ] && echo occupied=yes
[ -d ` + dataDir + ` ] && echo "dataMode=$(stat -c %a ` + dataDir + `)"
[ -d ` + ConfigDir + ` ] && echo configOK=yes
[ -f ` + recordPath + ` ] && echo "record=$(cat ` + recordPath + `)"
[ -e ` + dataDir + `/` + identityFile + ` ] && echo identity=yes
[ -e ` + dataDir + `/` + positionFile + ` ] && echo used=yes
[ -e ` + tokenPath + ` ] && echo token=yes
n=0; for h in ` + dataDir + `/members/*/; do [ -d "$h" ] && n=$((n + 1)); done; echo "homes=$n"
if [ -d /run/systemd/system ]; then
  [ "$(systemctl is-enabled ` + UnitName + ` 2>/dev/null)" = enabled ] && echo enabled=yes
  pid=$(systemctl show -p MainPID ` + UnitName + ` | cut -d = -f 2)
  for d in /etc/systemd/system/` + UnitName + `.d/*.conf; do [ -e "$d" ] && echo dropIns=yes; done
else
  ` + sessionPID + `
fi
echo "pid=$pid"
if [ -r "/proc/$pid/cmdline" ]; then
  echo "cmdline=$(sha256sum < "/proc/$pid/cmdline" | cut -d " " -f 1)"
  [ "$(readlink "/proc/$pid/exe")" = ` + BinaryPath + ` ] || echo stale=yes
fi
if [ -e ` + dataDir + `/agent/lock ] && command -v flock >/dev/null 2>&1; then
  flock -n ` + dataDir + `/agent/lock true || echo locked=yes
fi
exit 0
`
}

// sessionPID sets pid to that of the agent that startPath started; 0 while none runs. A
// number that was given away again is told by the program.
const sessionPID = `pid=0
  [ -f ` + pidPath + ` ] && pid=$(cat ` + pidPath + `)
  case "$(readlink "/proc/$pid/exe" 2>/dev/null)" in ` + BinaryPath + `*) ;; *) pid=0 ;; esac`

// lookTime bounds the look around; tests shorten it.
var lookTime = time.Minute

// gather reads the facts. It finds out first whether the user may become root. A login
// that hangs, as in its shell's own files, ends it.
func (c *conn) gather(ctx context.Context, dataDir string) (*facts, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, lookTime, fmt.Errorf("%w: the login on %s works, but its shell does not answer within %s: see whether `ssh %s@%s true` hangs there, as in the shell's start-up files",
		ErrUnreachable, c.target, lookTime, c.target.User, c.target.Host))
	defer cancel()
	out, err := c.asUser(ctx, prelude+`echo "uid=$(id -u)"; command -v sudo >/dev/null 2>&1 && echo sudo=yes; exit 0`, nil)
	if err != nil {
		return nil, fmt.Errorf("look around on %s: %w", c.target, err)
	}
	about := parseFacts(out)
	c.root = one(about, "uid") == "0"
	if !c.root {
		if err = c.mayBecomeRoot(ctx, one(about, "sudo") == "yes"); err != nil {
			return nil, err
		}
	}
	out, err = c.asRoot(ctx, factsScript(dataDir), nil)
	var said *scriptError
	if err != nil && !errors.As(err, &said) {
		return nil, fmt.Errorf("look around on %s: %w", c.target, err)
	}
	f, err := readFacts(out)
	if err != nil {
		return nil, fmt.Errorf("look around on %s: %w", c.target, err)
	}
	f.offset, f.margin, err = c.clock(ctx)
	return f, err
}

func (c *conn) mayBecomeRoot(ctx context.Context, sudo bool) error {
	if !sudo {
		return unfit("user %s on %s is not root, and there is no sudo: log in as root, or install sudo and let the user use it without a password", c.target.User, c.target.Host)
	}
	_, err := c.run(ctx, "sudo -n -- /bin/sh -c "+quote("exit 0"), nil)
	if said, ok := errors.AsType[*scriptError](err); ok {
		return unfit("user %s on %s may not become root without a password (%s): log in as root, or add a file to /etc/sudoers.d with the line `%s ALL=(root) NOPASSWD: ALL` for the installation",
			c.target.User, c.target.Host, said, c.target.User)
	}
	return err
}

// clock tells how far the machine's clock is from ours.
func (c *conn) clock(ctx context.Context) (offset, margin time.Duration, err error) {
	before := time.Now()
	out, err := c.asUser(ctx, "date +%s.%N", nil)
	after := time.Now()
	if err != nil {
		return 0, 0, fmt.Errorf("read the clock of %s: %w", c.target, err)
	}
	text := strings.TrimSpace(out)
	margin = after.Sub(before) / 2
	if i := strings.Index(text, "."); i >= 0 && strings.Trim(text[i+1:], "0123456789") != "" {
		text = text[:i] // a date without nanoseconds
		margin += time.Second
	}
	seconds, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return 0, 0, fmt.Errorf("read the clock of %s: `date` prints %q", c.target, out)
	}
	whole, fraction := math.Modf(seconds)
	there := time.Unix(int64(whole), int64(fraction*float64(time.Second)))
	return there.Sub(before.Add(after.Sub(before) / 2)), margin, nil
}

// parseFacts reads lines of name=value; a name may come more than once.
func parseFacts(out string) map[string][]string {
	found := map[string][]string{}
	for line := range strings.Lines(out) {
		if name, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), "="); ok {
			found[name] = append(found[name], value)
		}
	}
	return found
}

// one is the first value of a name.
func one(found map[string][]string, name string) string {
	if v := found[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

func readFacts(out string) (*facts, error) {
	found := parseFacts(out)
	f := &facts{
		os: one(found, "os"), machine: one(found, "machine"), name: one(found, "name"), init: one(found, "init"),
		systemd: one(found, "systemd") == "yes", missing: found["missing"], addresses: found["address"],
		free: map[string]int64{}, mount: map[string]string{}, sums: map[string]string{},
		dataMode: one(found, "dataMode"), configOK: one(found, "configOK") == "yes",
		identity: one(found, "identity") == "yes", token: one(found, "token") == "yes", enabled: one(found, "enabled") == "yes",
		used: one(found, "used") == "yes", cmdline: one(found, "cmdline"), stale: one(found, "stale") == "yes", dropIns: one(found, "dropIns") == "yes",
		locked: one(found, "locked") == "yes", occupied: one(found, "occupied") == "yes",
	}
	if f.os == "" || f.machine == "" {
		return nil, fmt.Errorf("the machine's shell printed no facts, but %q: is /bin/sh a shell there, and does the login print nothing of its own?", lastLines(out, 2))
	}
	for name, values := range found {
		if path, ok := strings.CutPrefix(name, "sum."); ok {
			f.sums[path] = values[0]
		}
		if what, ok := strings.CutPrefix(name, "mount."); ok {
			f.mount[what] = values[0]
		}
		if what, ok := strings.CutPrefix(name, "free."); ok {
			kib, err := strconv.ParseInt(values[0], 10, 64)
			if err != nil {
				return nil, fmt.Errorf("the free space is %q", values[0])
			}
			f.free[what] = kib << 10
		}
	}
	f.binarySHA = f.sums[BinaryPath]
	f.binaryVersion = strings.TrimPrefix(one(found, "version"), "quorate ")
	f.pid, _ = strconv.ParseInt(one(found, "pid"), 10, 64) // none is 0
	f.homes, _ = strconv.Atoi(one(found, "homes"))         // always a number, as the script prints it
	if raw := one(found, "record"); raw != "" {
		f.record = &record{}
		if err := json.Unmarshal([]byte(raw), f.record); err != nil {
			return nil, fmt.Errorf("%s on the machine is damaged: %w: remove it and repeat", recordPath, err)
		}
	}
	return f, nil
}
