package cli

import (
	"bytes"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
)

func TestKindList(t *testing.T) {
	for text, want := range map[string]string{
		"clusters,members": "EtcdCluster EtcdMember",
		"qem, cluster,qem": "EtcdMember EtcdCluster",
		"ALL":              "EtcdCluster EtcdMember EtcdHost EtcdTask EtcdBackupPolicy EtcdBackup EtcdRestore",
		"secrets":          "Secret",
		"clusters,":        "",
	} {
		kinds, err := kindList(getCommand(quiet()), text)
		names := make([]string, 0, len(kinds))
		for _, k := range kinds {
			names = append(names, k.Kind)
		}
		if got := strings.Join(names, " "); got != want || (err == nil) != (want != "") {
			t.Errorf("%s: got %q, %v", text, got, err)
		}
	}
}

// quiet is an environment that nobody reads.
func quiet() *env {
	return newEnv([]string{"quorate"}, Stdio{In: eof{}, Out: io.Discard, Err: io.Discard})
}

func TestParseLabels(t *testing.T) {
	for _, tc := range []struct {
		args, rest string
		set        map[string]string
		remove     string
		fails      string
	}{
		{"cluster a b=c", "cluster a", map[string]string{"b": "c"}, "", ""},
		{"cluster/a x/b.c=d e- f=", "cluster/a", map[string]string{"x/b.c": "d", "f": ""}, "e", ""},
		{"clusters a-", "clusters", map[string]string{}, "a", ""},
		{"cluster a", "", nil, "", "is missing"},
		{"cluster a b=c d", "", nil, "", `"d" stands behind the labels`},
		{"cluster a -b=c", "", nil, "", "is no name of a label"},
		{"cluster a b=c:d", "", nil, "", "is no value of a label"},
		{"cluster a b=c b-", "", nil, "", "to be set and removed"},
		{"cluster a quorate.io/cluster-", "", nil, "", "is Quorate's own"},
	} {
		rest, ch, err := parseLabels(labelCommand(quiet()), strings.Fields(tc.args), false)
		if tc.fails != "" {
			if exitCode(err) != exitUsage || !strings.Contains(err.Error(), tc.fails) {
				t.Errorf("%s: %v, want %q", tc.args, err, tc.fails)
			}
			continue
		}
		if err != nil || strings.Join(rest, " ") != tc.rest || !maps.Equal(ch.set, tc.set) || strings.Join(ch.remove, " ") != tc.remove {
			t.Errorf("%s: %q %v %q, %v", tc.args, rest, ch.set, ch.remove, err)
		}
	}
}

func TestLabelChange(t *testing.T) {
	has := map[string]string{"a": "1", "b": "2"}
	for _, tc := range []struct {
		name string
		ch   labelChange
		want map[string]string
		code int
	}{
		{"new", labelChange{set: map[string]string{"c": "3"}}, map[string]string{"a": "1", "b": "2", "c": "3"}, exitOK},
		{"the same", labelChange{set: map[string]string{"a": "1"}}, has, exitOK},
		{"another value", labelChange{set: map[string]string{"a": "2"}}, nil, exitRefused},
		{"overwritten", labelChange{set: map[string]string{"a": "2"}, overwrite: true}, map[string]string{"a": "2", "b": "2"}, exitOK},
		{"removed", labelChange{remove: []string{"a", "x"}}, map[string]string{"b": "2"}, exitOK},
	} {
		got, err := tc.ch.apply(has)
		if exitCode(err) != tc.code || err == nil && !maps.Equal(got, tc.want) {
			t.Errorf("%s: %v, %v", tc.name, got, err)
		}
	}
	if !maps.Equal(has, map[string]string{"a": "1", "b": "2"}) {
		t.Errorf("what was there has changed: %v", has)
	}
}

func TestAsWrittenLeavesOutWhatOnlyTheServerWrites(t *testing.T) {
	c := &v1alpha1.EtcdCluster{}
	v1alpha1.SetType(c, v1alpha1.KindCluster.Kind, v1alpha1.KindCluster.APIVersion)
	c.Name, c.UID, c.ResourceVersion, c.Generation = "a", "u", "7", 3
	c.Annotations = map[string]string{v1alpha1.AnnotationLastApplied: "{}"}
	c.Status.Ready = "3/3"
	text, err := asWritten(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, gone := range []string{"status", "resourceVersion", "uid", "generation", "annotations", "creationTimestamp"} {
		if strings.Contains(text, gone) {
			t.Errorf("%s stands in\n%s", gone, text)
		}
	}
	s := &v1alpha1.Secret{Data: map[string][]byte{"k": []byte("hunter2")}}
	v1alpha1.SetType(s, "Secret", "v1")
	if text, err = asWritten(s); err != nil || strings.Contains(text, "aHVudGVyMg") || !strings.Contains(text, "k: 7 bytes, SHA-256 ") {
		t.Errorf("a Secret is shown as %s (%v)", text, err)
	}
}

func TestUnified(t *testing.T) {
	got, err := unified("a\nb\nc\n", "a\nB\nc\n", "x", "y")
	if diff := cmp.Diff("--- x\n+++ y\n@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n", got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	if got, err = unified("a\n", "a\n", "x", "y"); got != "" || err != nil {
		t.Errorf("equal texts: %q, %v", got, err)
	}
	if got, err = unified("", "a\n", "x", "y"); got != "--- x\n+++ y\n@@ -0,0 +1 @@\n+a\n" || err != nil {
		t.Errorf("a new one: %q, %v", got, err)
	}
}

func TestWithoutNote(t *testing.T) {
	if got := string(withoutNote([]byte("#! told\na: 1\n# kept\n#!told\nb: 2"))); got != "a: 1\n# kept\nb: 2" {
		t.Errorf("got %q", got)
	}
}

func TestDiffersIsSilent(t *testing.T) {
	if exitCode(errDiffers) != exitDiffers || errorText(errDiffers) != "" {
		t.Errorf("code %d, text %q", exitCode(errDiffers), errorText(errDiffers))
	}
}

func TestBytesText(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1 KiB", 20480: "20 KiB", 1536: "1.5 KiB", 8 << 30: "8 GiB", 1<<20 + 1: "1 MiB", 5 << 40: "5 TiB",
	} {
		if got := bytesText(n); got != want {
			t.Errorf("%d: got %q, want %q", n, got, want)
		}
	}
}

func TestRowsOf(t *testing.T) {
	for _, tc := range []struct {
		page    string
		columns int
		want    int
	}{
		{"a\nb\n", 80, 2},
		{"", 80, 0},
		{strings.Repeat("x", 80) + "\n", 80, 1},
		{strings.Repeat("x", 81) + "\n\n", 80, 3},
		{green + strings.Repeat("x", 80) + noColour + "\n", 80, 1},
		{strings.Repeat("x", 500) + "\n", 0, 1},
	} {
		if got := rowsOf(tc.page, tc.columns); got != tc.want {
			t.Errorf("%q in %d columns: %d rows, want %d", tc.page, tc.columns, got, tc.want)
		}
	}
}

func TestTyped(t *testing.T) {
	e := quiet()
	e.arg0, e.dataDir, e.server = "bin/quorate", "my data", "http://x:1"
	for text, want := range map[string]string{
		"run `quorate up`, or `quorate get a`": "run `bin/quorate --data-dir 'my data' --server http://x:1 up`, or `bin/quorate --data-dir 'my data' --server http://x:1 get a`",
		"see `quorate get --help`":             "see `bin/quorate get --help`",
		"quorate is not `quoratex y`":          "quorate is not `quoratex y`",
	} {
		if got := e.typed(text); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestWantsOne(t *testing.T) {
	for args, want := range map[string]bool{
		"snapshot save x": true, "-w json snapshot save x": true, "snapshot status x": false, "get snapshot": false, "": false,
	} {
		if got := wantsOne(strings.Fields(args)); got != want {
			t.Errorf("%q: %t", args, got)
		}
	}
}

func TestOnData(t *testing.T) {
	for args, want := range map[string]string{
		"defrag": "defrag --data-dir=/d", "hashkv -w json": "hashkv -w json /d/member/snap/db",
	} {
		if got := strings.Join(onData(strings.Fields(args), "/d"), " "); got != want {
			t.Errorf("%q: got %q", args, got)
		}
	}
}

func TestCertificateOf(t *testing.T) {
	m := &v1alpha1.EtcdMember{}
	m.Name = "a-1"
	if got := certificateOf(m); got.Status != "Unknown" || got.NotAfter != nil {
		t.Errorf("one that was never seen: %+v", got)
	}
	at := time.Date(2027, 11, 20, 0, 0, 0, 0, time.UTC)
	v1alpha1.SetCondition(&m.Status.Conditions, v1alpha1.Condition{
		Type: v1alpha1.ConditionCertificates, Status: v1alpha1.True, Reason: "RenewalFailed", Message: "valid until 2027-11-20T00:00:00Z; not renewed: no CA",
	})
	if got := certificateOf(m); got.NotAfter == nil || !got.NotAfter.Equal(at) || got.Message != "not renewed: no CA" || got.Status != "RenewalFailed" {
		t.Errorf("one that is not renewed: %+v", got)
	}
}

// TestWatchRows: a row comes when what it shows changes, and not for its age.
func TestWatchRows(t *testing.T) {
	var out bytes.Buffer
	e := quiet()
	e.Out = &out
	w := &watching{e: e, kind: v1alpha1.KindCluster, shown: shown{form: outTable}, last: map[store.Key]v1alpha1.Object{}, rows: map[store.Key]string{}}
	see := func(version, ready string) {
		t.Helper()
		c := &v1alpha1.EtcdCluster{}
		v1alpha1.SetType(c, v1alpha1.KindCluster.Kind, v1alpha1.KindCluster.APIVersion)
		c.Name, c.ResourceVersion, c.Status.Ready = "a", version, ready
		if err := w.seen(store.Key{Name: "a"}, c); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.first(nil); err != nil {
		t.Fatal(err)
	}
	see("1", "0/3")
	see("1", "0/3")
	see("2", "0/3")
	see("3", "3/3")
	if err := w.seen(store.Key{Name: "a"}, nil); err != nil {
		t.Fatal(err)
	}
	if err := w.seen(store.Key{Name: "a"}, nil); err != nil {
		t.Fatal(err)
	}
	got := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(got) != 4 || !strings.HasPrefix(got[0], "NAME ") || !strings.HasPrefix(got[1], "a      0/3") || !strings.HasPrefix(got[2], "a      3/3") || strings.Join(strings.Fields(got[3]), " ") != "a deleted" {
		t.Errorf("got\n%s", out.String())
	}
}

// TestSlowly: nothing is said within two seconds, and nothing stays behind.
func TestSlowly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var errs bytes.Buffer
		e := quiet()
		e.Err = &errs
		done := e.slowly("asking")
		time.Sleep(patience - time.Millisecond)
		done()
		time.Sleep(time.Minute)
		if errs.Len() > 0 {
			t.Errorf("said %q", errs.String())
		}
		done = e.slowly("asking")
		time.Sleep(patience + time.Millisecond)
		done()
		if errs.String() != "asking…\n" {
			t.Errorf("said %q", errs.String())
		}
	})
}

func TestTableOfLabelsKinds(t *testing.T) {
	h := &v1alpha1.EtcdHost{}
	v1alpha1.SetType(h, v1alpha1.KindHost.Kind, v1alpha1.KindHost.APIVersion)
	h.Name = "h"
	g, err := tableOf(v1alpha1.KindHost, []v1alpha1.Object{h}, shown{form: outTable, labelled: true})
	if err != nil || g.rows[0][0] != "etcdhost/h" {
		t.Errorf("%v, %v", g.rows, err)
	}
	if !slices.Contains(g.ages, len(g.header)-1) {
		t.Errorf("the age is not known as one: %v of %v", g.ages, g.header)
	}
}

func TestNothing(t *testing.T) {
	e := quiet()
	e.namespace = "prod"
	if got := e.nothing([]v1alpha1.Kind{v1alpha1.KindCluster, v1alpha1.KindHost}, false); got != "there are no etcdclusters, etcdhosts in namespace prod" {
		t.Error(got)
	}
	if got := e.nothing([]v1alpha1.Kind{v1alpha1.KindHost}, false); got != "there are no etcdhosts" {
		t.Error(got)
	}
}

func TestMayIssue(t *testing.T) {
	of := target{v1alpha1.KindCluster, store.Key{Name: "a"}}
	for mode, want := range map[v1alpha1.TLSMode]int{
		v1alpha1.TLSGenerated: exitOK, v1alpha1.TLSCASecret: exitOK, v1alpha1.TLSFiles: exitRefused, v1alpha1.TLSDisabled: exitRefused,
	} {
		c := &v1alpha1.EtcdCluster{}
		c.Spec.TLS.Mode = mode
		if err := mayIssue(of, c); exitCode(err) != want {
			t.Errorf("%s: %v", mode, err)
		}
		c.Spec.Management = v1alpha1.ManagementObserve
		if err := mayIssue(of, c); exitCode(err) != exitRefused {
			t.Errorf("%s, imported: %v", mode, err)
		}
	}
}
