package bytesize_test

import (
	"testing"

	"github.com/quorate/quorate/internal/bytesize"
)

func TestText(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 2525: "2.5 KiB", 256 << 20: "256.0 MiB", 3 << 29: "1.5 GiB", 5 << 40: "5.0 TiB", 5 << 50: "5120.0 TiB",
	} {
		if got := bytesize.Text(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}
