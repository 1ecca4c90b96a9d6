package web_test

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/server"
	"github.com/quorate/quorate/server/servertest"
	"github.com/quorate/quorate/server/web"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
)

// hostile is what nobody should find in an object, and somebody will put there.
const hostile = `<script>alert(1)</script>"><img src=x onerror=alert(2)>'` + "\u202edrawkcab\u202c {{.}} javascript:alert(3)"

type fixture struct {
	*servertest.Fixture

	done   chan struct{}
	client *http.Client
}

// newFixture is an API with its console, and a browser that follows nothing.
func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{done: make(chan struct{})}
	f.Fixture = servertest.New(t, func(o *server.Options) {
		o.Console = func(api http.Handler) http.Handler {
			h, err := web.New(web.Options{Transport: server.InProcess(api), Version: "v0.0.0-test", Done: f.done})
			if err != nil {
				t.Fatalf("make the console: %v", err)
			}
			return h
		}
	})
	f.client = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	t.Cleanup(f.client.CloseIdleConnections)
	return f
}

// session logs in with a token of the role and returns the cookie.
func (f *fixture) session(t *testing.T, role server.Role) *http.Cookie {
	t.Helper()
	form := url.Values{"token": {f.Token(t, role, "")}, "next": {"/hosts"}}
	resp := f.do(t, http.MethodPost, "/login", form, nil)
	for _, c := range resp.Cookies() {
		if c.Name == "quorate_session" {
			return c
		}
	}
	t.Fatalf("log in: %s without a session", resp.Status)
	return nil
}

type answer struct {
	*http.Response

	text string
}

func (f *fixture) do(t *testing.T, method, path string, form url.Values, cookie *http.Cookie, headers ...string) answer {
	t.Helper()
	var body io.Reader = http.NoBody
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	req, err := http.NewRequestWithContext(t.Context(), method, f.URL+path, body)
	if err != nil {
		t.Fatal(err)
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if cookie != nil {
		req.AddCookie(cookie)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := f.client.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return answer{resp, string(raw)}
}

// fill stores one of each kind, with hostile text wherever text may stand.
func (f *fixture) fill(t *testing.T) {
	t.Helper()
	condition := v1alpha1.Condition{Type: v1alpha1.ConditionAvailable, Status: v1alpha1.False, Reason: hostile, Message: hostile, LastTransitionTime: v1alpha1.Now()}
	c := servertest.Cluster("default", "c")
	c.Labels = map[string]string{"a": hostile}
	c.Status.Leader, c.Status.Summary, c.Status.Endpoints = hostile, hostile, []string{"javascript:" + hostile}
	c.Status.Conditions = []v1alpha1.Condition{condition}
	m := servertest.Member("default", "c-1", "h")
	m.Status.Phase, m.Status.Message, m.Status.ClientURL, m.Status.DataDir = v1alpha1.MemberCrashLoop, hostile, "javascript:"+hostile, hostile
	m.Status.Process = &v1alpha1.ProcessStatus{PID: 1}
	m.Status.LastExit = &v1alpha1.ExitStatus{Signal: hostile, Message: hostile}
	m.Status.Conditions = []v1alpha1.Condition{condition}
	h := servertest.Host("h")
	h.Spec.Zone, h.Status.Platform, h.Status.BootID = hostile, hostile, hostile
	h.Status.Undeclared = []v1alpha1.UndeclaredMember{{Namespace: hostile, Name: hostile, Home: hostile}}
	h.Status.Conditions = []v1alpha1.Condition{condition}
	task := &v1alpha1.EtcdTask{}
	task.Namespace, task.Name, task.Labels = "default", "c-step-1", map[string]string{v1alpha1.LabelCluster: "c"}
	task.Spec = v1alpha1.EtcdTaskSpec{ClusterName: "c", ClusterUID: "u", Number: 1, Action: v1alpha1.ActionStartMember, Member: hostile, Reason: hostile}
	task.Status.Message = strings.Repeat(hostile, 40)
	f.Create(t, c, m, h, task)
	f.Store.Record(t.Context(), store.Event{
		Time: time.Now(), Type: store.Warning, Kind: "EtcdMember", Namespace: "default", Name: "c-1", Cluster: "c", Reason: hostile, Message: hostile + "\x00",
	})
	for key := range f.Store.Watch(t.Context(), v1alpha1.KindTask, "") {
		if key.Name == task.Name {
			return
		}
	}
}

var pages = []string{
	"/", "/?q=c&state=Unavailable&sort=age&page=9&namespace=default", "/fleet/rows?figures=true", "/clusters/default/c", "/clusters/default/c/live",
	"/clusters/default/c/edit", "/clusters/default/c/do/suspend", "/clusters/default/c/do/resume", "/clusters/default/c/do/restart",
	"/clusters/default/c/do/delete", "/members/default/c-1", "/members/default/c-1/live", "/hosts", "/hosts/h", "/tasks",
	"/tasks?phase=open", "/activity", "/activity?type=Warning&q=alert", "/new", "/import", "/settings", "/login",
}

// TestPages: every page stands in every language, and says nothing as markup that
// came as text.
func TestPages(t *testing.T) {
	f := newFixture(t)
	f.fill(t)
	cookie := f.session(t, server.RoleAdmin)
	raw := regexp.MustCompile(`(?i)<script>|<img|onerror=alert\(2\)>"|href="javascript:|src="javascript:`)
	for _, page := range append(slices.Clone(pages), "/?q="+url.QueryEscape(hostile), "/activity?q="+url.QueryEscape(hostile)) {
		for _, lang := range []string{"en", "zh"} {
			a := f.do(t, http.MethodGet, page, nil, cookie, "Accept-Language", map[string]string{"en": "en-GB,en;q=0.9", "zh": "zh-CN,zh;q=0.9,en;q=0.8"}[lang])
			if a.StatusCode != http.StatusOK {
				t.Errorf("%s in %s: %s: %.300s", page, lang, a.Status, a.text)
				continue
			}
			if found := raw.FindString(a.text); found != "" {
				t.Errorf("%s in %s holds %s", page, lang, found)
			}
			if policy := a.Header.Get("Content-Security-Policy"); !strings.Contains(policy, "default-src 'self'") || strings.Contains(policy, "unsafe") {
				t.Errorf("%s: policy %q", page, policy)
			}
			if inline := regexp.MustCompile(`<script(?: [^>]*)?>[^<]|<style|\sstyle="|\son[a-z]+="`).FindString(a.text); inline != "" {
				t.Errorf("%s holds %q, which the policy forbids", page, inline)
			}
			if whole := strings.HasPrefix(a.text, "<!doctype"); whole && lang == "zh" && !strings.Contains(a.text, `lang="zh-CN"`) {
				t.Errorf("%s is not in %s", page, lang)
			}
		}
	}
}

// TestEveryPageNeedsASession: strangers are led to the log-in, and learn nothing.
func TestEveryPageNeedsASession(t *testing.T) {
	f := newFixture(t)
	f.fill(t)
	wrong := &http.Cookie{Name: "quorate_session", Value: "quorate_nobody_00"}
	for _, page := range append(slices.Clone(pages), "/nothing", "/stream", "/members/default/c-1/log", "/docs", "/openapi.json") {
		if page == "/login" {
			continue
		}
		for _, cookie := range []*http.Cookie{nil, wrong} {
			a := f.do(t, http.MethodGet, page, nil, cookie)
			if a.StatusCode != http.StatusSeeOther || !strings.HasPrefix(a.Header.Get("Location"), "/login") {
				// Nobody's session on a page that asks the API nothing shows nothing of it.
				if cookie != nil && (page == "/import" || page == "/nothing") {
					continue
				}
				t.Errorf("%s: %s to %q", page, a.Status, a.Header.Get("Location"))
			}
			if strings.Contains(a.text, "onerror") || strings.Contains(a.text, "3.7.3") {
				t.Errorf("%s tells a stranger what is there", page)
			}
		}
	}
	a := f.do(t, http.MethodGet, "/clusters/default/c/live", nil, nil, "HX-Request", "true")
	if a.Header.Get("HX-Redirect") != "/login" {
		t.Errorf("a fragment leads to %q", a.Header.Get("HX-Redirect"))
	}
}

func TestLogIn(t *testing.T) {
	f := newFixture(t)
	link, err := f.Client(t, server.RoleAdmin, "", remote.Options{}).LoginLink(t.Context(), 0)
	if err != nil {
		t.Fatalf("make a link: %v", err)
	}
	for range 2 {
		// Whoever only looks at the link does not use it up.
		if a := f.do(t, http.MethodGet, link.Path, nil, nil); a.StatusCode != http.StatusOK || !strings.Contains(a.text, link.Code) || len(a.Cookies()) > 0 {
			t.Fatalf("the page of the link: %s, %v", a.Status, a.Cookies())
		}
	}
	a := f.do(t, http.MethodPost, "/login", url.Values{"code": {link.Code}, "next": {"/hosts"}}, nil)
	var cookie *http.Cookie
	for _, c := range a.Cookies() {
		if c.Name == "quorate_session" {
			cookie = c
		}
	}
	if a.StatusCode != http.StatusOK || cookie == nil || !cookie.HttpOnly || cookie.SameSite != http.SameSiteStrictMode || cookie.Path != "/" {
		t.Fatalf("log in: %s, %v", a.Status, cookie)
	}
	if !strings.Contains(a.text, `url=/hosts`) {
		t.Errorf("it does not lead to /hosts: %s", a.text)
	}
	if a := f.do(t, http.MethodPost, "/login", url.Values{"code": {link.Code}}, nil); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("the second use: %s", a.Status)
	}
	for _, form := range []url.Values{{}, {"token": {"nonsense"}}, {"token": {"quorate_a_b"}}, {"code": {hostile}}} {
		if a := f.do(t, http.MethodPost, "/login", form, nil); a.StatusCode != http.StatusUnauthorized || len(a.Cookies()) > 0 {
			t.Errorf("%v: %s", form, a.Status)
		}
	}
	if a := f.do(t, http.MethodGet, "/settings", nil, cookie); a.StatusCode != http.StatusOK {
		t.Errorf("settings: %s", a.Status)
	}
	if a := f.do(t, http.MethodPost, "/logout", url.Values{}, cookie); a.StatusCode != http.StatusSeeOther {
		t.Errorf("log out: %s", a.Status)
	}
	if a := f.do(t, http.MethodGet, "/settings", nil, cookie); a.StatusCode != http.StatusSeeOther {
		t.Errorf("after log out: %s", a.Status)
	}
}

// TestOtherSites: a page of another site changes nothing, though the browser would
// send the cookie.
func TestOtherSites(t *testing.T) {
	f := newFixture(t)
	f.fill(t)
	cookie := f.session(t, server.RoleAdmin)
	for _, path := range []string{"/clusters/default/c/do/suspend", "/clusters/default/c/do/delete", "/clusters/default/c/edit", "/new", "/logout", "/look", "/login", "/clusters/default/c/kill", "/hosts/h/schedule"} {
		for _, headers := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Origin", "https://elsewhere.example"}} {
			if a := f.do(t, http.MethodPost, path, url.Values{"typed": {"c"}}, cookie, headers...); a.StatusCode != http.StatusForbidden {
				t.Errorf("%s with %v: %s", path, headers, a.Status)
			}
		}
		// Asking is not doing.
		if a := f.do(t, http.MethodGet, path, nil, nil); a.StatusCode == http.StatusOK && path != "/login" {
			t.Errorf("GET %s: %s", path, a.Status)
		}
	}
	var c v1alpha1.EtcdCluster
	if err := f.Store.Get(t.Context(), store.Key{Namespace: "default", Name: "c"}, &c); err != nil || c.Spec.Suspended {
		t.Errorf("the cluster was changed: %v, %v", c.Spec.Suspended, err)
	}
}

// TestNextStaysHere: the log-in leads nowhere else.
func TestNextStaysHere(t *testing.T) {
	f := newFixture(t)
	token := f.Token(t, server.RoleViewer, "")
	for _, next := range []string{"//evil.example", "https://evil.example/", `/\evil.example`, "javascript:alert(1)", "/\r\nX: y", "http:/evil", "evil"} {
		a := f.do(t, http.MethodPost, "/login", url.Values{"token": {token}, "next": {next}}, nil)
		if a.StatusCode != http.StatusOK || !strings.Contains(a.text, `url=/"`) {
			t.Errorf("%q leads to %s", next, regexp.MustCompile(`url=[^"]*`).FindString(a.text))
		}
		if b := f.do(t, http.MethodPost, "/look", url.Values{"theme": {"dark"}, "next": {next}}, nil); b.Header.Get("Location") != "/" {
			t.Errorf("look: %q leads to %q", next, b.Header.Get("Location"))
		}
	}
}

func TestStatic(t *testing.T) {
	f := newFixture(t)
	if a := f.do(t, http.MethodGet, "/static/app.css", nil, nil); a.StatusCode != http.StatusOK || !strings.HasPrefix(a.Header.Get("Content-Type"), "text/css") {
		t.Errorf("app.css: %s, %s", a.Status, a.Header.Get("Content-Type"))
	}
	for _, path := range []string{
		"/static/", "/static/vendor/", "/static/../web.go", "/static/..%2fweb.go", "/static/%2e%2e/templates/layout.html", "/static/..%5cweb.go",
		"/static/vendor/../../locale/en.json", "/static//etc/passwd", "/static/%00", "/static/nothing.js",
	} {
		a := f.do(t, http.MethodGet, path, nil, nil)
		if a.StatusCode == http.StatusOK || strings.Contains(a.text, "package web") || strings.Contains(a.text, "{{") {
			t.Errorf("%s: %s", path, a.Status)
		}
	}
}

// TestViewerMayOnlyLook: what the API refuses is said, not done.
func TestViewerMayOnlyLook(t *testing.T) {
	f := newFixture(t)
	f.fill(t)
	cookie := f.session(t, server.RoleViewer)
	if a := f.do(t, http.MethodGet, "/clusters/default/c", nil, cookie); a.StatusCode != http.StatusOK {
		t.Errorf("look: %s", a.Status)
	}
	a := f.do(t, http.MethodPost, "/clusters/default/c/do/delete", url.Values{"typed": {"c"}}, cookie, "HX-Request", "true")
	if !strings.Contains(a.text, "role viewer") {
		t.Errorf("delete: %s: %s", a.Status, a.text)
	}
	if a := f.do(t, http.MethodPost, "/hosts/h/schedule", url.Values{"unschedulable": {"true"}}, cookie); a.StatusCode != http.StatusForbidden {
		t.Errorf("cordon: %s", a.Status)
	}
}

// TestActions: what is confirmed is done, from the object that was shown.
func TestActions(t *testing.T) {
	f := newFixture(t)
	f.Create(t, servertest.Cluster("default", "a"), servertest.Host("h"))
	cookie := f.session(t, server.RoleAdmin)
	get := func() *v1alpha1.EtcdCluster {
		var c v1alpha1.EtcdCluster
		if err := f.Store.Get(t.Context(), store.Key{Namespace: "default", Name: "a"}, &c); err != nil {
			t.Fatal(err)
		}
		return &c
	}
	post := func(action string, form url.Values) answer {
		return f.do(t, http.MethodPost, "/clusters/default/a/do/"+action, form, cookie, "HX-Request", "true")
	}
	old := get().ResourceVersion
	if a := post("suspend", url.Values{"resourceVersion": {old}}); a.StatusCode != http.StatusNoContent || !get().Spec.Suspended {
		t.Errorf("suspend: %s, %s", a.Status, a.text)
	}
	if a := post("resume", url.Values{"resourceVersion": {old}}); !strings.Contains(a.text, "changed since it was read") || !get().Spec.Suspended {
		t.Errorf("resume from an old version: %s, %s", a.Status, a.text)
	}
	if a := post("resume", url.Values{"resourceVersion": {get().ResourceVersion}}); a.StatusCode != http.StatusNoContent || get().Spec.Suspended {
		t.Errorf("resume: %s, %s", a.Status, a.text)
	}
	if a := post("restart", url.Values{"resourceVersion": {get().ResourceVersion}}); a.StatusCode != http.StatusNoContent || get().Spec.RestartedAt == nil {
		t.Errorf("restart: %s, %s", a.Status, a.text)
	}
	if a := post("delete", url.Values{"typed": {"A"}}); !strings.Contains(a.text, "type it exactly") || get().DeletionTimestamp != nil {
		t.Errorf("delete by another name: %s, %s", a.Status, a.text)
	}
	if a := post("nonsense", url.Values{}); a.StatusCode != http.StatusNotFound {
		t.Errorf("nonsense: %s", a.Status)
	}
	f.edit(t, cookie, get)
	if a := post("delete", url.Values{"typed": {"a"}}); a.Header.Get("HX-Redirect") != "/" {
		t.Errorf("delete: %s, %s", a.Status, a.text)
	}
}

// TestAccept: after a restore a cluster goes on by the plan that was read, and no other.
func TestAccept(t *testing.T) {
	f := newFixture(t)
	c := servertest.Cluster("default", "a")
	c.Annotations = map[string]string{v1alpha1.AnnotationRestored: "2"}
	f.Create(t, c)
	cookie := f.session(t, server.RoleAdmin)
	if a := f.do(t, http.MethodGet, "/clusters/default/a", nil, cookie); !strings.Contains(a.text, `name="token" value="`+servertest.PlanToken) {
		t.Errorf("the page does not ask to accept the plan")
	}
	if a := f.do(t, http.MethodPost, "/clusters/default/a/accept", url.Values{"token": {"other"}}, cookie); a.StatusCode != http.StatusConflict || len(f.Fleet.Accepted()) > 0 {
		t.Errorf("another plan: %s", a.Status)
	}
	if a := f.do(t, http.MethodPost, "/clusters/default/a/accept", url.Values{"token": {servertest.PlanToken}}, cookie); a.StatusCode != http.StatusSeeOther || len(f.Fleet.Accepted()) != 1 {
		t.Errorf("the plan: %s, accepted %v", a.Status, f.Fleet.Accepted())
	}
}

func (f *fixture) edit(t *testing.T, cookie *http.Cookie, get func() *v1alpha1.EtcdCluster) {
	t.Helper()
	post := func(step, yaml string) answer {
		return f.do(t, http.MethodPost, "/clusters/default/a/edit",
			url.Values{"step": {step}, "yaml": {yaml}, "resourceVersion": {get().ResourceVersion}}, cookie, "HX-Request", "true")
	}
	const good = "apiVersion: quorate.io/v1alpha1\nkind: EtcdCluster\nmetadata: {name: a, namespace: default}\nspec: {version: 3.7.3, retainFor: 24h}\n"
	for yaml, want := range map[string]string{
		strings.Replace(good, "retainFor: 24h", "nonsense: 1", 1): "spec.nonsense",
		strings.Replace(good, "3.7.3", "3.6.0", 1):                "upgrades are not part",
		strings.Replace(good, "name: a,", "name: b,", 1):          "leave name and namespace",
		"":     "write one EtcdCluster",
		"a: [": "line",
	} {
		if a := post("check", yaml); !strings.Contains(a.text, want) || strings.Contains(a.text, `value="save"`) {
			t.Errorf("%q: %s: %s", yaml, a.Status, a.text)
		}
	}
	if a := post("check", good); !strings.Contains(a.text, `value="save"`) || get().Spec.RetainFor == "24h" {
		t.Errorf("check: %s: %s", a.Status, a.text)
	}
	if a := post("save", good); a.Header.Get("HX-Redirect") != "/clusters/default/a" || get().Spec.RetainFor != "24h" {
		t.Errorf("save: %s: %s", a.Status, a.text)
	}
}

func TestCreateAndImport(t *testing.T) {
	f := newFixture(t)
	cookie := f.session(t, server.RoleAdmin)
	post := func(path string, form url.Values) answer {
		return f.do(t, http.MethodPost, path, form, cookie, "HX-Request", "true")
	}
	form := url.Values{"step": {"review"}, "name": {"orders"}, "version": {"3.7.3"}, "replicas": {"3"}, "quota": {"4Gi"}, "tls": {"Disabled"}}
	a := post("/new", form)
	if !strings.Contains(a.text, `value="create"`) || !strings.Contains(a.text, "quotaBackend: 4Gi") {
		t.Fatalf("review: %s: %s", a.Status, a.text)
	}
	if a := post("/new", url.Values{"step": {"review"}, "name": {hostile}, "version": {"9"}}); !strings.Contains(a.text, "metadata.name") || strings.Contains(a.text, "<script>") {
		t.Errorf("review of nonsense: %s: %s", a.Status, a.text)
	}
	yaml := "apiVersion: quorate.io/v1alpha1\nkind: EtcdCluster\nmetadata: {name: orders}\nspec: {version: 3.7.3}\n"
	if a := post("/new", url.Values{"step": {"create"}, "yaml": {yaml}}); a.Header.Get("HX-Redirect") != "/clusters/default/orders" {
		t.Errorf("create: %s: %s", a.Status, a.text)
	}
	if a := post("/new", url.Values{"step": {"create"}, "yaml": {yaml}}); !strings.Contains(a.text, "already exists") {
		t.Errorf("create again: %s: %s", a.Status, a.text)
	}
	form = url.Values{"step": {"import"}, "name": {"theirs"}, "endpoints": {"http://127.0.0.1:1\nhttp://127.0.0.1:2"}, "replicas": {"3"}, "user": {"u"}, "password": {" p "}}
	if a := post("/import", form); a.Header.Get("HX-Redirect") != "/clusters/default/theirs" {
		t.Fatalf("import: %s: %s", a.Status, a.text)
	}
	var s v1alpha1.Secret
	if err := f.Store.Get(t.Context(), store.Key{Namespace: "default", Name: "theirs-credentials"}, &s); err != nil || string(s.Data["password"]) != " p " {
		t.Errorf("credentials: %q, %v", s.Data, err)
	}
	form.Set("name", "others")
	form.Set("endpoints", "nonsense")
	if a := post("/import", form); !strings.Contains(a.text, "endpoints") {
		t.Errorf("import of nonsense: %s: %s", a.Status, a.text)
	}
	if err := f.Store.Get(t.Context(), store.Key{Namespace: "default", Name: "others-credentials"}, &s); err == nil {
		t.Error("credentials of what was refused are left")
	}
}

// TestStreamEnds: a reader that goes, and a server that ends, leave nothing running.
func TestStreamEnds(t *testing.T) {
	f := newFixture(t)
	f.fill(t)
	cookie := f.session(t, server.RoleAdmin)
	open := func(ctx context.Context) *http.Response {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.URL+"/stream?namespace=default&cluster=c", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.AddCookie(cookie)
		resp, err := f.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	ctx, leave := context.WithCancel(t.Context())
	resp := open(ctx)
	lines := bufio.NewScanner(resp.Body)
	changed := false
	for !changed && lines.Scan() {
		changed = lines.Text() == "event: changed"
	}
	if !changed {
		t.Fatal("no change was told of")
	}
	f.Store.Record(t.Context(), store.Event{Time: time.Now(), Type: store.Normal, Kind: "EtcdCluster", Namespace: "default", Name: "c", Cluster: "c", Reason: "Told", Message: hostile})
	told := ""
	for told == "" && lines.Scan() {
		if strings.Contains(lines.Text(), "Told") {
			told = lines.Text()
		}
	}
	if !strings.HasPrefix(told, "data: ") || strings.Contains(told, "<script>") {
		t.Errorf("the event came as %q", told)
	}
	leave()
	_ = resp.Body.Close()
	f.quiet(t)

	resp = open(t.Context())
	close(f.done)
	if _, err := io.ReadAll(resp.Body); err != nil {
		t.Errorf("the server's end: %v", err)
	}
	_ = resp.Body.Close()
	f.quiet(t)
}

// quiet waits until the server answers nothing any more.
func (f *fixture) quiet(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for f.Active() > 0 {
		if time.Now().After(deadline) {
			t.Fatalf("%d requests go on", f.Active())
		}
		time.Sleep(10 * time.Millisecond)
	}
}
