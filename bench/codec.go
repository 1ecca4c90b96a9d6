package bench

import (
	"errors"

	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // the codec of all other messages
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

// codec is gRPC's own, save for the messages of the commonest requests: those are
// encoded by hand, and of their answers is read what is wanted. A load should cost
// its host as little as it can.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2("proto")} }

// encoded is a request as it goes over the line. Its buffer is used again once the
// request was answered; when it was not, gRPC may still be writing it.
type encoded struct{ wire []byte }

// unread is an answer that nobody looks into.
type unread struct{}

// revisionOf is the revision in the header of an answer.
type revisionOf struct{ revision int64 }

// Marshal encodes a message.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if e, ok := v.(*encoded); ok {
		return mem.BufferSlice{mem.SliceBuffer(e.wire)}, nil
	}
	return c.CodecV2.Marshal(v)
}

// Unmarshal reads a message.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	switch a := v.(type) {
	case *unread:
		return nil
	case *revisionOf:
		return a.read(data.Materialize())
	}
	return c.CodecV2.Unmarshal(data, v)
}

var errHeader = errors.New("an answer of etcd has no header that can be read")

// Numbers of fields.
const (
	fieldHeader       = 1
	fieldRevision     = 3 // of the header
	fieldKey          = 1
	fieldValue        = 2 // of a put
	fieldRangeEnd     = 2 // of a range
	fieldSerializable = 7 // of a range
)

func (a *revisionOf) read(wire []byte) error {
	header, ok := field(wire, fieldHeader)
	if !ok {
		return errHeader
	}
	for len(header) > 0 {
		number, kind, n := protowire.ConsumeTag(header)
		if n < 0 {
			return errHeader
		}
		header = header[n:]
		if number == fieldRevision && kind == protowire.VarintType {
			v, size := protowire.ConsumeVarint(header)
			if size < 0 {
				return errHeader
			}
			a.revision = int64(v) //nolint:gosec // as it was sent
			return nil
		}
		if n = protowire.ConsumeFieldValue(number, kind, header); n < 0 {
			return errHeader
		}
		header = header[n:]
	}
	return errHeader
}

// field finds one that holds bytes.
func field(wire []byte, want protowire.Number) ([]byte, bool) {
	for len(wire) > 0 {
		number, kind, n := protowire.ConsumeTag(wire)
		if n < 0 {
			return nil, false
		}
		wire = wire[n:]
		if number == want && kind == protowire.BytesType {
			v, size := protowire.ConsumeBytes(wire)
			return v, size >= 0
		}
		if n = protowire.ConsumeFieldValue(number, kind, wire); n < 0 {
			return nil, false
		}
		wire = wire[n:]
	}
	return nil, false
}

func appendBytes(wire []byte, number protowire.Number, v []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(wire, number, protowire.BytesType), v)
}

// put encodes a PutRequest.
func (e *encoded) put(key, value []byte) {
	e.wire = appendBytes(appendBytes(e.wire[:0], fieldKey, key), fieldValue, value)
}

// read encodes a RangeRequest; end may be empty.
func (e *encoded) read(key, end []byte, serializable bool) {
	e.wire = appendBytes(e.wire[:0], fieldKey, key)
	if len(end) > 0 {
		e.wire = appendBytes(e.wire, fieldRangeEnd, end)
	}
	if serializable {
		e.wire = protowire.AppendVarint(protowire.AppendTag(e.wire, fieldSerializable, protowire.VarintType), 1)
	}
}
