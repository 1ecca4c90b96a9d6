package web

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
)

const (
	// rowsPerPage keeps a fleet of any size quick to draw and to move in.
	rowsPerPage = 50
	// figuresTime bounds how long rows wait for what members answer now.
	figuresTime = 1500 * time.Millisecond
	// figuresAtOnce is how many clusters are asked at a time.
	figuresAtOnce = 8
)

// fleetQuery is what of the fleet is shown, as it stands in the page's address.
type fleetQuery struct {
	Search, State, Namespace, Version, Sort string
	Page                                    int
	// Figures asks the members of the rows shown; without, rows come at once.
	Figures bool
}

func fleetQueryOf(q url.Values) fleetQuery {
	f := fleetQuery{
		Search: strings.TrimSpace(q.Get("q")), State: q.Get("state"), Namespace: q.Get("namespace"),
		Version: q.Get("version"), Sort: q.Get("sort"), Figures: q.Get("figures") == "true",
	}
	f.Page, _ = strconv.Atoi(q.Get("page"))
	f.Page = max(1, f.Page)
	if !slices.Contains([]string{"name", "version", "age"}, f.Sort) {
		f.Sort = "state"
	}
	return f
}

// With is the address of the rows with one thing changed; any change but of the
// page leads to the first page.
func (f fleetQuery) With(name, value string) string {
	q := url.Values{}
	for k, v := range map[string]string{
		"q": f.Search, "state": f.State, "namespace": f.Namespace, "version": f.Version, "sort": f.Sort,
	} {
		if v != "" && (k != "sort" || v != "state") {
			q.Set(k, v)
		}
	}
	if f.Page > 1 && name == "figures" {
		q.Set("page", strconv.Itoa(f.Page))
	}
	if value == "" {
		q.Del(name)
	} else {
		q.Set(name, value)
	}
	if len(q) == 0 {
		return ""
	}
	return "?" + q.Encode()
}

// Turn is the address of another page of the rows.
func (f fleetQuery) Turn(by int) string { return f.With("page", strconv.Itoa(f.Page+by)) }

// row is a cluster in the fleet.
type row struct {
	Namespace, Name, URL string
	State                v1alpha1.ClusterState
	Message              string
	Dots                 []dot
	Healthy, Wanted      int
	Version, Leader      string
	Created              v1alpha1.Time
	Observed             bool
	// Known says that the sizes are from now.
	Known           bool
	DBSize, DBQuota int64
}

// stateCount is a part of the summary strip.
type stateCount struct {
	State v1alpha1.ClusterState
	Count int
}

type fleetData struct {
	frame

	Query                fleetQuery
	Counts               []stateCount
	Total, Shown         int
	Rows                 []row
	Namespaces, Versions []string
	Pages, From, To      int
	// Empty: there is no cluster at all.
	Empty bool
}

func (c *console) fleetPage(v *visit) error {
	data, err := c.fleet(v)
	if err != nil {
		return err
	}
	return c.pages.render(v, http.StatusOK, "fleet", data)
}

func (c *console) fleetRows(v *visit) error {
	data, err := c.fleet(v)
	if err != nil {
		return err
	}
	if v.r.Header.Get("HX-Trigger") == "filters" {
		// What is shown can be linked to, and found again by going back.
		v.Header().Set("HX-Replace-Url", "/"+data.Query.With("figures", ""))
	}
	return c.pages.render(v, http.StatusOK, "fleet/rows", data)
}

func (c *console) fleet(v *visit) (fleetData, error) {
	ctx, cancel := v.bounded()
	defer cancel()
	d := fleetData{frame: c.frame(v, "fleet", "").with("quorate get clusters -A"), Query: fleetQueryOf(v.r.URL.Query())}
	objects, err := v.api.List(ctx, v1alpha1.KindCluster, store.ListOptions{})
	if err != nil {
		return d, err
	}
	all := make([]row, 0, len(objects))
	for _, obj := range objects {
		if cluster, ok := obj.(*v1alpha1.EtcdCluster); ok {
			all = append(all, rowOf(cluster))
		}
	}
	d.Empty = len(all) == 0
	d.Namespaces = distinct(all, func(r row) string { return r.Namespace })
	d.Versions = distinct(all, func(r row) string { return r.Version })
	d.narrow(all)
	if d.Query.Figures {
		fillFigures(ctx, v.api, d.Rows)
	}
	return d, nil
}

// narrow applies the query: the summary counts what matches all but the state.
func (d *fleetData) narrow(all []row) {
	q := d.Query
	matching := slices.DeleteFunc(all, func(r row) bool {
		return q.Namespace != "" && r.Namespace != q.Namespace || q.Version != "" && r.Version != q.Version || !r.matches(q.Search)
	})
	d.Total = len(matching)
	counts := map[v1alpha1.ClusterState]int{}
	for i := range matching {
		counts[matching[i].State]++
	}
	for _, s := range states {
		d.Counts = append(d.Counts, stateCount{s, counts[s]})
	}
	if q.State != "" {
		matching = slices.DeleteFunc(matching, func(r row) bool { return string(r.State) != q.State })
	}
	slices.SortStableFunc(matching, order(q.Sort))
	d.Shown = len(matching)
	d.Pages = max(1, (len(matching)+rowsPerPage-1)/rowsPerPage)
	d.Query.Page = min(q.Page, d.Pages)
	from := (d.Query.Page - 1) * rowsPerPage
	d.Rows = matching[from:min(from+rowsPerPage, len(matching))]
	d.From, d.To = from+1, from+len(d.Rows)
}

func (r row) matches(search string) bool {
	for word := range strings.FieldsSeq(strings.ToLower(search)) {
		if !strings.Contains(strings.ToLower(r.Namespace+"/"+r.Name+" "+r.Leader+" "+r.Version), word) {
			return false
		}
	}
	return true
}

// order compares rows as a column asks; then by name.
func order(by string) func(a, b row) int {
	byName := func(a, b row) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Namespace, b.Namespace)) }
	return func(a, b row) int {
		switch by {
		case "state":
			return cmp.Or(cmp.Compare(concern(a.State), concern(b.State)), byName(a, b))
		case "version":
			return cmp.Or(cmp.Compare(a.Version, b.Version), byName(a, b))
		case "age":
			return cmp.Or(b.Created.Compare(a.Created.Time), byName(a, b))
		}
		return byName(a, b)
	}
}

func rowOf(c *v1alpha1.EtcdCluster) row {
	r := row{
		Namespace: c.Namespace, Name: c.Name, URL: clusterPath(c.Namespace, c.Name), Dots: dotsOf(c), Version: versionOf(c),
		Observed: c.Observed(), Leader: c.Status.Leader, Created: c.CreationTimestamp,
	}
	r.State, r.Message = stateOf(c)
	r.Healthy, r.Wanted = readyOf(c)
	return r
}

func distinct(rows []row, of func(row) string) []string {
	seen := map[string]bool{}
	var list []string
	for i := range rows {
		if text := of(rows[i]); text != "" && !seen[text] {
			seen[text] = true
			list = append(list, text)
		}
	}
	slices.Sort(list)
	return list
}

// fillFigures asks the members of rows that serve. Who does not answer in time is
// left as stored: a list must not wait for its slowest.
func fillFigures(ctx context.Context, api *remote.Client, rows []row) {
	ctx, cancel := context.WithTimeout(ctx, figuresTime)
	defer cancel()
	slots := make(chan struct{}, figuresAtOnce)
	var wg sync.WaitGroup
	for i := range rows {
		r := &rows[i]
		if r.State != v1alpha1.StateHealthy && r.State != v1alpha1.StateDegraded {
			continue
		}
		wg.Go(func() {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return
			}
			defer func() { <-slots }()
			view, err := api.View(ctx, store.Key{Namespace: r.Namespace, Name: r.Name})
			if err == nil {
				r.fill(&view)
			}
		})
	}
	wg.Wait()
}

// fill replaces what is stored by what the members answer: the largest database
// stands for the cluster, since the first to reach its quota stops all writes.
func (r *row) fill(view *v1alpha1.ClusterView) {
	r.State, r.Message, r.Leader = view.State, view.Message, view.Leader
	r.Dots, r.Healthy, r.Wanted = dotsOfView(view), 0, len(view.Members)
	for i := range view.Members {
		m := &view.Members[i]
		if m.Healthy {
			r.Healthy++
		}
		if m.Answered && m.DBSize > r.DBSize {
			r.Known, r.DBSize, r.DBQuota = true, m.DBSize, m.DBQuota
		}
	}
}
