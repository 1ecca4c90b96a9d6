package server

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
)

// snapshotPiece is what is passed on of a snapshot at once, in bytes.
const snapshotPiece = 256 << 10

// memberSnapshot sends the backup that a member is to be formed from, to the agent of
// its host. Whatever goes wrong once it has begun breaks the connection: nothing that
// ends well is shorter than the snapshot.
func (s *Server) memberSnapshot(w *response, r *http.Request, c caller) (err error) {
	key, err := pathKey(r, v1alpha1.KindMember)
	if err != nil {
		return err
	}
	m, err := s.memberOf(r.Context(), c, key)
	if err != nil {
		return err
	}
	if why := needsNoData(m); why != "" {
		return fmt.Errorf("the backup for member %s: %w: %s", key, store.ErrConflict, why)
	}
	if s.opts.RestoreData == nil {
		return unavailable("this server has no way to backups: ask one that takes them")
	}
	ctx, cancel := streamContext(r.Context())
	defer cancel()
	w.endless()
	body, size, err := s.opts.RestoreData(ctx, m)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }() // its end was read, or the connection is broken
	w.Header().Set("Content-Type", "application/octet-stream")
	if size > 0 {
		w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	}
	w.WriteHeader(http.StatusOK)
	if err = w.flush(); err != nil {
		return err
	}
	sent, err := pass(ctx, w, body)
	if err == nil && size > 0 && sent != size {
		err = fmt.Errorf("it has %d bytes in place of %d", sent, size)
	}
	if err == nil {
		return nil
	}
	s.log.WarnContext(ctx, "the backup for a member broke off", slog.String("member", key.String()), slog.Int64("sent", sent), slog.Any("error", err))
	panic(http.ErrAbortHandler) //nolint:forbidigo // how net/http has a handler break the connection
}

// pass copies in to w until its end, or that of ctx.
func pass(ctx context.Context, w io.Writer, in io.Reader) (sent int64, err error) {
	buf := make([]byte, snapshotPiece)
	for {
		n, err := in.Read(buf)
		if gone := ctx.Err(); gone != nil {
			return sent, gone
		}
		if n > 0 {
			if _, gone := w.Write(buf[:n]); gone != nil {
				return sent, gone
			}
			sent += int64(n)
		}
		if err == io.EOF { // one that is wrapped is no good end
			return sent, nil
		}
		if err != nil {
			return sent, err
		}
	}
}

// needsNoData says why a member is not to be formed from a backup, or not any more. A
// backup holds every key of a cluster: it is sent to nobody else.
func needsNoData(m *v1alpha1.EtcdMember) string {
	b := m.Spec.Bootstrap
	switch {
	case b == nil || b.State != v1alpha1.BootstrapRestored:
		return "it is not formed from a backup"
	case m.DeletionTimestamp != nil:
		return "it is being deleted"
	case v1alpha1.IsTrue(m.Status.Conditions, v1alpha1.ConditionRestored):
		return "its data was made from it already"
	case m.Spec.MemberID != "" || m.Status.Process != nil || m.Spec.Run != v1alpha1.RunPrepared:
		return "it has been told to run or to stop, and is not to be formed any more"
	}
	return ""
}
