// Package process names a process so that it can't be mistaken for another: by
// pid, the tick it started at, and the boot it belongs to.
package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ID names a process on this host for all time.
type ID struct {
	// PID is the process ID.
	PID int `json:"pid"`
	// StartTicks is field 22 of /proc/PID/stat: clock ticks since boot.
	StartTicks uint64 `json:"startTicks"`
	// BootID is /proc/sys/kernel/random/boot_id.
	BootID string `json:"bootID"`
}

// ErrGone says that a process is not running.
var ErrGone = errors.New("no such process")

// BootID returns the ID of the current boot.
func BootID() (string, error) {
	raw, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("boot ID: %w", err)
	}
	return strings.TrimSpace(string(raw)), nil
}

// Identify returns the ID of the process that has pid now. ErrGone if none has, or
// if it is a zombie.
func Identify(pid int) (ID, error) {
	boot, err := BootID()
	if err != nil {
		return ID{}, err
	}
	ticks, err := startTicks(pid)
	if err != nil {
		return ID{}, err
	}
	return ID{PID: pid, StartTicks: ticks, BootID: boot}, nil
}

// Alive reports whether the very process that id names is running. A process of
// an earlier boot is not, nor is a zombie.
func (id ID) Alive() bool {
	if id.PID <= 0 {
		return false
	}
	now, err := Identify(id.PID)
	if err != nil {
		// Not being able to look is no sign of death.
		return !errors.Is(err, ErrGone)
	}
	return now == id
}

// Signal sends sig to the very process that id names, never to another that took
// its pid. ErrGone if it is not running.
func (id ID) Signal(sig syscall.Signal) error {
	fd, err := id.open()
	if err != nil {
		return err
	}
	defer unix.Close(fd) //nolint:errcheck // nothing is written through a pidfd
	err = unix.PidfdSendSignal(fd, sig, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return ErrGone
	}
	return err
}

// Wait returns when the very process that id names has ended, or with ctx's error.
// The process need not be a child.
func (id ID) Wait(ctx context.Context) error {
	fd, err := id.open()
	if errors.Is(err, ErrGone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd) //nolint:errcheck // nothing is written through a pidfd
	const slice = 250 * time.Millisecond
	for ctx.Err() == nil {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(slice.Milliseconds())) //nolint:gosec // descriptors are small
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for process %d: %w", id.PID, err)
		}
		if n > 0 {
			return nil
		}
	}
	return ctx.Err()
}

// open returns a pidfd of the process. Opening first and comparing the start time
// afterwards leaves no moment in which the pid could pass to another.
func (id ID) open() (int, error) {
	if id.PID <= 0 {
		return -1, ErrGone
	}
	fd, err := unix.PidfdOpen(id.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return -1, ErrGone
	}
	if err != nil {
		return -1, fmt.Errorf("open process %d: %w", id.PID, err)
	}
	if !id.Alive() {
		return -1, errors.Join(ErrGone, unix.Close(fd))
	}
	return fd, nil
}

func startTicks(pid int) (uint64, error) {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return 0, ErrGone
	}
	if err != nil {
		return 0, fmt.Errorf("process %d: %w", pid, err)
	}
	// The command's name may hold spaces and brackets: fields are counted from its end.
	end := bytes.LastIndexByte(raw, ')')
	fields := bytes.Fields(raw[end+1:])
	const state, threads, start = 0, 17, 19
	if end < 0 || len(fields) <= start {
		return 0, fmt.Errorf("process %d: unreadable /proc stat", pid)
	}
	// A first thread that has ended before the others shows as a zombie too, while
	// they may still hold files and finish a write.
	if s := fields[state][0]; s == 'X' || s == 'Z' && len(fields[threads]) == 1 && fields[threads][0] <= '1' {
		return 0, ErrGone
	}
	return strconv.ParseUint(string(fields[start]), 10, 64)
}
