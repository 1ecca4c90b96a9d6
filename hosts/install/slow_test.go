package install

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// TestLoginThatHangs: a machine whose login works and whose shell says nothing ends the
// look around, with what to look for.
func TestLoginThatHangs(t *testing.T) {
	defer func(d time.Duration) { lookTime = d }(lookTime)
	lookTime = 100 * time.Millisecond
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close() //nolint:errcheck // nothing is left of it
	go func() {
		there, acceptErr := ln.Accept()
		if acceptErr != nil {
			return
		}
		config := &ssh.ServerConfig{NoClientAuth: true}
		config.AddHostKey(signer)
		_, channels, requests, hello := ssh.NewServerConn(there, config)
		if hello != nil {
			return
		}
		go ssh.DiscardRequests(requests)
		for c := range channels {
			_, in, refused := c.Accept()
			if refused != nil {
				return
			}
			for r := range in {
				_ = r.Reply(true, nil) // and then nothing
			}
		}
	}()
	here, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close() //nolint:errcheck // it is broken off
	client, channels, requests, err := ssh.NewClientConn(here, "db1", &ssh.ClientConfig{User: "ops", HostKeyCallback: ssh.FixedHostKey(signer.PublicKey())})
	if err != nil {
		t.Fatal(err)
	}
	c := &conn{client: ssh.NewClient(client, channels, requests), target: Target{User: "ops", Host: "db1"}}
	if _, err = c.gather(t.Context(), "/var/lib/quorate"); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "`ssh ops@db1 true` hangs") {
		t.Errorf("%v", err)
	}
}
