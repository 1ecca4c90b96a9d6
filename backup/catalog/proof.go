package catalog

import (
	"errors"
	"fmt"
	"time"
)

// Result is what a proof found.
type Result string

// The results.
const (
	Verified Result = "Verified"
	// ResultFailed: the backup is not what its manifest says. A proof that could not be
	// carried out, for want of disk or a store that is away, says nothing about the
	// backup and must not be written.
	ResultFailed Result = "Failed"
)

// Proof is what came of restoring a point. Proofs are written once and never changed; a
// point may have any number of them, and the newest counts.
type Proof struct {
	// Format is quorate-backup-proof/<major>.<minor>. EncodeProof sets it.
	Format string `json:"format"`

	// Point is the ID of the point, StoredSHA256 of its data as its manifest has it: a
	// proof that was copied to another point proves nothing.
	Point        string `json:"point"`
	StoredSHA256 string `json:"storedSHA256"`

	Result Result `json:"result"`
	// Reason says what differs, with figures, when Result is Failed.
	Reason string `json:"reason,omitempty"`

	// Started and Ended are the begin and end of the proof. Ended is the time in its
	// name, by which proofs are ordered.
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended"`

	// Counts and HashKV are what the restored etcd said; zero when it did not get there.
	Counts Counts `json:"counts"`
	HashKV HashKV `json:"hashKV"`

	Durations ProofDurations `json:"durations"`
	// Bytes were downloaded, PeakMemory is of the process that proved, in bytes too.
	Bytes      int64 `json:"bytes"`
	PeakMemory int64 `json:"peakMemory"`

	// EtcdVersion is what it was restored with, Where the host that did it, Tool the
	// version of Quorate.
	EtcdVersion string `json:"etcdVersion"`
	Where       string `json:"where"`
	Tool        string `json:"tool"`
}

// ProofDurations are the parts of a proof, in seconds.
type ProofDurations struct {
	Download float64 `json:"download"`
	Restore  float64 `json:"restore"`
	Start    float64 `json:"start"`
	Hash     float64 `json:"hash"`
}

// EncodeProof writes a proof, with its format and checksum. It wraps ErrName if a field
// that readers need is missing.
func EncodeProof(p Proof) ([]byte, error) {
	p.Format = formatOf(proofKind)
	if err := p.check(); err != nil {
		return nil, fmt.Errorf("proof of %s: %w: %w", p.Point, ErrName, err)
	}
	return encode(p)
}

// DecodeProof reads a proof. Fields it doesn't know are passed over. It wraps
// ErrDamaged, or ErrNewer for a format with a newer major version.
func DecodeProof(data []byte) (*Proof, error) {
	var p Proof
	if err := decode(data, proofKind, &p); err != nil {
		return nil, err
	}
	if err := p.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return &p, nil
}

func (p *Proof) check() error {
	switch {
	case p.Result != Verified && p.Result != ResultFailed:
		return fmt.Errorf("its result is %q, neither %s nor %s", p.Result, Verified, ResultFailed)
	case p.Result == ResultFailed && p.Reason == "":
		return errors.New("it failed without a reason")
	case !isSHA256(p.StoredSHA256):
		return fmt.Errorf("the SHA-256 of what it proved is %q", p.StoredSHA256)
	case p.Ended.Year() < 1 || p.Ended.Year() > 9999:
		return fmt.Errorf("it ended at %v", p.Ended)
	}
	var ref Ref
	if !ref.parseID(p.Point) || ref.ID() != p.Point {
		return fmt.Errorf("the point it proved is %q", p.Point)
	}
	return nil
}
