package server_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/server"
	"github.com/quorate/quorate/server/servertest"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
)

var parameter = regexp.MustCompile(`\{[a-z]+\}`)

// send sends a request with a header and returns the code and the body.
func send(t *testing.T, f *servertest.Fixture, route string, header map[string]string, body io.Reader) (int, string) {
	t.Helper()
	method, path, _ := strings.Cut(route, " ")
	req, err := http.NewRequestWithContext(t.Context(), method, f.URL+parameter.ReplaceAllString(path, "x"), body)
	fine(t, "make the request", err)
	for name, value := range header {
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	fine(t, "ask", err)
	text, err := io.ReadAll(resp.Body)
	fine(t, "read", err)
	_ = resp.Body.Close()
	return resp.StatusCode, string(text)
}

// TestNoRouteWithoutToken: every route, and what is none, gives a stranger the same
// answer. A token in a cookie or in the path is none, which is what keeps another
// site's page from acting with a person's rights.
func TestNoRouteWithoutToken(t *testing.T) {
	f := servertest.New(t, nil)
	f.Create(t, servertest.Cluster("x", "x"), servertest.Member("x", "x", "x"), servertest.Host("x"))
	admin := f.Token(t, server.RoleAdmin, "")
	nothing := map[string]string{}
	_, want := send(t, f, "GET /nowhere", nothing, nil)
	if !strings.Contains(want, "no token was sent") {
		t.Fatalf("a stranger is told %s", want)
	}
	routes := append(server.Routes(), "GET /", "GET /nowhere", "PATCH /version", "OPTIONS /version", "TRACE /version", "GET /sessions/../version")
	for _, route := range routes {
		for name, header := range map[string]map[string]string{
			"nothing":  nothing,
			"a cookie": {"Cookie": "quorate_session=" + admin + "; token=" + admin + "; Authorization=Bearer " + admin},
			"a header": {"X-Auth-Token": admin, "Proxy-Authorization": "Bearer " + admin},
		} {
			if code, body := send(t, f, route, header, nil); code != http.StatusUnauthorized || body != want {
				t.Errorf("%s with %s: %d %s", route, name, code, body)
			}
		}
		if code, body := send(t, f, route+"?token="+admin+"&access_token="+admin, nothing, nil); code != http.StatusUnauthorized || body != want {
			t.Errorf("%s with a query: %d %s", route, code, body)
		}
	}
	if _, err := f.Store.List(t.Context(), v1alpha1.KindCluster, store.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, obj := range []v1alpha1.Object{servertest.Cluster("x", "x"), servertest.Member("x", "x", "x"), servertest.Host("x")} {
		fine(t, "what a stranger tried to delete", f.Store.Get(t.Context(), store.KeyOf(obj), obj))
	}
}

// TestOtherSites: a browser says where a page is from, and pages of other sites may
// change nothing, whatever they send.
func TestOtherSites(t *testing.T) {
	f := servertest.New(t, nil)
	admin := f.Token(t, server.RoleAdmin, "")
	link, err := f.ClientAt(t, f.URL, admin, remote.Options{}).LoginLink(t.Context(), 0)
	fine(t, "LoginLink", err)
	for _, route := range server.Routes() {
		method, _, _ := strings.Cut(route, " ")
		if method == http.MethodGet {
			continue
		}
		for name, value := range map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": "https://elsewhere.example"} {
			code, body := send(t, f, route, map[string]string{name: value, "Authorization": "Bearer " + admin}, nil)
			if code != http.StatusForbidden || !strings.Contains(body, "pages of other sites") {
				t.Errorf("%s with %s: %d %s", route, name, code, body)
			}
		}
	}
	// Nor may they log a person in.
	login := `{"code":"` + link.Code + `"}`
	if code, _ := send(t, f, "POST /sessions", map[string]string{"Sec-Fetch-Site": "cross-site"}, strings.NewReader(login)); code != http.StatusForbidden {
		t.Errorf("a log-in by another site: %d", code)
	}
	if code, body := send(t, f, "POST /sessions", map[string]string{"Sec-Fetch-Site": "same-origin"}, strings.NewReader(login)); code != http.StatusCreated {
		t.Errorf("a log-in by its own: %d %s", code, body)
	}
	if code, _ := send(t, f, "GET /version", map[string]string{"Sec-Fetch-Site": "cross-site", "Authorization": "Bearer " + admin}, nil); code != http.StatusOK {
		t.Errorf("reading: %d", code)
	}
}

// TestOversized: no route reads more than it must.
func TestOversized(t *testing.T) {
	f := servertest.New(t, nil)
	f.Create(t, servertest.Cluster("x", "x"), servertest.Member("x", "x", "x"), servertest.Host("x"))
	header := map[string]string{"Authorization": "Bearer " + f.Token(t, server.RoleAdmin, "")}
	large := `{"a":"` + strings.Repeat("a", 5<<20) + `"}`
	tried := 0
	for _, route := range server.Routes() {
		method, path, _ := strings.Cut(route, " ")
		switch {
		case method == http.MethodGet:
			continue
		case path == "/releases", strings.HasSuffix(path, "/responses/{id}"):
			continue // these take more
		case strings.HasSuffix(path, "/heartbeat"), strings.HasSuffix(path, "/kill"), path == "/backup", path == "/sealingkey/rotate", path == "/sessions/current":
			continue // these read no body
		}
		tried++
		if code, body := send(t, f, route, header, strings.NewReader(large)); code != http.StatusRequestEntityTooLarge {
			t.Errorf("%s: %d %.200s", route, code, body)
		}
	}
	if tried < 10 {
		t.Fatalf("only %d routes were tried", tried)
	}
	for name, value := range map[string]string{"one": strings.Repeat("a", 100<<10), "as a token": "Bearer " + strings.Repeat("a", 100<<10)} {
		served, _ := withServe(t, time.Minute)
		conn := dialAt(t, served)
		_, err := fmt.Fprintf(conn, "GET /version HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\n\r\n", value)
		fine(t, "ask", err)
		if code := codeOf(t, conn); code != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("a large header, %s: %d", name, code)
		}
	}
}

// TestStrangePaths: no path reaches what its name does not say, and none breaks the
// server.
func TestStrangePaths(t *testing.T) {
	f := servertest.New(t, nil)
	f.Create(t, servertest.Cluster("x", "x"))
	header := map[string]string{"Authorization": "Bearer " + f.Token(t, server.RoleAdmin, "")}
	for _, name := range []string{
		"..%2fx", "%2e%2e", "x%2f..%2fx", "x%00", "%00", "x%0d%0aSet-Cookie:%20a=b", "x%20", "%ff%fe", "X", "x;y", "x%3fwatch=true", "x%23",
		strings.Repeat("a", 254), strings.Repeat("a", 8<<10), "%2525", "x%5c..%5cx", "x/../../../../etc/passwd", "x//status", "_", "%7bname%7d",
	} {
		for _, route := range server.Routes() {
			if !strings.Contains(route, "{name}") && !strings.Contains(route, "{host}") && !strings.Contains(route, "{digest}") {
				continue
			}
			method, path, _ := strings.Cut(route, " ")
			if !strings.HasSuffix(path, "}") && strings.Contains(name, "/") {
				continue
			}
			last := strings.LastIndex(path, "{")
			end := last + strings.Index(path[last:], "}") + 1
			code, body := send(t, f, method+" "+path[:last]+name+path[end:], header, strings.NewReader("{}"))
			if code < 300 || code >= 500 || strings.Contains(body, "root:") {
				t.Errorf("%s with %.60q: %d %.200s", route, name, code, body)
			}
		}
	}
	var c v1alpha1.EtcdCluster
	fine(t, "what was there", f.Store.Get(t.Context(), store.Key{Namespace: "x", Name: "x"}, &c))
}

// TestSlowClients: who sends a head or a body drop by drop is cut off, on every kind
// of route.
func TestSlowClients(t *testing.T) {
	addr, token := withServe(t, 300*time.Millisecond)
	auth := "Authorization: Bearer " + token + "\r\n"
	for name, head := range map[string]string{
		"head":      "GET /version HTTP/1.1\r\nHost: x\r\nX-",
		"object":    "POST /apis/quorate.io/v1alpha1/etcdhosts HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n" + auth + "\r\n{\"a\":\"",
		"action":    "POST /sessions/links HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n" + auth + "\r\n{\"a\":\"",
		"log-in":    "POST /sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 4000\r\n\r\n{\"a\":\"",
		"stranger":  "POST /apis/quorate.io/v1alpha1/etcdhosts HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n{\"a\":\"",
		"no length": "POST /apis/quorate.io/v1alpha1/etcdhosts HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n" + auth + "\r\n1\r\n{\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := dialAt(t, addr)
			_, err := io.WriteString(conn, head)
			fine(t, "ask", err)
			drop := "a"
			if name == "no length" {
				drop = "1\r\na\r\n"
			}
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				_, _ = io.Copy(io.Discard, conn)
			}()
			began, tick := time.Now(), time.NewTicker(50*time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-ended:
					return
				case <-tick.C:
					_, _ = io.WriteString(conn, drop) // fails once it is cut off
				}
				if time.Since(began) > 10*time.Second {
					t.Fatal("it still is connected")
				}
			}
		})
	}
}

// withServe runs a server with its own listener and limits, and returns its address
// and an admin's token.
func withServe(t *testing.T, patience time.Duration) (addr, token string) {
	t.Helper()
	f := servertest.New(t, nil)
	f.Server.SetPatience(patience)
	ln, err := server.Listen(t.Context(), "127.0.0.1:0", nil)
	fine(t, "listen", err)
	serve(t, f, ln)
	return ln.Addr().String(), f.Token(t, server.RoleAdmin, "")
}

func dialAt(t *testing.T, addr string) net.Conn {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr)
	fine(t, "dial", err)
	t.Cleanup(func() { _ = conn.Close() })
	fine(t, "set a deadline", conn.SetDeadline(time.Now().Add(20*time.Second)))
	return conn
}

func codeOf(t *testing.T, conn net.Conn) int {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	fine(t, "read the answer", err)
	_ = resp.Body.Close()
	return resp.StatusCode
}
