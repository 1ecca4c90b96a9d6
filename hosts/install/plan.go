package install

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/internal/bytesize"
)

// job is one installation under way.
type job struct {
	conn  *conn
	opts  *Options
	facts *facts
	// host is the EtcdHost as it was found; nil where there was none.
	host   *v1alpha1.EtcdHost
	result *Result
	// pid of the agent once it was started.
	pid string
}

// step is one that is needed.
type step struct {
	name string
	// what it does, in words.
	what string
	do   func(ctx context.Context) error
}

// file is what a path on the machine is to hold.
type file struct {
	path string
	mode string
	data []byte
}

func (f file) sum() string {
	sum := sha256.Sum256(f.data)
	return hex.EncodeToString(sum[:])
}

// plan lists the steps that are needed, in order. It only compares.
func (j *job) plan() []step {
	var steps []step
	add := func(name, what string, do func(context.Context) error) {
		steps = append(steps, step{name, what, do})
	}
	o, f := j.opts, j.facts
	if what := j.registers(); what != "" {
		add("register", what, j.register)
	}
	if !f.configOK || f.dataMode != "700" {
		add("directories", "make "+ConfigDir+" and "+o.DataDir, j.directories)
	}
	binary := f.binarySHA != o.Binary.SHA256
	if binary {
		what := fmt.Sprintf("put quorate %s (%s) at %s", o.Binary.Version, bytesize.Text(o.Binary.Size), BinaryPath)
		if f.binaryVersion != "" {
			what += ", in the place of " + f.binaryVersion
		}
		add("binary", what, j.binary)
	}
	files := slices.DeleteFunc(j.files(), func(want file) bool { return f.sums[want.path] == want.sum() })
	if len(files) > 0 {
		var paths []string
		for _, want := range files {
			paths = append(paths, want.path)
		}
		add("configuration", "write "+strings.Join(paths, " and "), func(ctx context.Context) error { return j.write(ctx, files) })
	}
	joins := j.joins()
	if joins {
		add("token", "put a join token for host "+o.Name+" at "+tokenPath+", good once and for "+tokenLife.String(), j.token)
	}
	restart := binary || len(files) > 0 || joins || f.pid == 0 || f.stale || !f.dropIns && f.cmdline != j.cmdline()
	switch {
	case restart && f.pid != 0:
		add("start", "restart the agent; members go on", j.start)
	case restart || f.systemd && !f.enabled:
		add("start", "start the agent, now and at boot", j.start)
	}
	if len(steps) > 0 || !j.ready(j.host) {
		add("join", "wait until the server sees host "+o.Name+" Ready", j.await)
	}
	if joins || f.token {
		add("clean-up", "remove the join token", j.cleanUp)
	}
	return steps
}

// change is what the steps come to.
func (j *job) change(steps []step) Change {
	has := func(name string) bool {
		return slices.ContainsFunc(steps, func(s step) bool { return s.name == name })
	}
	switch {
	case len(steps) == 0, len(steps) == 1 && has("join"): // it is only waited for
		return Unchanged
	case j.facts.binarySHA == "" || j.facts.record == nil || j.host == nil || has("token"):
		return Added
	case has("binary"):
		return Upgraded
	}
	return Repaired
}

// joins reports whether the agent has to join. Where the host's object is gone, or is new
// and was never reported of, what made its certificate good is gone too.
func (j *job) joins() bool {
	return !j.facts.identity || j.host == nil || j.host.Status.Platform == "" || j.opts.Rejoin
}

// args are the agent's arguments. Zone, pool and labels stand in the EtcdHost alone, where
// a person may change them.
func (j *job) args() []string {
	o := j.opts
	return []string{
		"agent", "--server", o.ServerURL, "--host", o.Name, "--address", o.Address, "--data-dir", o.DataDir, "--join-token-file", tokenPath,
	}
}

// cmdline is the SHA-256 of the agent's command line as /proc has it.
func (j *job) cmdline() string {
	var b bytes.Buffer
	for _, arg := range append([]string{BinaryPath}, j.args()...) {
		b.WriteString(arg)
		b.WriteByte(0)
	}
	return file{data: b.Bytes()}.sum()
}

// files are what the machine is to hold beside the program.
func (j *job) files() []file {
	raw, _ := json.Marshal(record{Host: j.opts.Name, Server: j.opts.ServerURL}) // two strings
	command := BinaryPath + " " + strings.Join(j.args(), " ")
	start := file{path: unitPath, mode: "0644", data: []byte(unit(command))}
	if !j.facts.systemd {
		start = file{path: startPath, mode: "0755", data: []byte(startScript(command))}
	}
	return []file{{path: recordPath, mode: "0644", data: append(raw, '\n')}, start}
}

// unit is the agent's unit. The words of the command are plain, so that none needs to be
// quoted.
func unit(command string) string {
	return `# Written by quorate host add, which replaces it. Put changes into a drop-in, by
# systemctl edit ` + UnitName + `
[Unit]
Description=Quorate agent, which looks after the etcd members of this host
Wants=network-online.target
After=network-online.target time-sync.target
StartLimitIntervalSec=0

[Service]
# Such as HTTPS_PROXY; it need not exist.
EnvironmentFile=-` + ConfigDir + `/agent.env
ExecStart=` + command + `
# Members outlive the agent: stopping it stops nothing else.
KillMode=process
Restart=always
RestartSec=3
# What etcd wants; supervisors without a unit of their own inherit it.
LimitNOFILE=65536
TasksMax=infinity
OOMScoreAdjust=-500
UMask=0077

[Install]
WantedBy=multi-user.target
`
}

// startScript starts the agent in a session of its own, unless it runs.
func startScript(command string) string {
	return `#!/bin/sh
# Written by quorate host add, which replaces it. It starts the agent, unless it runs:
# have whatever starts services on this machine run it at boot.
` + prelude + sessionPID + `
[ "$pid" != 0 ] && exit 0
umask 077
ulimit -n 65536 2>/dev/null
setsid /bin/sh -c 'echo "$$" > ` + pidPath + `; exec ` + command + `' </dev/null >>` + logPath + ` 2>&1 &
`
}

// registers says what the server has to be told of the host; empty when it knows all.
func (j *job) registers() string {
	if j.host == nil {
		return "create host " + j.opts.Name + " (" + j.opts.Address + ") on the server"
	}
	if h := j.host.DeepCopy(); j.describe(h) {
		return "update host " + j.opts.Name + " on the server"
	}
	return ""
}

// describe writes into a host what is wanted of it, and reports whether that is new.
func (j *job) describe(h *v1alpha1.EtcdHost) bool {
	was := h.DeepCopy()
	o := j.opts
	h.Spec.Address = o.Address
	if len(o.Names) > 0 {
		h.Spec.Names = o.Names
	}
	if o.Zone != "" {
		h.Spec.Zone = o.Zone
	}
	if o.Pool != "" {
		h.Spec.Pool = o.Pool
	}
	for k, v := range o.Labels {
		if h.Labels == nil {
			h.Labels = map[string]string{}
		}
		h.Labels[k] = v
	}
	if h.Annotations == nil {
		h.Annotations = map[string]string{}
	}
	if !o.Target.IsAt(h.Annotations[v1alpha1.AnnotationSSHTarget]) {
		h.Annotations[v1alpha1.AnnotationSSHTarget] = o.Target.String()
	}
	// A key that was pinned on purpose is the one to remember from now on.
	if h.Annotations[v1alpha1.AnnotationSSHHostKey] == "" || o.HostKeys.Pin != "" {
		h.Annotations[v1alpha1.AnnotationSSHHostKey] = authorized(j.conn.key)
	}
	return !v1alpha1.Equal(*was, *h)
}

// ready reports whether the host is Ready, with the agent that was installed.
func (j *job) ready(h *v1alpha1.EtcdHost) bool {
	if h == nil || j.opts.Binary.Version != "" && h.Status.AgentVersion != j.opts.Binary.Version {
		return false
	}
	c := v1alpha1.FindCondition(h.Status.Conditions, v1alpha1.ConditionReady)
	return c != nil && c.Status == v1alpha1.True
}
