package catalog

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"path"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	// layoutVersion is the path element below the root. Another layout lies beside it.
	layoutVersion = "v1"
	// maxName is the longest name of an object in bytes: Tencent's COS takes 850, the
	// others 1,023 or 1,024.
	maxName = 850
	// maxFile is the longest name of a file in a point's directory.
	maxFile = 64

	fullElement = "full"
	timeFormat  = "20060102T150405Z"
	proofFormat = "20060102T150405.000000000Z"

	manifestFile = "point.json"
	proofPrefix  = "proof-"
	proofSuffix  = ".json"
	dataPrefix   = "snapshot."
	// besidePrefix is of the manifest and of what a later Quorate may put beside it.
	besidePrefix = "point."

	// clockElement can't be a namespace: two hexadecimal digits would follow the
	// underscore.
	clockElement = "_clock"
)

// Cluster names a cluster as people do. The names may be any UTF-8, also empty; those of
// Kubernetes objects are readable in the store.
type Cluster struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

// String is namespace/name.
func (c Cluster) String() string { return c.Namespace + "/" + c.Name }

// Lineage is one history of one cluster: within it, revisions only grow. Backups of
// different lineages are never compared, counted or deleted together.
type Lineage struct {
	Cluster
	// ClusterID is etcd's own. A restore gives a new one, unless token and peer URLs
	// are those of before.
	ClusterID ID
	// Epoch begins at 1 and grows when the data of the same cluster ID was reset.
	Epoch uint32
}

// String is for messages: namespace/name, cluster ID and epoch.
func (l Lineage) String() string {
	return fmt.Sprintf("%s (cluster %s, epoch %d)", l.Cluster, l.ClusterID, l.Epoch)
}

// Ref says which point is meant: all that its place in the store tells.
type Ref struct {
	Lineage
	// Time is when the backup began: UTC, in whole seconds.
	Time time.Time
	// Revision is the store revision of the data.
	Revision int64
	// Nonce is eight hexadecimal digits that keep points of the same second apart.
	Nonce string
}

// ID is the last element of the point's directory, such as
// 20060102T150405Z-r0000000000000000123-0a1b2c3d. It is unique within a lineage.
func (r Ref) ID() string {
	return fmt.Sprintf("%s-r%019d-%s", r.Time.UTC().Format(timeFormat), r.Revision, r.Nonce)
}

// String is for messages: the ID and the lineage.
func (r Ref) String() string { return r.ID() + " of " + r.Lineage.String() }

// Compare orders points: by cluster, cluster ID and epoch, then by revision, time and
// nonce; negative if r comes first.
func (r Ref) Compare(other Ref) int {
	if c := compareLineages(r.Lineage, other.Lineage); c != 0 {
		return c
	}
	return r.compareAge(other)
}

// SameBackup says whether two refs, of two stores, are of one backup: those may count its
// epoch otherwise.
func (r Ref) SameBackup(other Ref) bool { return r.backup() == other.backup() }

// backup is the ref without its epoch, to be compared with ==.
func (r Ref) backup() Ref {
	r.Epoch, r.Time = 0, r.Time.UTC().Round(0)
	return r
}

// NewNonce returns a random nonce for a Ref.
func NewNonce() string {
	var b [4]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// Layout turns points into names of objects and back. The zero value has its points at
// the top of the store.
type Layout struct {
	root string // empty, or with a slash at its end
}

// NewLayout returns a layout below root: path elements with slashes between them, or
// nothing for the top of the store. It wraps ErrName if root has empty elements, "."
// or "..", or is too long to leave room.
func NewLayout(root string) (Layout, error) {
	if root == "" {
		return Layout{}, nil
	}
	for e := range strings.SplitSeq(root, "/") {
		if e == "" || e == "." || e == ".." {
			return Layout{}, fmt.Errorf("root %q of a store: %w: give path elements with single slashes between them, such as backups/etcd", root, ErrName)
		}
	}
	if len(root) > maxName/2 {
		return Layout{}, fmt.Errorf("root of a store with %d bytes: %w: give one of at most %d", len(root), ErrName, maxName/2)
	}
	return Layout{root: root + "/"}, nil
}

// Prefix is below what all points lie. It ends with a slash.
func (l Layout) Prefix() string { return l.root + layoutVersion + "/" }

// ClusterPrefix is below what all points of a cluster lie, of every cluster ID. It ends
// with a slash.
func (l Layout) ClusterPrefix(c Cluster) string {
	elements := append(escape(c.Namespace), escape(c.Name)...)
	return l.Prefix() + strings.Join(elements, "/") + "/"
}

// LineagePrefix is below what all points of a lineage lie. It ends with a slash.
func (l Layout) LineagePrefix(lin Lineage) string {
	return fmt.Sprintf("%s%s/e%04d/", l.ClusterPrefix(lin.Cluster), lin.ClusterID, lin.Epoch)
}

// Dir is the point's directory, with a slash at its end. It wraps ErrName if a part of
// ref can't be in a name, or if the name would be longer than every store takes.
func (l Layout) Dir(ref Ref) (string, error) {
	if err := ref.check(); err != nil {
		return "", err
	}
	dir := l.dir(ref)
	if n := len(dir) + maxFile; n > maxName {
		return "", fmt.Errorf("backup of %s: %w: its objects would have names of %d bytes, and %d is what every store takes; choose a shorter root, namespace or name", ref.Cluster, ErrName, n, maxName)
	}
	return dir, nil
}

// Manifest is the name of the point's manifest. Errors are those of Dir.
func (l Layout) Manifest(ref Ref) (string, error) { return l.File(ref, manifestFile) }

// File is the name of an object in the point's directory, such as snapshot.db.zst.
// Beside the errors of Dir, it wraps ErrName if file is not one that a point can have.
func (l Layout) File(ref Ref, file string) (string, error) {
	dir, err := l.Dir(ref)
	if err != nil {
		return "", err
	}
	if !ownFile(file) {
		return "", fmt.Errorf("file %q of a backup: %w: it must begin with %s, %s or %s", file, ErrName, dataPrefix, besidePrefix, proofPrefix)
	}
	return dir + file, nil
}

// Parse reads the name of an object. It is not ok for objects that are not part of a
// point: they are somebody else's, or reserved for later, and are left alone.
func (l Layout) Parse(name string) (ref Ref, file string, ok bool) {
	rest, ok := strings.CutPrefix(name, l.Prefix())
	if !ok {
		return Ref{}, "", false
	}
	elements := strings.Split(rest, "/")
	for _, to := range []*string{&ref.Namespace, &ref.Name} {
		text, used, valid := unescape(elements)
		if !valid {
			return Ref{}, "", false
		}
		*to, elements = text, elements[used:]
	}
	if len(elements) != 5 || elements[2] != fullElement {
		return Ref{}, "", false
	}
	id, err := strconv.ParseUint(elements[0], 16, 64)
	if err != nil {
		return Ref{}, "", false
	}
	epoch, err := strconv.ParseUint(strings.TrimPrefix(elements[1], "e"), 10, 32)
	if err != nil {
		return Ref{}, "", false
	}
	ref.ClusterID, ref.Epoch = ID(id), uint32(epoch)
	if !ref.parseID(elements[3]) || !ownFile(elements[4]) || ref.check() != nil {
		return Ref{}, "", false
	}
	// Numbers can be written in several ways, and one of them is ours.
	if l.dir(ref)+elements[4] != name {
		return Ref{}, "", false
	}
	return ref, elements[4], true
}

// clock is the directory of the object that asks for the store's time.
func (l Layout) clock() string { return l.Prefix() + clockElement + "/" }

func (l Layout) dir(ref Ref) string {
	return l.LineagePrefix(ref.Lineage) + fullElement + "/" + ref.ID() + "/"
}

// parseID reads time, revision and nonce. That they are written as ID writes them is
// for the caller to see.
func (r *Ref) parseID(id string) bool {
	parts := strings.Split(id, "-")
	if len(parts) != 3 || !strings.HasPrefix(parts[1], "r") {
		return false
	}
	at, err := time.Parse(timeFormat, parts[0])
	if err != nil {
		return false
	}
	r.Revision, err = strconv.ParseInt(parts[1][1:], 10, 64)
	if err != nil {
		return false
	}
	r.Time, r.Nonce = at.UTC(), parts[2]
	return true
}

// check says why a point can't have a name.
func (r Ref) check() error {
	var why string
	switch {
	case !utf8.ValidString(r.Namespace) || !utf8.ValidString(r.Name):
		why = "its namespace or name is not UTF-8, and would be another in its manifest"
	case r.Epoch == 0:
		why = "epochs begin at 1"
	case r.Revision < 0:
		why = "its revision is negative"
	case r.Time.Year() < 1 || r.Time.Year() > 9999:
		why = "its year has not four digits"
	case !r.Time.Equal(r.Time.Truncate(time.Second)):
		why = "its time is not in whole seconds"
	case len(r.Nonce) != 8 || !isHex(r.Nonce):
		why = "its nonce is not eight hexadecimal digits"
	default:
		return nil
	}
	return fmt.Errorf("backup of %s: %w: %s", r.Cluster, ErrName, why)
}

// compareAge orders the points of one lineage. Revisions come first: clocks go back,
// revisions of a lineage don't.
func (r Ref) compareAge(other Ref) int {
	switch {
	case r.Revision != other.Revision:
		return cmp.Compare(r.Revision, other.Revision)
	case !r.Time.Equal(other.Time):
		return r.Time.Compare(other.Time)
	}
	return strings.Compare(r.Nonce, other.Nonce)
}

func compareLineages(a, b Lineage) int {
	if c := strings.Compare(a.Namespace, b.Namespace); c != 0 {
		return c
	}
	if c := strings.Compare(a.Name, b.Name); c != 0 {
		return c
	}
	if c := cmp.Compare(a.ClusterID, b.ClusterID); c != 0 {
		return c
	}
	return cmp.Compare(a.Epoch, b.Epoch)
}

// ownFile says whether an object in a point's directory is part of the point. By its
// beginning, so that what a later minor version adds is deleted with the point, and
// what a person put there is not.
func ownFile(file string) bool {
	if len(file) > maxFile || strings.Contains(file, "/") || path.Base(file) != file {
		return false
	}
	for _, p := range []string{dataPrefix, besidePrefix, proofPrefix} {
		if len(file) > len(p) && strings.HasPrefix(file, p) {
			return true
		}
	}
	return false
}

// proofFile is the name of a proof that ended at that time.
func proofFile(at time.Time) string { return proofPrefix + at.UTC().Format(proofFormat) + proofSuffix }

// proofTime reads the name of a proof.
func proofTime(file string) (time.Time, bool) {
	text, ok := strings.CutPrefix(file, proofPrefix)
	if !ok {
		return time.Time{}, false
	}
	text, ok = strings.CutSuffix(text, proofSuffix)
	if !ok {
		return time.Time{}, false
	}
	at, err := time.Parse(proofFormat, text)
	return at.UTC(), err == nil && proofFile(at) == file
}

func isHex(s string) bool {
	for _, c := range s {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
