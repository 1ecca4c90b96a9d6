package catalog

import (
	"fmt"
	"strconv"
	"strings"
)

const (
	// elementBytes is where a long name goes on in another path element: file systems
	// end at 255 bytes an element.
	elementBytes = 200
	// emptyElement stands for the empty name. It can't come from another name, since
	// two hexadecimal digits follow an underscore, or nothing.
	emptyElement = "__"
)

// escape turns any name into path elements that every store and file system takes, and
// that stay apart where upper and lower case are the same. The names of Kubernetes
// objects stay as they are. Other bytes become an underscore and two hexadecimal
// digits; an element that ends with an underscore goes on in the next one.
func escape(name string) []string {
	if name == "" {
		return []string{emptyElement}
	}
	var elements []string
	var b strings.Builder
	for i := range len(name) {
		if b.Len() >= elementBytes {
			b.WriteByte('_')
			elements = append(elements, b.String())
			b.Reset()
		}
		c := name[i]
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-':
			b.WriteByte(c)
		case c == '.' && b.Len() > 0 && i < len(name)-1:
			// A dot at the start hides a file, and some stores drop one at the end.
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "_%02x", c)
		}
	}
	return append(elements, b.String())
}

// unescape reads the name that elements begin with, and how many of them it takes. It
// is strict: only what escape makes is a name.
func unescape(elements []string) (name string, used int, ok bool) {
	if len(elements) > 0 && elements[0] == emptyElement {
		return "", 1, true
	}
	var b strings.Builder
	for more := true; more; used++ {
		if used == len(elements) {
			return "", 0, false
		}
		var text string
		text, more = strings.CutSuffix(elements[used], "_")
		for len(text) > 0 {
			if text[0] != '_' {
				b.WriteByte(text[0])
				text = text[1:]
				continue
			}
			if len(text) < 3 {
				return "", 0, false
			}
			c, err := strconv.ParseUint(text[1:3], 16, 8)
			if err != nil {
				return "", 0, false
			}
			b.WriteByte(byte(c))
			text = text[3:]
		}
	}
	name = b.String()
	if name == "" || strings.Join(escape(name), "/") != strings.Join(elements[:used], "/") {
		return "", 0, false
	}
	return name, used, true
}
