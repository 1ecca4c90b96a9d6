package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"

	"github.com/quorate/quorate/api/schema"
	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
)

var statusForms = []string{outTable, outWide, outJSON, outYAML, outJSONPath}

const (
	// refreshEvery is how often a watched status is asked for anew.
	refreshEvery = time.Second
	// maxViews is how many clusters are asked at once.
	maxViews = 64
)

type statusOptions struct {
	all    bool
	watch  bool
	output string
}

func statusCommand(e *env) *cobra.Command {
	var o statusOptions
	cmd := &cobra.Command{
		Use:   "status [CLUSTER]",
		Short: "Show at one look how a cluster, or the fleet, is now",
		Long: `Ask the members of a cluster what they are at this moment, and show it on one page:
state, leader, and of each member its role, database, raft position, revision and
how long it took to answer. Without a name, each cluster has a line.

The states are healthy; degraded (it serves, and something is wrong); unavailable
(no quorum: only serializable reads are answered); stopped; and unknown.

With -w it is asked again every second; where the output is no terminal, it is
printed when something but its figures has changed.`,
		Example: `  quorate status
  quorate status playground
  quorate status playground -w
  quorate status playground -o jsonpath='{.leader}'
  quorate status -A -o json`,
		Args:              argsBetween(0, 1, "CLUSTER"),
		ValidArgsFunction: e.completeCluster,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(cmd, o.output, statusForms...); err != nil {
				return err
			}
			if o.watch && o.output != outTable && o.output != outWide && o.output != outJSON {
				return usagef(cmd, "--watch goes with -o table, -o wide or -o json")
			}
			if len(args) > 0 && o.all {
				return usagef(cmd, "-A asks for all clusters, and %q was named", args[0])
			}
			return e.status(cmd.Context(), args, o)
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&o.all, "all-namespaces", "A", false, "clusters of all namespaces")
	f.BoolVarP(&o.watch, "watch", "w", false, "ask again every second")
	outputFlag(cmd, &o.output, statusForms...)
	return cmd
}

// fleetView is what status prints without a name.
type fleetView struct {
	Items []v1alpha1.ClusterView `json:"items"`
}

func (e *env) status(ctx context.Context, args []string, o statusOptions) error {
	c, err := e.connect()
	if err != nil {
		return err
	}
	ask := func(ctx context.Context) (any, error) { return e.fleetViews(ctx, c, o.all) }
	if len(args) > 0 {
		key := e.cluster(args[0])
		ask = func(ctx context.Context) (any, error) { return viewOf(ctx, c, key) }
	}
	done := e.slowly("asking the members")
	v, err := ask(ctx)
	done()
	if err != nil {
		return err
	}
	if !o.watch {
		return e.printStatus(e.Out, v, o)
	}
	return e.watchStatus(ctx, v, ask, o)
}

func viewOf(ctx context.Context, c *remote.Client, key store.Key) (v1alpha1.ClusterView, error) {
	ctx, cancel := call(ctx)
	defer cancel()
	v, err := c.View(ctx, key)
	if err != nil {
		return v, named(target{v1alpha1.KindCluster, key}, err)
	}
	return v, nil
}

// fleetViews asks all clusters. One that can't be asked is unknown, with the reason.
func (e *env) fleetViews(ctx context.Context, c *remote.Client, all bool) (fleetView, error) {
	objs, err := e.find(ctx, c, v1alpha1.KindCluster, nil, store.ListOptions{Namespace: e.listNamespace(v1alpha1.KindCluster, all)})
	if err != nil {
		return fleetView{}, err
	}
	v := fleetView{Items: make([]v1alpha1.ClusterView, len(objs))}
	slots := make(chan struct{}, maxViews)
	var wg sync.WaitGroup
	for i, obj := range objs {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			key := store.KeyOf(obj)
			one, err := viewOf(ctx, c, key)
			if err != nil {
				one = v1alpha1.ClusterView{
					Namespace: key.Namespace, Cluster: key.Name, AskedAt: v1alpha1.NewMicroTime(time.Now()),
					State: v1alpha1.StateUnknown, Message: err.Error(), Members: []v1alpha1.MemberView{},
				}
			}
			v.Items[i] = one
		})
	}
	wg.Wait()
	return v, ctx.Err()
}

// printStatus prints a view in the form asked for.
func (e *env) printStatus(to io.Writer, v any, o statusOptions) error {
	in := *e
	in.Out = to
	switch {
	case strings.HasPrefix(o.output, outJSONPath):
		text, err := schema.JSONPathValue(v, strings.TrimPrefix(o.output, outJSONPath))
		if err != nil {
			return &usageError{command: "quorate status", text: err.Error()}
		}
		in.printf("%s\n", strings.TrimSuffix(text, "\n"))
		return nil
	case o.output == outJSON && o.watch:
		raw, err := json.Marshal(v)
		in.printf("%s\n", raw)
		return err
	case o.output != outTable && o.output != outWide:
		return in.printValue(o.output, v)
	}
	switch view := v.(type) {
	case v1alpha1.ClusterView:
		return in.printCluster(e.colour(e.Out), o.output == outWide, view)
	case fleetView:
		if none := e.nothing([]v1alpha1.Kind{v1alpha1.KindCluster}, o.all); len(view.Items) == 0 && o.watch {
			in.printf("%s\n", none)
			return nil
		} else if len(view.Items) == 0 {
			in.errorf("%s\n", none)
			return nil
		}
		return in.printFleet(e.colour(e.Out), view, o.all)
	}
	return nil
}

// watchStatus prints again what has changed. On a terminal the page is rewritten in
// place.
func (e *env) watchStatus(ctx context.Context, v any, ask func(context.Context) (any, error), o statusOptions) error {
	tick := time.NewTicker(refreshEvery)
	defer tick.Stop()
	page := pager{e: e, lines: o.output == outJSON}
	for {
		var out strings.Builder
		if err := e.printStatus(&out, v, o); err != nil {
			return err
		}
		page.show(out.String(), gist(v))
		for asked := false; !asked; {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
			fresh, err := ask(ctx)
			switch {
			case ctx.Err() != nil:
				return nil
			case err != nil && exitCode(err) != exitUnreachable:
				return err
			case err != nil:
				page.lost(err)
			default:
				v, asked = fresh, true
			}
		}
	}
}

// pager shows a page again and again.
type pager struct {
	e *env
	// lines: each page is a line of its own.
	lines bool
	// rows that the page before took of the terminal.
	rows int
	gist string
	// silent since the server can't be reached, which was said.
	silent bool
}

// lost says once that what is shown is no longer asked for anew.
func (p *pager) lost(err error) {
	if p.silent {
		return
	}
	p.silent = true
	text := "what is above is old: " + err.Error() + "; asking on\n"
	p.e.errorf("%s", text)
	if isTerminal(p.e.Err) {
		p.rows += rowsOf(p.e.typed(text), width(p.e.Err))
	}
}

func (p *pager) show(text, gist string) {
	same := gist == p.gist && !p.silent
	p.silent = false
	first := p.gist == ""
	p.gist = gist
	now := time.Now().Format(time.TimeOnly)
	switch {
	case !p.lines && isTerminal(p.e.Out):
		text = now + "  every second; Ctrl-C ends it\n\n" + text
		if p.rows > 0 {
			p.e.printf("\x1b[%dA\x1b[J", p.rows)
		}
		p.e.printf("%s", text)
		p.rows = rowsOf(text, width(p.e.Out))
	case same:
	case p.lines:
		p.e.printf("%s", text)
	default:
		if !first {
			p.e.printf("\n")
		}
		p.e.printf("%s\n%s", now, text)
	}
}

// rowsOf is how many rows a text takes on a terminal that folds long lines.
func rowsOf(page string, columns int) int {
	rows := 0
	for line := range strings.Lines(page) {
		rows++
		if columns > 0 {
			rows += max(0, text.StringWidthWithoutEscSequences(strings.TrimSuffix(line, "\n"))-1) / columns
		}
	}
	return rows
}

// gist is what of a view is more than a figure.
func gist(v any) string {
	var what strings.Builder
	one := func(c v1alpha1.ClusterView) {
		fmt.Fprintf(&what, "%s/%s %s %s %s %v\n", c.Namespace, c.Cluster, c.State, c.Leader, c.Message, c.Alarms)
		for _, m := range c.Members {
			fmt.Fprintf(&what, "%s %s %t %t %s %d\n", m.Name, m.Role, m.Healthy, m.Answered, m.Phase, m.PID)
		}
	}
	switch view := v.(type) {
	case v1alpha1.ClusterView:
		one(view)
	case fleetView:
		for _, c := range view.Items {
			one(c)
		}
	}
	return what.String()
}

// shade colours a state as bad as it is.
func shade(colour bool, state v1alpha1.ClusterState) string {
	text := strings.ToLower(string(state))
	if !colour {
		return text
	}
	switch state {
	case v1alpha1.StateHealthy:
		return green + text + noColour
	case v1alpha1.StateDegraded:
		return yellow + text + noColour
	case v1alpha1.StateUnavailable:
		return red + text + noColour
	default:
		return dim + text + noColour
	}
}

func (e *env) printCluster(colour, all bool, v v1alpha1.ClusterView) error {
	e.printf("%s is %s", v.Cluster, shade(colour, v.State))
	if v.Message != "" {
		e.printf(": %s", v.Message)
	}
	e.printf("\n")
	leader := v.Leader
	if leader == "" {
		leader = "none"
	}
	facts := []string{"leader " + leader}
	var term uint64
	for _, m := range v.Members {
		term = max(term, m.RaftTerm)
	}
	if term > 0 {
		facts = append(facts, "term "+strconv.FormatUint(term, 10))
	}
	if v.ClusterID != "" {
		facts = append(facts, "cluster ID "+v.ClusterID)
	}
	e.printf("%s\n", strings.Join(facts, ", "))
	for _, a := range v.Alarms {
		e.printf("alarm %s raised by %s\n", a.Type, a.Member)
	}
	if len(v.Members) == 0 {
		e.printf("it has no members yet\n")
		return nil
	}
	e.printf("\n")
	g := grid{header: []string{"member", "role", "state", "version", "db size", "quota", "raft index", "applied", "revision", "answered in"}}
	if all {
		g.header = append(g.header, "in use", "id", "host", "pid", "endpoint")
	}
	var troubles []string
	for _, m := range v.Members {
		row := memberRow(m)
		if all {
			row = append(row, bytesText(m.DBSizeInUse), m.ID, m.Host, strconv.FormatInt(m.PID, 10), m.Endpoint)
		}
		g.add(row...)
		if trouble := m.Name + ": " + m.Message; m.Message != "" && v.State != v1alpha1.StateStopped && !strings.Contains(v.Message, trouble) {
			troubles = append(troubles, trouble)
		}
	}
	if err := g.write(e.Out, 0); err != nil {
		return err
	}
	if len(troubles) > 0 {
		e.printf("\n%s\n", strings.Join(troubles, "\n"))
	}
	return nil
}

// memberRow is a member's line. Figures of a member that did not answer are not
// known.
func memberRow(m v1alpha1.MemberView) []string {
	state := "healthy"
	if !m.Healthy {
		state = "unhealthy"
		if m.Phase != "" && m.Phase != v1alpha1.MemberRunning {
			state = strings.ToLower(string(m.Phase))
		}
	}
	row := []string{m.Name, strings.ToLower(string(m.Role)), state, m.Version}
	if !m.Answered {
		return append(row, "", "", "", "", "", "no answer")
	}
	quota := ""
	if m.DBQuota > 0 {
		quota = bytesText(m.DBQuota)
	}
	return append(row, bytesText(m.DBSize), quota,
		strconv.FormatUint(m.RaftIndex, 10), strconv.FormatUint(m.RaftAppliedIndex, 10),
		strconv.FormatInt(m.Revision, 10), fmt.Sprintf("%.1f ms", m.LatencyMilliseconds))
}

func (e *env) printFleet(colour bool, v fleetView, namespaces bool) error {
	g := grid{header: []string{"cluster", "state", "healthy", "leader", "version", "db size", "revision", "message"}, wrap: []int{7}}
	if namespaces {
		g.header = append([]string{"namespace"}, g.header...)
		g.wrap = []int{8}
	}
	for _, c := range v.Items {
		healthy, size, revision := 0, int64(0), int64(0)
		versions := map[string]bool{}
		for _, m := range c.Members {
			if m.Healthy {
				healthy++
			}
			size, revision = max(size, m.DBSize), max(revision, m.Revision)
			if m.Version != "" {
				versions[m.Version] = true
			}
		}
		row := []string{
			c.Cluster, shade(colour, c.State), fmt.Sprintf("%d/%d", healthy, len(c.Members)), c.Leader,
			strings.Join(slices.Sorted(maps.Keys(versions)), ", "), "", "", c.Message,
		}
		if size > 0 {
			row[5], row[6] = bytesText(size), strconv.FormatInt(revision, 10)
		}
		if namespaces {
			row = append([]string{c.Namespace}, row...)
		}
		g.add(row...)
	}
	return g.write(e.Out, width(e.Out))
}

// bytesText is a size as people read it.
func bytesText(n int64) string {
	const step = 1024
	if n < step {
		return strconv.FormatInt(n, 10) + " B"
	}
	value, unit := float64(n), 0
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	for value >= step && unit < len(units)-1 {
		value /= step
		unit++
	}
	text := strconv.FormatFloat(value, 'f', 1, 64)
	return strings.TrimSuffix(text, ".0") + " " + units[unit]
}
