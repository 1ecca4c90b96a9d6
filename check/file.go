package check

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/history"
	"github.com/quorate/quorate/history/record"
)

// file is where the history goes while it is made; nowhere where none was asked for.
type file struct {
	f      *os.File
	w      *history.Writer
	failed error
}

// openFile is how a history is created; tests have their own.
var openFile = os.OpenFile

// creatable says before anything is done why a history can't be created.
func creatable(path string) error {
	if path == "" {
		return nil
	}
	err := unix.Access(filepath.Dir(path)+"/.", unix.W_OK|unix.X_OK)
	if _, there := os.Lstat(path); there == nil {
		err = unix.EEXIST
	}
	if err == nil {
		return nil
	}
	return uncreated(&os.PathError{Op: "open", Path: path, Err: err})
}

func uncreated(err error) error {
	return fmt.Errorf("create the history: %w: name a file in a directory that is there, which is not there yet itself", err)
}

func createFile(p *Plan, began time.Time) (*file, error) {
	out := &file{}
	if p.History == "" {
		return out, nil
	}
	f, err := openFile(p.History, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, uncreated(err)
	}
	w, err := history.NewWriter(f, p.meta(began))
	if err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(p.History))
	}
	out.f, out.w = f, w
	return out, nil
}

// log takes what is recorded; nil for nowhere.
func (f *file) log() record.Log {
	if f.w == nil {
		return nil
	}
	return f.w
}

func (f *file) disturbance(d history.Disturbance) {
	if f.w != nil {
		f.failed = errors.Join(f.failed, f.w.Disturbance(d))
	}
}

func (f *file) hash(h history.Hash) {
	if f.w != nil {
		f.failed = errors.Join(f.failed, f.w.Hash(h))
	}
}

func (f *file) close() error {
	if f.w == nil {
		return nil
	}
	return errors.Join(f.failed, f.w.Close(), f.f.Close())
}

// discard removes a file in which nothing is.
func (f *file) discard() error {
	if f.w == nil {
		return nil
	}
	return os.Remove(f.f.Name())
}

// meta is the head of the history.
func (p *Plan) meta(began time.Time) history.Meta {
	m := history.Meta{
		Format: history.Format, Name: p.opts.Name, Prefix: p.Prefix, StartRevision: p.StartRevision, StartedAt: began.UTC().Format(time.RFC3339Nano),
	}
	for _, one := range p.Members {
		m.Members = append(m.Members, one.Label()+" "+one.Version)
	}
	return m
}
