package install

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
)

// Fleet is what an installation asks of the server.
type Fleet interface {
	store.Store
	// CreateJoinToken makes a token by which one agent joins as host, once.
	CreateJoinToken(ctx context.Context, host string, ttl time.Duration) (token string, expires time.Time, err error)
}

const (
	// tokenLife is long enough for an agent that has to wait for its server, and short
	// for what lies on a disk.
	tokenLife = 15 * time.Minute
	// defaultTimeout bounds the wait for the host.
	defaultTimeout = 2 * time.Minute
)

// Options of an installation.
type Options struct {
	Target   Target
	Auth     Auth
	HostKeys HostKeys
	// Dial opens the TCP connection; nil: the network's own.
	Dial Dialer

	// Name of the EtcdHost. Default: the machine's own name.
	Name string
	// Address that members listen on. Default: that of the target, if it is an IP
	// address.
	Address string
	// Names, Zone, Pool and Labels of the EtcdHost. What is empty stays as it is where
	// the host exists.
	Names  []string
	Zone   string
	Pool   string
	Labels map[string]string

	Binary Binary
	// ServerURL is where the machine reaches the server.
	ServerURL string
	Fleet     Fleet
	// DataDir on the machine. Default: DefaultDataDir.
	DataDir string

	// WithoutSystemd has the agent started in a session of its own where no systemd
	// runs. Without it such a machine is refused.
	WithoutSystemd bool
	// Downgrade lets an older program take the place of a newer one.
	Downgrade bool
	// Rejoin has a machine that has joined, here or elsewhere, join anew.
	Rejoin bool
	// DryRun changes nothing, on the machine and on the server.
	DryRun bool
	// Timeout of the wait for the host to be Ready. Default: two minutes.
	Timeout time.Duration
	// Progress is told what goes on, never twice at the same time but from several
	// goroutines; may be nil.
	Progress func(Progress)
}

// Progress is a line about what goes on.
type Progress struct {
	Target Target
	// Host is its name, once it is known.
	Host string
	// Step that goes on, such as "binary".
	Step string
	Text string
}

// Change is what an installation came to.
type Change string

// The changes.
const (
	Added     Change = "Added"
	Upgraded  Change = "Upgraded"
	Repaired  Change = "Repaired"
	Unchanged Change = "Unchanged"
	Removed   Change = "Removed"
)

// Step is one of those that were needed.
type Step struct {
	Name string `json:"name"`
	// What it does, in words.
	What string `json:"what"`
	// Done is set once it was taken.
	Done bool `json:"done"`
}

// Result of an installation, also of one that failed.
type Result struct {
	Target  string `json:"target"`
	Host    string `json:"host,omitempty"`
	Address string `json:"address,omitempty"`
	// Platform of the machine, such as linux/amd64.
	Platform string `json:"platform,omitempty"`
	// HostKey is the fingerprint of the machine's key.
	HostKey string `json:"hostKey,omitempty"`
	// Version of the agent, and the one before, if there was one.
	Version  string `json:"version,omitempty"`
	Previous string `json:"previousVersion,omitempty"`
	// ClockOffset of the machine to this one, in milliseconds.
	ClockOffset int64  `json:"clockOffsetMilliseconds"`
	Change      Change `json:"change,omitempty"`
	// Steps that were needed, in order; none when all was as it should be.
	Steps    []Step   `json:"steps"`
	Warnings []string `json:"warnings,omitempty"`
	DryRun   bool     `json:"dryRun,omitempty"`
	// Error says why it failed; empty when it did not.
	Error string `json:"error,omitempty"`
}

// Install makes the machine a host, and waits until it is Ready. It may be called again
// at any time, and after any failure: what is done is found, and stays.
func Install(ctx context.Context, o Options) (Result, error) {
	return told(ctx, &o, install)
}

// told has a result say what was done, also where it failed.
func told(ctx context.Context, o *Options, do func(context.Context, *Options, *Result) error) (Result, error) {
	r := Result{Target: o.Target.String(), Steps: []Step{}, DryRun: o.DryRun}
	err := do(ctx, o, &r)
	if err != nil {
		r.Error = err.Error()
	}
	return r, err
}

func install(ctx context.Context, o *Options, r *Result) error {
	defaults(o)
	if err := o.check(); err != nil {
		return err
	}
	known, err := findHost(ctx, o)
	if err != nil {
		return err
	}
	if known != nil {
		o.HostKeys.Remembered = known.Annotations[v1alpha1.AnnotationSSHHostKey]
	}
	o.tell("connect", "connecting")
	c, err := dial(ctx, o.Target, o.Auth, o.HostKeys, o.Dial)
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // nothing is under way any more
	r.HostKey = fingerprint(c.key)
	o.tell("check", "looking at the machine")
	f, err := c.gather(ctx, o.DataDir)
	if err != nil {
		return err
	}
	r.Platform, r.ClockOffset, r.Previous = f.platform(), f.offset.Milliseconds(), f.binaryVersion
	if o.Name == "" {
		o.Name = strings.ToLower(f.name)
	}
	if known == nil || known.Name != o.Name {
		if known, err = getHost(ctx, o.Fleet, o.Name); err != nil {
			return err
		}
		if err = remembers(known, o, c); err != nil {
			return err
		}
	}
	if o.Address == "" && known != nil {
		o.Address = known.Spec.Address
	}
	if ip := o.Target.ip(); o.Address == "" && ip.IsValid() {
		o.Address = ip.String()
	}
	r.Host, r.Address, r.Version = o.Name, o.Address, o.Binary.Version
	if r.Warnings, err = preconditions(f, o, known); err != nil {
		return err
	}
	return work(ctx, o, &job{conn: c, opts: o, facts: f, host: known, result: r})
}

// work takes the steps that are needed.
func work(ctx context.Context, o *Options, j *job) error {
	steps := j.plan()
	j.result.Change = j.change(steps)
	return take(ctx, o, j.result, steps)
}

// take takes the steps in order, unless it is a dry run.
func take(ctx context.Context, o *Options, r *Result, steps []step) error {
	for _, s := range steps {
		r.Steps = append(r.Steps, Step{Name: s.name, What: s.what})
	}
	if o.DryRun {
		return nil
	}
	var done []string
	for i, s := range steps {
		o.tell(s.name, s.what)
		if err := s.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", o.Target, &StepError{Step: s.name, Done: done, Err: err})
		}
		done = append(done, s.name)
		r.Steps[i].Done = true
	}
	return nil
}

func defaults(o *Options) {
	if o.DataDir == "" {
		o.DataDir = DefaultDataDir
	}
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
}

func (o *Options) tell(step, text string) {
	o.Progress(Progress{Target: o.Target, Host: o.Name, Step: step, Text: text})
}

// check refuses what can't lead to an agent that joins.
func (o *Options) check() error {
	if !strings.HasPrefix(o.ServerURL, "https://") {
		return fmt.Errorf("the server's URL for hosts is %q: agents join by certificates, so give one that begins with https:// (--server-url), and start the server with TLS (--tls-self-made makes all that it needs)", o.ServerURL)
	}
	return o.checkWords()
}

// checkWords refuses what could not be written into a script or a unit as it stands.
func (o *Options) checkWords() error {
	for _, w := range []struct{ what, value string }{
		{"the data directory", o.DataDir}, {"the name", o.Name}, {"the address", o.Address}, {"the server's URL", o.ServerURL},
	} {
		if !plain.MatchString(w.value) {
			return fmt.Errorf("%s is %q: use letters, digits and any of . _ - / : [ ] @ alone", w.what, w.value)
		}
	}
	if !strings.HasPrefix(o.DataDir, "/") || strings.Contains(o.DataDir, "..") {
		return fmt.Errorf("the data directory is %q: give a path from the root of the machine", o.DataDir)
	}
	if o.Address != "" {
		if _, err := netip.ParseAddr(o.Address); err != nil {
			return fmt.Errorf("the address is %q: give an IP address, which members listen on", o.Address)
		}
	}
	return nil
}

// findHost finds the EtcdHost that the target is known as, before the machine was asked
// for its name: by the name that was given, the target that it was added by, or its
// address. Nil where there is none.
func findHost(ctx context.Context, o *Options) (*v1alpha1.EtcdHost, error) {
	if o.Name != "" {
		return getHost(ctx, o.Fleet, o.Name)
	}
	objects, err := o.Fleet.List(ctx, v1alpha1.KindHost, store.ListOptions{})
	if err != nil {
		return nil, err
	}
	for _, obj := range objects {
		h, ok := obj.(*v1alpha1.EtcdHost)
		if ok && o.Target.IsAt(h.Annotations[v1alpha1.AnnotationSSHTarget]) {
			return h, nil
		}
	}
	return nil, nil //nolint:nilnil // that there is none is an answer
}

// remember sets the key that the machine of a host must have.
func remember(ctx context.Context, o *Options) error {
	known, err := findHost(ctx, o)
	if known != nil {
		o.HostKeys.Remembered = known.Annotations[v1alpha1.AnnotationSSHHostKey]
	}
	return err
}

func getHost(ctx context.Context, s store.Store, name string) (*v1alpha1.EtcdHost, error) {
	h := &v1alpha1.EtcdHost{}
	err := s.Get(ctx, store.Key{Name: name}, h)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil //nolint:nilnil // that there is none is an answer
	}
	if err != nil {
		return nil, err
	}
	return h, nil
}

// remembers checks the key of a machine whose name was learned from itself.
func remembers(known *v1alpha1.EtcdHost, o *Options, c *conn) error {
	if known == nil || known.Annotations[v1alpha1.AnnotationSSHHostKey] == "" || o.HostKeys.Pin != "" {
		return nil
	}
	again, err := newChecker(o.Target, HostKeys{Remembered: known.Annotations[v1alpha1.AnnotationSSHHostKey]})
	if err != nil {
		return err
	}
	if again.remembered.Type() != c.key.Type() {
		// It may have that key too, and has shown another.
		return fmt.Errorf("%w: %s calls itself host %s, which had %s when it was added, and shows %s: give --name %s, so that it is asked for that key",
			ErrHostKey, o.Target, known.Name, fingerprint(again.remembered), fingerprint(c.key), known.Name)
	}
	return again.check("", nil, c.key)
}
