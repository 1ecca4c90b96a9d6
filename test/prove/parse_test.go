package main

import (
	"context"
	"encoding/base64"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/quorate/quorate/etcd"
)

// proved is an item that says this.
func proved(seen string, err error) func(context.Context, *env) (string, error) {
	return func(context.Context, *env) (string, error) { return seen, err }
}

func TestCopyLines(t *testing.T) {
	text := "x is healthy: 3/3\n\nNAME\nm-1\n\n! not this\n  The data is kept in d.\n\n" +
		"  Console   http://x/login?code=1  # once\n  Try       bin/quorate a\n            bin/quorate b 'c d'\n" +
		"  Break it  kill -9 1; x\n  Yours     d --endpoints e\n  Stop      bin/quorate down  # or\n  Try       not this\n"
	want := []copyLine{
		{"Console", "http://x/login?code=1  # once"},
		{"Try", "bin/quorate a"},
		{"Try", "bin/quorate b 'c d'"},
		{"Break it", "kill -9 1; x"},
		{"Yours", "d --endpoints e"},
		{"Stop", "bin/quorate down  # or"},
	}
	if diff := cmp.Diff(want, copyLines(text), cmp.AllowUnexported(copyLine{})); diff != "" {
		t.Error(diff)
	}
	if lines := copyLines("nothing\n  indented\n"); lines != nil {
		t.Error(lines)
	}
}

func TestSteps(t *testing.T) {
	edit := "# edit spec.etcd.snapshotCount in playground.yaml"
	got, err := steps("# T\n```sh\nmake up\n```\ntext `x`\n```\nnot this\n```\n```sh\nbin/quorate get clusters > x\n\n" + edit + "\nmake up ARGS='--members 1'\n```\n")
	if err != nil {
		t.Fatal(err)
	}
	want := []step{
		{line: "make up", foreground: true},
		{line: "bin/quorate get clusters > x"},
		{line: edit, edit: edits[edit]},
		{line: "make up ARGS='--members 1'", foreground: true},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(step{})); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []string{"no command", "```sh\n# do something by hand\n```\n", "```sh\na \\\nb\n```\n"} {
		if _, err := steps(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestChangeSnapshotCount(t *testing.T) {
	got, err := changeSnapshotCount("spec:\n  etcd:\n    snapshotCount: 10000\n    maxTxnOps: 1\n", 5000)
	if err != nil || got != "spec:\n  etcd:\n    snapshotCount: 5000\n    maxTxnOps: 1\n" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := changeSnapshotCount("spec: {}\n", 5000); err == nil {
		t.Error("a file without the field was edited")
	}
}

func TestLeadership(t *testing.T) {
	var l leadership
	for _, s := range []struct {
		term   uint64
		leader etcd.ID
	}{{2, 1}, {2, 1}, {3, 0}, {3, 2}, {2, 1}, {3, 2}} {
		l.add(s.term, s.leader)
	}
	if l.changes() != 1 || l.samples != 6 {
		t.Errorf("%d changes in %d samples, want 1 in 6", l.changes(), l.samples)
	}
	l.add(4, 0)
	if l.changes() != 2 {
		t.Errorf("%d changes, want 2: a term without a leader is one too", l.changes())
	}
}

func TestParseUsage(t *testing.T) {
	const status = "Name:\tquorate\nVmRSS:\t    2048 kB\nRssAnon:\t    1024 kB\nThreads:\t3\n"
	const stat = "7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0"
	got, err := parseUsage(status, stat)
	if want := (usage{rss: 2 << 20, anon: 1 << 20, cpu: 2 * time.Second}); err != nil || got != want {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	for _, bad := range [][2]string{{"Name:\tx\n", stat}, {status, "7 (x) S 1"}} {
		if _, err := parseUsage(bad[0], bad[1]); err == nil {
			t.Errorf("%q was understood", bad)
		}
	}
}

// TestSearch shows that the search finds a secret however it stands in a file.
func TestSearch(t *testing.T) {
	const secret = "correct-horse-battery-staple"
	needles := []needle{newNeedle("the secret", secret)}
	for shift := range 3 {
		for behind := range 3 {
			text := strings.Repeat("x", shift) + secret + strings.Repeat("y", behind)
			for name, content := range map[string]string{"raw": text, "base64": base64.StdEncoding.EncodeToString([]byte(text))} {
				dir := t.TempDir()
				if err := os.WriteFile(filepath.Join(dir, "f"), []byte("{\"a\":\""+content+"\"}"), 0o600); err != nil {
					t.Fatal(err)
				}
				if found, files, err := search(needles, dir); err != nil || len(found) != 1 || files != 1 {
					t.Errorf("%s, %d before and %d behind: found %v in %d files, %v", name, shift, behind, found, files, err)
				}
			}
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("sealed"), 0o600); err != nil {
		t.Fatal(err)
	}
	if found, _, err := search(needles, dir); err != nil || len(found) > 0 {
		t.Errorf("found %v, %v where there is none", found, err)
	}
}

// TestBelow finds a process by the directory it works in, and kills only what runs
// from there.
func TestBelow(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	if sleep, err = filepath.EvalSymlinks(sleep); err != nil {
		t.Fatal(err)
	}
	own := filepath.Join(dir, filepath.Base(sleep))
	if err = copyFile(sleep, own); err != nil {
		t.Fatal(err)
	}
	foreign := start(t, dir, sleep)
	ours := start(t, "/", own)
	procs, err := below(dir)
	if err != nil || len(procs) != 2 {
		t.Fatalf("found %v, %v: want both", procs, err)
	}
	if _, _, err = kill9(t.Context(), int64(foreign.Process.Pid), dir); err == nil {
		t.Error("a process was killed that others started")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err = killBelow(ctx, dir); err != nil {
		t.Fatal(err)
	}
	_ = ours.Wait() // it was killed
	if procs, err = below(dir); err != nil || len(procs) != 1 || procs[0].PID != foreign.Process.Pid {
		t.Errorf("found %v, %v: want only the one that is not ours", procs, err)
	}
	if procs, err = below(dir[:len(dir)-1]); err != nil || len(procs) != 0 {
		t.Errorf("found %v, %v in a directory whose name only begins so", procs, err)
	}
}

// start runs a program named sleep for a while.
func start(t *testing.T, dir, program string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, "60")
	cmd.Args[0], cmd.Dir = "sleep", dir
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	})
	return cmd
}
