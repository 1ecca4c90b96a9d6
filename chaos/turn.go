package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/internal/backoff"
)

const (
	turnSuffix = ".turn"
	// turnAgain is the rest between two attempts to get a turn.
	turnAgain = 100 * time.Millisecond
)

// Turn waits until nobody else on this machine disturbs the cluster of that name, and
// keeps all others who ask waiting until end is called, or this process is dead. Two who
// each wait for a healthy cluster would else take away a member each, at once. dir is
// that of Options.
func Turn(ctx context.Context, dir, cluster string) (end func() error, err error) {
	if dir == "" {
		dir = DefaultDir()
	}
	if cluster == "" || cluster != filepath.Base(cluster) {
		return nil, fmt.Errorf("%q is no name of a cluster", cluster)
	}
	if err = os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the ledger of disturbances: %w", err)
	}
	if err = trusted(dir); err != nil {
		return nil, err
	}
	file := filepath.Join(dir, cluster+turnSuffix)
	for {
		end, err = takeTurn(file)
		if err != nil {
			return nil, fmt.Errorf("wait for a turn to disturb %s: %w", cluster, err)
		}
		if end != nil {
			if !underWay(dir, cluster) {
				return end, nil
			}
			// Its starter is dead, and it ends by itself.
			if err = end(); err != nil {
				return nil, err
			}
		}
		if backoff.Sleep(ctx, turnAgain) != nil {
			return nil, fmt.Errorf("somebody else on this machine disturbs this cluster, see `quorate chaos list`: %w", ctx.Err())
		}
	}
}

// underWay says whether a disturbance of the cluster is held.
func underWay(dir, cluster string) bool {
	records, _ := List(dir) // what can't be read is no disturbance that could be waited for
	return slices.ContainsFunc(records, func(r Record) bool { return r.Disturbance.Cluster == cluster && r.Alive() })
}

// takeTurn locks a file; nil when another has it.
func takeTurn(file string) (end func() error, err error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600) //nolint:gosec // in a directory that nobody else may write
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, unix.EINTR) {
		return nil, f.Close()
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	// Whoever had it before has removed it meanwhile: this one is nobody's lock.
	mine, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if there, statErr := os.Stat(file); statErr != nil || !os.SameFile(mine, there) {
		return nil, f.Close()
	}
	return func() error { return errors.Join(os.Remove(file), f.Close()) }, nil
}

// sweepTurns removes the locks of those who were killed while they had a turn.
func sweepTurns(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*"+turnSuffix))
	for _, file := range files {
		end, takeErr := takeTurn(file)
		if err = errors.Join(err, takeErr); end != nil {
			err = errors.Join(err, end())
		}
	}
	return err
}
