package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
)

const (
	manyObjects = 1000
	getLimit    = 200 * time.Millisecond
	watchLimit  = 100 * time.Millisecond
	changes     = 50
)

// proveSpeed fills a fleet, lists it by the command line, and times how long a
// change takes to reach a watcher.
func proveSpeed(ctx context.Context, e *env) (string, error) {
	u, err := e.fresh(ctx)
	if err != nil {
		return "", err
	}
	c, err := u.client()
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err = fill(ctx, c); err != nil {
		return "", err
	}
	var gets []time.Duration
	for range 11 {
		began := time.Now()
		out, getErr := u.quorate(ctx, "get", "clusters")
		if getErr != nil {
			return "", getErr
		}
		gets = append(gets, time.Since(began))
		if n := strings.Count(out, "\n"); n < manyObjects {
			return "", fmt.Errorf("`quorate get clusters` printed %d lines", n)
		}
	}
	seen, err := watched(ctx, c)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d clusters: `quorate get clusters` %s ms, median of %d (limit %d); a change reached a watcher after %s ms, median of %d, at worst %s (limit %d)",
			manyObjects, ms(median(gets)), len(gets), getLimit.Milliseconds(), ms(median(seen)), len(seen), ms(slices.Max(seen)), watchLimit.Milliseconds()),
		errors.Join(atMost("the time of `quorate get`", median(gets), getLimit), atMost("the time to a watcher", median(seen), watchLimit))
}

func ms(d time.Duration) string { return fmt.Sprintf("%.0f", float64(d.Microseconds())/1000) }

// fill declares clusters that ask nothing of any host.
func fill(ctx context.Context, c *remote.Client) error {
	var g errgroup.Group
	g.SetLimit(8)
	for i := range manyObjects {
		g.Go(func() error {
			cluster := &v1alpha1.EtcdCluster{Spec: v1alpha1.EtcdClusterSpec{Version: "3.7.3", Replicas: 3, Suspended: true}}
			cluster.Namespace, cluster.Name = "default", fmt.Sprintf("fleet-%04d", i)
			return c.Create(ctx, cluster)
		})
	}
	return g.Wait()
}

// watched changes objects one after another, and returns how long each change took
// until a watcher was told.
func watched(ctx context.Context, c *remote.Client) ([]time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	keys := c.Watch(ctx, v1alpha1.KindCluster, "default")
	// A watch begins with all there is; what comes of it and of the fleet's own
	// writes is passed over.
	first := map[store.Key]bool{}
	for key := range keys {
		if first[key] = true; len(first) > manyObjects {
			break
		}
	}
	var took []time.Duration
	for i := range changes {
		key := store.Key{Namespace: "default", Name: fmt.Sprintf("fleet-%04d", i*manyObjects/changes)}
		if err := settled(ctx, keys); err != nil {
			return nil, err
		}
		cluster := &v1alpha1.EtcdCluster{}
		if err := c.Get(ctx, key, cluster); err != nil {
			return nil, err
		}
		cluster.Labels = map[string]string{"example.com/change": strconv.Itoa(i)}
		began := time.Now()
		if err := c.Update(ctx, cluster); err != nil {
			return nil, err
		}
		for got := range keys {
			if got == key {
				took = append(took, time.Since(began))
				break
			}
		}
	}
	if len(took) < changes {
		return nil, fmt.Errorf("only %d of %d changes were told", len(took), changes)
	}
	return took, nil
}

// settled takes what a watch still has to say, until it is silent for a moment.
func settled(ctx context.Context, keys <-chan store.Key) error {
	for {
		quiet, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		select {
		case _, open := <-keys:
			cancel()
			if !open {
				return errors.New("the watch ended")
			}
		case <-quiet.Done():
			cancel()
			return ctx.Err()
		}
	}
}
