package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
)

// logSources are the logs that a member has.
var logSources = []string{"etcd", "error", "supervisor"}

// maxLogLine is where a line of a log is broken, in bytes.
const maxLogLine = 1 << 20

func logsCommand(e *env) *cobra.Command {
	o := remote.LogOptions{}
	cmd := &cobra.Command{
		Use:   "logs MEMBER|CLUSTER",
		Short: "Read the log of a member, or of all members of a cluster",
		Long: `Read a member's log through the agent of its host. For a cluster the logs of all
its members are read, each line with the member's name before it.

The sources are etcd (what etcd writes), error (its errors alone), and supervisor
(how the process was started and ended).`,
		Example: `  quorate logs playground-1
  quorate logs playground -f --tail 10
  quorate logs playground-1 --source supervisor --tail -1`,
		Args:              argsBetween(1, 1, "MEMBER or CLUSTER"),
		ValidArgsFunction: e.completeLogs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains(logSources, o.Source) {
				return usagef(cmd, "--source is %q: use one of %s", o.Source, strings.Join(logSources, ", "))
			}
			if o.Tail < -1 {
				return usagef(cmd, "--tail is %d: give how many lines to begin with, or -1 for all", o.Tail)
			}
			return e.logs(cmd, args[0], o)
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&o.Follow, "follow", "f", false, "go on with what is written from now on")
	f.IntVar(&o.Tail, "tail", 100, "how many of the last lines to begin with; -1 for all")
	f.StringVar(&o.Source, "source", logSources[0], "which log: "+strings.Join(logSources, ", "))
	complete(cmd, "source", logSources...)
	return cmd
}

func (e *env) logs(cmd *cobra.Command, name string, o remote.LogOptions) error {
	c, err := e.connect()
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	members, whole, err := e.logMembers(ctx, cmd, c, name)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	errs := make([]error, len(members))
	for i, m := range members {
		prefix := ""
		if whole {
			prefix = m.Name + " | "
		}
		out := &prefixed{mu: &mu, w: e.Out, prefix: prefix}
		wg.Go(func() { errs[i] = copyLog(ctx, c, m.Key, o, out) })
	}
	wg.Wait()
	if o.Follow && errors.Is(ctx.Err(), context.Canceled) {
		errs = nil // Ctrl-C is how following ends
	}
	return errors.Join(errs...)
}

// logMember is a member whose log is read.
type logMember struct{ store.Key }

// logMembers finds the member of that name, or else the members of the cluster.
func (e *env) logMembers(ctx context.Context, cmd *cobra.Command, c *remote.Client, name string) (members []logMember, whole bool, err error) {
	kinds := []v1alpha1.Kind{v1alpha1.KindMember, v1alpha1.KindCluster}
	if kindName, rest, ok := strings.Cut(name, "/"); ok {
		kind, err := kindArg(cmd, kindName)
		if err != nil {
			return nil, false, err
		}
		if kind.Kind != v1alpha1.KindMember.Kind && kind.Kind != v1alpha1.KindCluster.Kind {
			return nil, false, usagef(cmd, "%q has no log: name a member or a cluster", name)
		}
		name, kinds = rest, []v1alpha1.Kind{kind}
	}
	for _, kind := range kinds {
		t := e.target(kind, name)
		obj, err := look(ctx, c, t)
		if err != nil {
			return nil, false, err
		}
		switch obj.(type) {
		case *v1alpha1.EtcdMember:
			return []logMember{{t.key}}, false, nil
		case *v1alpha1.EtcdCluster:
			list, err := membersOf(ctx, c, t.key)
			if err != nil {
				return nil, false, err
			}
			for _, m := range list {
				members = append(members, logMember{store.KeyOf(m)})
			}
			if len(members) == 0 {
				return nil, false, fmt.Errorf("%s: %w: it has no members yet: `quorate describe cluster %s` says why", t, store.ErrNotFound, name)
			}
			return members, true, nil
		}
	}
	return nil, false, fmt.Errorf("%s: %w: neither a member nor a cluster in namespace %s has that name: `quorate get members` lists them",
		name, store.ErrNotFound, e.namespace)
}

func copyLog(ctx context.Context, c *remote.Client, key store.Key, o remote.LogOptions, out *prefixed) (err error) {
	log, err := c.Logs(ctx, key, o)
	if err != nil {
		return named(target{v1alpha1.KindMember, key}, err)
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	in := bufio.NewReaderSize(log, maxLogLine)
	for {
		line, err := in.ReadSlice('\n')
		if len(line) > 0 {
			if werr := out.line(line); werr != nil {
				return werr
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && !errors.Is(err, bufio.ErrBufferFull):
			return fmt.Errorf("log of %s: %w", key.Name, err)
		}
	}
}

// prefixed writes whole lines of one member between those of others.
type prefixed struct {
	mu     *sync.Mutex
	w      io.Writer
	prefix string
}

func (p *prefixed) line(line []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	text := p.prefix + string(line)
	if !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	_, err := io.WriteString(p.w, text)
	return err
}
