package netlab

import (
	"context"
	"net"
	"os/exec"
)

// Do runs f on a thread of this process that is on the host: sockets that f itself opens
// are there. What f starts on other goroutines is not.
func (h *Host) Do(f func() error) error { return h.ns.do(f) }

// NetNS is the path of the host's namespace, as for `nsenter --net=PATH`.
func (h *Host) NetNS() string { return h.ns.path() }

// Start starts a command on the host, as exec.Cmd's Start does it here. Its Wait works
// as ever.
func (h *Host) Start(cmd *exec.Cmd) error { return h.ns.do(cmd.Start) }

// Run starts a command on the host and waits for its end.
func (h *Host) Run(cmd *exec.Cmd) error {
	if err := h.Start(cmd); err != nil {
		return err
	}
	return cmd.Wait()
}

// DialContext connects from the host to ADDRESS:PORT, which must be numeric. It has the
// shape that http.Transport wants; see Dial for gRPC.
func (h *Host) DialContext(ctx context.Context, _, address string) (conn net.Conn, err error) {
	err = h.ns.do(func() error {
		// With one numeric address of one family, all of it happens on this goroutine.
		conn, err = (&net.Dialer{}).DialContext(ctx, "tcp4", address)
		return err
	})
	return conn, err
}

// Dial connects from the host: it has the shape that grpc.WithContextDialer wants.
func (h *Host) Dial(ctx context.Context, address string) (net.Conn, error) {
	return h.DialContext(ctx, "tcp4", address)
}

// Listen listens on the host at ADDRESS:PORT, which must be numeric.
func (h *Host) Listen(ctx context.Context, address string) (ln net.Listener, err error) {
	err = h.ns.do(func() error {
		ln, err = (&net.ListenConfig{}).Listen(ctx, "tcp4", address)
		return err
	})
	return ln, err
}
