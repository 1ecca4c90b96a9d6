package host

import (
	"context"
	"fmt"
	"io"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/driver"
	"github.com/quorate/quorate/driver/host/logfile"
)

// Logs implements driver.Driver. It reads over rotated files, and follows across
// rotation until ctx ends or the reader closes it. A log not yet begun is empty.
func (d *Driver) Logs(ctx context.Context, m *v1alpha1.EtcdMember, opts driver.LogOptions) (io.ReadCloser, error) {
	if err := named(m); err != nil {
		return nil, err
	}
	h := d.home(m)
	there, err := exists(string(h))
	if err != nil {
		return nil, fmt.Errorf("log of %s/%s: %w", m.Namespace, m.Name, err)
	}
	if !there {
		return nil, fmt.Errorf("log of %s/%s: the member has no home on this host: %w", m.Namespace, m.Name, errNoHome)
	}
	logs := h.LogsFor(m.Name, m.Spec.Etcd.Logging)
	if o, unread := h.ReadOrder(); unread == nil {
		logs = o.Logs
	}
	var path string
	switch opts.Source {
	case "", driver.LogEtcd:
		path = logs.Etcd
	case driver.LogError:
		path = logs.Error
	case driver.LogSupervisor:
		if d.opts.Systemd != nil {
			return journal(ctx, unitOf(h), opts)
		}
		path = h.SupervisorLog()
	default:
		return nil, fmt.Errorf("log of %s/%s: there is no source %q: use %s, %s or %s", m.Namespace, m.Name, opts.Source, driver.LogEtcd, driver.LogError, driver.LogSupervisor)
	}
	at, err := logfile.Tail(path, opts.Tail)
	if err != nil {
		return nil, fmt.Errorf("log of %s/%s: %w", m.Namespace, m.Name, err)
	}
	return logfile.Open(ctx, path, at, opts.Follow), nil
}
