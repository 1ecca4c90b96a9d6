// Package freeport finds ports for tests that start servers of their own.
//
// To ask the kernel for a free port, and to give it back before the server takes it,
// fails now and then: in between any connection on the machine may get it. These
// ports lie below the range that connections get theirs from, and nobody else who
// asks here is given the same one while the test runs, be it in another process.
package freeport

import (
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// The ports: below what Linux gives to connections (32768 to 60999), above etcd's own
// and those that `quorate up` begins at.
const (
	first = 15000
	last  = 32000
)

// Address is 127.0.0.1 with a port that nobody listens on.
func Address(tb testing.TB) string {
	tb.Helper()
	return net.JoinHostPort("127.0.0.1", Port(tb))
}

// Port is a port that nobody listens on, the test's until it ends.
func Port(tb testing.TB) string {
	tb.Helper()
	dir := filepath.Join(os.TempDir(), "quorate-test-ports")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		tb.Fatal(err)
	}
	for range 1000 {
		port := strconv.Itoa(first + rand.IntN(last-first))
		unlock, err := claim(filepath.Join(dir, port))
		if errors.Is(err, unix.EWOULDBLOCK) {
			continue
		}
		if err != nil {
			tb.Fatal(err)
		}
		ln, err := (&net.ListenConfig{}).Listen(tb.Context(), "tcp", ":"+port)
		if err == nil {
			err = ln.Close()
		}
		if err != nil {
			unlock()
			continue
		}
		tb.Cleanup(unlock)
		return port
	}
	tb.Fatal("no port is free")
	return ""
}

// claim holds a file locked; the kernel lets go of it when the process ends.
func claim(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { _ = f.Close() }, nil // closing lets go of it
}
