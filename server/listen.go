package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
)

// Listen listens on addr, such as 127.0.0.1:7379, with TLS unless config is nil.
// Only a loopback address may go without: anywhere else tokens and keys would
// cross the network in the clear.
func Listen(ctx context.Context, addr string, config *tls.Config) (net.Listener, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %q: %w: give an address as HOST:PORT, such as 127.0.0.1:7379", addr, err)
	}
	if config == nil {
		if host, err = loopback(ctx, host); err != nil {
			return nil, fmt.Errorf("listen on %s: %w", addr, err)
		}
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(host, port))
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w: stop what uses it, or choose another with --listen", addr, err)
	}
	if config == nil {
		return ln, nil
	}
	config = config.Clone()
	config.MinVersion = max(config.MinVersion, tls.VersionTLS12)
	// Streams are cut off by deadlines of their connection, so one request has one.
	config.NextProtos = []string{"http/1.1"}
	return tls.NewListener(ln, config), nil
}

// loopback returns the loopback address that host means, or an error if it means
// any other.
func loopback(ctx context.Context, host string) (string, error) {
	var ips []net.IPAddr
	if host != "" {
		found, err := net.DefaultResolver.LookupIPAddr(ctx, host)
		if err != nil {
			return "", err
		}
		ips = found
	}
	for _, ip := range ips {
		if !ip.IP.IsLoopback() {
			ips = nil
			break
		}
	}
	if len(ips) == 0 {
		return "", errors.New("it is not a loopback address, so TLS is required: give --tls-self-made, or --tls-cert-file and --tls-key-file, or listen on 127.0.0.1")
	}
	return ips[0].String(), nil
}
