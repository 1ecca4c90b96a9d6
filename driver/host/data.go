package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/datadir"
	"github.com/quorate/quorate/driver"
	"github.com/quorate/quorate/driver/host/supervisor"
)

type data struct {
	driver *Driver
	member *v1alpha1.EtcdMember
}

// Data implements driver.Driver.
func (d *Driver) Data(m *v1alpha1.EtcdMember) driver.Data { return data{driver: d, member: m} }

// Retire renames the home to retired/, and keeps it as the member's deletion
// policy says. ErrNotStopped without a proof of stop.
func (a data) Retire(ctx context.Context) (string, error) {
	d, m := a.driver, a.member
	if err := named(m); err != nil {
		return "", err
	}
	h := d.home(m)
	defer d.lock(h)()
	v := d.look(h)
	if v.there {
		if v.restoring {
			return "", fmt.Errorf("retire %s/%s: %w: its data is being restored; end that first", m.Namespace, m.Name, driver.ErrNotStopped)
		}
		if err := mayRetire(m, v); err != nil {
			return "", err
		}
		// No supervisor begins while the home moves.
		lock, err := h.TryLock()
		if errors.Is(err, supervisor.ErrHeld) {
			return "", fmt.Errorf("retire %s/%s: %w: %w", m.Namespace, m.Name, driver.ErrNotStopped, err)
		}
		if err != nil {
			return "", fmt.Errorf("retire %s/%s: %w", m.Namespace, m.Name, err)
		}
		defer lock.Release() //nolint:errcheck // nothing was written through it
	}
	if _, err := d.checked(m, h, v1alpha1.StopProof{}); err != nil {
		return "", err
	}
	if err := ctx.Err(); err != nil {
		return "", err
	}
	why, err := retirement(m)
	if err != nil {
		return "", err
	}
	where, err := datadir.Retire(string(h), time.Now(), d.retiredDir(), why)
	if err != nil {
		return "", err
	}
	d.forget(m, h)
	d.launcher.remove(ctx, h)
	d.unreserve(v.ports.Client, v.ports.Peer, v.ports.Metrics)
	return where, nil
}

func mayRetire(m *v1alpha1.EtcdMember, v *view) error {
	switch {
	case v.stateErr != nil:
		return fmt.Errorf("retire %s/%s: %w: %w; stop the member first", m.Namespace, m.Name, driver.ErrNotStopped, v.stateErr)
	case v.proof() == nil:
		return fmt.Errorf("retire %s/%s: %w: there is no proof in %s; stop the member first", m.Namespace, m.Name, driver.ErrNotStopped, v.home)
	case v.order != nil && v.order.Run == v1alpha1.RunRunning:
		return fmt.Errorf("retire %s/%s: %w: its order is to run; stop the member first", m.Namespace, m.Name, driver.ErrNotStopped)
	}
	return nil
}

// retirement says for how long the data is kept.
func retirement(m *v1alpha1.EtcdMember) (datadir.Retirement, error) {
	why := datadir.Retirement{Reason: fmt.Sprintf("member %s/%s with UID %s was deleted", m.Namespace, m.Name, m.UID)}
	if m.Spec.DeletionPolicy != v1alpha1.DeletionDelete {
		return why, nil
	}
	const usual = 168 * time.Hour
	why.KeepFor = usual
	if m.Spec.RetainFor != "" {
		keep, err := time.ParseDuration(m.Spec.RetainFor)
		if err != nil || keep < 0 {
			return why, fmt.Errorf("retire %s/%s: retainFor %q is not a duration such as 168h", m.Namespace, m.Name, m.Spec.RetainFor)
		}
		// 0 would mean for ever to those who keep it.
		why.KeepFor = max(keep, time.Nanosecond)
	}
	return why, nil
}

// forget drops what is remembered of a home that is gone.
func (d *Driver) forget(m *v1alpha1.EtcdMember, h supervisor.Home) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.notes, string(h))
	delete(d.spawned, string(h))
	delete(d.marks, m.UID)
	delete(d.restores, string(h))
	delete(d.lookups, string(h))
	delete(d.apart, string(h))
	delete(d.usage, string(h))
	for path := range d.certs {
		if strings.HasPrefix(path, string(h)+"/") {
			delete(d.certs, path)
		}
	}
}

// List implements driver.Lister: every home in the directory, whoever declared it.
func (d *Driver) List(ctx context.Context) ([]driver.Found, error) {
	entries, err := os.ReadDir(d.membersDir())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the members of this host: %w", err)
	}
	var all []driver.Found
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if !e.IsDir() {
			continue
		}
		v := d.look(supervisor.Home(filepath.Join(d.membersDir(), e.Name())))
		f := driver.Found{Home: string(v.home)}
		if v.process != nil {
			f.PID = int64(v.process.ID.PID)
		}
		f.Namespace, f.Name, f.UID = v.whose(e.Name())
		all = append(all, f)
	}
	return all, nil
}

// whose home it is: by its order, else by what is left of its name and identity.
func (v *view) whose(dir string) (namespace, name string, uid v1alpha1.UID) {
	if v.order != nil {
		return v.order.Namespace, v.order.Name, v.order.UID
	}
	namespace, rest, _ := strings.Cut(dir, ".")
	name, short := rest, ""
	if i := strings.LastIndexByte(rest, '.'); i >= 0 {
		name, short = rest[:i], rest[i+1:]
	}
	uid = v1alpha1.UID(short)
	if v.idErr == nil && v.identity.MemberUID != "" {
		uid = v1alpha1.UID(v.identity.MemberUID)
	}
	return namespace, name, uid
}
