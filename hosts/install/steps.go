package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/internal/bytesize"
	"github.com/quorate/quorate/store"
)

// register tells the server of the host, so that nothing of it is left to the machine.
func (j *job) register(ctx context.Context) error {
	if j.host == nil {
		h := &v1alpha1.EtcdHost{}
		h.Name = j.opts.Name
		j.describe(h)
		err := j.opts.Fleet.Create(ctx, h)
		if !errors.Is(err, store.ErrExists) {
			return err
		}
	}
	return store.Mutate(ctx, j.opts.Fleet, store.Key{Name: j.opts.Name}, &v1alpha1.EtcdHost{}, func(h *v1alpha1.EtcdHost) (bool, error) {
		return j.describe(h), nil
	})
}

func (j *job) directories(ctx context.Context) error {
	dir := j.opts.DataDir
	_, err := j.conn.asRoot(ctx, prelude+`mkdir -p `+ConfigDir+` `+dir+` && chmod 0755 `+ConfigDir+` && chmod 0700 `+dir, nil)
	return err
}

// put is a script that writes its input to a path: beside it first, where it is checked,
// and renamed once all of it is on the disk. What a broken connection leaves is removed
// by the script, and what a machine that went down leaves by the next one. Check is more
// that must succeed of "$tmp".
func put(to, mode, sum, check string) string {
	dir, base := path.Split(to)
	return prelude + `umask 077
mkdir -p ` + dir + ` || exit 1
for old in ` + dir + `.` + base + `.upload.*; do
  [ -f "$old" ] && [ ! -d "/proc/${old##*.}" ] && rm -f "$old"
done
tmp=` + dir + `.` + base + `.upload.$$
trap 'rm -f "$tmp"' EXIT
trap 'exit 1' HUP INT TERM PIPE
cat > "$tmp" || exit 1
sum=$(sha256sum < "$tmp" | cut -d " " -f 1)
[ "$sum" = ` + sum + ` ] || { echo "what arrived at ` + to + ` is not what was sent: its SHA-256 is $sum" >&2; exit 1; }
chmod ` + mode + ` "$tmp" || exit 1
` + check + `
sync "$tmp" 2>/dev/null || sync
mv -f "$tmp" ` + to + ` || exit 1
sync ` + dir + ` 2>/dev/null || sync
exit 0
`
}

// binary uploads the program. It takes the place of another one in one rename, so that
// what runs goes on with the old one.
func (j *job) binary(ctx context.Context) error {
	b := j.opts.Binary
	f, err := os.Open(b.Path)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // it was only read
	check := `out=$("$tmp" --version 2>&1 </dev/null) || { echo "the program does not run on the machine: $out" >&2; exit 1; }
echo "$out"`
	out, err := j.conn.asRoot(ctx, put(BinaryPath, "0755", b.SHA256, check), &counting{from: f, size: b.Size, tell: func(sent int64) {
		j.opts.tell("binary", fmt.Sprintf("%s of %s sent", bytesize.Text(sent), bytesize.Text(b.Size)))
	}})
	if err != nil {
		return err
	}
	if v, ok := strings.CutPrefix(strings.TrimSpace(out), "quorate "); ok {
		j.opts.Binary.Version, j.result.Version = v, v
	}
	return nil
}

// counting tells of each tenth that was read.
type counting struct {
	from       io.Reader
	size, sent int64
	tenths     int64
	tell       func(sent int64)
}

// Read implements io.Reader.
func (c *counting) Read(p []byte) (int, error) {
	n, err := c.from.Read(p)
	c.sent += int64(n)
	if tenths := c.sent * 10 / max(c.size, 1); tenths > c.tenths {
		c.tenths = tenths
		c.tell(c.sent)
	}
	return n, err
}

func (j *job) write(ctx context.Context, files []file) error {
	for _, f := range files {
		if _, err := j.conn.asRoot(ctx, put(f.path, f.mode, f.sum(), ""), bytes.NewReader(f.data)); err != nil {
			return fmt.Errorf("write %s: %w", f.path, err)
		}
	}
	return nil
}

// token makes a join token and puts it where the agent reads it. An agent that has a
// certificate keeps it until the new token has given it another.
func (j *job) token(ctx context.Context) error {
	token, _, err := j.opts.Fleet.CreateJoinToken(ctx, j.opts.Name, tokenLife)
	if err != nil {
		return fmt.Errorf("have the server make a join token: %w", err)
	}
	f := file{path: tokenPath, mode: "0600", data: []byte(token + "\n")}
	forget := ""
	if j.opts.Rejoin && j.facts.homes == 0 {
		// It may be another server's store. With members there, the agent's refusal of a
		// store that is older than theirs stands.
		forget = `rm -f ` + j.opts.DataDir + `/` + positionFile
	}
	_, err = j.conn.asRoot(ctx, put(f.path, f.mode, f.sum(), forget), bytes.NewReader(f.data))
	return err
}

// start starts the agent anew, and notes its process.
func (j *job) start(ctx context.Context) error {
	script := prelude + `systemctl daemon-reload && systemctl -q enable ` + UnitName + ` && systemctl restart ` + UnitName + ` || exit 1
systemctl show -p MainPID ` + UnitName + ` | cut -d = -f 2`
	if !j.facts.systemd {
		script = prelude + stopSession + `
` + startPath + ` || exit 1
n=0; while [ ! -s ` + pidPath + ` ] && [ "$n" -lt 50 ]; do sleep 0.1; n=$((n + 1)); done
cat ` + pidPath
	}
	out, err := j.conn.asRoot(ctx, script, nil)
	if err != nil {
		return err
	}
	j.pid = strings.TrimSpace(out)
	return nil
}

// stopSession ends the agent that startPath started, and waits for that. Members go on.
const stopSession = sessionPID + `
if [ "$pid" != 0 ]; then
  kill -TERM "$pid"
  n=0; while [ -d "/proc/$pid" ] && [ "$n" -lt 200 ]; do sleep 0.1; n=$((n + 1)); done
  [ -d "/proc/$pid" ] && { echo "the agent (process $pid) does not end" >&2; exit 1; }
fi
rm -f ` + pidPath

const (
	// lookEvery is how often the host is looked at even when nothing says that it has
	// changed, and the agent's log read for what to tell.
	lookEvery = 3 * time.Second
	// logLines of the agent are told when it does not get Ready.
	logLines = "8"
)

// await waits until the server sees the host Ready by the agent that was started.
func (j *job) await(ctx context.Context) error {
	o := j.opts
	wait, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	changes := o.Fleet.Watch(wait, v1alpha1.KindHost, "")
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	missing := "the server does not know it yet"
	for {
		h, err := getHost(wait, o.Fleet, o.Name)
		switch {
		case err == nil && j.ready(h):
			return j.stands(ctx)
		case err == nil:
			missing = j.missing(h)
		case wait.Err() == nil && !errors.Is(err, store.ErrUnavailable):
			return err
		}
		select {
		case _, ok := <-changes:
			if !ok {
				changes = nil
			}
			continue
		case <-tick.C:
			if err := j.stands(wait); err != nil && wait.Err() == nil {
				return err
			}
			if line := j.log(wait, "1"); line != "" {
				o.tell("join", missing+"; the agent says: "+line)
			}
			continue
		case <-wait.Done():
		}
		break
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("%w after %s: %s. The agent's last lines: %s", ErrNotJoined, o.Timeout, missing, j.log(ctx, logLines))
}

// missing says what a host lacks to be Ready.
func (j *job) missing(h *v1alpha1.EtcdHost) string {
	if h == nil {
		return "the server does not know host " + j.opts.Name
	}
	c := v1alpha1.FindCondition(h.Status.Conditions, v1alpha1.ConditionReady)
	switch {
	case c == nil:
		return "the agent has not reported yet"
	case c.Status != v1alpha1.True:
		return c.Message
	}
	return fmt.Sprintf("the agent of version %s has not been followed by %s yet", h.Status.AgentVersion, j.opts.Binary.Version)
}

// mostRestarts of the agent's unit are waited for: an agent that can't join ends, and
// systemd starts it again for ever.
const mostRestarts = 4

// stands checks that the agent that was started still runs. The host may have been Ready
// by the one before.
func (j *job) stands(ctx context.Context) error {
	if j.pid == "" {
		return nil
	}
	script := prelude + `[ -d /proc/` + j.pid + ` ] && echo 0 || echo ended; exit 0`
	if j.facts.systemd {
		script = prelude + `systemctl show -p NRestarts ` + UnitName + ` | cut -d = -f 2`
	}
	out, err := j.conn.asRoot(ctx, script, nil)
	if err != nil {
		return err
	}
	// A systemd of old does not count: nothing is 0, and the time is what ends it.
	if n, _ := strconv.Atoi(strings.TrimSpace(out)); strings.TrimSpace(out) != "ended" && n < mostRestarts {
		return nil
	}
	return fmt.Errorf("%w: the agent ends after it is started. Its last lines: %s", ErrNotJoined, j.log(ctx, logLines))
}

// log reads the agent's last lines; empty where they can't be had.
func (j *job) log(ctx context.Context, lines string) string {
	script := prelude + `journalctl -q -u ` + UnitName + ` -n ` + lines + ` --no-pager -o cat 2>/dev/null; exit 0`
	if !j.facts.systemd {
		script = prelude + `tail -n ` + lines + ` ` + logPath + ` 2>/dev/null; exit 0`
	}
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	out, err := j.conn.asRoot(ctx, script, nil)
	if err != nil {
		return ""
	}
	return lastLines(out, 8)
}

// cleanUp removes the token: it was used, and is good for nothing any more.
func (j *job) cleanUp(ctx context.Context) error {
	_, err := j.conn.asRoot(ctx, prelude+`rm -f `+tokenPath, nil)
	return err
}
