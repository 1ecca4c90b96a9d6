package bench

import (
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// TestCodec: what is encoded by hand is what etcd's own messages are.
func TestCodec(t *testing.T) {
	c := newCodec()
	for _, tc := range []struct {
		by   func(*encoded)
		want proto.Message
	}{
		{func(e *encoded) { e.put([]byte("key"), []byte(strings.Repeat("v", 300))) }, &pb.PutRequest{Key: []byte("key"), Value: []byte(strings.Repeat("v", 300))}},
		{func(e *encoded) { e.read([]byte("key"), nil, false) }, &pb.RangeRequest{Key: []byte("key")}},
		{func(e *encoded) { e.read([]byte("key"), []byte("kez"), true) }, &pb.RangeRequest{Key: []byte("key"), RangeEnd: []byte("kez"), Serializable: true}},
	} {
		var e encoded
		for range 2 { // the buffer is used again
			tc.by(&e)
			wire, err := c.Marshal(&e)
			if err != nil {
				t.Fatal(err)
			}
			got := tc.want.ProtoReflect().New().Interface()
			if err = proto.Unmarshal(wire.Materialize(), got); err != nil || !proto.Equal(got, tc.want) {
				t.Errorf("got %v, want %v: %v", got, tc.want, err)
			}
		}
	}
	answer := &pb.PutResponse{
		Header: &pb.ResponseHeader{ClusterId: 1 << 63, MemberId: 77, Revision: 123456789, RaftTerm: 5}, PrevKv: nil,
	}
	raw, err := proto.Marshal(answer)
	if err != nil {
		t.Fatal(err)
	}
	data := mem.BufferSlice{mem.SliceBuffer(raw[:5]), mem.SliceBuffer(raw[5:])}
	var r revisionOf
	if err = c.Unmarshal(data, &r); err != nil || r.revision != 123456789 {
		t.Errorf("revision %d, %v", r.revision, err)
	}
	if err = c.Unmarshal(data, &unread{}); err != nil {
		t.Error(err)
	}
	var again pb.PutResponse
	if err = c.Unmarshal(data, &again); err != nil || !proto.Equal(&again, answer) {
		t.Errorf("%v %v", &again, err)
	}
	for n := range raw {
		if err = c.Unmarshal(mem.BufferSlice{mem.SliceBuffer(raw[:n])}, &r); err == nil && n < 20 {
			t.Errorf("an answer cut after %d bytes is read", n)
		}
	}
}
