package host

import (
	"context"
	"log/slog"
	"time"

	"github.com/quorate/quorate/datadir"
)

// Collect removes the retired homes whose time is over, and returns where they
// were. Those retired under deletionPolicy Retain have no such time.
func (d *Driver) Collect(ctx context.Context) ([]string, error) {
	d.launcher.sweep(ctx)
	gone, err := datadir.Collect(d.retiredDir(), time.Now())
	for _, dir := range gone {
		d.log.InfoContext(ctx, "collected a retired member", slog.String("directory", dir))
	}
	return gone, err
}
