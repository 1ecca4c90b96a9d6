package cli

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/quorate/quorate/history"
	"github.com/quorate/quorate/internal/atomicfile"
)

// printPicture draws the timeline of a violation below it.
func (e *env) printPicture(v *history.Violation) {
	if picture := history.Timeline(v); picture != "" {
		e.printf("\n%s\n", strings.TrimRight(picture, "\n"))
	}
}

// writePage writes the report as a page, where one is wanted.
func (*env) writePage(path, name string, r *history.Report) error {
	if path == "" {
		return nil
	}
	var page bytes.Buffer
	if err := history.WritePage(&page, name, r); err != nil {
		return fmt.Errorf("draw the page for %s: %w", path, err)
	}
	if err := atomicfile.Write(path, page.Bytes(), 0o600); err != nil {
		return fmt.Errorf("write the page of --html: %w", err)
	}
	return nil
}
