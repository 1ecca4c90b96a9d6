package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"

	"github.com/quorate/quorate/fleet"
	"github.com/quorate/quorate/formation/discovery"
	"github.com/quorate/quorate/formation/dns"
	"github.com/quorate/quorate/store"
)

// meetings are what founding members find each other by; each part is nil where it was
// not asked for.
type meetings struct {
	listener  net.Listener
	discovery *discovery.Service
	dns       *dns.Server
}

func openMeetings(ctx context.Context, o ServerOptions, s store.Store) (*meetings, error) {
	m := &meetings{}
	if err := m.openDiscovery(ctx, o, s); err != nil {
		return nil, errors.Join(err, m.close())
	}
	if o.DNSListen == "" {
		return m, nil
	}
	var err error
	if m.dns, err = dns.Listen(ctx, o.DNSListen, s, o.Logger); err != nil {
		return nil, errors.Join(fmt.Errorf("--dns-listen %s: %w", o.DNSListen, err), m.close())
	}
	return m, nil
}

func (m *meetings) openDiscovery(ctx context.Context, o ServerOptions, s store.Store) (err error) {
	if o.DiscoveryListen == "" {
		if o.DiscoveryURL != "" {
			return errors.New("--discovery-url says where --discovery-listen is reached: give that too")
		}
		return nil
	}
	var config net.ListenConfig
	if m.listener, err = config.Listen(ctx, "tcp", o.DiscoveryListen); err != nil {
		return fmt.Errorf("--discovery-listen: %w", err)
	}
	url := o.DiscoveryURL
	if url == "" {
		url = "https://" + m.listener.Addr().String()
	}
	m.discovery, err = discovery.Open(ctx, discovery.Options{Store: s, URL: url, Logger: o.Logger})
	return err
}

// meeting is the discovery service for who makes clusters.
func (m *meetings) meeting() fleet.Meeting {
	if m.discovery == nil {
		return nil
	}
	return m.discovery
}

// run serves both until ctx ends; the first that fails ends both.
func (m *meetings) run(ctx context.Context, log *slog.Logger) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var serving []func(context.Context) error
	if m.discovery != nil {
		log.InfoContext(ctx, "the discovery service listens", slog.String("address", m.listener.Addr().String()))
		serving = append(serving, func(ctx context.Context) error { return m.discovery.Serve(ctx, m.listener) })
	}
	if m.dns != nil {
		log.InfoContext(ctx, "the name server listens", slog.String("address", m.dns.Addr().String()))
		serving = append(serving, m.dns.Serve)
	}
	if len(serving) == 0 {
		<-ctx.Done()
		return nil
	}
	failed := make(chan error, len(serving))
	for _, serve := range serving {
		go func() { failed <- serve(ctx) }()
	}
	err := <-failed
	cancel()
	for range len(serving) - 1 {
		err = errors.Join(err, <-failed)
	}
	return err
}

func (m *meetings) close() (err error) {
	if m == nil {
		return nil
	}
	if m.listener != nil {
		if err = m.listener.Close(); errors.Is(err, net.ErrClosed) {
			err = nil
		}
	}
	if m.dns != nil {
		err = errors.Join(err, m.dns.Close())
	}
	return err
}
