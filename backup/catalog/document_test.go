package catalog_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"github.com/quorate/quorate/backup/catalog"
)

// sealed is a document with a right checksum, made without the package.
func sealed(body string) []byte {
	return fmt.Appendf(nil, "%s,\n  \"checksum\": \"sha256:%x\"\n}\n", body, sha256.Sum256([]byte(body)))
}

// body is a document without its checksum.
func body(data []byte) string {
	return string(data[:strings.LastIndex(string(data), ",\n  \"checksum\"")])
}

func TestManifest(t *testing.T) {
	p := point(hourly(prod, 1))
	until := noon.AddDate(0, 1, 0)
	p.LockedUntil = &until
	p.Chain = &catalog.Chain{ID: "c1"}
	data, err := catalog.EncodePoint(p)
	require.NoError(t, err)
	require.Contains(t, string(data), `"clusterID": "cdf818194e3a8c32"`)
	got, err := catalog.DecodePoint(data)
	require.NoError(t, err)
	p.Format = "quorate-backup-point/1.0"
	require.Empty(t, cmp.Diff(&p, got))
	require.Equal(t, hourly(prod, 1), got.Ref())
	require.Equal(t, data, sealed(body(data)))
}

func TestProofDocument(t *testing.T) {
	p := proof(hourly(prod, 1), noon.Add(5), catalog.ResultFailed)
	data, err := catalog.EncodeProof(p)
	require.NoError(t, err)
	got, err := catalog.DecodeProof(data)
	require.NoError(t, err)
	p.Format = "quorate-backup-proof/1.0"
	require.Empty(t, cmp.Diff(&p, got))
	_, err = catalog.DecodePoint(data)
	require.ErrorIs(t, err, catalog.ErrDamaged)
	require.ErrorContains(t, err, `its format is "quorate-backup-proof/1.0", not quorate-backup-point`)
}

func TestLaterFormats(t *testing.T) {
	p := point(hourly(prod, 1))
	data, err := catalog.EncodePoint(p)
	require.NoError(t, err)
	text := body(data)

	later := strings.Replace(text, `point/1.0"`, `point/1.7", "shards": [1, {"a": null}]`, 1)
	got, err := catalog.DecodePoint(sealed(later))
	require.NoError(t, err)
	require.Equal(t, p.Revision, got.Revision)

	newer := strings.Replace(text, "point/1.0", "point/12.0", 1)
	_, err = catalog.DecodePoint(sealed(newer))
	require.ErrorIs(t, err, catalog.ErrNewer)
	require.ErrorContains(t, err, "it has format quorate-backup-point/12.0, and this one reads quorate-backup-point/1; upgrade Quorate")

	for _, format := range []string{"", "/", "quorate-backup-point", "quorate-backup-point/", "quorate-backup-point/0.1", "quorate-backup-point/1", "quorate-backup-point/-2.0", "quorate-backup-point/99999999.0", "quorate-backup-points/2.0"} {
		_, err = catalog.DecodePoint(sealed(strings.Replace(text, "quorate-backup-point/1.0", format, 1)))
		require.ErrorIs(t, err, catalog.ErrDamaged, format)
	}
}

// TestBitRot flips each bit of a manifest and of a proof, and cuts them off at each byte.
func TestBitRot(t *testing.T) {
	ref := hourly(prod, 1)
	manifest, err := catalog.EncodePoint(point(ref))
	require.NoError(t, err)
	verified, err := catalog.EncodeProof(proof(ref, noon, catalog.Verified))
	require.NoError(t, err)
	for name, tc := range map[string]struct {
		data   []byte
		decode func([]byte) error
	}{
		"manifest": {manifest, func(b []byte) error { _, err := catalog.DecodePoint(b); return err }},
		"proof":    {verified, func(b []byte) error { _, err := catalog.DecodeProof(b); return err }},
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, tc.decode(tc.data))
			newer := 0
			for i := range tc.data {
				require.ErrorIs(t, tc.decode(tc.data[:i]), catalog.ErrDamaged)
				for bit := range 8 {
					tc.data[i] ^= 1 << bit
					err := tc.decode(tc.data)
					if errors.Is(err, catalog.ErrNewer) {
						newer++ // the one digit of the major version
					} else {
						require.ErrorIs(t, err, catalog.ErrDamaged, "byte %d, bit %d", i, bit)
					}
					tc.data[i] ^= 1 << bit
				}
			}
			require.LessOrEqual(t, newer, 3)
		})
	}
}

func TestIncompleteDocuments(t *testing.T) {
	for why, change := range map[string]func(*catalog.Point){
		"epochs begin at 1": func(p *catalog.Point) { p.Epoch = 0 },
		"its object":        func(p *catalog.Point) { p.Object = "../../prod-eu/snapshot.db" },
		"its sizes":         func(p *catalog.Point) { p.StoredSize = 0 },
		"SHA-256":           func(p *catalog.Point) { p.DBSHA256 = "" },
		"compressed":        func(p *catalog.Point) { p.Compression = "" },
		"counts":            func(p *catalog.Point) { p.Counts.Keys = -1 },
		"nonce":             func(p *catalog.Point) { p.Nonce = "" },
	} {
		p := point(hourly(prod, 1))
		change(&p)
		_, err := catalog.EncodePoint(p)
		require.ErrorIs(t, err, catalog.ErrName)
		require.ErrorContains(t, err, why)
	}
	for why, change := range map[string]func(*catalog.Proof){
		"its result":       func(p *catalog.Proof) { p.Result = "verified" },
		"without a reason": func(p *catalog.Proof) { p.Result = catalog.ResultFailed },
		"SHA-256":          func(p *catalog.Proof) { p.StoredSHA256 = "" },
		"it ended":         func(p *catalog.Proof) { p.Ended = time.Time{}.AddDate(-10, 0, 0) },
		"the point":        func(p *catalog.Proof) { p.Point = "x" },
	} {
		p := proof(hourly(prod, 1), noon, catalog.Verified)
		change(&p)
		_, err := catalog.EncodeProof(p)
		require.ErrorIs(t, err, catalog.ErrName)
		require.ErrorContains(t, err, why)
	}
}

func FuzzDecodePoint(f *testing.F) {
	data, err := catalog.EncodePoint(point(hourly(prod, 1)))
	require.NoError(f, err)
	f.Add(body(data))
	f.Add(strings.Replace(body(data), "1.0", "2.0", 1))
	f.Add("{}")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		// With and without a right checksum, since chance finds none.
		for _, data := range [][]byte{[]byte(text), sealed(text)} {
			p, err := catalog.DecodePoint(data)
			if err != nil {
				require.True(t, errors.Is(err, catalog.ErrDamaged) || errors.Is(err, catalog.ErrNewer), err)
				continue
			}
			again, err := catalog.EncodePoint(*p)
			require.NoError(t, err)
			back, err := catalog.DecodePoint(again)
			require.NoError(t, err)
			p.Format = back.Format
			require.Empty(t, cmp.Diff(p, back))
		}
	})
}

func FuzzDecodeProof(f *testing.F) {
	data, err := catalog.EncodeProof(proof(hourly(prod, 1), noon, catalog.Verified))
	require.NoError(f, err)
	f.Add(body(data))
	f.Add("[]")
	f.Fuzz(func(t *testing.T, text string) {
		for _, data := range [][]byte{[]byte(text), sealed(text)} {
			p, err := catalog.DecodeProof(data)
			if err != nil {
				require.True(t, errors.Is(err, catalog.ErrDamaged) || errors.Is(err, catalog.ErrNewer), err)
				continue
			}
			_, err = catalog.EncodeProof(*p)
			require.NoError(t, err)
		}
	})
}
