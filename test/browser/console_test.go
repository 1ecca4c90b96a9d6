package browser_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/quorate/quorate/api/schema"
	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
)

// healthy is true on the page of a cluster that is.
const healthy = `document.querySelector(".hero-Healthy")`

// TestConsole is a person's first half hour: log in by the link, create a cluster,
// kill a leader and see the cluster heal, suspend and resume, read logs, import.
func TestConsole(t *testing.T) {
	b := open(t)
	q := start(t, consoleLine, "up")
	b.visit(q.link)
	b.await("the fleet", `document.querySelector("#rows .state-Healthy a, #rows tr .state-Healthy")`)
	if path := js[string](b, "location.pathname + location.search"); path != "/" {
		t.Fatalf("the link led to %s", path)
	}
	b.quiet()
	client := q.client(t)
	t.Run("create", b.create)
	t.Run("kill", b.kill)
	t.Run("suspend and resume", b.suspend)
	t.Run("logs", b.logs)
	t.Run("import", func(t *testing.T) { b.importing(t, endpoint(t, client, "orders")) })
	t.Run("edit", b.edit)
	t.Run("keys", b.keys)
	t.Run("screenshots", func(t *testing.T) { b.screenshots(t, q.url) })
	t.Run("server away", func(t *testing.T) { b.away(t) })
}

// within lets a part of a test fail as itself.
func (b *browser) within(t *testing.T) func() {
	t.Helper()
	outer := b.t
	b.t = t
	return func() {
		b.quiet()
		b.t = outer
	}
}

// go goes to a page of the server that is shown.
func (b *browser) goTo(path string) {
	b.t.Helper()
	b.visit(js[string](b, "location.origin") + path)
}

func (b *browser) create(t *testing.T) {
	defer b.within(t)()
	b.goTo("/new")
	b.fill("#name", "orders")
	b.click(`.choice:has(input[value="1"])`)
	js[bool](b, `document.querySelector("#tls").value = "Disabled", true`)
	b.click(`button[value="review"]`)
	b.await("the plan", `document.querySelectorAll("#outcome .steps li").length === 2`)
	if text := js[string](b, `document.querySelector("#yaml").value`); !strings.Contains(text, "replicas: 1") || !strings.Contains(text, "mode: Disabled") {
		t.Errorf("the file is %s", text)
	}
	b.click(`button[value="create"]`)
	b.await("the new cluster's page", `location.pathname === "/clusters/default/orders"`)
	b.await("it to be healthy", healthy)
}

func (b *browser) kill(t *testing.T) {
	defer b.within(t)()
	b.goTo("/clusters/default/playground")
	b.await("a leader", healthy+` && document.querySelector(".node-leader")`)
	b.await("the charts", `document.querySelectorAll(".chart canvas").length === 3`)
	before := js[string](b, `document.querySelector("[data-glow=leader]").textContent`)
	term, err := strconv.Atoi(js[string](b, `document.querySelector("[data-glow=term]").textContent`))
	if err != nil {
		t.Fatal(err)
	}
	b.click("#break")
	b.click(`#break-dialog button[value="kill"]`)
	b.await("the recovery to be complete", `document.querySelector("#recovery.done") && document.querySelectorAll("#recovery-marks .reached").length === 6`)
	text := js[string](b, `document.querySelector("#recovery").innerText`)
	t.Logf("killed %s: %s", before, strings.Join(strings.Fields(text), " "))
	if !strings.Contains(text, before) {
		t.Errorf("the recovery does not name %s: %s", before, text)
	}
	if lanes := js[int](b, `document.querySelectorAll("#recovery-lanes .lane-name").length`); lanes != 3 {
		t.Errorf("%d lanes are drawn", lanes)
	}
	b.await("a new term", fmt.Sprintf(`Number(document.querySelector("[data-glow=term]").textContent) > %d`, term))
	b.await("the event", `document.querySelector("#events").innerText.includes("MemberKilled")`)
	b.await("it to be healthy", healthy)
	if dir := screenshotDir(); dir != "" {
		b.picture(filepath.Join(dir, "recovery.png"))
		b.prefer("dark")
		b.do(chromedp.EmulateViewport(390, 900))
		b.fits("the recovery")
		b.picture(filepath.Join(dir, "recovery-dark-390.png"))
		b.do(chromedp.EmulateViewport(1440, 900))
		b.prefer("light")
	}
}

func (b *browser) suspend(t *testing.T) {
	defer b.within(t)()
	b.goTo("/clusters/default/orders")
	b.await("it to be healthy", healthy)
	for _, step := range []struct{ action, reached string }{
		{"suspend", `document.querySelector(".hero-Stopped")`}, {"resume", healthy},
	} {
		b.click(fmt.Sprintf(`#cluster-actions [hx-get$="/do/%s"]`, step.action))
		b.await("the plan", `document.querySelector("#dialog[open] .steps li")`)
		b.click("#dialog .dialog-foot .button.primary")
		b.await(step.action, step.reached)
		b.await("the dialog to close", `!document.querySelector("#dialog[open]")`)
	}
	// A name must be typed to delete.
	b.click(`#cluster-actions [hx-get$="/do/delete"]`)
	b.await("the question", `document.querySelector("#dialog[open] #typed")`)
	b.fill("#typed", "order")
	if !js[bool](b, `document.querySelector("#dialog .button.bad").disabled`) {
		t.Error("it could be deleted by half its name")
	}
	b.click("#dialog [data-close]")
}

func (b *browser) logs(t *testing.T) {
	defer b.within(t)()
	b.goTo("/clusters/default/orders")
	b.click(`.members th a`)
	b.await("the log", `document.querySelectorAll(".logline").length > 5`)
	all := js[int](b, `document.querySelectorAll(".logline").length`)
	b.fill("#log-filter", "became leader")
	b.await("the filter to tell", fmt.Sprintf(`(n => n > 0 && n < %d)([...document.querySelectorAll(".logline")].filter(l => !l.hidden).length)`, all))
	b.click("#log-pause")
	b.await("the pause", `document.querySelector("#log-pause[aria-pressed=true]")`)
}

// endpoint is where a cluster's only member listens.
func endpoint(t *testing.T, client store.Store, cluster string) string {
	t.Helper()
	var m v1alpha1.EtcdMember
	if err := client.Get(t.Context(), store.Key{Namespace: "default", Name: cluster + "-1"}, &m); err != nil {
		t.Fatal(err)
	}
	return m.Status.ClientURL
}

func (b *browser) importing(t *testing.T, url string) {
	t.Helper()
	defer b.within(t)()
	b.goTo("/import")
	b.fill("#name", "theirs")
	b.fill("#endpoints", url)
	b.fill("#replicas", "1")
	b.click(`button[value="check"]`)
	b.click(`#outcome button[value="import"]`)
	b.await("its page", `location.pathname === "/clusters/default/theirs"`)
	b.await("it to be healthy", healthy)
	if js[bool](b, `!!document.querySelector("#cluster-actions [hx-get$='/do/suspend']")`) {
		t.Error("an observed cluster can be suspended")
	}
}

func (b *browser) edit(t *testing.T) {
	defer b.within(t)()
	b.goTo("/clusters/default/orders/edit")
	js[bool](b, `(f => (f.value = f.value.replace("replicas: 1", "replicas: 2\n  nonsense: 1"), true))(document.querySelector("#yaml"))`)
	b.click(`button[value="check"]`)
	b.await("the faults", `document.querySelector(".faults").innerText.includes("spec.nonsense")`)
	js[bool](b, `(f => (f.value = f.value.replace("replicas: 2\n  nonsense: 1", "replicas: 1").replace("maxTxnOps: 128", "maxTxnOps: 256"), true))(document.querySelector("#yaml"))`)
	b.click(`button[value="check"]`)
	b.await("the plan", `document.querySelector("#outcome .steps li")`)
	b.click(`button[value="save"]`)
	b.await("its page", `location.pathname === "/clusters/default/orders"`)
	b.await("the restart to be done", healthy+` && document.querySelector("#tasks-now").innerText.includes("Restart member") && document.querySelector("#plan-now .empty-line")`)
}

func (b *browser) keys(t *testing.T) {
	defer b.within(t)()
	b.goTo("/settings")
	b.do(chromedp.KeyEvent("gh"))
	b.await("the hosts", `location.pathname === "/hosts" && document.readyState === "complete"`)
	b.do(chromedp.KeyEvent("gf"))
	b.await("the fleet", `location.pathname === "/" && document.readyState === "complete"`)
	b.do(chromedp.KeyEvent("/"))
	b.await("the search", `document.activeElement.id === "filter-q"`)
	// The browser is told of the character apart from its key, unlike by a keyboard.
	b.fill("#filter-q", "theirs")
	b.await("the search to tell", `document.querySelectorAll("#rows tbody tr").length === 1 && document.querySelector("#row-default\\.theirs")`)
	b.await("the address", `location.search === "?q=theirs"`)
}

// away: a page of a server that does not answer says so, and recovers. The server
// is only made to seem away, so that the others go on.
func (b *browser) away(t *testing.T) {
	t.Helper()
	outer := b.t
	b.t = t
	defer func() { b.t, b.wrong = outer, nil }() // the browser's console says what could not be loaded
	b.goTo("/clusters/default/playground")
	b.await("it to be healthy", healthy)
	js[bool](b, `(window.realOpen = XMLHttpRequest.prototype.open, XMLHttpRequest.prototype.open = function (m, u, ...r) { return realOpen.call(this, m, "http://127.0.0.1:1" + new URL(u, location).pathname, ...r) }, true)`)
	b.await("the banner", `!document.querySelector("#banner").hidden && !document.querySelector("#banner.back")`)
	js[bool](b, `(XMLHttpRequest.prototype.open = window.realOpen, true)`)
	b.await("the banner to go", `document.querySelector("#banner").hidden || document.querySelector("#banner.back")`)
}

func screenshotDir() string { return os.Getenv("QUORATE_SCREENSHOTS") }

// screenshots takes a picture of each page in each look.
func (b *browser) screenshots(t *testing.T, server string) {
	t.Helper()
	dir := screenshotDir()
	defer b.within(t)()
	shots := []struct{ name, path string }{
		{"fleet", "/"},
		{"cluster", "/clusters/default/playground"},
		{"imported", "/clusters/default/theirs"},
		{"member", "/members/default/playground-1"},
		{"hosts", "/hosts"},
		{"host", "/hosts/localhost"},
		{"tasks", "/tasks"},
		{"events", "/activity"},
		{"create", "/new"},
		{"import", "/import"},
		{"edit", "/clusters/default/playground/edit"},
		{"settings", "/settings"},
		{"nothing", "/nothing"},
		{"login", "/login"},
	}
	for _, theme := range []string{"light", "dark"} {
		for _, lang := range []string{"en", "zh"} {
			b.cookie(server, "quorate_theme", theme)
			b.cookie(server, "quorate_lang", lang)
			for _, width := range []int64{1440, 390} {
				b.do(chromedp.EmulateViewport(width, 900))
				for _, s := range shots {
					b.visit(server + s.path)
					if strings.HasPrefix(s.path, "/clusters/default/playground") && s.name == "cluster" {
						b.await("two samples", `document.querySelector("#chart-writes-now").textContent !== "–"`)
					}
					if s.name == "member" {
						b.await("the log", `document.querySelectorAll(".logline").length > 5`)
					}
					b.await("what is fetched afterwards", `document.readyState === "complete" && (!document.querySelector("#row-default\\.playground") || document.querySelector("#row-default\\.playground .figure"))`)
					b.fits(fmt.Sprintf("%s at %d in %s", s.name, width, lang))
					b.picture(filepath.Join(dir, fmt.Sprintf("%s-%s-%s-%d.png", s.name, theme, lang, width)))
				}
			}
		}
	}
	b.do(chromedp.EmulateViewport(1440, 900))
	b.cookie(server, "quorate_lang", "en")
	// The browser reports the page that is not there.
	b.wrong = nil
}

// TestThousandClusters: a large fleet can be looked through within a second.
func TestThousandClusters(t *testing.T) {
	const clusters, limit = 1000, time.Second
	b := open(t)
	q := start(t, regexp.MustCompile(`http`), "server")
	client := q.client(t)
	var wg sync.WaitGroup
	names := make(chan string)
	for range 8 {
		wg.Go(func() {
			for name := range names {
				c := &v1alpha1.EtcdCluster{}
				c.Namespace, c.Name = "default", name
				c.Spec.Management, c.Spec.Replicas = v1alpha1.ManagementObserve, 3
				c.Spec.Import = &v1alpha1.ImportSpec{Endpoints: []string{"http://127.0.0.1:1"}}
				err := schema.Default(c)
				if err == nil {
					err = client.Create(t.Context(), c)
				}
				if err != nil {
					t.Errorf("create %s: %v", name, err)
				}
			}
		})
	}
	for i := range clusters {
		names <- fmt.Sprintf("fleet-%04d", i)
	}
	close(names)
	wg.Wait()
	link, err := client.LoginLink(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	b.visit(q.url + link.Path)
	b.await("the fleet", `document.querySelectorAll("#rows tbody tr").length === 50`)

	best := func(what string, act func() time.Duration) {
		t.Helper()
		shortest := time.Hour
		for range 3 {
			shortest = min(shortest, act())
		}
		t.Logf("%s: %s", what, shortest.Round(time.Millisecond))
		if shortest > limit {
			t.Errorf("%s takes %s, more than %s", what, shortest, limit)
		}
	}
	best("the page", func() time.Duration {
		b.visit(q.url + "/")
		b.await("rows", `document.querySelectorAll("#rows tbody tr").length === 50`)
		return time.Duration(js[float64](b, `performance.getEntriesByType("navigation")[0].domContentLoadedEventEnd`) * float64(time.Millisecond))
	})
	n := 700
	best("a search", func() time.Duration {
		n++
		name := fmt.Sprintf("fleet-%04d", n)
		began := time.Now()
		js[bool](b, fmt.Sprintf(`(f => (f.value = %q, f.dispatchEvent(new Event("input", { bubbles: true })), true))(document.querySelector("#filter-q"))`, name))
		b.await("the row", fmt.Sprintf(`document.querySelectorAll("#rows tbody tr").length === 1 && document.querySelector("#row-default\\.%s")`, name))
		return time.Since(began)
	})
	b.visit(q.url + "/")
	b.picture(filepath.Join(screenshotDir(), "fleet-thousand.png"))
	b.quiet()
}
