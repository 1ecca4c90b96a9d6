package install

import (
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"fmt"
	"io"
	"os"
)

// Binary is the program that is put on machines.
type Binary struct {
	// Path of the file here.
	Path string
	// Platform it is for, such as linux/amd64.
	Platform string
	// SHA256 of it, in hex.
	SHA256 string
	// Size in bytes.
	Size int64
	// Version it says it has; empty where it can't be run here.
	Version string
}

// OpenBinary reads what a program is. Version is the caller's to know.
func OpenBinary(path string) (b Binary, err error) {
	b.Path = path
	fail := func(err error) (Binary, error) {
		return Binary{}, fmt.Errorf("the program to install: %w: name another with --binary", err)
	}
	if b.Platform, err = platformOf(path); err != nil {
		return fail(err)
	}
	f, err := os.Open(path) //nolint:gosec // the person names the file, or it is this program
	if err != nil {
		return fail(err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	sum := sha256.New()
	if b.Size, err = io.Copy(sum, f); err != nil {
		return fail(err)
	}
	b.SHA256 = hex.EncodeToString(sum.Sum(nil))
	return b, nil
}

// platformOf reads for which platform a program was built.
func platformOf(path string) (string, error) {
	f, err := elf.Open(path)
	if err != nil {
		return "", fmt.Errorf("%s is no program for Linux: %w", path, err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	switch f.Machine {
	case elf.EM_X86_64:
		return "linux/amd64", nil
	case elf.EM_AARCH64:
		return "linux/arm64", nil
	default:
		return "", fmt.Errorf("%s is for %s, and agents run on linux/amd64 and linux/arm64", path, f.Machine)
	}
}
