package supervisor

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/driver/host/logfile"
	"github.com/quorate/quorate/internal/process"
)

// Order is member.json: what the supervisor must do.
type Order struct {
	Namespace string       `json:"namespace"`
	Name      string       `json:"name"`
	UID       v1alpha1.UID `json:"uid"`

	// Run: Running starts etcd; anything else stops it, with proof.
	Run v1alpha1.RunPolicy `json:"run"`
	// ConfigHash of the spec that Args were made of; a change restarts etcd.
	ConfigHash string `json:"configHash,omitempty"`
	// Digest of Executable, which was verified when the order was written.
	Digest     string   `json:"digest,omitempty"`
	Executable string   `json:"executable,omitempty"`
	Args       []string `json:"args,omitempty"`
	// DataDir is the one in Args.
	DataDir string `json:"dataDir"`

	// Joined: the member is known to have joined its cluster, under these IDs in hex.
	Joined    bool              `json:"joined,omitempty"`
	ClusterID string            `json:"clusterID,omitempty"`
	MemberID  string            `json:"memberID,omitempty"`
	Mark      v1alpha1.RaftMark `json:"mark,omitzero"`

	// Formation is there for members that begin without data.
	Formation *FormationOrder `json:"formation,omitempty"`

	// Class and Resources say how the member is kept apart from others of its host. The
	// supervisor does not read them: its group and unit stand by them.
	Class     v1alpha1.ServiceClass `json:"class,omitempty"`
	Resources v1alpha1.Resources    `json:"resources,omitzero"`

	// StopGraceSeconds between SIGTERM and SIGKILL; 0 means 10.
	StopGraceSeconds int  `json:"stopGraceSeconds,omitempty"`
	Logs             Logs `json:"logs"`
}

// Logs are the files a member's logs go to.
type Logs struct {
	// Etcd is written and rotated by etcd itself.
	Etcd string `json:"etcd"`
	// Error gets etcd's lines of level error and worse.
	Error string `json:"error"`
	// Stderr gets what a crash prints.
	Stderr string `json:"stderr"`
	// MaxSize in MiB and MaxBackups bound Error.
	MaxSize    int32 `json:"maxSize,omitempty"`
	MaxBackups int32 `json:"maxBackups,omitempty"`
}

// LogsFor are the log files of the member of that name in this home.
func (h Home) LogsFor(name string, l v1alpha1.Logging) Logs {
	dir := l.Dir
	if dir == "" {
		dir = h.LogDir()
	}
	errorDir := l.ErrorDir
	if errorDir == "" {
		errorDir = dir
	}
	return Logs{
		Etcd:    filepath.Join(dir, name+".log"),
		Error:   filepath.Join(errorDir, name+".error.log"),
		Stderr:  filepath.Join(errorDir, name+".stderr.log"),
		MaxSize: l.MaxSize, MaxBackups: l.MaxBackups,
	}
}

func (o *Order) stopGrace() time.Duration {
	if o == nil || o.StopGraceSeconds <= 0 {
		return 10 * time.Second
	}
	return time.Duration(o.StopGraceSeconds) * time.Second
}

func (o *Order) check() error {
	switch {
	case o.UID == "" || o.Name == "" || o.DataDir == "":
		return fmt.Errorf("%w: the order names no member or no data directory", ErrCorrupt)
	case o.Run == v1alpha1.RunRunning && (o.Executable == "" || o.ConfigHash == "" || len(o.Args) == 0):
		return fmt.Errorf("%w: the order to run names no executable, configuration or arguments", ErrCorrupt)
	}
	return nil
}

// ReadOrder reads member.json. The error is fs.ErrNotExist before the first
// order, or ErrCorrupt.
func (h Home) ReadOrder() (*Order, error) {
	var o Order
	if err := readJSON(h.OrderFile(), &o); err != nil {
		return nil, err
	}
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", h.OrderFile(), err)
	}
	return &o, nil
}

// WriteOrder replaces member.json where it differs, and reports whether it did.
func (h Home) WriteOrder(o *Order) (bool, error) {
	if err := o.check(); err != nil {
		return false, err
	}
	want, err := encode(o)
	if err != nil {
		return false, err
	}
	have, err := os.ReadFile(h.OrderFile())
	if err == nil && bytes.Equal(have, want) {
		return false, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("read the member's order: %w", err)
	}
	return true, writeJSON(h.OrderFile(), o)
}

// State is state.json: what the supervisor did.
type State struct {
	// Supervisor that wrote this.
	Supervisor process.ID `json:"supervisor"`
	// Phase is Starting, Running, CrashLoop, Refused, Failed or Stopped.
	Phase   v1alpha1.MemberPhase `json:"phase"`
	Reason  string               `json:"reason,omitempty"`
	Message string               `json:"message,omitempty"`

	// Intent stands from before etcd is started until Process names it.
	Intent *Intent `json:"intent,omitempty"`
	// Process is the etcd that runs.
	Process *Process `json:"process,omitempty"`
	// Ended is the latest etcd that is known to have ended.
	Ended *Ended `json:"ended,omitempty"`
	// Restarts counts the starts after the first.
	Restarts int64 `json:"restarts,omitempty"`
	// CrashRestarts counts those of them that followed an end nobody asked for.
	CrashRestarts int64 `json:"crashRestarts,omitempty"`
	// Crashes counts unwanted exits that followed each other within a minute.
	Crashes  int                  `json:"crashes,omitempty"`
	LastExit *v1alpha1.ExitStatus `json:"lastExit,omitempty"`
	// StopProof stands until the next intent.
	StopProof *v1alpha1.StopProof `json:"stopProof,omitempty"`
	// Data is the latest verdict on the data directory.
	Data *DataVerdict `json:"data,omitempty"`
	// Formation is how the member's first steps went; nil while nothing is to be told.
	Formation *FormationState `json:"formation,omitempty"`
	// ErrorLog is how far etcd's log has been searched for errors.
	ErrorLog logfile.Cursor `json:"errorLog,omitzero"`
}

// Intent is a start that was begun.
type Intent struct {
	BootID     string    `json:"bootID"`
	At         time.Time `json:"at"`
	ConfigHash string    `json:"configHash"`
	Digest     string    `json:"digest"`
}

// Process is an etcd.
type Process struct {
	ID         process.ID `json:"id"`
	StartedAt  time.Time  `json:"startedAt"`
	ConfigHash string     `json:"configHash"`
	Digest     string     `json:"digest"`
	// Adopted: started by an earlier supervisor.
	Adopted bool `json:"adopted,omitempty"`
}

// Ended is an etcd that has ended.
type Ended struct {
	ID       process.ID `json:"id"`
	At       time.Time  `json:"at"`
	Evidence string     `json:"evidence"`
	// Asked: the supervisor made it end.
	Asked bool `json:"asked,omitempty"`
}

// DataVerdict is what the data-directory law said.
type DataVerdict struct {
	// Refused forbids to start.
	Refused bool `json:"refused"`
	// Reason in one word: OK, Fresh, or why it was refused.
	Reason  string `json:"reason"`
	Message string `json:"message,omitempty"`
}

// ReadState reads state.json. The error is fs.ErrNotExist before the first
// supervisor, or ErrCorrupt.
func (h Home) ReadState() (*State, error) {
	var s State
	if err := readJSON(h.StateFile(), &s); err != nil {
		return nil, err
	}
	if s.Phase == "" {
		return nil, fmt.Errorf("%w: %s says no phase", ErrCorrupt, h.StateFile())
	}
	return &s, nil
}
