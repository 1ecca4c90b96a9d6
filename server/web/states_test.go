package web_test

import (
	"html"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/server"
	"github.com/quorate/quorate/server/web/webtest"
)

// newPlayed is the fleet of webtest, with a session of an administrator in its jar.
func newPlayed(t *testing.T, empty bool) *fixture {
	t.Helper()
	f := &fixture{Fixture: webtest.New(t, empty)}
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	f.client = &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	t.Cleanup(f.client.CloseIdleConnections)
	f.session(t, server.RoleAdmin)
	return f
}

// said is the text of a page, without its tags and with single spaces.
func said(page string) string {
	page = regexp.MustCompile(`(?s)<(?:script|style|option)[^>]*>.*?</(?:script|style|option)>|<[^>]*>`).ReplaceAllString(page, " ")
	return html.UnescapeString(strings.Join(strings.Fields(page), " "))
}

// TestStates: a cluster's page says what state it is in, in words and not by colour
// alone, and what can be done.
func TestStates(t *testing.T) {
	f := newPlayed(t, false)
	for name, tc := range map[string]struct {
		wants, lacks []string
		// nodes, links and up count the parts of the picture.
		nodes, links, up int
	}{
		"degraded": {
			[]string{
				"hero-Degraded", "It serves, with 2 of 3 members healthy. None can be lost", "Crash loop", "no space left on device", "Waiting:",
				"another member may not be restarted meanwhile", "Move leadership", "Impact", "Acting", "Abandoned", "Restart</button>", "Delete</button>",
			},
			[]string{"Nothing to do"},
			3, 2, 1,
		},
		"unavailable": {[]string{"hero-Unavailable", "0 members are healthy and 2 are needed. Writes are refused.", "no leader", "no answer"}, []string{"can be lost"}, 3, 3, 0},
		"full":        {[]string{"hero-Unavailable", `role="alert"`, "NOSPACE", "reached its quota", "100.0 % of the quota"}, nil, 3, 2, 0},
		"corrupt":     {[]string{"hero-Unavailable", `role="alert"`, "CORRUPT", "data differ"}, nil, 3, 2, 1},
		"stopped":     {[]string{"hero-Stopped", "It was suspended. Its data is kept", "Resume</button>"}, []string{"Suspend</button>", "Kill the leader"}, 3, 3, 0},
		"unknown":     {[]string{"hero-Unknown", "Nobody has answered for it yet.", "No member exists yet.", "node-missing"}, []string{"can be lost"}, 3, 3, 0},
		"leaving":     {[]string{"hero-Stopped", "It is being deleted"}, []string{"Edit</a>", "Restart</button>"}, 3, 3, 0},
		"one":         {[]string{"hero-Healthy", "Its only member serves. None can be lost", "quorum 1"}, nil, 1, 0, 0},
		"five":        {[]string{"hero-Healthy", "5 of 5 members serve. 2 can be lost", "quorum 3"}, []string{"Kill the leader"}, 5, 4, 4},
		"seven":       {[]string{"hero-Healthy", "6 of 6 members serve. 2 can be lost", "quorum 4", "Learner", "node-learner"}, nil, 7, 6, 6},
		"restored":    {[]string{"The fleet's store was restored.", "Accept this plan</button>"}, nil, 3, 2, 2},
		webtest.LongName: {
			[]string{"Observed only: Quorate never writes to it.", "Stop observing", "Nothing: it is observed only.", "customer-xxx"},
			[]string{"Delete", "Restart", "No task yet"},
			3, 2, 2,
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := ""
			for _, c := range webtest.Cases() {
				if c.Cluster.Name == name {
					path = c.Path()
				}
			}
			for _, part := range []string{"", "/live"} {
				a := f.do(t, http.MethodGet, path+part, nil, nil)
				if a.StatusCode != http.StatusOK {
					t.Fatalf("%s: %s: %.300s", path+part, a.Status, a.text)
				}
				text := said(a.text) + a.text
				for _, want := range tc.wants {
					if !strings.Contains(text, want) {
						t.Errorf("%s does not say %q: %.1500s", path+part, want, said(a.text))
					}
				}
				for _, lack := range tc.lacks {
					if strings.Contains(text, lack) {
						t.Errorf("%s says %q", path+part, lack)
					}
				}
				nodes, links, up := strings.Count(a.text, `class="body"`), strings.Count(a.text, `class="link`), strings.Count(a.text, "link-up")
				if nodes != tc.nodes || links != tc.links || up != tc.up {
					t.Errorf("%s draws %d members with %d links, %d of them up; want %d, %d, %d", path+part, nodes, links, up, tc.nodes, tc.links, tc.up)
				}
			}
			if a := f.do(t, http.MethodGet, path, nil, nil, "Accept-Language", "zh"); a.StatusCode != http.StatusOK {
				t.Errorf("in Chinese: %s", a.Status)
			}
		})
	}
}

// TestWorstFirst: the fleet begins with what needs somebody.
func TestWorstFirst(t *testing.T) {
	f := newPlayed(t, false)
	a := f.do(t, http.MethodGet, "/", nil, nil)
	last := -1
	for _, name := range []string{"corrupt", "full", "unavailable", "degraded", "unknown", "five", "leaving", "stopped"} {
		at := strings.Index(a.text, `id="row-default.`+name+`"`)
		if at < last {
			t.Errorf("%s stands at %d, after %d", name, at, last)
		}
		last = at
	}
	if strings.Contains(a.text, `id="search"`) {
		t.Error("the fleet has two fields to search in")
	}
	if !strings.Contains(f.do(t, http.MethodGet, "/hosts", nil, nil).text, `id="search"`) {
		t.Error("the hosts have no field to search in")
	}
}

func TestEmptyFleet(t *testing.T) {
	f := newPlayed(t, true)
	for path, want := range map[string]string{
		"/": "There is no cluster yet", "/hosts": "There is no host yet", "/tasks": "No task here", "/activity": "Nothing has happened yet.", "/nothing": "No page has this address: /nothing",
	} {
		if a := f.do(t, http.MethodGet, path, nil, nil); !strings.Contains(said(a.text), want) {
			t.Errorf("%s does not say %q: %s", path, want, said(a.text))
		}
	}
	if a := f.do(t, http.MethodGet, "/?q=nothing", nil, nil); !strings.Contains(a.text, "There is no cluster yet") {
		t.Errorf("a search in nothing: %s", said(a.text))
	}
}

// TestHostStates: the list of hosts and a host's own page agree.
func TestHostStates(t *testing.T) {
	f := newPlayed(t, false)
	list := f.do(t, http.MethodGet, "/hosts", nil, nil).text
	for name, want := range map[string]string{"rack-1": "Ready", "rack-2": "Not ready", "rack-3": "Silent"} {
		_, row, _ := strings.Cut(list, `id="host-`+name+`"`)
		row, _, _ = strings.Cut(row, "</tr>")
		page := f.do(t, http.MethodGet, "/hosts/"+name, nil, nil).text
		_, sheet, _ := strings.Cut(page, `<dl class="sheet">`)
		sheet, _, _ = strings.Cut(sheet, "</dd>")
		if !strings.Contains(row, want+"</span>") || !strings.Contains(sheet, want+"</span>") {
			t.Errorf("%s is %q in the list and %q on its page, want %s", name, said("<"+row), said(sheet), want)
		}
		if !strings.Contains(page, `href="/hosts" aria-current="true"`) {
			t.Errorf("%s: the bar does not say that this is a host", name)
		}
	}
}

// TestTimes: what day a time is of can be told, and how long ago it was.
func TestTimes(t *testing.T) {
	f := newPlayed(t, false)
	text := said(f.do(t, http.MethodGet, "/activity", nil, nil).text)
	now := time.Now().UTC()
	for _, want := range []string{
		"Times are in UTC.", now.Add(-30 * time.Hour).Format("01-02 15:"), now.Add(-400 * 24 * time.Hour).Format("2006-01-02 "),
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the events do not say %q: %s", want, text)
		}
	}
	if !regexp.MustCompile(`degraded-step-1 \d\d:\d\d:\d\d `).MatchString(text) {
		t.Errorf("the event of now has no bare time: %s", text)
	}
	if strings.Contains(said(f.do(t, http.MethodGet, "/activity?q=degraded", nil, nil).text), "by themselves") {
		t.Error("a filtered list says that it is live")
	}
	if text := said(f.do(t, http.MethodGet, "/members/default/degraded-3", nil, nil).text); !regexp.MustCompile(`SIGKILL · \d+ s ago`).MatchString(text) {
		t.Errorf("the member's last exit: %s", text)
	}
	if text := said(f.do(t, http.MethodGet, "/settings", nil, nil).text); !regexp.MustCompile(`Expires in \d+ h \(\d{4}-\d\d-\d\d \d\d:\d\d UTC\)`).MatchString(text) {
		t.Errorf("the session: %s", text)
	}
}

// TestTasksOfACluster: the list that a cluster's page leads to is the cluster's.
func TestTasksOfACluster(t *testing.T) {
	f := newPlayed(t, false)
	for query, want := range map[string]int{
		"": 3, "?namespace=default&cluster=degraded": 3, "?cluster=five": 0, "?phase=open&cluster=degraded": 1, "?cluster=" + url.QueryEscape("x;reboot"): 0,
	} {
		a := f.do(t, http.MethodGet, "/tasks"+query, nil, nil)
		if got := strings.Count(a.text, `id="task-`); a.StatusCode != http.StatusOK || got != want {
			t.Errorf("%q: %s with %d tasks, want %d", query, a.Status, got, want)
		}
		if strings.Contains(a.text, `data-copy="quorate get tasks -l quorate.io/cluster=x`) {
			t.Error("a command to copy holds what an address says")
		}
	}
}

// TestForget: an observed cluster is not deleted, in words.
func TestForget(t *testing.T) {
	f := newPlayed(t, false)
	for _, c := range webtest.Cases() {
		text := said(f.do(t, http.MethodGet, c.Path()+"/do/delete", nil, nil).text)
		if forgets := strings.Contains(text, "Stop observing"); forgets != c.Cluster.Observed() {
			t.Errorf("%s: the question is %s", c.Cluster.Name, text)
		}
	}
}
