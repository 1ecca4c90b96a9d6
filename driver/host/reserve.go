package host

import (
	"errors"
	"net"
	"strconv"
	"syscall"
)

// reserve keeps a port from the drivers of other directories on this host, whose
// ports files are not known here, between its choice and etcd's start. A name in
// the abstract socket namespace does that: like ports, it belongs to the network
// namespace, and it goes with the process. It reports false if another driver has
// the port.
func (d *Driver) reserve(port int32) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.reserved[port] != nil {
		return true
	}
	addr := &net.UnixAddr{Name: "@quorate-port-" + strconv.Itoa(int(port)), Net: "unixgram"}
	c, err := net.ListenUnixgram("unixgram", addr)
	if err != nil {
		// Where such names can't be had at all, binding the port has to do.
		return !errors.Is(err, syscall.EADDRINUSE)
	}
	d.reserved[port] = c
	return true
}

func (d *Driver) unreserve(ports ...int32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, port := range ports {
		if c := d.reserved[port]; c != nil {
			_ = c.Close()
			delete(d.reserved, port)
		}
	}
}

// Close gives up what the driver holds in memory. Members and their supervisors go
// on.
func (d *Driver) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	for port, c := range d.reserved {
		errs = append(errs, c.Close())
		delete(d.reserved, port)
	}
	return errors.Join(errs...)
}
