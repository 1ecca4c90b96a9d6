package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
)

var eventForms = []string{outTable, outJSON, outYAML}

type eventOptions struct {
	cluster string
	all     bool
	watch   bool
	after   string
	output  string
}

func eventsCommand(e *env) *cobra.Command {
	var o eventOptions
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Show what happened, oldest first",
		Long: `Show what happened to clusters, members and hosts, oldest first. With -w it goes on
with what happens from now on, and misses nothing when the connection breaks. Events
are kept for a week.

Each event has an ID, which -o json shows: -w --after ID goes on behind it.`,
		Example: `  quorate events
  quorate events -c playground -w
  quorate events -A -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(cmd, o.output, eventForms...); err != nil {
				return err
			}
			if o.after != "" && !o.watch {
				return usagef(cmd, "--after says from where to go on, which needs --watch")
			}
			if o.watch && o.output == outYAML {
				return usagef(cmd, "--watch writes lines: use -o table or -o json with it")
			}
			return e.events(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.cluster, "cluster", "c", "", "only what concerns a cluster, its members and tasks")
	f.BoolVarP(&o.all, "all-namespaces", "A", false, "events of all namespaces")
	f.BoolVarP(&o.watch, "watch", "w", false, "go on with what happens from now on")
	f.StringVar(&o.after, "after", "", "with --watch: only what happened after the event of that ID")
	outputFlag(cmd, &o.output, eventForms...)
	e.completeClusters(cmd)
	return cmd
}

func (e *env) events(ctx context.Context, o eventOptions) error {
	c, err := e.connect()
	if err != nil {
		return err
	}
	opts := store.EventOptions{Namespace: e.namespace, Cluster: strings.TrimPrefix(o.cluster, "cluster/")}
	if o.all {
		opts.Namespace = ""
	}
	if o.after != "" {
		return e.watchEvents(ctx, c, opts, nil, o)
	}
	events, after, err := eventsAt(ctx, c, opts)
	if err != nil {
		return err
	}
	o.after = after
	if len(events) == 0 && opts.Cluster != "" {
		if err := e.clusterExists(ctx, c, opts); err != nil {
			return err
		}
	}
	if o.watch {
		return e.watchEvents(ctx, c, opts, events, o)
	}
	if o.output != outTable {
		return e.printValue(o.output, map[string]any{"kind": "EventList", "apiVersion": "v1", "items": events})
	}
	if len(events) == 0 {
		e.errorf("nothing has happened\n")
		return nil
	}
	return e.printEvents(events)
}

// clusterExists tells a cluster to which nothing has happened from one that is not
// there. One that is gone may still have events.
func (e *env) clusterExists(ctx context.Context, c *remote.Client, opts store.EventOptions) error {
	if opts.Namespace != "" {
		_, err := readCluster(ctx, c, e.cluster(opts.Cluster))
		return err
	}
	ctx, cancel := call(ctx)
	defer cancel()
	clusters, err := c.List(ctx, v1alpha1.KindCluster, store.ListOptions{})
	if err != nil {
		return err
	}
	for _, cluster := range clusters {
		if cluster.GetName() == opts.Cluster {
			return nil
		}
	}
	return fmt.Errorf("%s: %w in any namespace: `quorate get clusters -A` lists what there is", label(v1alpha1.KindCluster, opts.Cluster), store.ErrNotFound)
}

// recent reads the events of a namespace. Hosts have none: what concerns them is
// shown with those of all namespaces.
func recent(ctx context.Context, c *remote.Client, opts store.EventOptions) ([]store.Event, error) {
	events, _, err := eventsAt(ctx, c, opts)
	return events, err
}

// eventsAt is recent, and returns the place from which a watch goes on.
func eventsAt(ctx context.Context, c *remote.Client, opts store.EventOptions) ([]store.Event, string, error) {
	ctx, cancel := call(ctx)
	defer cancel()
	return c.EventsAt(ctx, opts)
}

func (e *env) printEvents(events []store.Event) error {
	g := grid{header: []string{"last seen", "type", "reason", "object", "count", "message"}}
	now := time.Now()
	for _, ev := range events {
		g.add(age(ev.Time, now), string(ev.Type), ev.Reason, strings.ToLower(ev.Kind)+"/"+ev.Name, strconv.FormatInt(ev.Count, 10), ev.Message)
	}
	return g.write(e.Out, 0)
}

// watchEvents prints events line by line, since widths to come are not known.
func (e *env) watchEvents(ctx context.Context, c *remote.Client, opts store.EventOptions, before []store.Event, o eventOptions) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	show := func(ev store.Event) error {
		if o.output == outJSON {
			raw, err := json.Marshal(ev)
			if err != nil {
				return err
			}
			e.printf("%s\n", raw)
			return nil
		}
		e.printf("%s  %-7s  %-20s  %s  %s\n", ev.Time.Local().Format(time.DateTime), ev.Type, ev.Reason, strings.ToLower(ev.Kind)+"/"+ev.Name, ev.Message)
		return nil
	}
	for _, ev := range before {
		if err := show(ev); err != nil {
			return err
		}
	}
	for ev := range c.WatchEventsAfter(ctx, opts, o.after) {
		if err := show(ev); err != nil {
			return err
		}
	}
	return nil
}
