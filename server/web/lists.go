package web

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
)

// Sizes of whole-page lists.
const (
	listedTasks  = 200
	listedEvents = 200
)

type hostRow struct {
	Host    *v1alpha1.EtcdHost
	Ready   *v1alpha1.Condition
	Members []*v1alpha1.EtcdMember
	Running int
}

type hostsData struct {
	frame

	Hosts []hostRow
}

func (c *console) hostsPage(v *visit) error {
	ctx, cancel := v.bounded()
	defer cancel()
	d := hostsData{frame: c.frame(v, "hosts", "").with("quorate get hosts")}
	hosts, err := v.api.List(ctx, v1alpha1.KindHost, store.ListOptions{})
	if err != nil {
		return err
	}
	members, err := v.api.List(ctx, v1alpha1.KindMember, store.ListOptions{})
	if err != nil {
		return err
	}
	for _, obj := range hosts {
		if h, ok := obj.(*v1alpha1.EtcdHost); ok {
			d.Hosts = append(d.Hosts, hostRowOf(h, members))
		}
	}
	return c.pages.render(v, http.StatusOK, "hosts", d)
}

func hostRowOf(h *v1alpha1.EtcdHost, members []v1alpha1.Object) hostRow {
	r := hostRow{Host: h, Ready: v1alpha1.FindCondition(h.Status.Conditions, v1alpha1.ConditionReady)}
	for _, obj := range members {
		m, ok := obj.(*v1alpha1.EtcdMember)
		if !ok || m.Spec.Host != h.Name {
			continue
		}
		r.Members = append(r.Members, m)
		if m.Status.Phase == v1alpha1.MemberRunning {
			r.Running++
		}
	}
	return r
}

// Unfit says which checks the host fails; empty where it fails none, or was not checked.
func (r hostRow) Unfit() string {
	if c := v1alpha1.FindCondition(r.Host.Status.Conditions, v1alpha1.ConditionFit); c != nil && c.Status == v1alpha1.False {
		return cmp.Or(c.Message, c.Reason)
	}
	return ""
}

// Capacity is what members are placed by, in the words of the files; empty where nothing is
// known.
func (r hostRow) Capacity() string {
	offers := r.Host.Offers()
	var parts []string
	for _, a := range []struct{ name, value string }{
		{"cpu", offers.CPU.String()}, {"memory", offers.Memory.String()}, {"disk", offers.Disk.String()},
	} {
		if a.value != "0" {
			parts = append(parts, a.name+" "+a.value)
		}
	}
	return strings.Join(parts, ", ")
}

type hostData struct {
	frame
	hostRow

	Events []store.Event
}

func (c *console) hostPage(v *visit) error {
	ctx, cancel := v.bounded()
	defer cancel()
	host := &v1alpha1.EtcdHost{}
	name := v.r.PathValue("name")
	if err := v.api.Get(ctx, store.Key{Name: name}, host); err != nil {
		return err
	}
	members, err := v.api.List(ctx, v1alpha1.KindMember, store.ListOptions{})
	if err != nil {
		return err
	}
	events, err := v.api.Events(ctx, store.EventOptions{Kind: v1alpha1.KindHost.Kind, Name: name})
	if err != nil {
		return err
	}
	return c.pages.render(v, http.StatusOK, "host", hostData{
		frame: c.frame(v, "host", name).with("quorate describe host " + name), hostRow: hostRowOf(host, members),
		Events: latest(events, shownEvents),
	})
}

// schedule keeps new members away from a host, or lets them come again.
func (c *console) schedule(v *visit) error {
	ctx, cancel := v.bounded()
	defer cancel()
	name := v.r.PathValue("name")
	away := v.r.PostFormValue("unschedulable") == "true"
	err := store.Mutate(ctx, v.api, store.Key{Name: name}, &v1alpha1.EtcdHost{}, func(h *v1alpha1.EtcdHost) (bool, error) {
		changed := h.Spec.Unschedulable != away
		h.Spec.Unschedulable = away
		return changed, nil
	})
	if err != nil {
		return err
	}
	return v.redirect("/hosts/" + name)
}

type tasksData struct {
	frame

	Tasks []*v1alpha1.EtcdTask
	Phase string
	// Namespace and Cluster narrow the list; both are empty for all.
	Namespace, Cluster string
	// Total there are, of which Tasks are the latest.
	Total int
}

// Query is that of the list with another phase.
func (d *tasksData) Query(phase string) string {
	q := url.Values{}
	for name, value := range map[string]string{"phase": phase, "namespace": d.Namespace, "cluster": d.Cluster} {
		if value != "" {
			q.Set(name, value)
		}
	}
	if len(q) == 0 {
		return ""
	}
	return "?" + q.Encode()
}

func (c *console) tasksPage(v *visit) error {
	ctx, cancel := v.bounded()
	defer cancel()
	q := v.r.URL.Query()
	d := &tasksData{frame: c.frame(v, "tasks", "").with("quorate get tasks -A"), Phase: q.Get("phase"), Namespace: q.Get("namespace"), Cluster: q.Get("cluster")}
	opts := store.ListOptions{Namespace: d.Namespace}
	if d.Cluster != "" {
		opts.Labels = map[string]string{v1alpha1.LabelCluster: d.Cluster}
	}
	list, err := tasks(ctx, v, opts)
	if err != nil {
		return err
	}
	if d.Cluster != "" && len(list) > 0 {
		// Only names that exist come into a command to copy: an address may hold anything.
		d.Command = "quorate get tasks -l " + v1alpha1.LabelCluster + "=" + d.Cluster + inNamespace(list[0].Namespace)
	}
	if d.Phase == "open" {
		list = slices.DeleteFunc(list, func(t *v1alpha1.EtcdTask) bool { return t.Finished() })
	}
	d.Total = len(list)
	d.Tasks = list[:min(len(list), listedTasks)]
	return c.pages.render(v, http.StatusOK, "tasks", d)
}

type activityData struct {
	frame

	Events       []store.Event
	Type, Search string
	// Total there are, of which Events are the latest.
	Total int
}

func (c *console) activityPage(v *visit) error {
	ctx, cancel := v.bounded()
	defer cancel()
	q := v.r.URL.Query()
	d := activityData{frame: c.frame(v, "activity", "").with("quorate events -w -A"), Type: q.Get("type"), Search: strings.TrimSpace(q.Get("q"))}
	events, err := v.api.Events(ctx, store.EventOptions{})
	if err != nil {
		return err
	}
	events = slices.DeleteFunc(events, func(e store.Event) bool {
		text := strings.ToLower(strings.Join([]string{e.Namespace, e.Name, e.Cluster, e.Reason, e.Message}, " "))
		return d.Type != "" && string(e.Type) != d.Type || !strings.Contains(text, strings.ToLower(d.Search))
	})
	d.Total, d.Events = len(events), latest(events, listedEvents)
	return c.pages.render(v, http.StatusOK, "activity", d)
}
