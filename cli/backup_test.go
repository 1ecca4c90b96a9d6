package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"github.com/quorate/quorate/backup"
	"github.com/quorate/quorate/backup/bucket"
	"github.com/quorate/quorate/backup/catalog"
	"github.com/quorate/quorate/datadir"
	"github.com/quorate/quorate/etcd"
)

func TestByteSizes(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "1": 1, "50MiB": 50 << 20, "50M": 50 << 20, "50MB": 50e6, "1.5GiB": 3 << 29, "10 KiB/s": 10 << 10, "7B": 7,
		"": -1, "-1": -1, "50XB": -1, "MiB": -1, "NaN": -1, "1e30": -1, "Inf": -1, "9223372036854775807": -1,
	} {
		var b byteSize
		err := b.Set(text)
		if (err != nil) != (want < 0) || err == nil && int64(b) != want {
			t.Errorf("%q is %d, %v; want %d", text, b, err, want)
		}
	}
}

func TestSpans(t *testing.T) {
	const day = 24 * time.Hour
	for text, want := range map[string]time.Duration{
		"0": 0, "36h": 36 * time.Hour, "14d": 14 * day, "1.5d": 36 * time.Hour, "8w": 56 * day,
		"": -1, "-1h": -1, "-1d": -1, "3x": -1, "d": -1, "NaNd": -1, "1e30w": -1, "14": -1,
	} {
		var s span
		err := s.Set(text)
		if (err != nil) != (want < 0) || err == nil && time.Duration(s) != want {
			t.Errorf("%q is %s, %v; want %s", text, s.String(), err, want)
		}
	}
}

func TestReadCredentials(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		mode       os.FileMode
		want       map[string]string
		err        string
	}{
		{"lines", "# a comment\nexport AWS_ACCESS_KEY_ID=a\n\nAWS_SECRET_ACCESS_KEY='b=c'\r\nAZURE_STORAGE_KEY=z\n", 0o600, map[string]string{"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b=c"}, ""},
		{"JSON", `{"AWS_ACCESS_KEY_ID":"a","AWS_SECRET_ACCESS_KEY":"b"}`, 0o640, map[string]string{"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}, ""},
		{"readable by all", "AWS_ACCESS_KEY_ID=a\n", 0o644, nil, "chmod 600"},
		{"no JSON", `{"AWS_ACCESS_KEY_ID":"hidden",`, 0o600, nil, "is no JSON object of strings"},
		{"no line", "AWS_ACCESS_KEY_ID=a\nhidden\n", 0o600, nil, "line 2 is not NAME=VALUE"},
		{"twice", "AWS_ACCESS_KEY_ID=hidden\nAWS_ACCESS_KEY_ID=hidden\n", 0o600, nil, "line 2 has AWS_ACCESS_KEY_ID a second time"},
		{"of something else", "PASSWORD=hidden\n", 0o600, nil, `has "PASSWORD", which is no credential of a store`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "credentials")
			if err := os.WriteFile(file, []byte(tc.text), tc.mode); err != nil {
				t.Fatal(err)
			}
			got, err := readCredentials(file, bucket.S3)
			if tc.err == "" && err != nil || tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err) || strings.Contains(err.Error(), "hidden")) {
				t.Fatalf("%v, want %q", err, tc.err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestReadRecipients(t *testing.T) {
	const one = "age18uhexrslt66t76wlt3zz5mggelrupp6tfpyttdr8jd9e80pgzavs2c8sck"
	file := filepath.Join(t.TempDir(), "recipients")
	if err := os.WriteFile(file, []byte("# ours\n"+one+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	recipients, err := readRecipients([]string{one}, file)
	if err != nil || len(recipients) != 1 || strings.Contains(recipients[0].Fingerprint, "age1") {
		t.Errorf("%+v, %v", recipients, err)
	}
	for text, want := range map[string]string{"age1nope": "is no age recipient", "AGE-SECRET-KEY-1": "a secret identity was given"} {
		if _, err = readRecipients([]string{text}, ""); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

func TestLegible(t *testing.T) {
	for text, want := range map[string]string{
		"/app/a": "/app/a", "ключ 鍵": "ключ 鍵", "": "", "\x1b[31m": `"\x1b[31m"`, "\xff": `"\xff"`, "a\nb": `"a\nb"`, "\u202e": `"\u202e"`,
	} {
		if got := legible(text); got != want {
			t.Errorf("%q is shown as %s, want %s", text, got, want)
		}
	}
	if got := short([]byte(strings.Repeat("鍵", 1000))); len([]rune(got)) > 2*shownValue+10 {
		t.Errorf("a long value is shown with %d characters", len([]rune(got)))
	}
}

func TestBumpOf(t *testing.T) {
	cmd := &cobra.Command{Use: "restore"}
	for _, tc := range []struct {
		text            string
		revision, known int64
		want            int64
		err             string
	}{
		{bumpAuto, 100, 0, backup.DefaultBump, ""},
		{bumpAuto, 100, 150, 1_000_050, ""},
		{"7", 100, 0, 7, ""},
		{"0", 100, 100, 0, ""},
		{"0", 100, 101, 0, "clients have seen up to 101: give at least 1, or auto"},
		{"-1", 100, 0, 0, "give auto, or a number of 0 or more"},
		{"much", 100, 0, 0, "give auto, or a number of 0 or more"},
	} {
		got, err := bumpOf(cmd, tc.text, tc.revision, tc.known)
		if tc.err == "" && (err != nil || got.By != tc.want || got.Why == "") || tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)) {
			t.Errorf("%s from %d, known %d: %+v, %v; want %d, %q", tc.text, tc.revision, tc.known, got, err, tc.want, tc.err)
		}
	}
}

func TestEtcdFlags(t *testing.T) {
	cmd := &cobra.Command{Use: "restore"}
	cluster, err := initialCluster(cmd, "a=https://10.0.0.1:2380,b=https://[::1]:12380")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"--name=b", "--data-dir=/d", "--initial-cluster=a=https://10.0.0.1:2380,b=https://[::1]:12380", "--initial-cluster-token=t",
		"--initial-advertise-peer-urls=https://[::1]:12380", "--listen-peer-urls=https://[::1]:12380",
		"--advertise-client-urls=https://[::1]:12379", "--listen-client-urls=https://[::1]:12379",
	}
	if diff := cmp.Diff(want, etcdFlags("b", "/d", cluster, "t")); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []string{"", "a", "=http://x:1", "a=x:1", "a=http://x", "a=ftp://x:1", "a=http://x:1,"} {
		if _, err = initialCluster(cmd, bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

// point is a complete backup of a catalog.
func point(name string, id catalog.ID, epoch uint32, revision int64, nonce string) catalog.Entry {
	ref := catalog.Ref{
		Lineage: catalog.Lineage{Cluster: catalog.Cluster{Namespace: "default", Name: name}, ClusterID: id, Epoch: epoch},
		Time:    time.Unix(1_700_000_000+revision, 0).UTC(), Revision: revision, Nonce: nonce,
	}
	return catalog.Entry{Ref: ref, State: catalog.Complete, Point: &catalog.Point{ClusterID: id, Epoch: epoch, Revision: revision, RaftTerm: 2, RaftIndex: 5}}
}

func TestPick(t *testing.T) {
	b, err := bucket.Open(t.Context(), bucket.Config{Provider: bucket.File, Prefix: t.TempDir()}, bucket.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	one := catalog.Catalog{Entries: []catalog.Entry{
		point("prod", 1, 1, 900, "00000001"), point("prod", 1, 2, 5, "00000002"), point("prod", 1, 2, 7, "00000003"),
	}}
	one.Entries[0].Proofs = []catalog.ProofEntry{{Proof: &catalog.Proof{Result: catalog.Verified}}}
	several := catalog.Catalog{Entries: append([]catalog.Entry{point("far", 1, 1, 3, "00000001")}, one.Entries...)}
	again := catalog.Catalog{Entries: append([]catalog.Entry{}, append(one.Entries, point("prod", 2, 1, 3, "00000004"))...)}
	cmd := &cobra.Command{Use: "show"}
	for _, tc := range []struct {
		cat        catalog.Catalog
		text, want string
		code       int
	}{
		{one, wordLatest, "00000003", 0},
		{one, wordLatestProven, "00000001", 0},
		{one, "00000002", "00000002", 0},
		{one, one.Entries[1].Ref.ID(), "00000002", 0},
		{one, "0000000a", "", exitNotFound},
		{one, "newest", "", exitUsage},
		{catalog.Catalog{}, wordLatest, "", exitNotFound},
		{several, wordLatest, "", exitUsage},
		{several, "00000001", "", exitUsage},
		{several, "00000002", "00000002", 0},
		{again, wordLatest, "", exitUsage},
	} {
		got, err := pick(cmd, b, &tc.cat, tc.text)
		if exitCode(err) != tc.code || err == nil && got.Ref.Nonce != tc.want {
			t.Errorf("%s of %d: %v, %v; want %s, exit code %d", tc.text, len(tc.cat.Entries), got, err, tc.want, tc.code)
		}
	}
}

func TestUnlike(t *testing.T) {
	survey := func(id etcd.ID, revision int64, term, index uint64) *etcd.Survey {
		return &etcd.Survey{ClusterID: id, Members: []etcd.MemberAnswer{{Answered: true, Status: etcd.Status{Revision: revision, Term: term, AppliedIndex: index}}}}
	}
	cat := &catalog.Catalog{Entries: []catalog.Entry{point("prod", 1, 1, 10, "00000001")}}
	reset := &catalog.Catalog{Entries: append(cat.Entries[:1:1], point("prod", 1, 2, 3, "00000002"))}
	of := func(c *catalog.Catalog) *origin {
		return &origin{Origin: backup.Origin{Entry: &c.Entries[0]}, catalog: c}
	}
	for _, tc := range []struct {
		from   *origin
		survey *etcd.Survey
		want   string
	}{
		{of(cat), survey(1, 10, 2, 5), ""},
		{of(cat), survey(1, 99, 3, 9), ""},
		{of(cat), survey(2, 99, 3, 9), "the backup is of cluster 0000000000000001, and this is 0000000000000002"},
		{of(cat), survey(1, 9, 3, 9), "was reset since"},
		{of(cat), survey(1, 99, 1, 9), "was reset since"},
		{of(cat), survey(1, 99, 3, 4), "was reset since"},
		{of(reset), survey(1, 99, 3, 9), "the backup is of epoch 1, and there is one of 2"},
		{&origin{}, survey(1, 99, 3, 9), "a snapshot does not say"},
	} {
		if got := unlike(tc.from, tc.survey); tc.want == "" && got != "" || !strings.Contains(got, tc.want) {
			t.Errorf("%q, want %q", got, tc.want)
		}
	}
}

// TestBackupExitCodes: the worst of several errors decides.
func TestBackupExitCodes(t *testing.T) {
	for _, tc := range []struct {
		err  error
		code int
	}{
		{fmt.Errorf("x: %w", backup.ErrDestinations), exitPartly},
		{errors.Join(fmt.Errorf("x: %w", backup.ErrDestinations), errUnsound), exitUnsound},
		{errors.Join(backup.ErrUnproven, backup.ErrDestinations), exitPartly},
		{fmt.Errorf("%w: %w", backup.ErrUnproven, bucket.ErrUnavailable), exitUntried},
		{fmt.Errorf("x: %w", datadir.ErrTruncated), exitUnsound},
		{fmt.Errorf("x: %w", backup.ErrNoLeader), exitUnreachable},
		{&bucket.Error{Kind: bucket.ErrDenied}, exitRefused},
		{&bucket.Error{Kind: bucket.ErrNoBucket}, exitNotFound},
		{&bucket.Error{Kind: bucket.ErrUnavailable}, exitUnreachable},
		{&bucket.Error{Kind: bucket.ErrNoSpace}, exitFailed},
		{datadir.ErrRestore, exitRefused},
	} {
		if got := exitCode(tc.err); got != tc.code {
			t.Errorf("%v: exit code %d, want %d", tc.err, got, tc.code)
		}
	}
}

func TestBackupUsage(t *testing.T) {
	const store = "s3://b/p?region=x"
	for _, tc := range []struct{ args, stderr string }{
		{"backup runn", `there is no command "quorate backup runn"`},
		{"backup run", "--endpoints is missing"},
		{"backup run --endpoints a", "--to is missing: name a store"},
		{"backup run --endpoints a --to " + store, "--name is missing: etcd knows no name"},
		{"backup run -c a --name b --to " + store, "-c names the cluster"},
		{"backup run --endpoints a --name a/b/c --to " + store, `--name is "a/b/c": give NAME, or NAMESPACE/NAME`},
		{"backup run --endpoints a --name b --to " + store + " --prove=false --etcd x", "--etcd belongs to the proof"},
		{"backup run --endpoints a --name b --to " + store + " --prove=false --identity-file x", "--identity-file belongs to the proof"},
		{"backup run --endpoints a --name b --to " + store + " --compliance", "--compliance belongs to --lock-for"},
		{"backup run --endpoints a --name b --to . --lock-for 1d", "has no object lock, only S3 has"},
		{"backup run --endpoints a --name b --to . --to .", "twice"},
		{"backup run --endpoints a --name b --to . --encrypt-to x", "is no age recipient"},
		{"backup run --endpoints a --name b --to . --keep-last -1", "keep last is negative"},
		{"backup run --endpoints a --name b --to . --rate fast", `--rate is "fast": give a number of bytes such as 50MiB`},
		{"backup run --endpoints a --name b --to . --keep-within 3x", `--keep-within is "3x": give a time such as 36h, 14d or 8w`},
		{"backup run --endpoints a --name b --to s3://u:p@b/p", "has credentials"},
		{"backup list", "URL is missing"},
		{"backup list ftp://x", `there is no provider "ftp"`},
		{"backup list file://x/y", "a directory's URL has three slashes"},
		{"backup list . --cluster-id xyz", `--cluster-id is "xyz"`},
		{"backup list . -o xml", `--output is "xml"`},
		{"backup list " + store + " --credentials-file x --instance-credentials", "both say who asks"},
		{"backup show .", "URL and ID is missing"},
		{"backup verify .", "or URL --all, is missing"},
		{"backup verify . latest --older-than 3d", "--older-than belongs to --all"},
		{"backup copy . .. ", "or --all, is missing"},
		{"backup copy . . --all", "give two stores"},
		{"backup prune .", "no rule is given"},
		{"backup browse . latest key --prefix x", "KEY is one key"},
		{"backup browse . latest --history", "--history is that of one key"},
		{"backup browse . latest -o raw", "-o raw writes one value"},
		{"backup browse . latest --rev -1", "--rev is -1"},
		{"backup browse --snapshot x a b", "--snapshot names what is read, and \"a\" was given"},
		{"backup diff . latest --endpoints a", "say which keys are meant"},
		{"backup diff . latest --endpoints a --prefix=", "--prefix is empty"},
		{"backup diff . latest k --endpoints a --all", "give one of them"},
		{"backup put-back . latest k", "--endpoints is missing"},
		{"restore . latest", "--to-dir is missing"},
		{"restore . latest --to-dir x --member a=b", "--to-dir is for one member"},
		{"restore . latest --to-dir x --allow-no-hash", "--allow-no-hash belongs to --snapshot"},
		{"restore . latest --to-dir x --initial-cluster a=http://h:1,b=http://h:2", "--to-dir is for a cluster of one member"},
		{"restore . latest --member a", `--member is "a": give NAME=DIR`},
		{"restore . latest --member a=x", "--initial-cluster is missing"},
		{"restore . latest --initial-cluster a=http://h:1 --member b=x", "--member names b, and --initial-cluster has a"},
		{"restore . latest --initial-cluster a=http://h:1,b=http://h:2 --member a=x --member b=x", "each has a directory of its own"},
		{"restore . latest --initial-cluster a=http://h:1,b=http://h:2 --member a=x", "give --token"},
		{"snapshot check", "FILE is missing"},
		{"snapshot hash x --rev -1", "--rev is -1"},
	} {
		t.Run(tc.args, func(t *testing.T) {
			code, _, stderr := run(t, strings.Fields(tc.args)...)
			if code != exitUsage || !strings.Contains(stderr, tc.stderr) {
				t.Errorf("exit code %d, want %d; stderr %q, want %q in it", code, exitUsage, stderr, tc.stderr)
			}
		})
	}
}
