package release

import (
	"cmp"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"

	"github.com/coreos/go-semver/semver"
)

const (
	algorithm  = "sha256:"
	dirPrefix  = "sha256-"
	executable = "etcd"
	recordFile = "release.json"
)

var (
	digestPattern  = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	versionPattern = regexp.MustCompile(`^[0-9]{1,6}\.[0-9]{1,6}\.[0-9]{1,6}(-[0-9A-Za-z.-]{1,64})?(\+[0-9A-Za-z.-]{1,64})?$`)
	// tools may stand beside etcd in a release.
	tools = []string{"etcdctl", "etcdutl"}
)

// Release is an etcd in the catalog.
type Release struct {
	// Version that the executable says it is, such as 3.7.3.
	Version string `json:"version"`
	// Digest is "sha256:" and the hex SHA-256 of the etcd executable.
	Digest string `json:"digest"`
	// Platform it runs on: GOOS/GOARCH.
	Platform string `json:"platform"`
	// Source says where it came from, for a person.
	Source string `json:"source"`
	// Added is when, in UTC.
	Added time.Time `json:"added"`
	// Size of the etcd executable in bytes.
	Size int64 `json:"size"`
	// Tools are the digests of etcdctl and etcdutl by name, where they came with it.
	Tools map[string]string `json:"tools,omitempty"`
}

// HostPlatform is the GOOS/GOARCH of this host.
func HostPlatform() string { return runtime.GOOS + "/" + runtime.GOARCH }

// ValidDigest reports whether a digest is "sha256:" and 64 lower-case hex digits.
func ValidDigest(digest string) bool { return digestPattern.MatchString(digest) }

func digestOf(sum []byte) string { return algorithm + hex.EncodeToString(sum) }

// normalDigest accepts a digest with or without its algorithm, in any case.
func normalDigest(what, digest string) (string, error) {
	digest = strings.ToLower(strings.TrimSpace(digest))
	if !strings.Contains(digest, ":") {
		digest = algorithm + digest
	}
	if !ValidDigest(digest) {
		return "", fmt.Errorf("%s %q: %w: give sha256: and 64 hex digits", what, digest, ErrUnsuitable)
	}
	return digest, nil
}

func normalVersion(version string) (string, error) {
	version = strings.TrimPrefix(version, "v")
	if !versionPattern.MatchString(version) {
		return "", fmt.Errorf("version %q: %w: give it like 3.7.3", version, ErrUnsuitable)
	}
	return version, nil
}

func dirName(digest string) string { return dirPrefix + strings.TrimPrefix(digest, algorithm) }

func decodeRecord(raw []byte, dir string) (Release, error) {
	var r Release
	if err := json.Unmarshal(raw, &r); err != nil {
		return r, fmt.Errorf("%s: %w", filepath.Join(dir, recordFile), err)
	}
	if !ValidDigest(r.Digest) || dirName(r.Digest) != filepath.Base(dir) {
		return r, fmt.Errorf("%s: %w: it records digest %q", dir, ErrDigest, r.Digest)
	}
	return r, nil
}

// newestFirst orders releases by version, then by when they were added.
func newestFirst(a, b Release) int {
	va, erra := semver.NewVersion(a.Version)
	vb, errb := semver.NewVersion(b.Version)
	byVersion := cmp.Compare(b.Version, a.Version)
	if erra == nil && errb == nil {
		byVersion = vb.Compare(*va)
	}
	return cmp.Or(byVersion, b.Added.Compare(a.Added), cmp.Compare(a.Digest, b.Digest))
}
