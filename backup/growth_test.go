package backup

import "testing"

// TestAllowedSize: a database near its quota, or over it, can be backed up too.
func TestAllowedSize(t *testing.T) {
	t.Parallel()
	const gib = 1 << 30
	for _, c := range []struct{ size, quota, want int64 }{
		{gib, 0, gib + 512<<20},
		{4 * gib, 0, 5 * gib},
		{gib, 8 * gib, gib + 512<<20},
		{100, 1000, 900},
		{950, 1000, 975},
		{1000, 1000, 1000},
		{1100, 1000, 1100},
	} {
		if got := allowedSize(c.size, c.quota); got != c.want {
			t.Errorf("%d of %d: %d, want %d", c.size, c.quota, got, c.want)
		}
	}
}
