package schema

import (
	"errors"
	"fmt"
	"strings"
)

// ErrInvalid says that what was given is not valid. Every *Error is one.
var ErrInvalid = errors.New("invalid")

// Error lists all that is wrong with what was given. It reads as one line for each
// cause, and errors.Is finds ErrInvalid, and ErrUnknownKind where that is a cause.
type Error struct {
	// Causes in the order of the file; at least one.
	Causes []Cause
}

// Cause is one thing that is wrong.
type Cause struct {
	// Document counts from 1 in a file of several; 0 where there was no file.
	Document int `json:"document,omitempty"`
	// Line counts from 1 in the file; 0 where it is not known.
	Line int `json:"line,omitempty"`
	// Object is the kind and name, such as "EtcdCluster default/playground".
	Object string `json:"object,omitempty"`
	// Field is the path in the object, such as spec.etcd.quotaBackend; empty for the
	// object as a whole.
	Field string `json:"field,omitempty"`
	// Message says what is wrong: what was given and what is expected.
	Message string `json:"message"`
	// Suggestion is the next step to take; may be empty.
	Suggestion string `json:"suggestion,omitempty"`

	// kind is an error that errors.Is finds.
	kind error
}

// String is the cause as one line.
func (c Cause) String() string {
	var parts []string
	if where := c.where(); where != "" {
		parts = append(parts, where)
	}
	if c.Object != "" {
		parts = append(parts, c.Object)
	}
	if c.Field != "" {
		parts = append(parts, c.Field)
	}
	parts = append(parts, c.Message)
	text := strings.Join(parts, ": ")
	if c.Suggestion != "" {
		text += "; " + c.Suggestion
	}
	return text
}

func (c Cause) where() string {
	switch {
	case c.Line > 0 && c.Document > 1:
		return fmt.Sprintf("line %d (document %d)", c.Line, c.Document)
	case c.Line > 0:
		return fmt.Sprintf("line %d", c.Line)
	case c.Document > 1:
		return fmt.Sprintf("document %d", c.Document)
	}
	return ""
}

// Error is one line for each cause.
func (e *Error) Error() string {
	lines := make([]string, len(e.Causes))
	for i, c := range e.Causes {
		lines[i] = c.String()
	}
	return strings.Join(lines, "\n")
}

// Is reports whether target is ErrInvalid or the kind of one of the causes.
func (e *Error) Is(target error) bool {
	if target == ErrInvalid {
		return true
	}
	for _, c := range e.Causes {
		if c.kind != nil && c.kind == target {
			return true
		}
	}
	return false
}

// asError is nil without causes.
func asError(causes []Cause) error {
	if len(causes) == 0 {
		return nil
	}
	return &Error{Causes: causes}
}
