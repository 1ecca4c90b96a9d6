package catalog

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

const (
	// formatMajor is what a reader must know. Fields that an older reader may pass over
	// raise formatMinor instead.
	formatMajor = 1
	formatMinor = 0

	pointKind = "quorate-backup-point"
	proofKind = "quorate-backup-proof"

	// The checksum is the last field, written just so in every version of the format.
	// It is of the bytes before it, and not of the values: an older Quorate can check
	// fields that it doesn't know.
	sumBefore = ",\n  \"checksum\": \"sha256:"
	sumAfter  = "\"\n}\n"

	// maxDocument is far more than a manifest or a proof has. What is larger is not
	// even fetched.
	maxDocument = 1 << 20
)

// ID is an etcd cluster's or member's ID: 16 hexadecimal digits, also in JSON, since
// many programs that read JSON round numbers above 2^53.
type ID uint64

// String is 16 hexadecimal digits.
func (id ID) String() string { return fmt.Sprintf("%016x", uint64(id)) }

// MarshalText is String.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads what MarshalText writes, and nothing else.
func (id *ID) UnmarshalText(text []byte) error {
	v, err := strconv.ParseUint(string(text), 16, 64)
	if err != nil || ID(v).String() != string(text) {
		return fmt.Errorf("%q is not an ID of 16 hexadecimal digits", text)
	}
	*id = ID(v)
	return nil
}

// PointFormat is the format of the manifests that this version writes.
var PointFormat = formatOf(pointKind)

// ProofFormat is that of the proofs.
var ProofFormat = formatOf(proofKind)

// formatOf is what a document of this version says of itself.
func formatOf(kind string) string { return fmt.Sprintf("%s/%d.%d", kind, formatMajor, formatMinor) }

// encode writes a document with its checksum. What it is of must be a struct with at
// least one field.
func encode(v any) ([]byte, error) {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return nil, err
	}
	text = bytes.TrimSuffix(text, []byte("\n}"))
	sum := sha256.Sum256(text)
	return fmt.Appendf(text, "%s%x%s", sumBefore, sum, sumAfter), nil
}

// decode reads a document of a kind into v. It wraps ErrDamaged when it is not as it
// was written, and ErrNewer when this Quorate is too old for it.
func decode(data []byte, kind string, v any) error {
	intact := checkSum(data)
	var head struct {
		Format string `json:"format"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return fmt.Errorf("%w: not JSON: %w", ErrDamaged, err)
	}
	name, number, _ := strings.Cut(head.Format, "/")
	if name != kind {
		return fmt.Errorf("%w: its format is %q, not %s", ErrDamaged, head.Format, kind)
	}
	majorText, minorText, _ := strings.Cut(number, ".")
	major, err := strconv.ParseUint(majorText, 10, 16)
	if _, minorErr := strconv.ParseUint(minorText, 10, 16); err != nil || minorErr != nil || major == 0 {
		return fmt.Errorf("%w: format %q has no version such as %d.%d", ErrDamaged, head.Format, formatMajor, formatMinor)
	}
	// Before the checksum: should a later major have another, its points are still not
	// taken for damaged ones, which may be deleted.
	if major > formatMajor {
		return fmt.Errorf("%w: it has format %s, and this one reads %s/%d; upgrade Quorate to use or delete it", ErrNewer, head.Format, kind, formatMajor)
	}
	if intact != nil {
		return intact
	}
	if err = json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return nil
}

// checkSum says whether the bytes are those that were written.
func checkSum(data []byte) error {
	text, ok := bytes.CutSuffix(data, []byte(sumAfter))
	at := len(text) - 2*sha256.Size
	if !ok || at < 0 {
		return fmt.Errorf("%w: cut off, or without a checksum", ErrDamaged)
	}
	body, ok := bytes.CutSuffix(text[:at], []byte(sumBefore))
	if !ok {
		return fmt.Errorf("%w: without a checksum at its end", ErrDamaged)
	}
	sum := sha256.Sum256(body)
	if want := hex.EncodeToString(sum[:]); want != string(text[at:]) {
		return fmt.Errorf("%w: its bytes have SHA-256 %s, and it was written with %s", ErrDamaged, want, text[at:])
	}
	return nil
}
