package install

import (
	"errors"
	"fmt"
	"strings"
)

// Errors of an installation; test with errors.Is.
var (
	// ErrUnreachable: no SSH connection came about, or it broke.
	ErrUnreachable = errors.New("the machine can't be reached by SSH")
	// ErrHostKey: the machine's key is not known, or is not the one that is known.
	ErrHostKey = errors.New("the host key is not trusted")
	// ErrLogin: the machine accepts none of the keys.
	ErrLogin = errors.New("the login was refused")
	// ErrUnfit: the machine is not as an installation needs it. Nothing was changed.
	ErrUnfit = errors.New("the machine is not fit for an installation")
	// ErrNotJoined: all was installed, and the host did not become Ready in time.
	ErrNotJoined = errors.New("the host is not Ready")
)

// StepError is a step that failed. What was done before it stands, and repeating the
// installation goes on from there.
type StepError struct {
	// Step that failed, such as "binary".
	Step string
	// Done are the steps that were done before it.
	Done []string
	Err  error
}

// Error names the step, the cause, what is on the machine, and how to go on.
func (e *StepError) Error() string {
	done := "Nothing was changed on the machine before it."
	if len(e.Done) > 0 {
		done = "Done before it: " + strings.Join(e.Done, ", ") + "."
	}
	return fmt.Sprintf("step %q failed: %v\n%s Repeat the same command: it goes on from there, and is safe at every point.", e.Step, e.Err, done)
}

// Unwrap returns the cause.
func (e *StepError) Unwrap() error { return e.Err }

// unfit is a precondition that does not hold.
func unfit(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrUnfit, fmt.Errorf(format, args...))
}
