package chaos

import (
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sigevent is struct sigevent of the kernel, 64 bytes on every 64-bit machine.
type sigevent struct {
	value  uint64
	signal int32
	notify int32
	_      [48]byte
}

// itimerspec is struct itimerspec.
type itimerspec struct{ interval, value unix.Timespec }

// watchdog lets the kernel kill this process after a time, even when it hangs or is
// stopped. What the kernel undoes at its death is undone then.
func watchdog(after time.Duration) error {
	event := sigevent{signal: int32(unix.SIGKILL)}
	var timer int32
	_, _, errno := unix.Syscall(unix.SYS_TIMER_CREATE, unix.CLOCK_MONOTONIC, uintptr(unsafe.Pointer(&event)), uintptr(unsafe.Pointer(&timer))) //nolint:gosec // x/sys has no timer_create
	if errno != 0 {
		return fmt.Errorf("make a timer that ends this process: %w", errno)
	}
	spec := itimerspec{value: unix.NsecToTimespec(after.Nanoseconds())}
	_, _, errno = unix.Syscall6(unix.SYS_TIMER_SETTIME, uintptr(timer), 0, uintptr(unsafe.Pointer(&spec)), 0, 0, 0) //nolint:gosec // x/sys has no timer_settime
	if errno != 0 {
		return fmt.Errorf("set the timer that ends this process: %w", errno)
	}
	return nil
}

func closeOnExec(fd uintptr) { unix.CloseOnExec(int(fd)) }
