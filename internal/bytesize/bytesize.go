// Package bytesize writes numbers of bytes as people read them.
package bytesize

import "fmt"

// Text is a number of bytes in B, KiB, MiB, GiB or TiB, such as "1.5 GiB".
func Text(n int64) string {
	const kilo = 1024
	if n < kilo {
		return fmt.Sprintf("%d B", n)
	}
	v, units := float64(n)/kilo, []string{"KiB", "MiB", "GiB", "TiB"}
	for v >= kilo && len(units) > 1 {
		v, units = v/kilo, units[1:]
	}
	return fmt.Sprintf("%.1f %s", v, units[0])
}
