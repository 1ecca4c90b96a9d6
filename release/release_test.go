package release

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// fakeEtcd is a script that answers --version as etcd does.
func fakeEtcd(version string) []byte {
	return []byte("#!/bin/sh\n[ \"$1\" = --version ] || exit 3\n" +
		"printf 'etcd Version: " + version + "\\nGit SHA: abc\\nGo Version: go1.26\\nGo OS/Arch: linux/amd64\\n'\n")
}

func sum(data []byte) string {
	s := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(s[:])
}

func open(t *testing.T) *Catalog {
	t.Helper()
	c, err := Open(filepath.Join(t.TempDir(), "releases"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func write(t *testing.T, data []byte, parts ...string) string {
	t.Helper()
	path := filepath.Join(parts...)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// wantOnly fails unless the catalog's directory holds these releases and nothing
// half-added.
func wantOnly(t *testing.T, c *Catalog, digests ...string) {
	t.Helper()
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		t.Fatal(err)
	}
	var got, want []string
	for _, e := range entries {
		if e.Name() != lockFile && e.Name() != builtinFile {
			got = append(got, e.Name())
		}
	}
	for _, d := range digests {
		want = append(want, dirName(d))
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("the catalog's directory (-want +got):\n%s", diff)
	}
}

type entry struct {
	name string
	kind byte
	data []byte
	link string
}

func tarball(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var out bytes.Buffer
	zip := gzip.NewWriter(&out)
	w := tar.NewWriter(zip)
	for _, e := range entries {
		head := &tar.Header{Name: e.name, Typeflag: e.kind, Mode: 0o755, Size: int64(len(e.data)), Linkname: e.link}
		if err := w.WriteHeader(head); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(e.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), zip.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func file(name string, data []byte) entry { return entry{name: name, kind: tar.TypeReg, data: data} }

// upstream is an archive laid out as upstream's.
func upstream(t *testing.T, version string) []byte {
	t.Helper()
	top := "etcd-v" + version + "-linux-amd64/"
	return tarball(t,
		entry{name: top, kind: tar.TypeDir},
		file(top+"README.md", []byte("hello")),
		file(top+"Documentation/etcd", []byte("not the executable")),
		file(top+"etcd", fakeEtcd(version)),
		file(top+"etcdctl", []byte("ctl")),
		file(top+"etcdutl", []byte("utl")))
}

func TestAddDirectory(t *testing.T) {
	c := open(t)
	from := t.TempDir()
	data := fakeEtcd("3.6.4")
	write(t, data, from, "etcd")
	write(t, []byte("ctl"), from, "etcdctl")
	write(t, []byte("other"), from, "README")
	got, err := c.AddDirectory(t.Context(), from, AddOptions{Version: "v3.6.4", Digest: strings.TrimPrefix(sum(data), algorithm)})
	if err != nil {
		t.Fatal(err)
	}
	want := Release{
		Version: "3.6.4", Digest: sum(data), Platform: HostPlatform(), Source: from, Added: got.Added,
		Size: int64(len(data)), Tools: map[string]string{"etcdctl": sum([]byte("ctl"))},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("(-want +got):\n%s", diff)
	}
	path, err := c.Path(t.Context(), got.Digest)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o555 || filepath.Base(path) != "etcd" {
		t.Fatalf("%s has mode %v", path, info.Mode())
	}
	wantOnly(t, c, got.Digest)

	again, err := c.AddDirectory(t.Context(), filepath.Join(from, "etcd"), AddOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(got, again); diff != "" {
		t.Fatalf("adding it again changed it (-first +second):\n%s", diff)
	}
}

func TestAddRefuses(t *testing.T) {
	script := func(body string) []byte { return []byte("#!/bin/sh\n" + body + "\n") }
	for name, tc := range map[string]struct {
		data []byte
		opts AddOptions
		want error
		says string
	}{
		"another version":      {fakeEtcd("3.6.4"), AddOptions{Version: "3.6.5"}, ErrVersion, "says that it is 3.6.4, wanted 3.6.5"},
		"another digest":       {fakeEtcd("3.6.4"), AddOptions{Digest: sum([]byte("x"))}, ErrDigest, sum(fakeEtcd("3.6.4"))},
		"not a digest":         {fakeEtcd("3.6.4"), AddOptions{Digest: "sha256:12"}, ErrUnsuitable, "64 hex digits"},
		"not a version":        {fakeEtcd("3.6.4"), AddOptions{Version: "../3"}, ErrUnsuitable, "like 3.7.3"},
		"version in a path":    {fakeEtcd("../../3.6.4"), AddOptions{}, ErrUnsuitable, "like 3.7.3"},
		"fails":                {script("echo broken >&2; exit 7"), AddOptions{}, ErrUnsuitable, "broken"},
		"another program":      {script("echo hello"), AddOptions{}, ErrUnsuitable, "hello"},
		"not a program":        {[]byte("\x00\x01"), AddOptions{}, ErrUnsuitable, ""},
		"empty":                {nil, AddOptions{}, ErrUnsuitable, "empty"},
		"too large":            {bytes.Repeat([]byte("#"), 2000), AddOptions{MaxSize: 1000}, ErrTooLarge, "1000 bytes"},
		"of another platform":  {elfFor(0xb7), AddOptions{}, ErrUnsuitable, "give the version"},
		"asks its environment": {script(`printf "etcd Version: ${ETCD_FAKE:-none}\n"`), AddOptions{}, ErrUnsuitable, "none"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("ETCD_FAKE", "3.6.4")
			if name == "of another platform" && HostPlatform() == "linux/arm64" {
				t.Skip("the fake is for this platform")
			}
			c := open(t)
			from := t.TempDir()
			write(t, tc.data, from, "etcd")
			_, err := c.AddDirectory(t.Context(), from, tc.opts)
			if !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.says) {
				t.Fatalf("got %v, want %v with %q", err, tc.want, tc.says)
			}
			wantOnly(t, c)
		})
	}
	t.Run("no etcd in it", func(t *testing.T) {
		if _, err := open(t).AddDirectory(t.Context(), t.TempDir(), AddOptions{}); !errors.Is(err, ErrUnsuitable) {
			t.Fatalf("got %v", err)
		}
	})
	t.Run("a pipe", func(t *testing.T) {
		if _, err := open(t).AddDirectory(t.Context(), "/dev/null", AddOptions{}); !errors.Is(err, ErrUnsuitable) {
			t.Fatalf("got %v", err)
		}
	})
	t.Run("hangs", func(t *testing.T) {
		from := t.TempDir()
		write(t, script("sleep 60 & wait"), from, "etcd")
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		c := open(t)
		if _, err := c.AddDirectory(ctx, from, AddOptions{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
		wantOnly(t, c)
	})
}

// elfFor is the header of an ELF executable for a machine.
func elfFor(machine byte) []byte {
	head := make([]byte, 64)
	copy(head, "\x7fELF\x02\x01\x01")
	head[16], head[18], head[20] = 2, machine, 1
	head[52] = 64
	return head
}

func TestAddForAnotherPlatform(t *testing.T) {
	platform, machine := "linux/arm64", byte(0xb7)
	if HostPlatform() == platform {
		platform, machine = "linux/amd64", 0x3e
	}
	c := open(t)
	from := t.TempDir()
	write(t, elfFor(machine), from, "etcd")
	r, err := c.AddDirectory(t.Context(), from, AddOptions{Version: "3.7.3"})
	if err != nil {
		t.Fatal(err)
	}
	if r.Platform != platform || r.Version != "3.7.3" {
		t.Fatalf("got %+v", r)
	}
	if _, err := c.Resolve("3.7.3", platform); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Resolve("3.7.3", ""); !errors.Is(err, ErrNotFound) {
		t.Fatalf("it was resolved for this host: %v", err)
	}
}

func TestAddArchive(t *testing.T) {
	c := open(t)
	archive := upstream(t, "3.5.21")
	path := write(t, archive, t.TempDir(), "etcd-v3.5.21-linux-amd64.tar.gz")
	r, err := c.AddArchive(t.Context(), path, AddOptions{ArchiveDigest: sum(archive)})
	if err != nil {
		t.Fatal(err)
	}
	if r.Version != "3.5.21" || r.Digest != sum(fakeEtcd("3.5.21")) || len(r.Tools) != 2 {
		t.Fatalf("got %+v", r)
	}
	wantOnly(t, c, r.Digest)
}

func TestAddArchiveRefuses(t *testing.T) {
	good := fakeEtcd("3.6.4")
	whole := upstream(t, "3.6.4")
	outside := filepath.Join(t.TempDir(), "outside")
	for name, tc := range map[string]struct {
		archive []byte
		opts    AddOptions
		want    error
	}{
		"dots":            {tarball(t, file("../../etcd", good)), AddOptions{}, ErrUnsuitable},
		"dots after good": {tarball(t, file("d/etcd", good), file("d/../../x", good)), AddOptions{}, ErrUnsuitable},
		"absolute":        {tarball(t, file(outside, good)), AddOptions{}, ErrUnsuitable},
		"symbolic link":   {tarball(t, entry{name: "d/etcd", kind: tar.TypeSymlink, link: "/bin/sh"}), AddOptions{}, ErrUnsuitable},
		"hard link":       {tarball(t, entry{name: "d/etcd", kind: tar.TypeLink, link: "/bin/sh"}), AddOptions{}, ErrUnsuitable},
		"device":          {tarball(t, entry{name: "d/etcd", kind: tar.TypeChar}), AddOptions{}, ErrUnsuitable},
		"twice":           {tarball(t, file("a/etcd", good), file("b/etcd", good)), AddOptions{}, ErrUnsuitable},
		"no etcd":         {tarball(t, file("a/etcdctl", good)), AddOptions{}, ErrUnsuitable},
		"not an archive":  {good, AddOptions{}, ErrUnsuitable},
		"empty":           {nil, AddOptions{}, ErrUnsuitable},
		"another archive": {whole, AddOptions{ArchiveDigest: sum(good)}, ErrDigest},
		"bomb":            {tarball(t, file("a/zeros", make([]byte, 1<<20)), file("a/etcd", good)), AddOptions{MaxSize: 1 << 16}, ErrTooLarge},
		"damaged":         {damaged(whole), AddOptions{}, ErrUnsuitable},
	} {
		t.Run(name, func(t *testing.T) {
			c := open(t)
			path := write(t, tc.archive, t.TempDir(), "a.tar.gz")
			if _, err := c.AddArchive(t.Context(), path, tc.opts); !errors.Is(err, tc.want) {
				t.Fatalf("got %v, want %v", err, tc.want)
			}
			wantOnly(t, c)
			if _, err := os.Stat(outside); err == nil {
				t.Fatal("a file was written outside of the catalog")
			}
		})
	}
	t.Run("truncated anywhere", func(t *testing.T) {
		c := open(t)
		for cut := 0; cut < len(whole); cut += 7 {
			path := write(t, whole[:cut], t.TempDir(), "a.tar.gz")
			if r, err := c.AddArchive(t.Context(), path, AddOptions{}); err == nil {
				t.Fatalf("cut at %d of %d: added %+v", cut, len(whole), r)
			}
		}
		wantOnly(t, c)
	})
}

// damaged changes the checksum at the end of a gzip file.
func damaged(archive []byte) []byte {
	bad := slices.Clone(archive)
	bad[len(bad)-6] ^= 1
	return bad
}

func TestTamperingIsNeverRun(t *testing.T) {
	c := open(t)
	from := t.TempDir()
	write(t, fakeEtcd("3.6.4"), from, "etcd")
	r, err := c.AddDirectory(t.Context(), from, AddOptions{})
	if err != nil {
		t.Fatal(err)
	}
	path, err := c.Path(t.Context(), r.Digest)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	evil := fakeEtcd("3.6.5") // of the same size
	if err = os.Chmod(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if err = os.WriteFile(path, evil, 0o755); err != nil {
		t.Fatal(err)
	}
	if err = os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	_, err = c.Path(t.Context(), r.Digest)
	if !errors.Is(err, ErrDigest) || !strings.Contains(err.Error(), r.Digest) || !strings.Contains(err.Error(), sum(evil)) {
		t.Fatalf("got %v, want ErrDigest with both digests", err)
	}
	// A link to a good file is no good file.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(from, "etcd"), path); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Path(t.Context(), r.Digest); err == nil {
		t.Fatal("a link was followed")
	}
	// Adding it again mends it.
	if _, err := c.AddDirectory(t.Context(), from, AddOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Path(t.Context(), r.Digest); err != nil {
		t.Fatal(err)
	}
}

func TestPathVerifiesOnce(t *testing.T) {
	c := open(t)
	from := t.TempDir()
	write(t, fakeEtcd("3.6.4"), from, "etcd")
	r, err := c.AddDirectory(t.Context(), from, AddOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Path(cancelled, r.Digest); !errors.Is(err, context.Canceled) {
		t.Fatalf("the first call must read the file, and end with its context: %v", err)
	}
	if _, err := c.Path(t.Context(), r.Digest); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Path(cancelled, r.Digest); err != nil {
		t.Fatalf("the content was read again: %v", err)
	}
}

func TestResolve(t *testing.T) {
	c := open(t)
	add := func(version, salt string) Release {
		t.Helper()
		from := t.TempDir()
		write(t, append(fakeEtcd(version), []byte("# "+salt+"\n")...), from, "etcd")
		r, err := c.AddDirectory(t.Context(), from, AddOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	_, err := c.Resolve("3.7.3", "")
	if !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "quorate release add") {
		t.Fatalf("got %v", err)
	}
	first, second := add("3.6.4", "a"), add("3.6.4", "b")
	ten, candidate, nine := add("3.6.10", ""), add("3.7.0-rc.1", ""), add("3.6.9", "")
	got, err := c.Resolve("v3.6.4", HostPlatform())
	if err != nil || got.Digest != second.Digest {
		t.Fatalf("got %+v, %v, want the one added last", got, err)
	}
	_, err = c.Resolve("3.7.3", "")
	if !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "3.7.0-rc.1") || !strings.Contains(err.Error(), "3.6.4") {
		t.Fatalf("the error doesn't say what there is: %v", err)
	}
	// What can't be read is left out.
	write(t, []byte("{"), c.dir, dirName(sum([]byte("x"))), recordFile)
	write(t, []byte(`{"digest":"`+first.Digest+`"}`), c.dir, dirName(sum([]byte("y"))), recordFile)
	list, err := c.List()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Release{candidate, ten, nine, second, first}, list); diff != "" {
		t.Fatalf("(-want +got):\n%s", diff)
	}
	for _, digest := range []string{sum([]byte("none")), "sha256:../../etc", "", "latest"} {
		if _, err := c.Path(t.Context(), digest); !errors.Is(err, ErrNotFound) {
			t.Errorf("Path(%q) = %v, want ErrNotFound", digest, err)
		}
	}
}

func TestConcurrentAdds(t *testing.T) {
	c := open(t)
	other, err := Open(c.dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	from := t.TempDir()
	write(t, fakeEtcd("3.6.4"), from, "etcd")
	var wg sync.WaitGroup
	got := make([]Release, 16)
	errs := make([]error, 16)
	for i := range got {
		wg.Go(func() {
			catalog := []*Catalog{c, other}[i%2]
			got[i], errs[i] = catalog.AddDirectory(t.Context(), from, AddOptions{})
			if errs[i] == nil {
				_, errs[i] = catalog.Path(t.Context(), got[i].Digest)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	for _, r := range got {
		if diff := cmp.Diff(got[0], r); diff != "" {
			t.Fatalf("two releases of one (-first +other):\n%s", diff)
		}
	}
	wantOnly(t, c, got[0].Digest)
}

func TestSendingToAnotherCatalog(t *testing.T) {
	a, b := open(t), open(t)
	from := t.TempDir()
	write(t, fakeEtcd("3.6.4"), from, "etcd")
	r, err := a.AddDirectory(t.Context(), from, AddOptions{})
	if err != nil {
		t.Fatal(err)
	}
	send := func(cut int64) (Release, error) {
		f, _, oerr := a.OpenExecutable(t.Context(), r.Digest)
		if oerr != nil {
			t.Fatal(oerr)
		}
		defer func() { _ = f.Close() }()
		return b.AddFrom(t.Context(), r.Digest, r.Version, io.LimitReader(f, r.Size-cut))
	}
	if _, err = send(1); !errors.Is(err, ErrDigest) {
		t.Fatalf("cut short: %v, want ErrDigest", err)
	}
	wantOnly(t, b)
	got, err := send(0)
	if err != nil || got.Digest != r.Digest || got.Version != r.Version {
		t.Fatalf("got %+v, %v", got, err)
	}
	if _, err := b.AddFrom(t.Context(), "", "", strings.NewReader("x")); !errors.Is(err, ErrUnsuitable) {
		t.Fatalf("without a digest: %v", err)
	}
}

func TestAddURL(t *testing.T) {
	archive := upstream(t, "3.6.4")
	const name = "etcd-v3.6.4-linux-amd64.tar.gz"
	good := strings.TrimPrefix(sum(archive), algorithm)
	sums := "0000  other.tar.gz\n" + good + " *./" + name + "\n"
	serve := func(files map[string]string) string {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			text, ok := files[r.URL.Path]
			if !ok {
				http.NotFound(w, r)
				return
			}
			if cut, ok := strings.CutPrefix(text, "CUT"); ok {
				w.Header().Set("Content-Length", strconv.Itoa(len(cut)+100))
				text = cut
			}
			_, _ = io.WriteString(w, text)
		}))
		t.Cleanup(srv.Close)
		return strings.Replace(srv.URL, "http://", "http://user:secret@", 1)
	}
	dir := t.TempDir()
	write(t, archive, dir, name)
	write(t, []byte(sums), dir, sumsFile)
	body := string(archive)
	for label, tc := range map[string]struct {
		url  string
		opts AddOptions
		want error
		says string
	}{
		"sums beside it":       {serve(map[string]string{"/v/" + name: body, "/v/SHA256SUMS": sums}) + "/v/" + name, AddOptions{}, nil, ""},
		"digest given":         {serve(map[string]string{"/" + name: body}) + "/" + name, AddOptions{ArchiveDigest: good}, nil, ""},
		"file":                 {"file://" + dir + "/" + name, AddOptions{}, nil, ""},
		"no digest":            {serve(map[string]string{"/" + name: body}) + "/" + name, AddOptions{}, ErrDigest, "give the SHA-256"},
		"sums without it":      {serve(map[string]string{"/" + name: body, "/SHA256SUMS": "00  x\n"}) + "/" + name, AddOptions{}, ErrDigest, "names no " + name},
		"sums of another":      {serve(map[string]string{"/" + name: body, "/SHA256SUMS": strings.Repeat("0", 64) + "  " + name + "\n"}) + "/" + name, AddOptions{}, ErrDigest, "the archive has"},
		"given wins over sums": {serve(map[string]string{"/" + name: body, "/SHA256SUMS": sums}) + "/" + name, AddOptions{ArchiveDigest: sum(nil)}, ErrDigest, "the archive has"},
		"cut short":            {serve(map[string]string{"/" + name: "CUT" + body, "/SHA256SUMS": sums}) + "/" + name, AddOptions{}, io.ErrUnexpectedEOF, "download"},
		"missing":              {serve(nil) + "/" + name, AddOptions{ArchiveDigest: good}, nil, "404"},
		"too large":            {serve(map[string]string{"/" + name: body}) + "/" + name, AddOptions{ArchiveDigest: good, MaxSize: 100}, ErrTooLarge, ""},
		"another scheme":       {"ftp://mirror/" + name, AddOptions{ArchiveDigest: good}, ErrUnsuitable, "ftp"},
		"no host there":        {"http://user:secret@127.0.0.1:1/" + name, AddOptions{ArchiveDigest: good}, nil, "refused"},
	} {
		t.Run(label, func(t *testing.T) {
			c := open(t)
			r, err := c.AddURL(t.Context(), tc.url, tc.opts)
			if tc.want == nil && tc.says == "" {
				if err != nil || r.Version != "3.6.4" {
					t.Fatalf("got %+v, %v", r, err)
				}
				if strings.Contains(r.Source, "secret") {
					t.Fatalf("the source holds the password: %s", r.Source)
				}
				wantOnly(t, c, r.Digest)
				return
			}
			if err == nil || (tc.want != nil && !errors.Is(err, tc.want)) || !strings.Contains(err.Error(), tc.says) {
				t.Fatalf("got %v, want %v with %q", err, tc.want, tc.says)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Fatalf("the error holds the password: %v", err)
			}
			wantOnly(t, c)
		})
	}
	t.Run("slow mirror", func(t *testing.T) {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "x")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}))
		t.Cleanup(srv.Close)
		c := open(t)
		_, err := c.AddURL(t.Context(), srv.URL+"/"+name, AddOptions{ArchiveDigest: good, Timeout: 100 * time.Millisecond})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
		wantOnly(t, c)
	})
}

func TestAddBuiltin(t *testing.T) {
	c := open(t)
	self := write(t, fakeEtcd("3.7.3"), t.TempDir(), "quorate")
	r, err := c.AddBuiltin(t.Context(), "3.7.3", self)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(r.Source, "built in, quorate ") || r.Version != "3.7.3" {
		t.Fatalf("got %+v", r)
	}
	// A second time it isn't read: a stale memory would be believed.
	again, err := c.AddBuiltin(t.Context(), "3.7.3", self)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r, again); diff != "" {
		t.Fatalf("(-first +second):\n%s", diff)
	}
	// Quorate is upgraded: the new etcd is added, and the old one stays.
	if err = os.Remove(self); err != nil {
		t.Fatal(err)
	}
	write(t, fakeEtcd("3.7.4"), self)
	if _, err = c.AddBuiltin(t.Context(), "3.7.3", self); !errors.Is(err, ErrVersion) {
		t.Fatalf("got %v, want ErrVersion", err)
	}
	upgraded, err := c.AddBuiltin(t.Context(), "", self)
	if err != nil {
		t.Fatal(err)
	}
	wantOnly(t, c, r.Digest, upgraded.Digest)
	if _, err := c.Path(t.Context(), r.Digest); err != nil {
		t.Fatal(err)
	}
	// A memory of a release that was removed doesn't count.
	if err := c.Remove(upgraded.Digest, func(Release) ([]string, error) { return nil, nil }); err != nil {
		t.Fatal(err)
	}
	if _, err := c.AddBuiltin(t.Context(), "", self); err != nil {
		t.Fatal(err)
	}
	wantOnly(t, c, r.Digest, upgraded.Digest)
}

func TestRemove(t *testing.T) {
	c := open(t)
	from := t.TempDir()
	write(t, fakeEtcd("3.6.4"), from, "etcd")
	r, err := c.AddDirectory(t.Context(), from, AddOptions{})
	if err != nil {
		t.Fatal(err)
	}
	err = c.Remove(r.Digest, func(Release) ([]string, error) { return []string{"default/db-0"}, nil })
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "default/db-0") {
		t.Fatalf("got %v", err)
	}
	unknown := errors.New("store down")
	if err := c.Remove(r.Digest, func(Release) ([]string, error) { return nil, unknown }); !errors.Is(err, unknown) {
		t.Fatalf("got %v", err)
	}
	wantOnly(t, c, r.Digest)
	if err := c.Remove(r.Digest, func(Release) ([]string, error) { return nil, nil }); err != nil {
		t.Fatal(err)
	}
	wantOnly(t, c)
	if err := c.Remove(r.Digest, nil); !errors.Is(err, ErrNotFound) {
		t.Fatalf("got %v", err)
	}
}

func TestOpenSweepsOldStages(t *testing.T) {
	c := open(t)
	old := filepath.Dir(write(t, []byte("x"), c.dir, stagePrefix+"1", "etcd"))
	fresh := filepath.Dir(write(t, []byte("x"), c.dir, stagePrefix+"2", "etcd"))
	long := time.Now().Add(-2 * staleAfter)
	if err := os.Chtimes(old, long, long); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(c.dir, Options{}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(old); err == nil {
		t.Error("the old stage is still there")
	}
	if _, err := os.Stat(fresh); err != nil {
		t.Error("the fresh stage is gone")
	}
}

// BenchmarkAddBuiltin adds 90 MB, the size of a Quorate executable.
func BenchmarkAddBuiltin(b *testing.B) {
	data := append(fakeEtcd("3.7.3"), "exit\n"...)
	data = append(data, bytes.Repeat([]byte("0123456789abcdef"), 90<<20/16)...)
	self := filepath.Join(b.TempDir(), "quorate")
	if err := os.WriteFile(self, data, 0o755); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		c, err := Open(b.TempDir(), Options{})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := c.AddBuiltin(b.Context(), "", self); err != nil {
			b.Fatal(err)
		}
	}
}
