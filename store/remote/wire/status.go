package wire

import (
	"errors"
	"net/http"

	"github.com/quorate/quorate/store"
)

// Reasons of a Status, as in Kubernetes where it has them.
const (
	ReasonBadRequest       = "BadRequest"
	ReasonUnauthorized     = "Unauthorized"
	ReasonForbidden        = "Forbidden"
	ReasonNotFound         = "NotFound"
	ReasonAlreadyExists    = "AlreadyExists"
	ReasonConflict         = "Conflict"
	ReasonInvalid          = "Invalid"
	ReasonTooLarge         = "RequestEntityTooLarge"
	ReasonMethodNotAllowed = "MethodNotAllowed"
	ReasonInternal         = "InternalError"
	ReasonUnavailable      = "ServiceUnavailable"
	ReasonStale            = "Stale"
	ReasonTimeout          = "Timeout"
	ReasonTooMany          = "TooManyRequests"
	ReasonGone             = "Expired"
)

// Status is how the server says that a request failed. It has the shape of
// Kubernetes' metav1.Status.
type Status struct { //nolint:errname // Kubernetes calls it so
	Kind       string `json:"kind"`
	APIVersion string `json:"apiVersion"`
	// Status is Failure.
	Status string `json:"status"`
	// Code is the HTTP status code.
	Code int `json:"code"`
	// Reason is one word for programs.
	Reason string `json:"reason"`
	// Message is for people: what, why, and what to do.
	Message string `json:"message"`
	// Details name the fields concerned.
	Details *Details `json:"details,omitempty"`
}

// Details of a Status.
type Details struct {
	Causes []Cause `json:"causes,omitempty"`
}

// Cause is one thing that is wrong with an object.
type Cause struct {
	// Field is a path such as spec.replicas.
	Field string `json:"field"`
	// Message says what is wrong with it.
	Message string `json:"message"`
}

// Failure makes a Status.
func Failure(code int, reason, message string, causes ...Cause) *Status {
	s := &Status{Kind: "Status", APIVersion: "v1", Status: "Failure", Code: code, Reason: reason, Message: message}
	if len(causes) > 0 {
		s.Details = &Details{Causes: causes}
	}
	return s
}

// Error is the message.
func (s *Status) Error() string { return s.Message }

// Causes are the fields concerned, if any.
func (s *Status) Causes() []Cause {
	if s.Details == nil {
		return nil
	}
	return s.Details.Causes
}

// sentinels pairs the errors of a Store with how they travel. The first match
// counts.
var sentinels = []struct {
	err    error
	code   int
	reason string
}{
	{store.ErrNotFound, http.StatusNotFound, ReasonNotFound},
	{store.ErrExists, http.StatusConflict, ReasonAlreadyExists},
	{store.ErrConflict, http.StatusConflict, ReasonConflict},
	{store.ErrInvalid, http.StatusUnprocessableEntity, ReasonInvalid},
	{store.ErrInvalid, http.StatusBadRequest, ReasonBadRequest},
	{store.ErrInvalid, http.StatusRequestEntityTooLarge, ReasonTooLarge},
	{store.ErrForbidden, http.StatusForbidden, ReasonForbidden},
	{store.ErrForbidden, http.StatusUnauthorized, ReasonUnauthorized},
	{store.ErrGone, http.StatusGone, ReasonGone},
	{store.ErrStale, http.StatusServiceUnavailable, ReasonStale},
	{store.ErrUnavailable, http.StatusServiceUnavailable, ReasonUnavailable},
	{store.ErrUnavailable, http.StatusGatewayTimeout, ReasonTimeout},
	{store.ErrUnavailable, http.StatusTooManyRequests, ReasonTooMany},
}

// Unwrap returns the sentinel of package store that the reason stands for, so
// that errors.Is sees through the wire; nil for other reasons.
func (s *Status) Unwrap() error {
	for _, e := range sentinels {
		if e.reason == s.Reason {
			return e.err
		}
	}
	return nil
}

// CodeOfReason returns the HTTP code of a reason that stands for an error of package
// store; false when it stands for none.
func CodeOfReason(reason string) (code int, ok bool) {
	for _, e := range sentinels {
		if e.reason == reason {
			return e.code, true
		}
	}
	return 0, false
}

// CodeOf returns the HTTP code and the reason of an error of package store; false
// when it is none.
func CodeOf(err error) (code int, reason string, ok bool) {
	for _, e := range sentinels {
		if errors.Is(err, e.err) {
			return e.code, e.reason, true
		}
	}
	return 0, "", false
}
