package app

import (
	"context"
	"log/slog"
	"path/filepath"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/driver/host"
	"github.com/quorate/quorate/driver/host/supervisor"
)

// Home is where a member lives on this machine.
type Home struct {
	// DataDir is etcd's own directory.
	DataDir string
	// PID of its etcd, or 0 when none runs.
	PID int64
}

// Homes finds the members below a data directory by the UIDs of their objects.
func Homes(ctx context.Context, dataDir string) (map[v1alpha1.UID]Home, error) {
	dir, err := filepath.Abs(dataDir)
	if err != nil {
		return nil, err
	}
	d, err := host.New(host.Options{Dir: dir, Address: upAddress, Releases: noReleases{}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	found, err := d.List(ctx)
	if err != nil {
		return nil, err
	}
	homes := make(map[v1alpha1.UID]Home, len(found))
	for _, f := range found {
		homes[f.UID] = Home{DataDir: supervisor.Home(f.Home).DataDir(), PID: f.PID}
	}
	return homes, nil
}
