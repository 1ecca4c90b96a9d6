package browser_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/quorate/quorate/server"
	"github.com/quorate/quorate/server/servertest"
	"github.com/quorate/quorate/server/web/webtest"
)

// still is a page in a state that takes long to bring about, or a step on it.
type still struct {
	name, path string
	// act brings the page to where its picture is taken.
	act func(*browser)
}

// stills of the fleet of webtest.
func stills() []still {
	list := []still{
		{"fleet", "/", nil},
		{"fleet-no-match", "/?q=nothing", nil},
		{"hosts", "/hosts", nil},
		{"host-not-ready", "/hosts/rack-2", nil},
		{"member-crashing", "/members/default/degraded-3", nil},
		{"tasks", "/tasks?namespace=default&cluster=degraded", nil},
		{"events", "/activity", nil},
		{"dialog-delete", "/clusters/default/five", func(b *browser) {
			b.click(`#cluster-actions [hx-get$="/do/delete"]`)
			b.await("the question", `document.querySelector("#dialog[open] #typed")`)
		}},
		{"dialog-restart", "/clusters/default/five", func(b *browser) {
			b.click(`#cluster-actions [hx-get$="/do/restart"]`)
			b.await("the question", `document.querySelector("#dialog[open] .steps")`)
		}},
		{"create-faults", "/new", func(b *browser) {
			b.fill("#name", "Orders_1")
			b.click(`button[value="review"]`)
			b.await("the faults", `document.querySelector("#outcome .faults li")`)
		}},
		{"create-plan", "/new", func(b *browser) {
			b.fill("#name", "orders")
			b.click(`button[value="review"]`)
			b.await("the plan", `document.querySelector("#outcome .steps li")`)
		}},
		{"import-faults", "/import", func(b *browser) {
			b.fill("#name", "orders")
			b.fill("#endpoints", "nonsense")
			b.click(`button[value="check"]`)
			b.await("the faults", `document.querySelector("#outcome .faults li")`)
		}},
	}
	for _, c := range webtest.Cases() {
		list = append(list, still{"cluster-" + strings.TrimSuffix(c.Cluster.Name, strings.TrimPrefix(webtest.LongName, "orders")), c.Path(), nil})
	}
	return list
}

// TestStills: pages in states that a healthy fleet does not have are whole at each
// width, and somebody can look at them.
func TestStills(t *testing.T) {
	b := open(t)
	t.Run("fleet", func(t *testing.T) { b.stills(t, webtest.New(t, false), stills()) })
	t.Run("empty", func(t *testing.T) {
		b.stills(t, webtest.New(t, true), []still{{"fleet-empty", "/", nil}, {"hosts-empty", "/hosts", nil}, {"tasks-empty", "/tasks", nil}})
	})
}

func (b *browser) stills(t *testing.T, f *servertest.Fixture, list []still) {
	t.Helper()
	defer b.within(t)()
	// What is left of a page must not miss its server.
	defer b.visit("about:blank")
	b.cookie(f.URL, "quorate_lang", "en")
	b.visit(f.URL + "/login")
	b.fill("#token", f.Token(t, server.RoleAdmin, ""))
	b.click(".login .primary")
	b.await("the fleet", `location.pathname === "/" && document.readyState === "complete"`)
	for _, theme := range []string{"light", "dark"} {
		b.cookie(f.URL, "quorate_theme", theme)
		for _, width := range []int64{1440, 390} {
			b.do(chromedp.EmulateViewport(width, 900))
			for _, s := range list {
				b.visit(f.URL + s.path)
				b.await(s.name, `document.readyState === "complete"`)
				if s.act != nil {
					s.act(b)
				}
				b.fits(fmt.Sprintf("%s at %d", s.name, width))
				b.picture(filepath.Join(screenshotDir(), fmt.Sprintf("still-%s-%s-%d.png", s.name, theme, width)))
			}
		}
	}
}
