package backup

import (
	"errors"
	"fmt"
	"io"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"github.com/quorate/quorate/backup/catalog"
)

const (
	// maxWindow bounds what an object may ask a reader to hold, in bytes.
	maxWindow = 64 << 20
	// packWindow is how far back matches are looked for, in bytes. The fastest level
	// remembers few places, hardly any of them further back than fastWindow, which stays
	// in a core's cache.
	packWindow = 4 << 20
	fastWindow = 1 << 20
)

var (
	// ErrNoIdentity says that the backup is encrypted for others.
	ErrNoIdentity = errors.New("no identity opens the backup")
	// ErrPacked says that what is stored can't be unpacked.
	ErrPacked = errors.New("the stored backup is damaged")
)

// packing is how a database becomes what is stored.
type packing struct {
	level      zstd.EncoderLevel
	recipients []age.Recipient
}

// write reads a database to its end and writes what is stored of it.
func (p packing) write(w io.Writer, from io.Reader) (err error) {
	if len(p.recipients) > 0 {
		sealed, sealErr := age.Encrypt(w, p.recipients...)
		if sealErr != nil {
			return fmt.Errorf("encrypt the backup: %w", sealErr)
		}
		if err = p.compress(sealed, from); err != nil {
			return err
		}
		return sealed.Close()
	}
	return p.compress(w, from)
}

func (p packing) compress(w io.Writer, from io.Reader) error {
	window := packWindow
	if p.level == zstd.SpeedFastest {
		window = fastWindow
	}
	// Two blocks at a time: one is searched for matches while the other is written.
	enc, err := zstd.NewWriter(w, zstd.WithEncoderLevel(p.level), zstd.WithEncoderConcurrency(2), zstd.WithWindowSize(window), zstd.WithEncoderCRC(true))
	if err != nil {
		return fmt.Errorf("compress the backup: %w", err)
	}
	if _, err = io.Copy(enc, from); err != nil {
		return errors.Join(err, enc.Close())
	}
	return enc.Close()
}

// unpack returns the database in what is stored; it closes stored.
func unpack(stored io.ReadCloser, p *catalog.Point, identities []age.Identity) (io.ReadCloser, error) {
	from := &source{Reader: stored}
	var r io.Reader = from
	switch {
	case p.Encryption == nil:
	case p.Encryption.Method == catalog.EncryptionAge:
		opened, err := age.Decrypt(r, identities...)
		if noMatch := (*age.NoIdentityMatchError)(nil); errors.As(err, &noMatch) || len(identities) == 0 {
			return nil, errors.Join(fmt.Errorf("%w: it was encrypted with age: give the identity file of one of its recipients", ErrNoIdentity), stored.Close())
		}
		if err != nil {
			return nil, errors.Join(from.blame(err), stored.Close())
		}
		r = opened
	default:
		return nil, errors.Join(fmt.Errorf("%w: encryption %q is unknown: a newer Quorate may know it", ErrPacked, p.Encryption.Method), stored.Close())
	}
	switch p.Compression {
	case catalog.CompressionNone:
		return &unpacked{Reader: r, stored: from, close: stored.Close}, nil
	case catalog.CompressionZstd:
		dec, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(2), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%w: %w", ErrPacked, err), stored.Close())
		}
		return &unpacked{Reader: dec, stored: from, close: func() error {
			dec.Close()
			return stored.Close()
		}}, nil
	default:
		return nil, errors.Join(fmt.Errorf("%w: compression %q is unknown: a newer Quorate may know it", ErrPacked, p.Compression), stored.Close())
	}
}

type unpacked struct {
	io.Reader
	stored *source
	close  func() error
}

// source remembers what went wrong while the stored bytes were read.
type source struct {
	io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// blame says whether an error of unpacking is damage, or the store's.
func (s *source) blame(err error) error {
	if s.err != nil {
		return s.err
	}
	return fmt.Errorf("%w: %w", ErrPacked, err)
}

// Read tells damage from a store that fails.
func (u *unpacked) Read(p []byte) (int, error) {
	n, err := u.Reader.Read(p)
	if err == nil || errors.Is(err, io.EOF) {
		return n, err
	}
	return n, u.stored.blame(err)
}

func (u *unpacked) Close() error { return u.close() }
