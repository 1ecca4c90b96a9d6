package s3lab_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quorate/quorate/test/s3lab"
)

// TestFaults: each fault does what it says, to the requests it is meant for, and leaves the
// others alone.
func TestFaults(t *testing.T) {
	const body = "0123456789"
	var got atomic.Value
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, err := io.ReadAll(r.Body)
		if err != nil {
			return // it was cut
		}
		got.Store(string(data) + r.Header.Get("X-Amz-Date"))
		_, _ = w.Write(data)
	}))
	defer server.Close()
	p := s3lab.NewProxy(t, strings.TrimPrefix(server.URL, "http://"))
	ask := func() (string, int, http.Header, error) {
		got.Store("")
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+p.Address+"/x", bytes.NewReader([]byte(body)))
		if err != nil {
			t.Fatal(err)
		}
		client := &http.Client{Timeout: 200 * time.Millisecond, Transport: &http.Transport{DisableKeepAlives: true}}
		res, err := client.Do(req)
		if err != nil {
			return "", 0, nil, err
		}
		data, err := io.ReadAll(res.Body)
		_ = res.Body.Close() // all was read, or it broke
		return string(data), res.StatusCode, res.Header, err
	}
	for name, tc := range map[string]struct {
		fault        s3lab.Fault
		status       int
		seen, answer string
		broken       bool
	}{
		"none":         {s3lab.Fault{Match: s3lab.Method("GET", "")}, 200, body, body, false},
		"elsewhere":    {s3lab.Fault{Match: s3lab.Method("PUT", "/y"), Status: 503}, 200, body, body, false},
		"status":       {s3lab.Fault{Status: 503, Code: "SlowDown"}, 503, "", "<Error><Code>SlowDown</Code><Message>by the fault proxy</Message></Error>", false},
		"flip request": {s3lab.Fault{FlipRequest: 3}, 200, "0133456789", "0133456789", false},
		"flip answer":  {s3lab.Fault{FlipResponse: 10}, 200, body, "0123456788", false},
		"cut request":  {s3lab.Fault{CutRequest: 3}, 0, "", "", true},
		"cut answer":   {s3lab.Fault{CutResponse: 3}, 200, body, "012", true},
		"drop":         {s3lab.Fault{DropResponse: true}, 0, body, "", true},
		"freeze":       {s3lab.Fault{Freeze: true}, 0, "", "", true},
		"slow":         {s3lab.Fault{BytesPerSecond: 10}, 0, "", "", true},
	} {
		t.Run(name, func(t *testing.T) {
			p.Heal()
			p.Add(tc.fault)
			answer, status, _, err := ask()
			if (err != nil) != tc.broken || answer != tc.answer || got.Load() != tc.seen || status != tc.status {
				t.Errorf("the server saw %q, the client %q, %v", got.Load(), answer, err)
			}
		})
	}
	p.Heal()
	p.Add(s3lab.Fault{Status: 500, Times: 2})
	statuses := make([]int, 3)
	for i := range statuses {
		_, status, _, err := ask()
		if err != nil {
			t.Fatal(err)
		}
		statuses[i] = status
	}
	if statuses[0] != 500 || statuses[1] != 500 || statuses[2] != 200 || p.Heal() != 2 {
		t.Errorf("twice: %v", statuses)
	}
	p.Add(s3lab.Fault{Skew: time.Hour})
	_, _, header, err := ask()
	if err != nil {
		t.Fatal(err)
	}
	if date, err := http.ParseTime(header.Get("Date")); err != nil || (time.Since(date)-time.Hour).Abs() > 2*time.Second {
		t.Errorf("the answer is of %s, %v", date, err)
	}
}

func TestLab(t *testing.T) {
	lab := s3lab.New(t, s3lab.Options{})
	lab.Make("plain")
	lab.MakeLocking("locking")
	if keys, uploads := lab.Keys("plain"), lab.Uploads("locking"); len(keys)+len(uploads) > 0 {
		t.Errorf("they are not empty: %q, %q", keys, uploads)
	}
	lab.User("AKUSER", "user-secret")()
}
