package provider

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"sigs.k8s.io/yaml"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/hosts/install"
	"github.com/quorate/quorate/store"
)

// SSH is the HostProvider of machines that are there already: it takes the next of a
// list that is no host yet, and installs it by SSH. It may be asked for several at the
// same time.
type SSH struct {
	// Machines in the order in which they are taken.
	Machines []Machine
	// Options of every installation, without what a Machine says itself.
	Options install.Options
	// User of the targets that name none.
	User string
	// Report is told the result of each installation; may be nil.
	Report func(install.Result)

	mu sync.Mutex
	// taken are the machines that were given out, by their SSH target.
	taken map[string]bool
}

var _ HostProvider = (*SSH)(nil)

// list is a file of machines.
type list struct {
	Hosts []Machine `json:"hosts"`
}

// ParseList reads a list of machines in YAML, and refuses what it does not know. User is
// that of the targets that name none.
func ParseList(raw []byte, user string) ([]Machine, error) {
	var l list
	if err := yaml.UnmarshalStrict(raw, &l); err != nil {
		// The parser's own layers say nothing to whoever wrote the file.
		_, cause, found := strings.Cut(err.Error(), "json: ")
		if !found {
			cause = err.Error()
		}
		return nil, fmt.Errorf("the list of hosts can't be read: %s: write it as hosts: with a list of name, ssh, address, names, zone, pool, labels and hostKey", cause)
	}
	if len(l.Hosts) == 0 {
		return nil, errors.New("the list of hosts is empty: write the machines below hosts: in it")
	}
	seen := map[string]int{}
	for i, m := range l.Hosts {
		t, err := install.ParseTarget(m.SSH, user)
		if err != nil {
			return nil, fmt.Errorf("host %d of the list: %w", i+1, err)
		}
		for _, id := range []string{"ssh " + t.String(), "name " + m.Name} {
			if before, twice := seen[id]; twice && id != "name " {
				return nil, fmt.Errorf("hosts %d and %d of the list have the same %s", before, i+1, id)
			}
			seen[id] = i + 1
		}
	}
	return l.Hosts, nil
}

// Of returns the options by which a machine is installed.
func (p *SSH) Of(m Machine) (install.Options, error) {
	o := p.Options
	t, err := install.ParseTarget(m.SSH, p.User)
	if err != nil {
		return o, err
	}
	o.Target = t
	for _, field := range []struct {
		to   *string
		from string
	}{{&o.Name, m.Name}, {&o.Address, m.Address}, {&o.Zone, m.Zone}, {&o.Pool, m.Pool}, {&o.HostKeys.Pin, m.HostKey}} {
		if field.from != "" {
			*field.to = field.from
		}
	}
	if len(m.Names) > 0 {
		o.Names = m.Names
	}
	if len(m.Labels) > 0 {
		o.Labels = m.Labels
	}
	return o, nil
}

// Create implements HostProvider.
func (p *SSH) Create(ctx context.Context, spec Spec) (Machine, error) {
	m, err := p.next(ctx, spec)
	if err != nil {
		return Machine{}, err
	}
	o, err := p.Of(m)
	if err != nil {
		return Machine{}, err
	}
	r, err := install.Install(ctx, o)
	if p.Report != nil {
		p.Report(r)
	}
	if err != nil {
		return Machine{}, err
	}
	m.Name, m.Address = r.Host, r.Address
	return m, nil
}

// next takes the next machine that fits. One that is asked for by its name is taken also
// where it is a host already, so that an installation can go on.
func (p *SSH) next(ctx context.Context, spec Spec) (Machine, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	hosts, err := p.Options.Fleet.List(ctx, v1alpha1.KindHost, store.ListOptions{})
	if err != nil {
		return Machine{}, err
	}
	for _, m := range p.Machines {
		if !m.Fits(spec) || p.taken[m.SSH] || spec.Name == "" && p.isHost(m, hosts) {
			continue
		}
		if p.taken == nil {
			p.taken = map[string]bool{}
		}
		p.taken[m.SSH] = true
		return m, nil
	}
	return Machine{}, fmt.Errorf("%w: of %d in the list, none that is no host yet is %s: add one to the list", ErrNone, len(p.Machines), spec)
}

// isHost reports whether a machine is a host that is Ready. One that was begun and not
// finished is still to be taken.
func (p *SSH) isHost(m Machine, hosts []v1alpha1.Object) bool {
	o, err := p.Of(m)
	if err != nil {
		return false
	}
	for _, obj := range hosts {
		h, ok := obj.(*v1alpha1.EtcdHost)
		if !ok || h.Name != m.Name && !o.Target.IsAt(h.Annotations[v1alpha1.AnnotationSSHTarget]) {
			continue
		}
		// Ready is written when the agent has joined, and not taken back but by the
		// agent's silence.
		return v1alpha1.FindCondition(h.Status.Conditions, v1alpha1.ConditionReady) != nil && h.Status.Platform != ""
	}
	return false
}

// Delete implements HostProvider. The EtcdHost is not touched: it is removed once its
// agent is gone.
func (p *SSH) Delete(ctx context.Context, name string) error {
	host := &v1alpha1.EtcdHost{}
	if err := p.Options.Fleet.Get(ctx, store.Key{Name: name}, host); err != nil {
		return err
	}
	for _, m := range p.Machines {
		o, err := p.Of(m)
		if err != nil {
			return err
		}
		if m.Name != name && !o.Target.IsAt(host.Annotations[v1alpha1.AnnotationSSHTarget]) {
			continue
		}
		o.Name = name
		_, err = install.Uninstall(ctx, o)
		return err
	}
	return fmt.Errorf("host %s: %w in the list", name, ErrUnknown)
}

// String says what is wanted.
func (s Spec) String() string {
	var parts []string
	for _, w := range []struct{ what, value string }{{"name", s.Name}, {"zone", s.Zone}, {"pool", s.Pool}} {
		if w.value != "" {
			parts = append(parts, w.what+" "+w.value)
		}
	}
	for k, v := range s.Labels {
		parts = append(parts, "label "+k+"="+v)
	}
	if len(parts) == 0 {
		return "there"
	}
	return "of " + strings.Join(parts, ", ")
}
