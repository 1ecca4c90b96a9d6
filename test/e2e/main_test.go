// Package e2e tests several layers together, on real etcd processes.
package e2e_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"testing"

	"github.com/quorate/quorate/app"
	"github.com/quorate/quorate/test/etcdlab"
)

// TestMain lets the test binary be what Quorate's binary is: etcd under that name,
// and a member's supervisor.
func TestMain(m *testing.M) {
	etcdlab.ActAsEtcd()
	if len(os.Args) == 4 && os.Args[1] == "member" && os.Args[2] == "--home" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		err := app.RunMember(ctx, os.Args[3], slog.Default())
		stop()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}
