package check

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/quorate/quorate/history"
	"github.com/quorate/quorate/history/record"
)

// file is where the history goes while it is made; nowhere where none was asked for.
type file struct {
	f      *os.File
	w      *history.Writer
	failed error
}

func createFile(p *Plan, began time.Time) (*file, error) {
	out := &file{}
	if p.History == "" {
		return out, nil
	}
	f, err := os.OpenFile(p.History, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create the history: %w: name a file in a directory that is there, which is not there yet itself", err)
	}
	w, err := history.NewWriter(f, p.meta(began))
	if err != nil {
		return nil, errors.Join(err, f.Close())
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
