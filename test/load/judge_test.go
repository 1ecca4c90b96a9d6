package load

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var zero = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func at(seconds float64) time.Time {
	return zero.Add(time.Duration(seconds * float64(time.Second)))
}

// acked is a write sent and acknowledged at those seconds.
func acked(key string, sent, ack float64) Record {
	return Record{Key: key, Value: key + "!", Sent: at(sent), Acked: at(ack), Ended: at(ack)}
}

func failed(key string, sent float64) Record {
	return Record{Key: key, Value: key + "!", Sent: at(sent), Ended: at(sent + 2), Err: errors.New("no")}
}

func keys(records []Record) string {
	var out strings.Builder
	for _, r := range records {
		out.WriteString(r.Key)
	}
	return out.String()
}

func TestMissing(t *testing.T) {
	records := []Record{acked("a", 0, 1), acked("b", 0, 1), failed("c", 0), acked("d", 1, 2)}
	for _, tc := range []struct {
		name string
		have map[string]string
		want string
	}{
		{"all there", map[string]string{"a": "a!", "b": "b!", "d": "d!"}, ""},
		{"an unknown one was carried out", map[string]string{"a": "a!", "b": "b!", "c": "c!", "d": "d!"}, ""},
		{"one is missing", map[string]string{"a": "a!", "d": "d!"}, "b"},
		{"one has another value", map[string]string{"a": "a!", "b": "x", "d": "d!"}, "b"},
		{"one is empty", map[string]string{"a": "a!", "b": "", "d": "d!"}, "b"},
		{"nothing is there", nil, "abd"},
	} {
		if got := keys(Missing(records, tc.have)); got != tc.want {
			t.Errorf("%s: missing %q, want %q", tc.name, got, tc.want)
		}
	}
}

func TestGap(t *testing.T) {
	for _, tc := range []struct {
		name    string
		records []Record
		want    time.Duration
		ok      bool
	}{
		{"none", nil, 0, false},
		{"only failures afterwards", []Record{acked("a", 0, 1), failed("b", 11)}, 0, false},
		{"one that was sent before does not count", []Record{acked("a", 9.9, 10.5)}, 0, false},
		{"one sent while it died does not count", []Record{acked("a", 10.005, 10.01), acked("b", 11, 12.5)}, 2500 * time.Millisecond, true},
		{"the first acknowledgement, not the first sent", []Record{acked("b", 10.1, 14), acked("a", 11, 12)}, 2 * time.Second, true},
	} {
		got, ok := Gap(tc.records, at(10), at(10.01))
		if got != tc.want || ok != tc.ok {
			t.Errorf("%s: %v %v, want %v %v", tc.name, got, ok, tc.want, tc.ok)
		}
	}
}

func TestStall(t *testing.T) {
	records := []Record{acked("d", 6, 7), acked("a", 0, 1), acked("b", 1, 2), failed("x", 2), acked("c", 2, 5.5)}
	for _, tc := range []struct {
		from, to float64
		want     time.Duration
	}{
		{0, 10, 3500 * time.Millisecond},
		{3, 4, 3500 * time.Millisecond},
		{0, 1.5, time.Second},
		{6, 10, 1500 * time.Millisecond},
		{8, 10, 0},
	} {
		if got := Stall(records, at(tc.from), at(tc.to)); got != tc.want {
			t.Errorf("%v to %v: %v, want %v", tc.from, tc.to, got, tc.want)
		}
	}
}

func TestFailed(t *testing.T) {
	records := []Record{failed("c", 4), failed("a", 0), failed("b", 2), acked("d", 2, 3)}
	if got := keys(Failed(records, at(1), at(4))); got != "bc" {
		t.Errorf("failed %q, want bc", got)
	}
}

func TestSummarize(t *testing.T) {
	records := []Record{acked("a", 0, 0.1), acked("b", 1, 1.3), failed("c", 2), acked("d", 4, 4.1)}
	want := Summary{Sent: 4, Acked: 3, Failed: 1, Rate: 1, P99: 300 * time.Millisecond}
	if diff := cmp.Diff(want, Summarize(records)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if diff := cmp.Diff(Summary{}, Summarize(nil)); diff != "" {
		t.Errorf("of none: -want +got:\n%s", diff)
	}
}
