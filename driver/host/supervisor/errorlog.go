package supervisor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"gopkg.in/natefinch/lumberjack.v2"

	"github.com/quorate/quorate/driver/host/logfile"
)

const (
	lineMax  = 1 << 20
	causeMax = 1 << 10
)

// errorLog copies etcd's lines of level error and worse to a file of their own,
// and remembers the latest for the message of an exit.
type errorLog struct {
	logs    Logs
	reader  *logfile.Reader
	partial []byte
	buf     []byte
	out     *lumberjack.Logger
	failing bool

	// of the etcd that was started last:
	fatal, worst string
	stderr       string
	stderrFrom   int64
	// steps hears every line.
	steps firstSteps
}

// begin forgets what an earlier etcd said.
func (e *errorLog) begin(stderr *os.File) {
	e.fatal, e.worst = "", ""
	e.steps.begin()
	e.stderr, e.stderrFrom = stderr.Name(), 0
	if info, err := stderr.Stat(); err == nil {
		e.stderrFrom = info.Size()
	}
}

// poll reads what etcd has written since. The cursor moves only when lines were
// copied, so that it needs saving seldom; searching again from it finds none of
// them twice.
func (e *errorLog) poll(ctx context.Context, log *slog.Logger, o *Order, at *logfile.Cursor) {
	if o == nil {
		return
	}
	e.follow(o.Logs, *at)
	for {
		n, err := e.reader.Read(e.buf)
		if n > 0 {
			if e.consume(ctx, log, e.buf[:n]) {
				*at = e.lineStart()
			}
			continue
		}
		if !errors.Is(err, io.EOF) {
			e.complain(ctx, log, err)
		}
		break
	}
	// Even without errors, searching a whole large file again is not wanted.
	if now := e.lineStart(); now.Inode != at.Inode || now.Offset-at.Offset > 16<<20 {
		*at = now
	}
}

// follow opens the log, anew where the order now names other files.
func (e *errorLog) follow(logs Logs, at logfile.Cursor) {
	if e.reader != nil && e.logs == logs {
		return
	}
	if e.reader != nil {
		e.close()
		at = logfile.Cursor{}
	}
	e.logs = logs
	e.reader = logfile.NewReader(logs.Etcd, at)
	e.partial = nil
	if e.buf == nil {
		e.buf = make([]byte, 32<<10)
	}
	e.out = &lumberjack.Logger{Filename: logs.Error, MaxSize: int(max(logs.MaxSize, 1)), MaxBackups: int(max(logs.MaxBackups, 1))}
}

func (e *errorLog) close() {
	if e.reader != nil {
		_ = e.reader.Close()
	}
	if e.out != nil {
		_ = e.out.Close()
	}
	e.reader, e.out = nil, nil
}

// lineStart is the position after the last whole line.
func (e *errorLog) lineStart() logfile.Cursor {
	at := e.reader.Cursor()
	at.Offset = max(0, at.Offset-int64(len(e.partial)))
	return at
}

func (e *errorLog) consume(ctx context.Context, log *slog.Logger, chunk []byte) (copied bool) {
	for {
		i := bytes.IndexByte(chunk, '\n')
		if i < 0 {
			break
		}
		line := chunk[:i+1]
		if len(e.partial) > 0 {
			line = append(e.partial, line...)
		}
		e.steps.hear(line)
		if level := levelOf(line); level != "" {
			copied = true
			e.remember(level, line)
			_, err := e.out.Write(line)
			e.complain(ctx, log, err)
		}
		e.partial, chunk = e.partial[:0], chunk[i+1:]
	}
	if len(e.partial)+len(chunk) <= lineMax {
		e.partial = append(e.partial, chunk...)
	}
	return copied
}

// complain says once that the error log can't be kept, until it can.
func (e *errorLog) complain(ctx context.Context, log *slog.Logger, err error) {
	if err != nil && !e.failing {
		log.WarnContext(ctx, "keep the error log", slog.String("file", e.logs.Error), slog.Any("error", err))
	}
	e.failing = err != nil
}

// levelOf returns error, dpanic, panic or fatal for such a line of etcd's, else
// nothing. The level is the first key of each.
func levelOf(line []byte) string {
	rest, ok := bytes.CutPrefix(line, []byte(`{"level":"`))
	if !ok {
		return ""
	}
	for _, level := range []string{"error", "dpanic", "panic", "fatal"} {
		if bytes.HasPrefix(rest, []byte(level+`"`)) {
			return level
		}
	}
	return ""
}

func (e *errorLog) remember(level string, line []byte) {
	var entry struct{ Msg, Error string }
	if err := json.Unmarshal(line, &entry); err != nil {
		return
	}
	text := entry.Msg
	if entry.Error != "" {
		text = entry.Error
	}
	e.worst = text
	if level != "error" {
		e.fatal = text
	}
}

// cause is what etcd last said of why it ended.
func (e *errorLog) cause(x exit, why string) string {
	panicked, last := e.crashText()
	switch {
	case why != "":
		return "it was stopped: " + why
	case panicked != "":
		return panicked
	case e.fatal != "":
		return e.fatal
	case x.signal == "killed":
		return "it was killed from outside: by the kernel for want of memory (see dmesg), or by a person"
	case x.signal != "":
		return "it was ended from outside by signal: " + x.signal
	case x.code == 0:
		return "it ended without an error"
	case e.worst != "":
		return e.worst
	case last != "":
		return last
	}
	return "it said nothing of the cause; see " + filepath.Base(e.logs.Etcd) + " and " + filepath.Base(e.logs.Stderr)
}

// crashText finds the line of a panic, and the last line, that etcd printed.
func (e *errorLog) crashText() (panicked, last string) {
	if e.stderr == "" {
		return "", ""
	}
	raw, err := readFrom(e.stderr, e.stderrFrom, 256<<10)
	if err != nil {
		return "", ""
	}
	for line := range strings.Lines(string(raw)) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		last = line[:min(len(line), causeMax)]
		if panicked == "" && (strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ")) {
			panicked = last
		}
	}
	return panicked, last
}
