package datadir

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

func mkdir(t *testing.T, parts ...string) string {
	t.Helper()
	dir := filepath.Join(parts...)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "data"), "precious")
	return dir
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func TestRetireKeepsTheData(t *testing.T) {
	base := t.TempDir()
	into := filepath.Join(base, "retired")
	var went []string
	for range 3 {
		path, err := Retire(mkdir(t, base, "db-0"), noon, into, Retirement{Reason: "member deleted"})
		if err != nil {
			t.Fatal(err)
		}
		went = append(went, path)
	}
	want := []string{
		filepath.Join(into, "db-0.retired-20260304T120000Z"),
		filepath.Join(into, "db-0.retired-20260304T120000Z-1"),
		filepath.Join(into, "db-0.retired-20260304T120000Z-2"),
	}
	if diff := cmp.Diff(want, went); diff != "" {
		t.Fatalf("retired to (-want +got):\n%s", diff)
	}
	for _, path := range went {
		raw, err := os.ReadFile(filepath.Join(path, "data"))
		if err != nil || string(raw) != "precious" {
			t.Fatalf("%s holds %q, %v", path, raw, err)
		}
	}
	raw, err := os.ReadFile(went[1] + ".json")
	if err != nil {
		t.Fatal(err)
	}
	var got retired
	if err = json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	record := retired{
		Directory: filepath.Base(went[1]), From: filepath.Join(base, "db-0"), At: noon,
		Reason: "member deleted", KeepUntil: "forever",
	}
	if diff := cmp.Diff(record, got); diff != "" {
		t.Fatalf("record (-want +got):\n%s", diff)
	}
	if path, rerr := Retire(filepath.Join(base, "db-0"), noon, into, Retirement{}); path != "" || rerr != nil {
		t.Fatalf("retiring what is gone: %q, %v", path, rerr)
	}
	gone, err := Collect(into, noon.AddDate(100, 0, 0))
	if len(gone) != 0 || err != nil {
		t.Fatalf("collected what is kept for ever: %v, %v", gone, err)
	}
}

func TestRetireRefusesLinksAndFiles(t *testing.T) {
	base := t.TempDir()
	real := mkdir(t, base, "real")
	link := filepath.Join(base, "link")
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{link, filepath.Join(real, "data")} {
		if _, err := Retire(path, noon, filepath.Join(base, "retired"), Retirement{}); !errors.Is(err, ErrRetire) {
			t.Errorf("Retire(%s) = %v, want ErrRetire", path, err)
		}
	}
	if !exists(filepath.Join(real, "data")) {
		t.Fatal("the data is gone")
	}
}

func TestRetireAcrossFileSystems(t *testing.T) {
	base := t.TempDir()
	other, err := os.MkdirTemp("/dev/shm", "retire-test-") //nolint:usetesting // the point is another file system
	if err != nil {
		t.Skipf("no second file system: %v", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(other) })
	path := mkdir(t, base, "db-0")
	_, err = Retire(path, noon, other, Retirement{})
	if err == nil {
		t.Skip("/dev/shm is on the file system of the temporary directory")
	}
	if !errors.Is(err, ErrRetire) || !exists(filepath.Join(path, "data")) {
		t.Fatalf("Retire = %v, data there: %v", err, exists(filepath.Join(path, "data")))
	}
	if left, _ := os.ReadDir(other); len(left) != 0 {
		t.Fatalf("left behind: %v", left)
	}
}

func TestCollectRemovesOnlyWhatIsDue(t *testing.T) {
	base := t.TempDir()
	into := filepath.Join(base, "retired")
	outside := mkdir(t, base, "outside")
	retire := func(name string, keep time.Duration) string {
		t.Helper()
		path, err := Retire(mkdir(t, base, name), noon, into, Retirement{KeepFor: keep})
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	due, later := retire("due", time.Hour), retire("later", 100*time.Hour)
	// Whatever links stand in a directory that is removed, their targets stay.
	if err := os.Symlink(outside, filepath.Join(due, "link")); err != nil {
		t.Fatal(err)
	}
	// A retired directory swapped for a link.
	swapped := retire("swapped", time.Hour)
	if err := os.RemoveAll(swapped); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, swapped); err != nil {
		t.Fatal(err)
	}
	// Records that don't name what they stand beside.
	noRecord := mkdir(t, into, "x.retired-20200101T000000Z")
	live := mkdir(t, into, "live")
	mine := retired{Directory: "../outside", At: noon, KeepUntil: noon.Format(time.RFC3339)}
	for name, dir := range map[string]string{"live": "live", "y.retired-1": "../outside", "z.retired-1": "live", "w.retired-1": ".."} {
		mine.Directory = dir
		raw, err := json.Marshal(mine)
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(into, name+".json"), string(raw))
	}
	write(t, due+"x.json", "{broken")

	if gone, err := Collect(into, noon.Add(30*time.Minute)); len(gone) != 0 || err != nil {
		t.Fatalf("collected before its time: %v, %v", gone, err)
	}
	gone, err := Collect(into, noon.Add(2*time.Hour))
	if !slices.Equal(gone, []string{due}) {
		t.Fatalf("collected %v, want %v", gone, due)
	}
	if !errors.Is(err, ErrRetire) {
		t.Fatalf("the swapped directory should be reported, got %v", err)
	}
	for _, path := range []string{later, noRecord, live, swapped, outside, filepath.Join(outside, "data")} {
		if !exists(path) {
			t.Errorf("%s is gone", path)
		}
	}
	if exists(due) || exists(due+".json") {
		t.Errorf("%s or its record is still there", due)
	}
	if again, _ := Collect(into, noon.Add(2*time.Hour)); len(again) != 0 {
		t.Fatalf("collected twice: %v", again)
	}
	if gone, err := Collect(filepath.Join(base, "none"), noon); gone != nil || err != nil {
		t.Fatalf("nothing there: %v, %v", gone, err)
	}
}

func TestCollectFinishesAnInterruptedRemoval(t *testing.T) {
	base := t.TempDir()
	into := filepath.Join(base, "retired")
	path, err := Retire(mkdir(t, base, "db-0"), noon, into, Retirement{KeepFor: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	if gone, err := Collect(into, noon.Add(2*time.Hour)); len(gone) != 0 || err != nil {
		t.Fatalf("Collect = %v, %v", gone, err)
	}
	if exists(path + ".json") {
		t.Fatal("the record is still there")
	}
}
