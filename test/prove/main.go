// Command prove shows on real processes what the README promises: one line an item,
// with what was seen and its figures. It exits with 1 if an item falls short, and
// with 2 if it could not be run.
//
//	go run ./test/prove ground                  all of a list: ground, faces, load, backup, hosts
//	ONLY=kill,law go run ./test/prove ground    items whose names begin so
//	go run ./test/prove list                    names and claims of all lists
//
// Items that nobody asked for by ONLY are counted in the last line. KEEP=1 keeps the
// files of items that fall short.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// item is one promise.
type item struct {
	name  string
	claim string
	// limit of its own run, on a machine with two cores.
	limit time.Duration
	// run says what was seen, also beside an error.
	run func(ctx context.Context, e *env) (seen string, err error)
}

// lists are the promises of each milestone, in their order.
var lists = []struct {
	name  string
	items func() []item
}{{"ground", ground}, {"faces", faces}, {"load", loads}, {"backup", backups}, {"hosts", hosts}}

// ground lists what the issue of that name asks to be shown; the last two need the
// whole machine.
func ground() []item {
	return []item{
		{"clone", "a clean clone builds, `make up` is healthy within 5 s, its printed lines work, Ctrl-C leaves no process, the data is found again, --ephemeral leaves no file", 20 * time.Minute, proveClone},
		{"readme", "the README's commands work word for word in a clean clone", 20 * time.Minute, proveReadme},
		{"kill-etcd", "kill -9 of every etcd in turn under 500 put/s: a linearizable write within 3 s, none lost", 5 * time.Minute, proveKillEtcd},
		{"kill-supervisor", "kill -9 of every supervisor: its etcd runs on and is adopted, and restarted when it dies", 5 * time.Minute, proveKillSupervisor},
		{"kill-quorate", "kill -9 of server and agent: no write fails, no pid changes, the next `up` takes over", 5 * time.Minute, proveKillQuorate},
		{"kill-all", "kill -9 of everything at once: the next `up` has every acknowledged write and the same etcd", 5 * time.Minute, proveKillAll},
		{"kill-all-newer", "the same with Quorate replaced by a newer one in between: etcd stays as pinned", 5 * time.Minute, proveKillAllNewer},
		{"config-change", "a configuration change under 500 put/s: every member restarted once, none lost, at most one change of leader", 5 * time.Minute, proveConfigChange},
		{"law-empty", "an empty directory under a joined member is refused", 5 * time.Minute, proveLaw(swapEmpty)},
		{"law-foreign", "another member's directory is refused", 5 * time.Minute, proveLaw(swapForeign)},
		{"law-rolled-back", "an older copy of the directory is refused", 5 * time.Minute, proveLaw(swapOlder)},
		{"footprint", "idle: a supervisor ≤ 20 MB and no measurable CPU, server with agent ≤ 150 MB, --help ≤ 100 ms", 5 * time.Minute, proveFootprint},
		{"planner", "the planner's properties, at length and on real etcd", 20 * time.Minute, provePlanner},
		{"store-lost", "the store is lost and restored while members run on, and goes on only when accepted", 10 * time.Minute, proveStoreLost},
		{"store-stale", "agents refuse a store that was rolled back", 5 * time.Minute, proveStoreStale},
		{"store-secrets", "no key and no password stands in the clear in the store or its backup", 5 * time.Minute, proveStoreSecrets},
		{"bad-input", "bad input gives a clear error, and nothing half-done (test/scripts)", 20 * time.Minute, proveBadInput},
		{"race", "go test -race ./... is clean", 60 * time.Minute, proveRace},
		{"check", "make check within 45 minutes (COLD=1: without caches)", 60 * time.Minute, proveCheck},
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Getenv("ONLY"), os.Stdout)
	stop()
	os.Exit(code)
}

// run returns the exit code.
func run(ctx context.Context, args []string, only string, out io.Writer) int {
	var items []item
	for _, l := range lists {
		if len(args) == 1 && args[0] == "list" {
			for _, it := range l.items() {
				printf(out, "%-8s %-16s %s\n", l.name, it.name, it.claim)
			}
		} else if len(args) == 1 && args[0] == l.name {
			items = l.items()
		}
	}
	switch {
	case len(args) == 1 && args[0] == "list":
		return 0
	case items == nil:
		printf(out, "usage: prove ground|faces|load|backup|hosts|list   (ONLY=name,prefix chooses items)\n")
		return 2
	}
	chosen, err := choose(items, only)
	if err != nil {
		printf(out, "prove: %v\n", err)
		return 2
	}
	e, err := newEnv(ctx, out)
	if err != nil {
		printf(out, "prove: %v\n", err)
		return 2
	}
	began, short := time.Now(), 0
	for _, it := range chosen {
		if !proveOne(ctx, e, it, out) {
			short++
		}
	}
	if err := e.close(short == 0); err != nil {
		printf(out, "prove: %v\n", err)
		short++
	}
	printf(out, "%s\n", verdict(len(items), len(chosen), short, time.Since(began)))
	if short > 0 {
		return 1
	}
	return 0
}

// proveOne runs an item and prints its line.
func proveOne(ctx context.Context, e *env, it item, out io.Writer) bool {
	began := time.Now()
	seen, err := "", ctx.Err()
	if err == nil {
		itemCtx, cancel := context.WithTimeout(ctx, it.limit)
		seen, err = it.run(itemCtx, e.begin(it.name))
		cancel()
	}
	if left := e.endItem(ctx); left != nil && err == nil {
		err = left
	}
	mark := "PASS"
	if err != nil {
		mark = "FAIL"
		seen = strings.TrimPrefix(seen+"; ", "; ") + "FELL SHORT: " + strings.ReplaceAll(err.Error(), "\n", "\n      ")
	}
	printf(out, "%s  %-16s %s (%s)\n", mark, it.name, seen, seconds(time.Since(began)))
	return err == nil
}

// choose picks the items that only names, separated by commas, or whose names begin
// so where none has that very name; all if it is empty.
func choose(items []item, only string) ([]item, error) {
	if strings.TrimSpace(only) == "" {
		return items, nil
	}
	wanted := map[int]bool{}
	for prefix := range strings.SplitSeq(only, ",") {
		prefix = strings.TrimSpace(prefix)
		found := false
		exact := slices.ContainsFunc(items, func(it item) bool { return it.name == prefix })
		for i, it := range items {
			if it.name == prefix || !exact && prefix != "" && strings.HasPrefix(it.name, prefix) {
				wanted[i], found = true, true
			}
		}
		if !found {
			return nil, fmt.Errorf("ONLY names %q, and no item begins so: `go run ./test/prove list` lists them", prefix)
		}
	}
	var chosen []item
	for i, it := range items {
		if wanted[i] {
			chosen = append(chosen, it)
		}
	}
	return chosen, nil
}

// verdict is the last line.
func verdict(all, ran, short int, took time.Duration) string {
	text := fmt.Sprintf("%d of %d items hold, %d fell short", ran-short, ran, short)
	if all != ran {
		text += fmt.Sprintf("; %d of %d were left out by ONLY", all-ran, all)
	}
	return text + " (" + seconds(took) + " in all)"
}

// printf prints for whoever reads; the exit code holds the verdict if no one does.
func printf(out io.Writer, format string, args ...any) { _, _ = fmt.Fprintf(out, format, args...) }

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
