package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// backups lists what the issue of backups asks to be shown.
func backups() []item {
	return []item{
		{"beside-backup", "beside etcdctl snapshot save, under a load: as many MB/s, in at most 150 MB of memory; what the load feels of both", 20 * time.Minute, proveBeside("backup-full")},
		{"beside-restore", "beside etcdutl snapshot restore: as many MB/s", 20 * time.Minute, proveBeside("backup-restore")},
		{"under-load", "50 backups at random moments of a load with leases, users, large transactions, compactions, moves of the leader and kill -9 of the process: each restore is the source at that revision, asked with etcdctl", 20 * time.Minute, proveUnderLoad},
		{"stores", "a directory and a real S3 server with faults between: never a false Verified, always a precise message, older backups still restorable", 20 * time.Minute, proveStores},
		{"retention", "10,000 simulated points: nothing wanted is ever deleted, in any order of revisions and names", 15 * time.Minute, proveRetention},
		{"refused", "truncated, altered, foreign and empty snapshots are refused; the empty record of a bumped revision is not", 15 * time.Minute, proveRefused},
		{"restores", "restores on 3.5, 3.6 and 3.7: keys, leases, log-ins, alarms, bumped revisions, three members, killed on the way", 15 * time.Minute, proveRestores},
		{"versions", "from learners, with TLS and users, on 3.5, 3.6 and 3.7; proven, and restored on the release they came from", 15 * time.Minute, proveVersions},
		{"big", "a database of over 2 GiB under a quota of 8 GiB: backed up, proven and restored", 20 * time.Minute, proveBig},
		{"commands", "quorate backup and restore without a server, as a person uses them", 15 * time.Minute, proveBackupCommands},
		{"policy", "policies on managed and imported clusters: scheduled, proven, pruned; imported ones only when that is allowed", 15 * time.Minute, proveBackupPolicy},
		{"without-server", "quorate backup run -f policy.yaml without a server: scheduled, proven, pruned", 15 * time.Minute, proveBackupFile},
		{"foreign", "snapshots of etcdctl, and full ones as etcd-backup-restore packs them, in files and in stores, are restore points", 15 * time.Minute, proveForeign},
		{"restore-cluster", "EtcdRestore: a new cluster and in place, at the same addresses, over a stop of the server, from one of two stores while the other refuses; what can't be restored touches nothing; killed at each write", 20 * time.Minute, proveRestoreCluster},
		{"sabotage", "each line above turns red when what it shows is broken", 60 * time.Minute, proveSabotage("backup", backupSabotages)},
	}
}

// told is what a test logs of its figures.
var told = regexp.MustCompile(`(?m)^\s+\w+_test\.go:\d+: (.*(?:backups up to revision|stored as).*)$`)

// complained is what a test says, whatever its etcds logged.
var complained = regexp.MustCompile(`(?m)^\s+\w+_test\.go:\d+: .{1,400}`)

// figures runs one test verbosely, and returns what it has measured.
func (e *env) figures(ctx context.Context, more []string, pkg, test string) (string, error) {
	out, err := output(command(ctx, e.repo, more, "go", "test", pkg, "-run", "^"+test+"$", "-count=1", "-v", "-timeout=19m"))
	found := told.FindStringSubmatch(out)
	if found == nil || strings.Contains(out, "--- SKIP") {
		// The logs of etcds stand behind what went wrong.
		if said := complained.FindAllString(out, 5); said != nil {
			out = strings.Join(said, "\n")
		}
		return tail(out, 700), errors.Join(err, errors.New("it did not say what it measured"))
	}
	return found[1], err
}

func proveUnderLoad(ctx context.Context, e *env) (string, error) {
	const n = "50"
	seen, err := e.figures(ctx, []string{"QUORATE_BACKUPS=" + n}, "./test/backups", "TestBackupsUnderLoad")
	if !strings.HasPrefix(seen, n+" backups") {
		err = errors.Join(err, errors.New("those are not "+n))
	}
	return seen, err
}

func proveStores(ctx context.Context, e *env) (string, error) {
	seen, err := e.tests(ctx, nil, "./test/backups", "TestFaultyStore|TestRot|TestStoreFull|TestRevoked|TestSpoolDisk", 15, "TestFaultyStore", "TestRot", "TestStoreFull", "TestRevoked", "TestSpoolDisk")
	if err != nil {
		return seen, err
	}
	more, err := e.tests(ctx, nil, "./backup/bucket", "", 30, "TestS3", "TestDirectory", "TestTransientFaults", "TestLastingFaults", "TestObjectLock", "TestDenied", "TestClockSkew", "TestDiskFull")
	return seen + "; " + more, err
}

func proveRetention(ctx context.Context, e *env) (string, error) {
	return e.tests(ctx, nil, "./backup/catalog", "", 40, "TestDecideTenThousand", "TestOracleCanFail", "TestYear", "TestPruneKilled", "TestPruneNeverTheLast", "TestLineagesAreApart", "TestReadTenThousand")
}

func proveRefused(ctx context.Context, e *env) (string, error) {
	return e.tests(ctx, nil, "./datadir", "TestCheckSnapshot|TestEveryTruncation|TestBitFlips|TestRestoreRefusals|TestRestoreBumped", 10, "TestCheckSnapshot", "TestEveryTruncation", "TestBitFlips", "TestRestoreRefusals", "TestRestoreBumped")
}

func proveRestores(ctx context.Context, e *env) (string, error) {
	return e.tests(ctx, nil, "./datadir", "TestRestore|TestFileEqualsEtcd", 20, "TestRestoreEqualsSource", "TestRestoreToNewer", "TestRestoreThreeMembers", "TestRestoreAlarms", "TestRestoreKilled", "TestFileEqualsEtcd")
}

func proveVersions(ctx context.Context, e *env) (string, error) {
	return e.tests(ctx, nil, "./test/backups", "TestVersions", 4, "TestVersions/3.5.35", "TestVersions/3.6.16", "TestVersions/3.7")
}

// bigMiB is how large the database is.
const bigMiB = 2100

func proveBig(ctx context.Context, e *env) (string, error) {
	return e.figures(ctx, []string{fmt.Sprintf("QUORATE_BIG_MIB=%d", bigMiB)}, "./test/backups", "TestBig")
}

func proveBackupCommands(ctx context.Context, e *env) (string, error) {
	return e.tests(ctx, nil, "./test/scripts", "TestScripts/backup", 2, "TestScripts/backup")
}

func proveBackupPolicy(ctx context.Context, e *env) (string, error) {
	return e.tests(ctx, nil, "./test/e2e", "TestBackupPolicy", 1, "TestBackupPolicy")
}

func proveBackupFile(ctx context.Context, e *env) (string, error) {
	seen, err := e.tests(ctx, nil, "./test/scripts", "TestScripts/policy", 2, "TestScripts/policy")
	if err != nil {
		return seen, err
	}
	more, err := e.tests(ctx, nil, "./app", "TestFollowBackupFile|TestProofGoesOn", 2, "TestFollowBackupFile", "TestProofGoesOn")
	return seen + "; " + more, err
}

func proveForeign(ctx context.Context, e *env) (string, error) {
	seen, err := e.tests(ctx, nil, "./backup", "TestForeign", 3)
	if err != nil {
		return seen, err
	}
	more, err := e.tests(ctx, nil, "./test/scripts", "TestScripts/foreign", 2, "TestScripts/foreign")
	return seen + "; " + more, err
}

func proveRestoreCluster(ctx context.Context, e *env) (string, error) {
	var all []string
	for _, t := range []struct {
		pkg, run string
		least    int
		names    []string
	}{
		{"./test/e2e", "TestRestore$|TestTwoStores", 2, []string{"TestRestore", "TestTwoStores"}},
		{"./test/scripts", "TestScripts/restore-cluster", 2, []string{"TestScripts/restore-cluster"}},
		{"./driver/host", "TestConformance/restore|TestConformanceWithTLS/restore|TestRestore", 8, []string{"TestConformance/restore", "TestRestoreKilled", "TestRestoreProcessKilled"}},
		{"./fleet", "", 60, []string{"TestAnyHistoryConverges", "TestEveryCrashPoint"}},
	} {
		seen, err := e.tests(ctx, nil, t.pkg, t.run, t.least, t.names...)
		all = append(all, t.pkg+": "+seen)
		if err != nil {
			return strings.Join(all, "; "), err
		}
	}
	return strings.Join(all, "; "), nil
}

// backupSabotages has a change for each item of the backup list.
var backupSabotages = []sabotage{
	{"beside-backup", "backup/spool.go", "	n, err := s.file.Write(p)\n", "	n, err := s.file.Write(p)\n	_ = s.file.Sync()\n", "the spool is synced at every write"},
	{"beside-restore", "datadir/rebuild.go", "			if _, err := file.Write(b[:n]); err != nil {\n", "			_ = file.Sync()\n			if _, err := file.Write(b[:n]); err != nil {\n", "what is restored is synced at every write"},
	{"under-load", "datadir/rebuild.go", "			if err := o.disarm(tx); err != nil {\n", "			_ = tx.DeleteBucket([]byte(\"lease\"))\n			if err := o.disarm(tx); err != nil {\n", "a restore forgets the leases"},
	{"stores", "backup/prove.go", "	if found != nil {\n		p.proof.Result", "	if found != nil && p.proof.Bytes < 0 {\n		p.proof.Result", "every backup is called Verified"},
	{"retention", "backup/catalog/decide.go", "	case rankProven:\n		l.keep(best", "	case rankProven + 9:\n		l.keep(best", "the newest proven point may be deleted"},
	{"refused", "datadir/snapshot.go", "	case sums.size%diskSector == hashBytes && without == last:\n", "	case sums.size%diskSector == hashBytes:\n", "the hash behind a snapshot is not looked at"},
	{"restores", "datadir/restore.go", "	return a.Name == \"NOSPACE\" || ", "	return ", "a restored etcd still takes no writes"},
	{"versions", "backup/source.go", "RoleLearner: 0,", "RoleLearner: 3,", "learners come last"},
	{"big", "backup/stream.go", "func (c *counter) Write(p []byte) (int, error) {\n", "var hog []byte\n\nfunc (c *counter) Write(p []byte) (int, error) {\n	hog = append(hog, p...)\n", "the backup is held in memory"},
	{"commands", "backup/putback.go", "	return PutBack\n}", "	return RefusedLease\n}", "nothing is put back"},
	{"policy", "fleet/backupaccess.go", "	case !c.Allows(v1alpha1.MaintainBackup):\n", "	case c.DeletionTimestamp != nil && !c.Allows(v1alpha1.MaintainBackup):\n", "clusters of others are backed up without being asked"},
	{"without-server", "app/backups.go", "points.PruneOptions{DryRun: o.DryRun, ", "points.PruneOptions{DryRun: true, ", "nothing is ever pruned"},
	{"foreign", "backup/foreign.go", "	return isBolt(begin[:n]) || ", "	return ", "what is packed with lzw is not read"},
	{"restore-cluster", "fleet/planrestore.go", "	if len(waiting) > 0 {\n		hold(p, HeldRestore", "	if len(waiting) > 9 {\n		hold(p, HeldRestore", "members are started before all have their data"},
}
