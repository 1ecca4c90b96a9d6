package etcd

import (
	"context"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"sync/atomic"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// bridge passes etcd's log on to slog. What etcd reports of its daily life is
// detail here; its warnings count once it is ready, since while it starts they are
// about things that are meant to be so, such as having no listener.
type bridge struct {
	ctx    context.Context // zap has none to pass
	log    *slog.Logger
	ready  *atomic.Bool
	fields []zapcore.Field
}

// newZap returns a logger that passes everything to log. Where etcd would end the
// whole process, or panic, halt is called with its message, and then only the
// goroutine ends.
func newZap(ctx context.Context, log *slog.Logger, ready *atomic.Bool, halt func(message string)) *zap.Logger {
	b := &bridge{ctx: context.WithoutCancel(ctx), log: log.With(slog.String("component", "store etcd")), ready: ready}
	hook := haltHook(halt)
	return zap.New(b, zap.WithFatalHook(hook), zap.WithPanicHook(hook))
}

type haltHook func(message string)

// OnWrite implements zapcore.CheckWriteHook.
func (h haltHook) OnWrite(entry *zapcore.CheckedEntry, fields []zapcore.Field) {
	message := entry.Message
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		f.AddTo(enc)
	}
	if cause, ok := enc.Fields["error"].(string); ok {
		message += ": " + cause
	}
	h(message)
	runtime.Goexit()
}

// newStoreNoise is what etcd 3.7 reports as an error of each new database: the
// monitor of its storage version looks before the first term is written, and
// looks again some seconds later.
const newStoreNoise = "failed to update storage version"

func (b *bridge) level(l zapcore.Level, message string) slog.Level {
	switch {
	case message == newStoreNoise:
		return slog.LevelDebug
	case l >= zapcore.ErrorLevel:
		return slog.LevelError
	case l == zapcore.WarnLevel && b.ready.Load():
		return slog.LevelWarn
	default:
		return slog.LevelDebug
	}
}

// Enabled implements zapcore.Core.
func (b *bridge) Enabled(l zapcore.Level) bool {
	return b.log.Enabled(b.ctx, b.level(l, ""))
}

// With implements zapcore.Core.
func (b *bridge) With(fields []zapcore.Field) zapcore.Core {
	c := *b
	c.fields = slices.Concat(b.fields, fields)
	return &c
}

// Check implements zapcore.Core.
func (b *bridge) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if b.Enabled(entry.Level) {
		return checked.AddCore(entry, b)
	}
	return checked
}

// Write implements zapcore.Core.
func (b *bridge) Write(entry zapcore.Entry, fields []zapcore.Field) error {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range slices.Concat(b.fields, fields) {
		f.AddTo(enc)
	}
	attrs := make([]slog.Attr, 0, len(enc.Fields)+1)
	attrs = append(attrs, slog.String("message", entry.Message))
	for _, name := range slices.Sorted(maps.Keys(enc.Fields)) {
		attrs = append(attrs, slog.Any(name, enc.Fields[name]))
	}
	b.log.LogAttrs(b.ctx, b.level(entry.Level, entry.Message), "etcd of the store", attrs...)
	return nil
}

// Sync implements zapcore.Core.
func (b *bridge) Sync() error { return nil }
