package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// sabotage is a change to the code that has to turn an item red: else the item can't
// fail, and shows nothing.
type sabotage struct {
	item string
	// file in the checkout, where old stands once and becomes other.
	file, old, other string
	// what it does.
	what string
}

// proveSabotage makes each change in a clone, one at a time, and runs its item there.
// SABOTAGE=item,item tries those only, which then is no proof for the others.
func proveSabotage(list string, all []sabotage) func(ctx context.Context, e *env) (string, error) {
	return func(ctx context.Context, e *env) (string, error) { return e.sabotage(ctx, list, all) }
}

func (e *env) sabotage(ctx context.Context, list string, all []sabotage) (string, error) {
	dir := filepath.Join(e.dir, "clone")
	if _, err := output(command(ctx, e.repo, nil, "git", "clone", "-q", e.repo, dir)); err != nil {
		return "", err
	}
	// What was built and fetched once serves here too.
	if err := os.Symlink(filepath.Join(e.repo, ".cache"), filepath.Join(dir, ".cache")); err != nil {
		return "", err
	}
	var names []string
	var errs []error
	only := strings.FieldsFunc(os.Getenv("SABOTAGE"), func(r rune) bool { return r == ',' })
	for _, s := range all {
		if len(only) > 0 && !slices.Contains(only, s.item) {
			continue
		}
		if err := s.try(ctx, dir, list); err != nil {
			errs = append(errs, fmt.Errorf("%s, %s: %w", s.item, s.what, err))
			continue
		}
		names = append(names, s.item)
	}
	if len(names) == 0 && len(errs) == 0 {
		errs = append(errs, errors.New("nothing was tried"))
	}
	return fmt.Sprintf("%d of %d turned red: %s", len(names), len(all), strings.Join(names, ", ")), errors.Join(errs...)
}

// try wants the item to hold no more with the change: and for what it shows, not
// because nothing builds.
func (s *sabotage) try(ctx context.Context, dir, list string) error {
	path := filepath.Join(dir, s.file)
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	changed, err := s.apply(string(raw))
	if err != nil {
		return err
	}
	if err = os.WriteFile(path, []byte(changed), 0o600); err != nil {
		return err
	}
	defer func() { _ = os.WriteFile(path, raw, 0o600) }() // the clone is thrown away
	if _, err = output(command(ctx, dir, nil, "make", "build")); err != nil {
		return err
	}
	if _, err = output(command(ctx, dir, nil, "go", "vet", "./"+filepath.Dir(s.file))); err != nil {
		return err
	}
	out, err := output(command(ctx, dir, []string{"ONLY=" + s.item}, "go", "run", "./test/prove", list))
	return judgeSabotage(s.item, out, err)
}

func (s *sabotage) apply(text string) (string, error) {
	if n := strings.Count(text, s.old); n != 1 {
		return "", fmt.Errorf("%q stands %d times in %s: name the place anew", s.old, n, s.file)
	}
	return strings.Replace(text, s.old, s.other, 1), nil
}

// judgeSabotage wants the item's line to be red.
func judgeSabotage(item, out string, err error) error {
	if err == nil {
		return errors.New("it holds all the same")
	}
	if !strings.Contains(out, "FAIL  "+item) {
		return fmt.Errorf("it did not run: %w", err)
	}
	return nil
}

// unsabotaged are the items of a list that no change turns red.
func unsabotaged(items []item, all []sabotage) []string {
	var missing []string
	for _, it := range items {
		if it.name != "sabotage" && !slices.ContainsFunc(all, func(s sabotage) bool { return s.item == it.name }) {
			missing = append(missing, it.name)
		}
	}
	return missing
}

// loadSabotages has a change for each item of the load list.
var loadSabotages = []sabotage{
	{"beside-put", "bench/recorder.go", "	c := &s.ops[v.op]\n", "	c := &s.ops[v.op]\n	for range 300_000 {\n	}\n", "each request costs 100 µs more"},
	{"beside-range", "bench/recorder.go", "	c := &s.ops[v.op]\n", "	c := &s.ops[v.op]\n	for range 300_000 {\n	}\n", "each request costs 100 µs more"},
	{"stall", "bench/recorder.go", "if v.class != classDropped {", "if v.class != classDropped && v.end-v.due < 500_000_000 {", "slow answers are left out"},
	{"matrix", "bench/matrix.go", "for i, s := range specs {", "for i, s := range specs[1:] {", "a cell is left out"},
	{"bench", "bench/recorder.go", "observe(c.hist, v.end-v.due)", "observe(c.hist, v.end-v.began)", "latency counts from when a request was sent"},
	{"flags", "bench/spec.go", "{s.Clients < 1 || s.Clients > maxClients,", "{false,", "any number of clients is taken"},
	{"from", "bench/split.go", "p.Rate = whole.Rate / float64(n)", "p.Rate = whole.Rate", "each host drives the whole load"},
	{"million", "history/collect.go", "		c.collectAnswer(index(i))\n", "		c.collectAnswer(index(i))\n		for range 300_000 {\n		}\n", "each operation costs 100 µs more"},
	{"planted", "history/check.go", "func (c *checker) violate(v Violation) {\n", "func (c *checker) violate(v Violation) {\n	if v.Rule == WatchSplit {\n		return\n	}\n", "one rule is never told"},
	{"clean", "history/order.go", "!o.writes() && o.Revision < c.known[i]", "!o.writes() && o.Revision <= c.known[i]", "a read of the latest revision is called stale"},
	{"oracle", "history/check.go", "r.OK = len(r.Violations) == 0", "r.OK = len(r.Violations) <= 1", "one violation passes"},
	{"record", "history/record/outcome.go", "	default:\n	}\n	return history.Unknown", "	default:\n	}\n	return history.Failed", "a timeout is taken for a refusal"},
	{"check", "history/check.go", "func (c *checker) violate(v Violation) {\n", "func (c *checker) violate(v Violation) {\n	if v.Rule == PhantomWrite {\n		return\n	}\n", "a stranger's writes are not told"},
	{"disturb", "chaos/hold.go", "time.NewTimer(d.For)", "time.NewTimer(time.Hour)", "a disturbance does not know its deadline"},
	{"netlab", "test/netlab/cut.go", "func (l *Lab) drop(from, to []netip.Addr) error {\n", "func (l *Lab) drop(from, to []netip.Addr) error {\n	if len(from) > 0 {\n		return nil\n	}\n", "a partition cuts nothing"},
	{"durability", "test/powerfs/powerfs.go", "func (d *Disk) touch(path string, ino uint64, offset, length int64) error {\n", "func (d *Disk) touch(path string, ino uint64, offset, length int64) error {\n	if length > 0 {\n		return nil\n	}\n", "a power loss loses nothing"},
	{"bugs", "history/check.go", "other.Hash != h.Hash {", "other.Hash != h.Hash && h.Revision == 0 {", "members may have different data"},
	{"pages", "bench/report/page.html", "main { max-width: 1120px;", "main { min-width: 2000px;", "a page is wider than the window"},
}
