package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/datadir"
)

// swap puts another directory in the place of a member's own, which is renamed
// aside to real.
type swap struct {
	reason datadir.Reason
	// before runs while all is well.
	before func(ctx context.Context, s *site, victim seen) error
	// put makes the directory at to.
	put func(s *site, victim seen, to string) error
}

// laterWrites separate an older copy from what it is a copy of.
const laterWrites = 1000

var (
	swapEmpty = swap{
		reason: datadir.ReasonEmpty,
		put:    func(_ *site, _ seen, to string) error { return os.Mkdir(to, 0o700) },
	}
	swapForeign = swap{
		reason: datadir.ReasonForeign,
		put: func(s *site, victim seen, to string) error {
			for _, name := range names(s.before) {
				if name != victim.name {
					return copyTree(s.before[name].dataDir, to)
				}
			}
			return errors.New("there is no other member")
		},
	}
	swapOlder = swap{
		reason: datadir.ReasonRolledBack,
		before: func(ctx context.Context, s *site, victim seen) error {
			if err := copyTree(victim.dataDir, filepath.Join(s.e.dir, "older")); err != nil {
				return err
			}
			from := len(s.w.Records())
			return poll(ctx, "writes after the copy", func() (string, bool, error) {
				n := len(s.w.Records()) - from
				return fmt.Sprintf("%d writes", n), n >= 2*laterWrites, nil
			})
		},
		put: func(s *site, _ seen, to string) error { return os.Rename(filepath.Join(s.e.dir, "older"), to) },
	}
)

// proveLaw swaps a member's directory while it is down, and expects it to be refused
// and healed by putting the real one back.
func proveLaw(sw swap) func(context.Context, *env) (string, error) {
	return func(ctx context.Context, e *env) (string, error) {
		s, err := e.loaded(ctx)
		if err != nil {
			return "", err
		}
		defer s.w.Close() //nolint:errcheck // its connections are of no more use
		victim := s.before[names(s.before)[1]]
		if sw.before != nil {
			if err = sw.before(ctx, s, victim); err != nil {
				return "", err
			}
		}
		// `up` goes first: its agent would start the supervisor again, and that one etcd.
		for _, pid := range []int64{s.pid(), victim.supervisor, victim.pid} {
			if _, _, err = kill9(ctx, pid, e.dir); err != nil {
				return "", err
			}
		}
		real := victim.dataDir + ".real"
		if err = os.Rename(victim.dataDir, real); err != nil {
			return "", err
		}
		if err = sw.put(s, victim, victim.dataDir); err != nil {
			return "", err
		}
		swapped, err := checksums(victim.dataDir)
		if err != nil {
			return "", err
		}
		realBefore, err := checksums(real)
		if err != nil {
			return "", err
		}
		next, err := s.again(ctx)
		if err != nil {
			return "", err
		}
		s.up = next
		message, err := s.refused(ctx, victim, sw.reason)
		if err != nil {
			return "", err
		}
		return s.heal(ctx, healing{victim: victim, real: real, swapped: swapped, realBefore: realBefore, message: message})
	}
}

// refused waits until the member is refused for that reason, and the others serve.
func (s *site) refused(ctx context.Context, victim seen, reason datadir.Reason) (string, error) {
	var message string
	err := poll(ctx, victim.name+" refused", func() (string, bool, error) {
		m, err := s.member(ctx, victim.name)
		if err != nil {
			return "", false, err
		}
		c := v1alpha1.FindCondition(m.Status.Conditions, v1alpha1.ConditionDataDirectory)
		if c == nil {
			return string(m.Status.Phase) + ", no condition DataDirectory", false, nil
		}
		message = c.Message
		return fmt.Sprintf("%s, DataDirectory %s %s: %s", m.Status.Phase, c.Status, c.Reason, c.Message),
			m.Status.Phase == v1alpha1.MemberRefused && c.Status == v1alpha1.False && c.Reason == string(reason), nil
	})
	if err != nil {
		return "", err
	}
	if err = contains("the condition's message", message, victim.dataDir, "Put the member's own directory back"); err != nil {
		return "", err
	}
	if err = poll(ctx, "the other two serve", func() (string, bool, error) { return s.serves(ctx, "2/3") }); err != nil {
		return "", err
	}
	// What a person sees must say the same.
	out, err := s.quorate(ctx, "get", "member", victim.name, "-o", "json")
	if err != nil {
		return "", err
	}
	return message, contains("get member -o json", out, `"Refused"`, `"`+string(reason)+`"`)
}

// serves reports whether that many members serve, and with them the cluster.
func (s *site) serves(ctx context.Context, ready string) (string, bool, error) {
	c, err := s.cluster(ctx)
	if err != nil {
		return "", false, err
	}
	return c.Status.Ready + ", " + c.Status.Summary, c.Status.Ready == ready && v1alpha1.IsTrue(c.Status.Conditions, v1alpha1.ConditionAvailable), nil
}

// healing is what is needed to see a member healed.
type healing struct {
	victim              seen
	real, message       string
	swapped, realBefore map[string]string
}

// heal makes sure that nothing was deleted, puts the real directory back, and waits.
func (s *site) heal(ctx context.Context, h healing) (string, error) {
	now, err := checksums(h.victim.dataDir)
	if err != nil {
		return "", fmt.Errorf("the directory that was refused: %w", err)
	}
	realNow, err := checksums(h.real)
	if err != nil {
		return "", err
	}
	if err = errors.Join(sameFiles(h.swapped, now), sameFiles(h.realBefore, realNow)); err != nil {
		return "", err
	}
	if err = errors.Join(os.Rename(h.victim.dataDir, h.victim.dataDir+".refused"), os.Rename(h.real, h.victim.dataDir)); err != nil {
		return "", err
	}
	began := time.Now()
	after, err := s.now(ctx, h.victim.pid)
	if err != nil {
		return "", fmt.Errorf("the real directory was put back: %w", err)
	}
	healed := time.Since(began)
	text, err := s.finish(ctx, after)
	first, _, _ := strings.Cut(h.message, ". ")
	return fmt.Sprintf("Refused: %q; cluster Available with 2/3; all %d files of the refused directory still there; real one put back: 3/3 after %.1f s; %s",
			strings.ReplaceAll(first, h.victim.dataDir, "…/data"), len(h.swapped), healed.Seconds(), text),
		errors.Join(err, samePids(s.before, after, h.victim.name))
}

// checksums are the digests of the files below dir by their paths in it.
func checksums(dir string) (map[string]string, error) {
	sums := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		sums[rel] = d.Type().String()
		if d.Type().IsRegular() {
			sums[rel], err = fileDigest(path)
		}
		return err
	})
	return sums, err
}
