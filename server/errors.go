package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"

	"github.com/quorate/quorate/api/schema"
	"github.com/quorate/quorate/pki"
	"github.com/quorate/quorate/release"
	"github.com/quorate/quorate/store/remote/wire"
)

// engineErrors pairs what lower packages say with HTTP, beside the errors of a
// Store.
var engineErrors = []struct {
	err    error
	code   int
	reason string
}{
	{schema.ErrInvalid, http.StatusUnprocessableEntity, wire.ReasonInvalid},
	{pki.ErrRequest, http.StatusBadRequest, wire.ReasonBadRequest},
	{release.ErrNotFound, http.StatusNotFound, wire.ReasonNotFound},
	{release.ErrTooLarge, http.StatusRequestEntityTooLarge, wire.ReasonTooLarge},
	{release.ErrVersion, http.StatusUnprocessableEntity, wire.ReasonInvalid},
	{release.ErrUnsuitable, http.StatusUnprocessableEntity, wire.ReasonInvalid},
	{release.ErrDigest, http.StatusUnprocessableEntity, wire.ReasonInvalid},
}

// statusOf is the one place where errors become HTTP.
func statusOf(err error) *wire.Status {
	if st, ok := errors.AsType[*wire.Status](err); ok {
		return st
	}
	if denied, ok := errors.AsType[*deniedError](err); ok {
		return denied.status()
	}
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return wire.Failure(http.StatusRequestEntityTooLarge, wire.ReasonTooLarge,
			fmt.Sprintf("the request's body is larger than %d bytes: send less at once", tooLarge.Limit))
	}
	if causes := causesOf(err); len(causes) > 0 {
		return wire.Failure(http.StatusUnprocessableEntity, wire.ReasonInvalid, err.Error(), causes...)
	}
	if code, reason, ok := wire.CodeOf(err); ok {
		return wire.Failure(code, reason, err.Error())
	}
	for _, e := range engineErrors {
		if errors.Is(err, e.err) {
			return wire.Failure(e.code, e.reason, err.Error())
		}
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.Canceled) {
		return wire.Failure(http.StatusGatewayTimeout, wire.ReasonTimeout, "not done in time, and may or may not have happened: "+err.Error())
	}
	return wire.Failure(http.StatusInternalServerError, wire.ReasonInternal, err.Error())
}

// badRequest is an error of the caller's that is not an object's.
func badRequest(format string, args ...any) error {
	return wire.Failure(http.StatusBadRequest, wire.ReasonBadRequest, fmt.Sprintf(format, args...))
}

func forbidden(format string, args ...any) error {
	return wire.Failure(http.StatusForbidden, wire.ReasonForbidden, fmt.Sprintf(format, args...))
}

func unavailable(format string, args ...any) error {
	return wire.Failure(http.StatusServiceUnavailable, wire.ReasonUnavailable, fmt.Sprintf(format, args...))
}

// causesOf are the fields that an error of the schema names.
func causesOf(err error) []wire.Cause {
	invalid, ok := errors.AsType[*schema.Error](err)
	if !ok {
		return nil
	}
	causes := make([]wire.Cause, len(invalid.Causes))
	for i, c := range invalid.Causes {
		causes[i] = wire.Cause{Field: c.Field, Message: c.Message}
		if c.Suggestion != "" {
			causes[i].Message += "; " + c.Suggestion
		}
	}
	return causes
}
