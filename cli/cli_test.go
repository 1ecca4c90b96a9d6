package cli

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/quorate/quorate/api/schema"
	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/pki"
	"github.com/quorate/quorate/store"
	storeetcd "github.com/quorate/quorate/store/etcd"
)

func TestExitCode(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want int
	}{
		{nil, exitOK},
		{errors.New("x"), exitFailed},
		{fmt.Errorf("a: %w", store.ErrNotFound), exitNotFound},
		{fmt.Errorf("a: %w", store.ErrConflict), exitRefused},
		{fmt.Errorf("a: %w", store.ErrForbidden), exitRefused},
		{fmt.Errorf("a: %w", store.ErrExists), exitRefused},
		{errors.Join(&schema.Error{Causes: []schema.Cause{{Message: "m"}}}), exitRefused},
		{fmt.Errorf("a: %w", store.ErrStale), exitUnreachable},
		{fmt.Errorf("a: %w", store.ErrUnavailable), exitUnreachable},
		{fmt.Errorf("%w: it is not there: %w", errTimedOut, store.ErrUnavailable), exitTimedOut},
		{&usageError{command: "quorate", text: "x"}, exitUsage},
	} {
		if got := exitCode(tc.err); got != tc.want {
			t.Errorf("%v: got %d, want %d", tc.err, got, tc.want)
		}
	}
}

func TestAge(t *testing.T) {
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 0: "0s", 119 * time.Second: "119s", 2*time.Minute + 5*time.Second: "2m5s",
		10 * time.Minute: "10m", 3 * time.Hour: "3h", 47 * time.Hour: "47h", 48 * time.Hour: "2d", 1000 * time.Hour: "41d",
	} {
		if got := age(now.Add(-d), now); got != want {
			t.Errorf("%s: got %q, want %q", d, got, want)
		}
	}
	if got := age(time.Time{}, now); got != "-" {
		t.Errorf("no time: got %q", got)
	}
}

func TestGrid(t *testing.T) {
	g := grid{header: []string{"name", "client url", "message"}, wrap: []int{2}}
	g.add("a", "", "one two three four five six")
	g.add("long-name", "http://127.0.0.1:2379", "short")
	var wideOut, narrow bytes.Buffer
	if err := g.write(&wideOut, 0); err != nil {
		t.Fatal(err)
	}
	want := `NAME        CLIENT URL              MESSAGE
a           -                       one two three four five six
long-name   http://127.0.0.1:2379   short
`
	if diff := cmp.Diff(want, wideOut.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if err := g.write(&narrow, 60); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(narrow.String()) {
		if len(line) > 61 {
			t.Errorf("a line is wider than the terminal: %q", line)
		}
	}
	if lines := strings.Count(narrow.String(), "\n"); lines != 4 {
		t.Errorf("%d lines, want 4: one is folded\n%s", lines, narrow.String())
	}
}

func TestSplitTemplate(t *testing.T) {
	for _, tc := range []struct {
		text, template, value string
		given                 bool
	}{
		{"{.status.ready}=3/3", "{.status.ready}", "3/3", true},
		{"{.status.ready}", "{.status.ready}", "", false},
		{`{.status.conditions[?(@.type=="Ready")].status}=True`, `{.status.conditions[?(@.type=="Ready")].status}`, "True", true},
		{".status.leader=", ".status.leader", "", true},
	} {
		template, value, given := splitTemplate(tc.text)
		if template != tc.template || value != tc.value || given != tc.given {
			t.Errorf("%s: got %q %q %t", tc.text, template, value, given)
		}
	}
}

func TestHasCondition(t *testing.T) {
	c := &v1alpha1.EtcdCluster{}
	c.Generation = 2
	c.Status.Conditions = []v1alpha1.Condition{
		{Type: "Available", Status: v1alpha1.True, ObservedGeneration: 2},
		{Type: "Progressing", Status: v1alpha1.False, ObservedGeneration: 1, Message: "old"},
		{Type: "Degraded", Status: v1alpha1.Unknown, ObservedGeneration: 2, Message: "not asked"},
	}
	for _, tc := range []struct {
		name, status, missing string
		want                  bool
	}{
		{"Available", "True", "", true},
		{"available", "true", "", true},
		{"Available", "False", "Available is True: ", false},
		{"Progressing", "False", "waiting for the change to be seen", false},
		{"Degraded", "False", "Degraded is Unknown: not asked", false},
		{"Ready", "True", "it has no condition Ready yet", false},
	} {
		if ok, missing := hasCondition(c, tc.name, tc.status); ok != tc.want || missing != tc.missing {
			t.Errorf("%s=%s: got %t %q", tc.name, tc.status, ok, missing)
		}
	}
}

func TestOwnFlags(t *testing.T) {
	for _, tc := range []struct {
		args               []string
		cluster, namespace string
		rest               []string
		fails              bool
	}{
		{[]string{"-c", "a", "put", "k", "v"}, "a", "default", []string{"put", "k", "v"}, false},
		{[]string{"--cluster=a", "-n", "prod", "--", "get", "-n"}, "a", "prod", []string{"get", "-n"}, false},
		{[]string{"-n=prod", "-c", "a", "-w", "json", "get", "-c", "x"}, "a", "prod", []string{"-w", "json", "get", "-c", "x"}, false},
		{[]string{"-c", "a", "get", "--help"}, "a", "default", []string{"get", "--help"}, false},
		{[]string{"-c", "a", "--help"}, "a", "default", []string{"--help"}, false},
		{[]string{"-w", "json", "-c", "a"}, "", "default", []string{"-w", "json", "-c", "a"}, false},
		{[]string{"-c"}, "", "default", nil, true},
	} {
		e := newEnv([]string{"quorate"}, Stdio{In: eof{}, Out: io.Discard, Err: io.Discard})
		e.namespace = defaultNamespace
		cluster, _, rest, err := e.ownFlags(etcdctlCommand(e), tc.args, nil)
		if (err != nil) != tc.fails {
			t.Errorf("%q: %v", tc.args, err)
			continue
		}
		if cluster != tc.cluster || !tc.fails && e.namespace != tc.namespace || !slices.Equal(rest, tc.rest) {
			t.Errorf("%q: got %q %q %q", tc.args, cluster, e.namespace, rest)
		}
	}
}

func TestFill(t *testing.T) {
	bundle := pki.Bundle{Certificate: []byte("cert"), CA: []byte("ca")}
	for _, tc := range []struct {
		name  string
		given []string
		b     pki.Bundle
		want  []string
	}{
		{"nothing given", []string{"get", "x"}, bundle, []string{"--endpoints", "--cacert", "--cert", "--key"}},
		{"own endpoints", []string{"--endpoints=x"}, bundle, []string{"--cacert", "--cert", "--key"}},
		{"own certificate", []string{"--cert", "c", "--key", "k"}, bundle, []string{"--endpoints", "--cacert"}},
		{"without TLS", nil, pki.Bundle{}, []string{"--endpoints"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			flags, err := fill(tc.given, []string{"a", "b"}, tc.b, []byte("key"))
			if err != nil {
				t.Fatal(err)
			}
			names := make([]string, 0, len(flags))
			for _, f := range flags {
				name, value, _ := strings.Cut(f, "=")
				names = append(names, name)
				if want := map[string]string{"--cacert": "ca", "--cert": "cert", "--key": "key"}[name]; want != "" {
					raw, err := os.ReadFile(value)
					if err != nil || string(raw) != want {
						t.Errorf("%s holds %q (%v), want %q", f, raw, err, want)
					}
				}
			}
			if !slices.Equal(names, tc.want) {
				t.Errorf("got %q, want %q", names, tc.want)
			}
		})
	}
}

func TestQuoted(t *testing.T) {
	for word, want := range map[string]string{
		"bin/quorate": "bin/quorate", "/a b": "'/a b'", "it's": `'it'\''s'`, "$HOME": "'$HOME'", "": "''",
	} {
		if got := quoted(word); got != want {
			t.Errorf("%q: got %s, want %s", word, got, want)
		}
	}
}

func TestProgressOnlyRepeatsChanges(t *testing.T) {
	var out bytes.Buffer
	p := &progress{w: &out}
	p.step("one")
	p.step("one")
	if _, err := p.Write([]byte("log\n")); err != nil {
		t.Fatal(err)
	}
	p.step("two")
	p.done()
	if got := out.String(); got != "one\nlog\ntwo\n" {
		t.Errorf("got %q", got)
	}
	out.Reset()
	p = &progress{w: &out, terminal: true, columns: 10}
	p.step("a longer text")
	if _, err := p.Write([]byte("log\n")); err != nil {
		t.Fatal(err)
	}
	p.done()
	if got := out.String(); !strings.HasPrefix(got, clearLine+"a longer…"+clearLine+"log\n") || !strings.HasSuffix(got, clearLine) {
		t.Errorf("got %q", got)
	}
}

func TestFold(t *testing.T) {
	if got := fold("one two three\nfour\n\nfive", 9); got != "one two\nthree\nfour\n\nfive" {
		t.Errorf("got %q", got)
	}
}

// archive is a backup with that database, whose manifest speaks of another.
func archive(t *testing.T, database, manifestOf string) []byte {
	t.Helper()
	sum := sha256.Sum256([]byte(manifestOf))
	manifest, err := json.Marshal(storeetcd.Manifest{SHA256: hex.EncodeToString(sum[:]), Size: int64(len(manifestOf)), Revision: 7})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range []struct{ name, data string }{{backupManifest, string(manifest)}, {backupDatabase, database}} {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Mode: 0o600, Size: int64(len(f.data))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestSaveBackup(t *testing.T) {
	good := archive(t, "database", "database")
	for _, tc := range []struct {
		name string
		data []byte
		ok   bool
	}{
		{"whole", good, true},
		{"altered", archive(t, "Database", "database"), false},
		{"cut short", good[:700], false},
		{"empty", nil, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "b.tar")
			m, err := saveBackup(file, io.NopCloser(bytes.NewReader(tc.data)))
			if (err == nil) != tc.ok || !tc.ok && !errors.Is(err, errBackup) {
				t.Fatalf("got %v", err)
			}
			entries, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			passed, err := passBackup(&out, io.NopCloser(bytes.NewReader(tc.data)))
			if (err == nil) != tc.ok || tc.ok && (passed.Revision != m.Revision || !bytes.Equal(out.Bytes(), tc.data)) {
				t.Errorf("to stdout: %v, %d of %d bytes", err, out.Len(), len(tc.data))
			}
			if !tc.ok {
				if len(entries) != 0 {
					t.Errorf("something was left behind: %v", entries)
				}
				return
			}
			info, err := os.Stat(file)
			if err != nil {
				t.Fatal(err)
			}
			if m.Revision != 7 || len(entries) != 1 || info.Mode().Perm() != 0o600 {
				t.Errorf("revision %d, %d files, mode %o", m.Revision, len(entries), info.Mode().Perm())
			}
		})
	}
}

func TestExpand(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"b.yaml", "a.yml", "c.json", "README.md"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := expand([]string{"-", dir, filepath.Join(dir, "README.md")})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"-", filepath.Join(dir, "a.yml"), filepath.Join(dir, "b.yaml"), filepath.Join(dir, "c.json"), filepath.Join(dir, "README.md")}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	if _, err := expand([]string{t.TempDir()}); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("an empty directory: %v", err)
	}
}

func TestErrorText(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("etcdcluster/a: %w", store.ErrNotFound), "etcdcluster/a: not found"},
		{fmt.Errorf("f.yaml: etcdcluster/a: %w", store.ErrInvalid), "f.yaml: etcdcluster/a: invalid"},
		{fmt.Errorf("f.yaml: change one of them: %w", store.ErrInvalid), "f.yaml: change one of them"},
		{fmt.Errorf("there is no object in f.yaml: %w", store.ErrInvalid), "there is no object in f.yaml"},
		{
			errors.Join(fmt.Errorf("give it up now: %w", store.ErrForbidden), fmt.Errorf("%w: a b c", store.ErrNotFound)),
			"give it up now\n  not found: a b c",
		},
	} {
		if got := errorText(tc.err); got != tc.want {
			t.Errorf("%v: got %q, want %q", tc.err, got, tc.want)
		}
	}
}

func TestRestartRefusesSuspended(t *testing.T) {
	c := &v1alpha1.EtcdCluster{}
	c.Name, c.Namespace = "a", "prod"
	if err := refuseSuspended(c); err != nil {
		t.Errorf("one that runs: %v", err)
	}
	c.Spec.Suspended = true
	if err := refuseSuspended(c); exitCode(err) != exitRefused || !strings.Contains(errorText(err), "`quorate resume a -n prod` starts it") {
		t.Errorf("a suspended one: %v", err)
	}
}
