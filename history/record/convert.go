package record

import (
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/quorate/quorate/history"
)

func bytesOf(s string) []byte {
	if s == "" {
		return nil
	}
	return []byte(s)
}

func putRequest(q *history.Request) *pb.PutRequest {
	return &pb.PutRequest{Key: []byte(q.Key), Value: bytesOf(q.Value), Lease: q.Lease, PrevKv: q.PrevKV}
}

func deleteRequest(q *history.Request) *pb.DeleteRangeRequest {
	return &pb.DeleteRangeRequest{Key: []byte(q.Key), RangeEnd: bytesOf(q.End), PrevKv: q.PrevKV}
}

func rangeRequest(q *history.Request) *pb.RangeRequest {
	return &pb.RangeRequest{Key: []byte(q.Key), RangeEnd: bytesOf(q.End), Limit: q.Limit, Revision: q.Revision}
}

func requests(list []history.Request) ([]*pb.RequestOp, error) {
	ops := make([]*pb.RequestOp, 0, len(list))
	for i := range list {
		switch q := &list[i]; q.Kind {
		case history.Put:
			ops = append(ops, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: putRequest(q)}})
		case history.Delete:
			ops = append(ops, &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: deleteRequest(q)}})
		case history.Range:
			ops = append(ops, &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: rangeRequest(q)}})
		default:
			return nil, fmt.Errorf("%w: %q within a transaction", ErrOperation, q.Kind)
		}
	}
	return ops, nil
}

func compare(c *history.Condition) (*pb.Compare, error) {
	out := &pb.Compare{Key: []byte(c.Key)}
	switch c.Op {
	case "=":
		out.Result = pb.Compare_EQUAL
	case "!=":
		out.Result = pb.Compare_NOT_EQUAL
	case "<":
		out.Result = pb.Compare_LESS
	case ">":
		out.Result = pb.Compare_GREATER
	default:
		return nil, fmt.Errorf("%w: a condition with %q", ErrOperation, c.Op)
	}
	switch c.Field {
	case history.FieldValue:
		out.Target, out.TargetUnion = pb.Compare_VALUE, &pb.Compare_Value{Value: []byte(c.Value)}
	case history.FieldVersion:
		out.Target, out.TargetUnion = pb.Compare_VERSION, &pb.Compare_Version{Version: c.Number}
	case history.FieldCreate:
		out.Target, out.TargetUnion = pb.Compare_CREATE, &pb.Compare_CreateRevision{CreateRevision: c.Number}
	case history.FieldMod:
		out.Target, out.TargetUnion = pb.Compare_MOD, &pb.Compare_ModRevision{ModRevision: c.Number}
	case history.FieldLease:
		out.Target, out.TargetUnion = pb.Compare_LEASE, &pb.Compare_Lease{Lease: c.Number}
	default:
		return nil, fmt.Errorf("%w: a condition on %q", ErrOperation, c.Field)
	}
	return out, nil
}

func putResult(r *pb.PutResponse) history.Result {
	if prev := r.GetPrevKv(); prev != nil {
		return history.Result{KVs: []history.KeyValue{keyValue(prev)}}
	}
	return history.Result{}
}

func deleteResult(r *pb.DeleteRangeResponse) history.Result {
	return history.Result{KVs: keyValues(r.GetPrevKvs()), Deleted: r.GetDeleted()}
}

func rangeResult(r *pb.RangeResponse) history.Result {
	return history.Result{KVs: keyValues(r.GetKvs()), Count: r.GetCount(), More: r.GetMore()}
}

func keyValues(list []*mvccpb.KeyValue) []history.KeyValue {
	if len(list) == 0 {
		return nil
	}
	out := make([]history.KeyValue, 0, len(list))
	for _, kv := range list {
		out = append(out, keyValue(kv))
	}
	return out
}

func keyValue(kv *mvccpb.KeyValue) history.KeyValue {
	return history.KeyValue{
		Key: string(kv.GetKey()), Value: string(kv.GetValue()), Version: kv.GetVersion(),
		CreateRevision: kv.GetCreateRevision(), ModRevision: kv.GetModRevision(), Lease: kv.GetLease(),
	}
}
