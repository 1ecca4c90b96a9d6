package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/internal/process"
)

// x/sys has the requests, but calls for the older ones only.
const eventStop = unix.PTRACE_EVENT_STOP

// canTrace says whether processes of this user can be traced.
func canTrace() error {
	raw, err := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope")
	if err != nil {
		return nil //nolint:nilerr // without yama the classic rule holds: one's own processes
	}
	switch scope := string(raw[:min(1, len(raw))]); {
	case scope == "3":
		return errors.New("/proc/sys/kernel/yama/ptrace_scope is 3: nobody may trace a process until the next boot")
	case scope != "0" && os.Geteuid() != 0:
		return fmt.Errorf("/proc/sys/kernel/yama/ptrace_scope is %s: only root may trace a process that it has not started: run it as root", scope)
	}
	return nil
}

func preparePause(h *hold) error {
	p, err := target(h.Disturbance)
	if err != nil {
		return err
	}
	h.Target = p.ID
	return nil
}

// beginPause stops every thread. One thread of this process does all the tracing, as
// ptrace wants it, and waits for its order to let go.
func beginPause(_ context.Context, h *hold) error {
	release, stopped, freed := make(chan struct{}), make(chan error), make(chan error, 1)
	h.gone = make(chan struct{})
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		children := make(chan os.Signal, 1)
		signal.Notify(children, unix.SIGCHLD)
		threads, err := stopThreads(h.Target)
		if err == nil {
			stopped <- nil
			h.reap(children, release)
		}
		undone := detach(threads)
		if err != nil {
			stopped <- errors.Join(err, undone)
			return
		}
		freed <- undone
	}()
	if err := <-stopped; err != nil {
		return err
	}
	h.free = func() error {
		close(release)
		return <-freed
	}
	return nil
}

// reap waits until it is released. Threads that are killed meanwhile are collected: else
// the process would be a zombie that its parent does not get.
func (h *hold) reap(children <-chan os.Signal, release <-chan struct{}) {
	gone := h.gone
	for {
		select {
		case <-release:
			return
		case <-children:
		}
		for {
			var status unix.WaitStatus
			tid, err := unix.Wait4(-1, &status, unix.WALL|unix.WNOHANG, nil)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil || tid == 0 {
				break
			}
			if tid == h.Target.PID && (status.Exited() || status.Signaled()) && gone != nil {
				close(gone)
				gone = nil
			}
		}
	}
}

func endPause(_ context.Context, h *hold) error {
	if h.free == nil {
		return nil // it did not begin
	}
	return h.free()
}

// stopThreads seizes and stops the threads of a process, those too that are born
// meanwhile, and returns the ones to be let go.
func stopThreads(id process.ID) ([]int, error) {
	seized := map[int]bool{}
	var threads []int
	for {
		found, err := threadsOf(id.PID)
		if err != nil {
			return threads, err
		}
		var fresh []int
		for _, tid := range found {
			if seized[tid] {
				continue
			}
			seized[tid] = true
			err = seize(tid)
			if errors.Is(err, unix.ESRCH) {
				continue // it ended
			}
			if err != nil {
				return threads, fmt.Errorf("trace thread %d of process %d: %w: a debugger may be at it already, or a container forbids it", tid, id.PID, err)
			}
			fresh = append(fresh, tid)
			threads = append(threads, tid)
		}
		if len(fresh) == 0 {
			break
		}
		for _, tid := range fresh {
			if err = awaitStop(tid); err != nil {
				return threads, fmt.Errorf("stop thread %d of process %d: %w", tid, id.PID, err)
			}
		}
	}
	// The process that was found is the one that was stopped: a stopped one can't end
	// and leave its ID to another.
	if !id.Alive() {
		return threads, fmt.Errorf("process %d has ended", id.PID)
	}
	return threads, nil
}

func threadsOf(pid int) ([]int, error) {
	entries, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/task")
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("process %d has ended", pid)
	}
	if err != nil {
		return nil, err
	}
	threads := make([]int, 0, len(entries))
	for _, entry := range entries {
		if tid, err := strconv.Atoi(entry.Name()); err == nil {
			threads = append(threads, tid)
		}
	}
	return threads, nil
}

// seize begins to trace a thread, and asks it to stop.
func seize(tid int) error {
	if err := unix.PtraceSeize(tid); err != nil {
		return err
	}
	return unix.PtraceInterrupt(tid)
}

// awaitStop waits until a thread has stopped for us. A signal that it was about to get
// goes on to it.
func awaitStop(tid int) error {
	for {
		var status unix.WaitStatus
		_, err := unix.Wait4(tid, &status, unix.WALL, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ECHILD):
			return nil // it ended
		case err != nil:
			return err
		case status.Exited() || status.Signaled():
			return nil
		case !status.Stopped():
			continue
		case int(status)>>16 == eventStop:
			return nil
		}
		if err = unix.PtraceCont(tid, int(status.StopSignal())); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
}

// detach lets threads go; those that ended meanwhile need nothing.
func detach(threads []int) error {
	var errs error
	for _, tid := range threads {
		if err := unix.PtraceDetach(tid); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = errors.Join(errs, fmt.Errorf("let thread %d go: %w", tid, err))
		}
	}
	return errs
}
