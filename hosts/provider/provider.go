// Package provider gets the machines that become hosts, and gives them back. A provider
// of a cloud would make a virtual machine; the one that is here, SSH, takes machines
// that are there already from a list.
package provider

import (
	"context"
	"errors"
)

// HostProvider gets machines and gives them back.
type HostProvider interface {
	// Create gets a machine that fits, and makes it a host: it is Ready when Create
	// returns. ErrNone when there is none. After another error the machine may be
	// half installed; Create with its name goes on.
	Create(ctx context.Context, spec Spec) (Machine, error)
	// Delete gives the machine of a host back, once no member is on it. ErrUnknown when
	// it is none of the provider's.
	Delete(ctx context.Context, name string) error
}

// Errors of a HostProvider; test with errors.Is.
var (
	// ErrNone: no machine is free that fits.
	ErrNone = errors.New("no machine is free")
	// ErrUnknown: the provider has no such machine.
	ErrUnknown = errors.New("no such machine")
)

// Spec says which machine is wanted. What is empty is not asked for.
type Spec struct {
	Name string
	Zone string
	Pool string
	// Labels the machine must have.
	Labels map[string]string
}

// Machine is one that is, or may become, a host.
type Machine struct {
	// Name of the EtcdHost; empty: what the machine calls itself.
	Name string `json:"name,omitempty"`
	// SSH is where it is reached: ssh://user@host[:port].
	SSH string `json:"ssh"`
	// Address that members listen on; empty: that of SSH, if it is an IP address.
	Address string `json:"address,omitempty"`
	// Names are its DNS names, for the members' certificates.
	Names []string `json:"names,omitempty"`
	Zone  string   `json:"zone,omitempty"`
	// Pool; empty is the pool "default".
	Pool   string            `json:"pool,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
	// HostKey is the fingerprint of its host key: SHA256:…
	HostKey string `json:"hostKey,omitempty"`
}

// defaultPool is that of hosts that name none.
const defaultPool = "default"

// Fits reports whether the machine is as the spec wants it.
func (m Machine) Fits(s Spec) bool {
	pool := m.Pool
	if pool == "" {
		pool = defaultPool
	}
	for k, v := range s.Labels {
		if m.Labels[k] != v {
			return false
		}
	}
	return (s.Name == "" || s.Name == m.Name) && (s.Zone == "" || s.Zone == m.Zone) && (s.Pool == "" || s.Pool == pool)
}
