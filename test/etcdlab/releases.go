package etcdlab

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// Older is the etcd of another release, for tests that make check-slow alone runs.
func Older(tb testing.TB, version string) string {
	tb.Helper()
	dir := os.Getenv("QUORATE_ETCD_RELEASES")
	if dir == "" {
		tb.Skip("older etcds are built and run by make check-slow (QUORATE_ETCD_RELEASES)")
	}
	for _, d := range []string{dir, dir + "-debian"} {
		path := filepath.Join(d, version, "etcd")
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	tb.Fatalf("%s and %s-debian hold no etcd %s: make etcd-releases etcd-debian", dir, dir, version)
	return ""
}

// Built is the etcd of another release, if make has built it in this repository.
func Built(version string) (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for root := dir; ; root = filepath.Dir(root) {
		if _, err = os.Stat(filepath.Join(root, "go.mod")); err == nil {
			dir = root
			break
		}
		if root == filepath.Dir(root) {
			return "", fmt.Errorf("%s is in no module", dir)
		}
	}
	path := filepath.Join(".cache", "etcd", version, "etcd")
	if _, err = os.Stat(filepath.Join(dir, path)); err != nil {
		return "", fmt.Errorf("etcd %s is not built: %w: run make %s", version, err, path)
	}
	return filepath.Join(dir, path), nil
}

// self is this test binary under the name etcd.
func self(tb testing.TB, dir string) string {
	tb.Helper()
	binary, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	path := filepath.Join(dir, "etcd")
	if err = os.Symlink(binary, path); err != nil {
		tb.Fatal(err)
	}
	return path
}
