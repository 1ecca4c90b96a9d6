package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"time"

	"github.com/quorate/quorate/etcd"
)

// leadership is what was seen of leaders by asking often.
type leadership struct {
	// first and last term seen.
	first, last uint64
	// terms by the leader seen in each.
	leaders map[uint64]etcd.ID
	samples int
}

// add takes a sample. A term in which nobody led counts as well.
func (l *leadership) add(term uint64, leader etcd.ID) {
	if l.leaders == nil {
		l.leaders, l.first = map[uint64]etcd.ID{}, term
	}
	l.last = max(l.last, term)
	l.samples++
	if leader != 0 {
		l.leaders[term] = leader
	}
}

// changes is how often another leader was elected: every election begins a term, and
// with pre-votes no term begins without one.
func (l *leadership) changes() int { return int(l.last - l.first) }

// watchLeaders samples all members until stop is called.
func watchLeaders(ctx context.Context, endpoints []string, config *tls.Config) (stop func() leadership) {
	const every = 50 * time.Millisecond
	ctx, cancel := context.WithCancel(ctx)
	var l leadership
	var loop sync.WaitGroup
	loop.Go(func() {
		pool := etcd.NewPool()
		defer pool.Close() //nolint:errcheck // it was only read from
		for ctx.Err() == nil {
			for _, endpoint := range endpoints {
				askCtx, cancelAsk := context.WithTimeout(ctx, 300*time.Millisecond)
				st, err := pool.Status(askCtx, etcd.Target{Endpoint: endpoint, TLS: config})
				cancelAsk()
				if err == nil {
					l.add(st.Term, st.Leader)
				}
			}
			if pause(ctx, every) != nil {
				return
			}
		}
	})
	return func() leadership {
		cancel()
		loop.Wait()
		return l
	}
}

var snapshotCount = regexp.MustCompile(`(?m)^(\s+snapshotCount: )(\d+)$`)

// changeSnapshotCount edits a cluster's file as a person would.
func changeSnapshotCount(yaml string, to int) (string, error) {
	if len(snapshotCount.FindAllString(yaml, -1)) != 1 {
		return "", fmt.Errorf("spec.etcd.snapshotCount does not stand once in the file: %s", tail(yaml, 800))
	}
	return snapshotCount.ReplaceAllString(yaml, "${1}"+strconv.Itoa(to)), nil
}

// applyChange gets the cluster's file, edits and applies it.
func (u *up) applyChange(ctx context.Context, to int) (string, error) {
	yaml, err := u.quorate(ctx, "get", "cluster", playground, "-o", "yaml")
	if err != nil {
		return "", err
	}
	edited, err := changeSnapshotCount(yaml, to)
	if err != nil {
		return "", err
	}
	file := filepath.Join(u.e.dir, "playground.yaml")
	if err := os.WriteFile(file, []byte(edited), 0o600); err != nil {
		return "", err
	}
	return u.quorate(ctx, "apply", "-f", file)
}

func proveConfigChange(ctx context.Context, e *env) (string, error) {
	s, err := e.loaded(ctx)
	if err != nil {
		return "", err
	}
	defer s.w.Close() //nolint:errcheck // its connections are of no more use
	config, err := s.clientTLS(ctx)
	if err != nil {
		return "", err
	}
	stop := watchLeaders(ctx, s.before.endpoints(), config)
	defer stop()
	if err = pause(ctx, time.Second); err != nil {
		return "", err
	}
	began := time.Now()
	said, err := s.applyChange(ctx, 5000)
	if err != nil {
		return "", err
	}
	if err = contains("apply", said, "configured"); err != nil {
		return "", err
	}
	var pids []int64
	for _, m := range s.before {
		pids = append(pids, m.pid)
	}
	after, err := s.now(ctx, pids...)
	if err != nil {
		return "", err
	}
	took := time.Since(began)
	if err = pause(ctx, calm); err != nil {
		return "", err
	}
	led := stop()
	final, err := s.now(ctx)
	if err != nil {
		return "", err
	}
	text, err := s.finish(ctx, final)
	return fmt.Sprintf("snapshotCount changed in %.1f s: %d of %d members restarted once, %d changes of leader (limit 1, %d samples); %s",
			took.Seconds(), len(pids), len(s.before), led.changes(), led.samples, text),
		errors.Join(err, otherPids(s.before, after), samePids(after, final), restartedOnce(s.before, final),
			atMost("the number of changes of leader", led.changes(), 1), judgeSamples(led))
}

// judgeSamples: a watch that saw little shows nothing.
func judgeSamples(l leadership) error {
	const enough = 20
	if l.samples < enough || len(l.leaders) == 0 {
		return fmt.Errorf("leaders were seen in %d samples only", l.samples)
	}
	return nil
}

// restartedOnce: the supervisor's count of restarts has grown by one for each.
func restartedOnce(before, after sight) error {
	var errs []error
	for _, name := range names(before, after) {
		if n := after[name].restarts - before[name].restarts; n != 1 {
			errs = append(errs, fmt.Errorf("the etcd of %s was restarted %d times, not once", name, n))
		}
	}
	return errors.Join(errs...)
}
