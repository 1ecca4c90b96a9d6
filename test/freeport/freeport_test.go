package freeport_test

import (
	"net"
	"strconv"
	"testing"

	"github.com/quorate/quorate/test/freeport"
)

func TestAddress(t *testing.T) {
	seen := map[string]bool{}
	for range 300 {
		a := freeport.Address(t)
		if seen[a] {
			t.Fatalf("%s was given twice", a)
		}
		seen[a] = true
		_, port, err := net.SplitHostPort(a)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := strconv.Atoi(port); err != nil || n >= 32768 {
			t.Errorf("port %s is one that connections get", port)
		}
	}
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", freeport.Address(t))
	if err != nil {
		t.Fatal(err)
	}
	if err = ln.Close(); err != nil {
		t.Fatal(err)
	}
}
