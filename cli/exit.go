package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/api/schema"
	"github.com/quorate/quorate/backup"
	"github.com/quorate/quorate/backup/bucket"
	"github.com/quorate/quorate/bench"
	"github.com/quorate/quorate/check"
	"github.com/quorate/quorate/datadir"
	"github.com/quorate/quorate/driver/render"
	"github.com/quorate/quorate/etcd"
	"github.com/quorate/quorate/hosts/install"
	"github.com/quorate/quorate/hosts/provider"
	"github.com/quorate/quorate/store"
)

// Exit codes, as `quorate help exit-codes` documents them.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitRefused     = 4
	exitUnreachable = 5
	exitTimedOut    = 6
	exitDiffers     = 7
	exitWarning     = 10
	exitCritical    = 11
	exitViolated    = 12
	exitPartly      = 13
	exitUnsound     = 14
	exitUntried     = 15
	exitUnfit       = 16
	exitUnplaced    = 17
)

const exitCodesText = `Exit codes are part of the interface: scripts may rely on them.

  0  it is done
  1  it failed; the text says why
  2  wrong usage: an unknown command or flag, a missing argument
  3  not found: no object of that name, or no cluster to talk to
  4  refused: invalid, in conflict with what is stored, or not allowed
  5  the server can't be reached, or its store can't answer; quorate doctor,
     quorate check, quorate bench and quorate backup: no member answers, or none is
     fit to be read; a backup store can't be reached; quorate host add: a machine
     can't be reached by SSH
  6  timed out while waiting
  7  quorate diff: what is stored differs from the files; quorate backup diff: keys
     differ; quorate bench compare: a metric is worse by more than --fail-over
 10  quorate doctor: its worst finding is a warning
 11  quorate doctor: its worst finding is critical
 12  quorate check: the cluster broke a promise
 13  quorate backup run: the backup was taken, and not every store has it
 14  a backup failed its proof, or a backup or a snapshot is damaged
 15  quorate backup: a backup could not be tried, so that nothing is known of it
 16  quorate host check: a check fails, or one that a host needs could not be made
 17  quorate place: a member has no place

quorate etcdctl ends with the code of etcdctl. When several objects fail for
different reasons, the code is that of the first.`

// minSentence is how many words say something by themselves: fewer are a name.
const minSentence = 3

var (
	// errTimedOut: what was waited for did not come in time.
	errTimedOut = errors.New("timed out")
	// errCancelled: a person said no, or pressed Ctrl-C.
	errCancelled = errors.New("cancelled")
	// errDiffers: a comparison found a difference, which was printed.
	errDiffers = errors.New("they differ")
	// errNoServer: nothing says how a server is reached.
	errNoServer = errors.New("no server is known")
)

// usageError is a mistake in how a command was called.
type usageError struct {
	command string
	text    string
}

// Error says what is wrong and where to read how it is right.
func (e *usageError) Error() string {
	return e.text + "\nsee `" + e.command + " --help`"
}

func usagef(cmd *cobra.Command, format string, args ...any) error {
	return &usageError{command: cmd.CommandPath(), text: fmt.Sprintf(format, args...)}
}

// exitCode is the exit code of an error.
func exitCode(err error) int {
	if _, ok := errors.AsType[*usageError](err); ok {
		return exitUsage
	}
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errUnsound):
		return exitUnsound
	case errors.Is(err, backup.ErrDestinations):
		return exitPartly
	case errors.Is(err, backup.ErrUnproven):
		return exitUntried
	case damaged(err):
		return exitUnsound
	case errors.Is(err, errTimedOut):
		return exitTimedOut
	case errors.Is(err, errDiffers):
		return exitDiffers
	case errors.Is(err, errWarning):
		return exitWarning
	case errors.Is(err, errCritical):
		return exitCritical
	case errors.Is(err, errViolated):
		return exitViolated
	case errors.Is(err, errUnfit):
		return exitUnfit
	case errors.Is(err, errUnplaced):
		return exitUnplaced
	case errors.Is(err, errNobody), errors.Is(err, errUndecided), errors.Is(err, check.ErrNobody), errors.Is(err, bench.ErrNobody):
		return exitUnreachable
	}
	if code := backupCode(err); code != exitOK {
		return code
	}
	if code := installCode(err); code != exitOK {
		return code
	}
	switch {
	case errors.Is(err, store.ErrNotFound):
		return exitNotFound
	case errors.Is(err, store.ErrInvalid), errors.Is(err, schema.ErrInvalid), errors.Is(err, store.ErrConflict),
		errors.Is(err, store.ErrForbidden), errors.Is(err, store.ErrExists), errors.Is(err, check.ErrNotEmpty), errors.Is(err, bench.ErrForeign),
		errors.Is(err, render.ErrRender), errors.Is(err, etcd.ErrFlags):
		return exitRefused
	case errors.Is(err, store.ErrUnavailable), errors.Is(err, store.ErrStale), errors.Is(err, errNoServer):
		return exitUnreachable
	}
	return exitFailed
}

// backupCode is the exit code of an error of backups and their stores; exitOK for
// others.
func backupCode(err error) int {
	switch {
	case errors.Is(err, errUnanswered), errors.Is(err, backup.ErrNoSource), errors.Is(err, backup.ErrNoLeader), errors.Is(err, bucket.ErrUnavailable):
		return exitUnreachable
	case errors.Is(err, bucket.ErrNoBucket), errors.Is(err, bucket.ErrNotFound):
		return exitNotFound
	case errors.Is(err, bucket.ErrDenied), errors.Is(err, bucket.ErrLocked), errors.Is(err, datadir.ErrRestore), errors.Is(err, errRefusedKeys):
		return exitRefused
	}
	return exitOK
}

// installCode is the exit code of an error of machines that become hosts; exitOK for
// others.
func installCode(err error) int {
	switch {
	case errors.Is(err, install.ErrHostKey), errors.Is(err, install.ErrLogin), errors.Is(err, install.ErrUnfit):
		return exitRefused
	case errors.Is(err, install.ErrUnreachable):
		return exitUnreachable
	case errors.Is(err, install.ErrNotJoined):
		return exitTimedOut
	case errors.Is(err, provider.ErrNone), errors.Is(err, provider.ErrUnknown):
		return exitNotFound
	}
	return exitOK
}

// errorText is an error as it is printed: further lines are indented.
func errorText(err error) string {
	if errors.Is(err, errDiffers) || isVerdict(err) || errors.Is(err, errViolated) || errors.Is(err, errUndecided) || errors.Is(err, errUnfit) || errors.Is(err, errUnplaced) {
		return ""
	}
	if errors.Is(err, context.Canceled) && !errors.Is(err, store.ErrUnavailable) {
		err = errCancelled
	}
	if errors.Is(err, fs.ErrPermission) && !strings.Contains(err.Error(), "chmod") && exitCode(err) == exitFailed {
		err = fmt.Errorf("%w: run it as a user who may, or name another place: --data-dir says where Quorate keeps its own data", err)
	}
	lines := strings.Split(strings.TrimRight(err.Error(), "\n"), "\n")
	for i, line := range lines {
		lines[i] = withoutSentinel(line)
	}
	return strings.Join(lines, "\n  ")
}

// withoutSentinel takes the name of a class of errors off a text that has already
// said what is wrong.
func withoutSentinel(line string) string {
	for _, class := range []error{store.ErrInvalid, store.ErrForbidden, store.ErrNotFound} {
		text, ok := strings.CutSuffix(line, ": "+class.Error())
		if !ok {
			continue
		}
		if said := text[strings.LastIndex(text, ": ")+1:]; len(strings.Fields(said)) >= minSentence {
			return text
		}
	}
	return line
}
