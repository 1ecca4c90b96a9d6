package chaos

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestListeningSocketsAreReadFromTheKernelsTable(t *testing.T) {
	if !littleEndian {
		t.Skip("the table is one of a little-endian machine")
	}
	table := []byte(`  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:094B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1001 1
   1: 00000000:094C 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1002 1
   2: 0100007F:094B 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 1003 1
   3: 000080FE00000000FF00000001000000:094B 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1004 1
   4: 0000000000000000FFFF00000100007F:094D 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1005 1
garbage
`)
	for _, tc := range []struct {
		addr, want string
		port       uint16
	}{
		{"127.0.0.1", "socket:[1001]", 2379},
		{"127.0.0.2", "", 2379},
		{"10.1.2.3", "socket:[1002]", 2380},
		{"fe80::ff:0:1", "socket:[1004]", 2379},
		{"fe80::ff:0:0:1", "", 2379},
		{"127.0.0.1", "socket:[1005]", 2381},
	} {
		sockets := map[string]bool{}
		listening(sockets, table, netip.MustParseAddr(tc.addr), tc.port)
		if len(sockets) > 1 || tc.want != "" && !sockets[tc.want] || tc.want == "" && len(sockets) != 0 {
			t.Errorf("%s port %d: %v: want %q", tc.addr, tc.port, sockets, tc.want)
		}
	}
}

func TestKeeper(t *testing.T) {
	for cgroup, want := range map[string]string{
		"0::/system.slice/etcd.service\n":                              "systemd's unit etcd.service",
		"3:pids:/\n1:name=systemd:/system.slice/etcd.service\n0::/\n":  "systemd's unit etcd.service",
		"0::/user.slice/user-1000.slice/session-2.scope\n":             "",
		"0::/user.slice/user-1000.slice/user@1000.service/app.slice\n": "",
		"": "",
	} {
		dir := t.TempDir() + "/"
		if err := os.WriteFile(dir+"cgroup", []byte(cgroup), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := keeperOf(dir); got != want {
			t.Errorf("%q: %q: want %q", cgroup, got, want)
		}
	}
	home := t.TempDir() + "/"
	if err := os.Mkdir(home+"cwd", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, "cwd", "member.json"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := keeperOf(home); got != "Quorate's supervisor" {
		t.Errorf("a member of Quorate's: %q", got)
	}
}

func TestOwnAddressesAreReadFromTheKernelsTables(t *testing.T) {
	routes := []byte(`Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 127.0.0.0/8 2 0 2
           |-- 127.0.0.0
              /8 host LOCAL
           |-- 127.0.0.1
              /32 host LOCAL
        |-- 127.255.255.255
           /32 link BROADCAST
           |-- 192.0.2.0
              /24 link UNICAST
           |-- 192.0.2.2
              /32 host LOCAL
garbage
`)
	six := []byte("00000000000000000000000000000001 01 80 10 80       lo\nfe8000000000000000ff000000000001 02 40 20 80     eth0\ngarbage\n\n")
	own := ownAddresses(routes, six)
	for addr, want := range map[string]bool{
		"127.0.0.1": true, "127.9.9.9": true, "192.0.2.2": true, "192.0.2.3": false, "192.0.2.0": false, "8.8.8.8": false,
		"::1": true, "fe80::ff:0:0:1": true, "fe80::1": false,
	} {
		if got := slices.ContainsFunc(own, func(p netip.Prefix) bool { return p.Contains(netip.MustParseAddr(addr)) }); got != want {
			t.Errorf("%s: %v: want %v", addr, got, want)
		}
	}
}
