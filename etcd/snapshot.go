package etcd

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // the codec of all other messages
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

// ErrStranger says that an endpoint is none of the cluster's.
var ErrStranger = errors.New("the cluster has no such endpoint")

// A stream of hundreds of MB is not to wait for acknowledgements, nor to be read a few
// KB at a time.
const (
	streamWindow = 4 << 20
	streamBuffer = 512 << 10
)

// Snapshot streams the member's database, with the SHA-256 of all of it behind it,
// to w: some KB a write. It holds a read transaction of the member's database for as
// long as it lasts, so a slow w makes the member's file grow.
func (o *Observer) Snapshot(ctx context.Context, w io.Writer) error {
	ctx, cancel := context.WithCancel(o.outgoing(ctx))
	defer cancel() // a stream that is not read to its end would hold the transaction
	desc := &grpc.StreamDesc{StreamName: "Snapshot", ServerStreams: true}
	stream, err := o.client.ActiveConnection().NewStream(ctx, desc, pb.Maintenance_Snapshot_FullMethodName, grpc.ForceCodecV2(newStreamCodec()))
	if err == nil {
		err = stream.SendMsg(&pb.SnapshotRequest{})
	}
	if err == nil {
		err = stream.CloseSend()
	}
	if err != nil {
		return o.failed("snapshot of", err)
	}
	for {
		var part snapshotPart
		err := stream.RecvMsg(&part)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return o.failed("snapshot of", err)
		}
		if err = part.write(w); err != nil {
			return fmt.Errorf("snapshot of %s: %w", o.target.Endpoint, err)
		}
	}
}

// Snapshot streams the database of the member at an endpoint that the latest survey
// has found; see Observer.Snapshot. It has a connection of its own.
func (s *Surveyor) Snapshot(ctx context.Context, endpoint string, w io.Writer) (err error) {
	s.mu.Lock()
	l := s.lines[endpoint]
	if l == nil || !slices.Contains(s.endpoints(), endpoint) {
		s.mu.Unlock()
		return fmt.Errorf("snapshot of %s: %w", endpoint, ErrStranger)
	}
	target, token := l.target, s.token()
	s.mu.Unlock()
	o, err := observe(target, grpc.WithInitialWindowSize(streamWindow), grpc.WithInitialConnWindowSize(streamWindow), grpc.WithReadBufferSize(streamBuffer))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	o.UseToken(token)
	err = o.Snapshot(ctx, w)
	user := cmp.Or(s.access.Username, certified(s.access.TLS))
	switch {
	case errors.Is(err, ErrNoUser):
		err = fmt.Errorf("%w: authentication is on, and etcd takes snapshots for users with the role root alone: `etcdctl user add %s --no-password` and `etcdctl user grant-role %s root` make the certificate one of theirs",
			err, user, user)
	case errors.Is(err, ErrDenied) && user != "":
		err = fmt.Errorf("%w: user %s may not take a snapshot, for which etcd wants the role root: grant it with `etcdctl user grant-role %s root`, or name a user who has it",
			err, user, user)
	}
	return err
}

// certified is the name in the client certificate; empty where there is none.
func certified(config *tls.Config) string {
	if config == nil || len(config.Certificates) == 0 {
		return ""
	}
	leaf := config.Certificates[0].Leaf
	if leaf == nil {
		return ""
	}
	return leaf.Subject.CommonName
}

// streamCodec is gRPC's own, save for the parts of a snapshot, whose bytes stay where
// the connection has put them: copying hundreds of MB costs a tenth of the time.
type streamCodec struct{ encoding.CodecV2 }

func newStreamCodec() streamCodec { return streamCodec{encoding.GetCodecV2("proto")} }

// Unmarshal reads a message.
func (c streamCodec) Unmarshal(data mem.BufferSlice, v any) error {
	part, ok := v.(*snapshotPart)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	return part.read(data)
}

// snapshotPart is a SnapshotResponse.
type snapshotPart struct {
	data mem.BufferSlice
	// blob are its bytes, which lie in data.
	blob [][]byte
}

// fieldBlob is the number of SnapshotResponse.blob.
const fieldBlob = 3

var errPart = errors.New("a part of the snapshot is no SnapshotResponse")

// read finds the bytes in a message, which it keeps until they are written.
func (p *snapshotPart) read(data mem.BufferSlice) error {
	r := data.Reader()
	defer func() { _ = r.Close() }() // it never fails
	for r.Remaining() > 0 {
		tag, err := readVarint(r)
		if err != nil {
			return err
		}
		number, kind := protowire.DecodeTag(tag)
		length := uint64(0)
		switch kind {
		case protowire.BytesType:
			length, err = readVarint(r)
		case protowire.VarintType:
			_, err = readVarint(r)
		default:
			err = errPart
		}
		if err != nil {
			return err
		}
		if length > uint64(r.Remaining()) { //nolint:gosec // not negative
			return errPart
		}
		if number == fieldBlob {
			if p.blob, err = r.Peek(int(length), p.blob); err != nil {
				return err
			}
		}
		if _, err = r.Discard(int(length)); err != nil {
			return err
		}
	}
	data.Ref()
	p.data = data
	return nil
}

// readVarint reads a number.
func readVarint(r io.ByteReader) (uint64, error) {
	var v uint64
	for shift := 0; shift < 64; shift += 7 {
		b, err := r.ReadByte()
		if err != nil {
			return 0, errPart
		}
		if v |= uint64(b&0x7f) << shift; b < 0x80 {
			return v, nil
		}
	}
	return 0, errPart
}

// write passes the bytes on, and lets go of them.
func (p *snapshotPart) write(w io.Writer) error {
	defer p.data.Free()
	for _, b := range p.blob {
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	return nil
}
