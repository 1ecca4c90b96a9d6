package history_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/quorate/quorate/history"
	"github.com/quorate/quorate/history/historytest"
)

func written(t require.TestingT, h *history.History) []byte {
	var b bytes.Buffer
	require.NoError(t, history.Write(&b, h))
	return b.Bytes()
}

func TestWriteRead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.Uint64().Draw(t, "seed")
		h := historytest.Generate(seed, rapid.IntRange(0, 300).Draw(t, "operations"), rapid.IntRange(1, 10).Draw(t, "clients"))
		h.Meta.Disturbances = []history.Disturbance{{Kind: "kill", Target: "m1", From: 1, To: 2}}
		h.Initial = []history.KeyValue{{Key: historytest.Prefix + "x", Value: "<&>\u2028", ModRevision: 3}}
		got, err := history.Read(bytes.NewReader(written(t, h)))
		require.NoError(t, err)
		if diff := cmp.Diff(h, got, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("-written +read:\n%s", diff)
		}
	})
}

// TestReadTorn: whatever is left of a file is a history, and says that it is torn.
func TestReadTorn(t *testing.T) {
	h := historytest.Generate(3, 2000, 5)
	whole := written(t, h)
	for _, part := range []int{1, 2, 3, 10, 100} {
		got, err := history.Read(bytes.NewReader(whole[:len(whole)-len(whole)*part/200-1]))
		require.NoError(t, err)
		require.NotEmpty(t, got.Torn)
		require.LessOrEqual(t, len(got.Operations), len(h.Operations))
		r := check(t, got, history.Options{NoExcerpts: true})
		require.Contains(t, fmt.Sprint(r.Skipped), "the file ends in the middle")
	}
}

// TestWriterCrash: what was flushed is there, without Close.
func TestWriterCrash(t *testing.T) {
	var b bytes.Buffer
	w, err := history.NewWriter(&b, history.Meta{Prefix: "/p/", Name: "crash"})
	require.NoError(t, err)
	var all sync.WaitGroup
	const clients, each = 8, 100
	for client := range clients {
		all.Go(func() {
			for i := range each {
				if failed := w.Operation(&history.Operation{
					Client: client, Call: int64(i), Return: int64(i) + 1, Kind: history.Put, Outcome: history.OK, Revision: int64(i) + 1,
					Then: []history.Request{{Kind: history.Put, Key: "/p/k", Value: fmt.Sprint(client, i)}}, Results: []history.Result{{}},
				}); failed != nil {
					t.Error(failed)
				}
			}
		})
	}
	all.Wait()
	require.NoError(t, w.Watch(history.Watch{ID: 7, Key: "/p/", End: "/p0"}))
	require.NoError(t, w.Response(7, &history.WatchResponse{At: 5, Revision: 6, Created: true}))
	require.NoError(t, w.Flush())
	h, err := history.Read(bytes.NewReader(b.Bytes()))
	require.NoError(t, err)
	require.Len(t, h.Operations, clients*each)
	require.Len(t, h.Watches[0].Responses, 1)
	require.Contains(t, h.Torn, "did not come to an end")
	require.NoError(t, w.Close())
	h, err = history.Read(bytes.NewReader(b.Bytes()))
	require.NoError(t, err)
	require.Empty(t, h.Torn)
	require.Error(t, w.Flush())
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

func TestWriterErrors(t *testing.T) {
	_, err := history.NewWriter(fullDisk{}, history.Meta{})
	require.ErrorContains(t, err, "no space left on device")
	w, err := history.NewWriter(io.Discard, history.Meta{})
	require.NoError(t, err)
	require.ErrorContains(t, w.Operation(&history.Operation{Kind: history.Put, Then: []history.Request{{Kind: history.Put, Key: "k", Value: "\xff"}}}), "is not UTF-8")
}

func packed(t *testing.T, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b)
	require.NoError(t, err)
	_, err = z.Write([]byte(text))
	require.NoError(t, err)
	require.NoError(t, z.Close())
	return b.Bytes()
}

func TestReadRefuses(t *testing.T) {
	const meta = `{"format":1,"prefix":"/p/","startRevision":1}` + "\n"
	for _, tc := range []struct {
		name, text, want string
	}{
		{"nothing", "", "the file is empty"},
		{"no meta", "[]\n", "line 1 is no meta"},
		{"another format", `{"format":2}` + "\n", "line 1 says format 2, and this version reads format 1"},
		{"no JSON", meta + "{\n", "line 2 of the history"},
		{"nothing in a line", meta + "{}\n", "line 2 of the history: it holds 0 of"},
		{"two in a line", meta + `{"hash":{},"initial":{}}` + "\n", "line 2 of the history: it holds 2 of"},
		{"a kind that is none", meta + `{"hash":{}}` + "\n" + `{"op":{"kind":"jump","outcome":"ok"}}` + "\n", `line 3 of the history: "jump" is no kind`},
		{"an outcome that is none", meta + `{"op":{"kind":"txn","outcome":"good"}}` + "\n", `"good" is no outcome`},
		{"a put of nothing", meta + `{"op":{"kind":"put","outcome":"ok"}}` + "\n", "a put has one request"},
		{"an end before the begin", meta + `{"op":{"kind":"txn","outcome":"ok","call":2,"return":1}}` + "\n", "it returns at 1, before its call at 2"},
		{"a field of nobody", meta + `{"op":{"kind":"range","outcome":"ok","keysOnly":true}}` + "\n", `line 2 of the history: json: unknown field "keysOnly"`},
		{"a field of nobody in the meta", `{"format":1,"colour":"red"}` + "\n", `unknown field "colour"`},
		{"a call before the begin", meta + `{"op":{"kind":"txn","outcome":"ok","call":-2}}` + "\n", "before the history began"},
		{"a txn in a txn", meta + `{"op":{"kind":"txn","outcome":"ok","then":[{"kind":"txn","key":"/p/a"}]}}` + "\n", `"txn" is no kind of request`},
		{"a comparison that is none", meta + `{"op":{"kind":"txn","outcome":"ok","if":[{"key":"/p/a","field":"mod","op":">="}]}}` + "\n", `">=" is no comparison`},
		{"a field that is none", meta + `{"op":{"kind":"txn","outcome":"ok","if":[{"key":"/p/a","field":"size","op":"="}]}}` + "\n", `"size" is nothing that a condition compares`},
		{"a range without its result", meta + `{"op":{"kind":"range","outcome":"ok","revision":3,"then":[{"kind":"range","key":"/p/a"}]}}` + "\n", "the result of its range is missing"},
		{"an answer without a revision", meta + `{"op":{"kind":"put","outcome":"ok","then":[{"kind":"put","key":"/p/a"}]}}` + "\n", "this has 0"},
		{"more results than requests", meta + `{"op":{"kind":"txn","outcome":"ok","revision":3,"results":[{}]}}` + "\n", "1 results of 0 requests"},
		{"a lease of no number", meta + `{"op":{"kind":"lease-revoke","outcome":"ok","revision":3}}` + "\n", "an answered lease-revoke names its lease"},
		{"an answer that never comes", meta + `{"op":{"kind":"txn","outcome":"ok","return":9223372036854775807}}` + "\n", "never returns"},
		{"a key of others", meta + `{"op":{"kind":"put","outcome":"failed","then":[{"kind":"put","key":"/q/a"}]}}` + "\n", `"/q/a" lies outside the prefix "/p/"`},
		{"a range over others", meta + `{"op":{"kind":"range","outcome":"failed","then":[{"kind":"range","key":"/p/a","end":"/q"}]}}` + "\n", "reaches beyond the prefix"},
		{"messages that go back", meta + `{"watch":{"id":1}}` + "\n" + `{"response":{"id":1,"at":5}}` + "\n" + `{"response":{"id":1,"at":4}}` + "\n", "line 4 of the history: a response to watch 1 at 4, behind one at 5"},
		{"a response to nobody", meta + `{"response":{"id":1,"at":1}}` + "\n", "a response to watch 1, which is not there"},
		{"a watch twice", meta + `{"watch":{"id":1}}` + "\n" + `{"watch":{"id":1}}` + "\n", "line 3 of the history: watch 1 is there twice"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := history.Read(bytes.NewReader(packed(t, tc.text)))
			require.ErrorContains(t, err, tc.want)
		})
	}
	_, err := history.Read(strings.NewReader(strings.Repeat("{}\n", 20)))
	require.ErrorIs(t, err, history.ErrFormat)
	require.ErrorContains(t, err, "not compressed with zstd")
}

// FuzzRead: whatever is read is checked without a crash.
func FuzzRead(f *testing.F) {
	h := historytest.Generate(1, 60, 3)
	for _, bug := range historytest.Bugs[:3] {
		_ = historytest.Plant(h, bug)
	}
	var b bytes.Buffer
	if err := history.Write(&b, h); err != nil {
		f.Fatal(err)
	}
	z, err := zstd.NewReader(&b)
	if err != nil {
		f.Fatal(err)
	}
	text, err := io.ReadAll(z)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"format":1,"prefix":""}` + "\n" + `{"op":{"kind":"txn","outcome":"ok","revision":2,"succeeded":true,"then":[{"kind":"range","key":"b","end":"a"}],"results":[{}]}}` + "\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		h, err := history.Read(bytes.NewReader(packed(t, string(text))))
		if err != nil {
			return
		}
		r, err := history.Check(t.Context(), h, history.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for i := range r.Violations {
			history.Timeline(&r.Violations[i])
		}
		if _, err = json.Marshal(r); err != nil {
			t.Fatal(err)
		}
	})
}
