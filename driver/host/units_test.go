package host

import (
	"strings"
	"testing"

	"github.com/quorate/quorate/driver/host/supervisor"
)

// TestUnitOfOddDirectory: a data directory's name reaches the supervisor as it is, though
// systemd has its own meaning for some letters.
func TestUnitOfOddDirectory(t *testing.T) {
	t.Parallel()
	u := &units{driver: &Driver{opts: Options{Command: []string{"member"}}}, systemd: &Systemd{opts: SystemdOptions{Executable: "/usr/local/bin/quorate"}}}
	text := u.text(supervisor.Home(`/srv/a b/100%/$HOME`), &supervisor.Order{Namespace: "default", Name: "c-1"})
	if want := `ExecStart="/usr/local/bin/quorate" "member" "--home" "/srv/a b/100%%/$$HOME"` + "\n"; !strings.Contains(text, want) {
		t.Errorf("without %s:\n%s", want, text)
	}
}
