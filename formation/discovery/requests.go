package discovery

import (
	"bytes"
	"encoding/hex"
	"net"
	"net/url"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// root is below which etcd's discovery looks.
const root = "/_etcd/registry/"

const (
	maxToken = 128
	maxValue = 2048
	maxURLs  = 16
)

// place is what a request is about.
type place struct {
	token string
	// size: the size alone; else the members, or with an ID one of them.
	size bool
	id   string
}

// refused is the answer to all that a founding member does not ask.
func refused() error {
	return status.Error(codes.PermissionDenied, "this is a discovery service: it answers nothing but what a founding member of a cluster asks with its discovery token")
}

// parseKey understands the keys of a meeting.
func parseKey(key []byte) (place, bool) {
	rest, ok := strings.CutPrefix(string(key), root)
	if !ok {
		return place{}, false
	}
	token, rest, ok := strings.Cut(rest, "/")
	if !ok || !goodToken(token) {
		return place{}, false
	}
	switch id, isMember := strings.CutPrefix(rest, "members/"); {
	case rest == "_config/size":
		return place{token: token, size: true}, true
	case rest == "members":
		return place{token: token}, true
	case isMember && goodID(id):
		return place{token: token, id: id}, true
	}
	return place{}, false
}

func goodToken(token string) bool {
	if token == "" || len(token) > maxToken || token == "." || token == ".." {
		return false
	}
	for _, c := range []byte(token) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return true
}

func goodID(id string) bool {
	if id == "" || len(id) > 16 || strings.ToLower(id) != id {
		return false
	}
	_, err := strconv.ParseUint(id, 16, 64)
	return err == nil
}

// parseRange lets two ranges pass: the size, and all members of one token. A range
// that reaches any further could show other tokens.
func parseRange(key, end []byte) (place, bool) {
	p, ok := parseKey(key)
	if !ok {
		return p, false
	}
	switch {
	case p.size:
		return p, len(end) == 0
	case p.id == "":
		return p, bytes.Equal(end, prefixEnd(key))
	}
	return p, false
}

// prefixEnd is the end of the range of all keys that begin with key, which ends in a
// letter.
func prefixEnd(key []byte) []byte {
	end := bytes.Clone(key)
	end[len(end)-1]++
	return end
}

// checkRange refuses what a founding member's request would not have.
func checkRange(r *pb.RangeRequest) (place, error) {
	p, ok := parseRange(r.GetKey(), r.GetRangeEnd())
	if !ok || r.GetRevision() != 0 {
		return p, refused()
	}
	return p, nil
}

// checkPut lets a member register itself.
func checkPut(r *pb.PutRequest) (place, error) {
	p, ok := parseKey(r.GetKey())
	if !ok || p.id == "" || r.GetLease() != 0 || r.GetPrevKv() || r.GetIgnoreLease() || r.GetIgnoreValue() {
		return p, refused()
	}
	if !goodValue(string(r.GetValue())) {
		return p, status.Errorf(codes.InvalidArgument, "a member registers as NAME=PEERURL, such as db1=https://10.0.0.1:2380, in at most %d bytes", maxValue)
	}
	return p, nil
}

// goodValue understands "name=url,name=url": one name, all its peer URLs.
func goodValue(value string) bool {
	if len(value) > maxValue {
		return false
	}
	name := ""
	parts := strings.Split(value, ",")
	if len(parts) > maxURLs {
		return false
	}
	for _, part := range parts {
		n, raw, ok := strings.Cut(part, "=")
		if !ok || n == "" || name != "" && n != name || strings.ContainsFunc(n, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return false
		}
		name = n
		u, err := url.Parse(raw)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Path != "" || u.User != nil || u.RawQuery != "" {
			return false
		}
		if _, _, err := net.SplitHostPort(u.Host); err != nil {
			return false
		}
	}
	return true
}

// short names a token in logs.
func short(token string) string {
	name := nameOf(token)
	return name[:len(namePrefix)+min(8, hex.EncodedLen(4))]
}
