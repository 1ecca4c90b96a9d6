package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quorate/quorate/backup/bucket"
	"github.com/quorate/quorate/test/s3lab"
)

// TestSnapshotOfStore has every command that reads a snapshot read one that others
// stored in S3.
func TestSnapshotOfStore(t *testing.T) {
	lab := s3lab.New(t, s3lab.Options{})
	lab.Make("theirs")
	config := lab.Config("theirs")
	b, err := bucket.Open(t.Context(), config, bucket.Options{Credentials: s3lab.Credentials()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	const name = "Full-00000000-00000041-1700000000"
	content, err := os.ReadFile("../backup/testdata/foreign/v2/" + name + ".Z")
	if err != nil {
		t.Fatal(err)
	}
	for object, content := range map[string][]byte{name + ".Z": content, name + "-short.Z": content[:1000], "Incr-00000042-00000050-1700000100.Z": content} {
		if _, err = b.Put(t.Context(), "shoot/v2/"+object, bytes.NewReader(content), bucket.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	url := func(object string) string {
		return "s3://theirs/shoot/v2/" + object + "?" + strings.SplitN(config.String(), "?", 2)[1]
	}
	dir := t.TempDir()
	credentials := filepath.Join(dir, "credentials")
	if err = os.WriteFile(credentials, []byte("AWS_ACCESS_KEY_ID="+s3lab.Key+"\nAWS_SECRET_ACCESS_KEY="+s3lab.Secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	for _, tc := range []struct {
		args string
		want int
		text string
	}{
		{"snapshot check " + url(name+".Z") + " --credentials-file " + credentials, exitOK, "40 keys and 0 leases at revision 41"},
		{"snapshot hash " + url(name+".Z") + " --credentials-file " + credentials, exitOK, " at revision 41, compacted at 0"},
		{"backup browse --snapshot " + url(name+".Z") + " --credentials-file " + credentials + " /foreign/07 -o raw", exitOK, "value 7"},
		{"restore --snapshot " + url(name+".Z") + " --credentials-file " + credentials + " --to-dir " + dir + "/dry --dry-run", exitOK, "40 keys and 0 leases at revision 41"},
		{"restore --snapshot " + url(name+".Z") + " --credentials-file " + credentials + " --to-dir " + dir + "/made", exitOK, name + ".Z in s3://theirs/shoot/v2?"},
		{"snapshot check " + url(name+"-short.Z") + " --credentials-file " + credentials, exitUnsound, "its end is missing"},
		{"restore --snapshot " + url(name+"-short.Z") + " --credentials-file " + credentials + " --to-dir " + dir + "/short", exitUnsound, "its end is missing"},
		{"snapshot check " + url("gone.Z") + " --credentials-file " + credentials, exitNotFound, "not found"},
		{"snapshot check " + url("Incr-00000042-00000050-1700000100.Z") + " --credentials-file " + credentials, exitUsage, "a delta of etcd-backup-restore, which holds only what changed"},
		{"restore --snapshot " + url("Incr-00000042-00000050-1700000100.Z") + " --to-dir " + dir + "/x", exitUsage, "name that full snapshot (Full-…)"},
		{"snapshot check " + url(name+".Z"), exitFailed, "--credentials-file and --instance-credentials are other ways to give them"},
		{"snapshot check s3://theirs/?region=eu-west-1", exitUsage, "names a bucket or a directory, and no object in it"},
		{"snapshot check s3://theirs/a?region=eu-west-1&password=x", exitUsage, `s3 has no "password"`},
		{"restore --snapshot " + url(name+".Z") + " --name prod --to-dir " + dir + "/x", exitUsage, "--name and --cluster-id choose in a store"},
	} {
		var out bytes.Buffer
		args := append([]string{"quorate", "--data-dir", filepath.Join(dir, "data")}, strings.Fields(tc.args)...)
		if got := Main(t.Context(), args, Stdio{In: eof{}, Out: &out, Err: &out}); got != tc.want || !strings.Contains(out.String(), tc.text) {
			t.Errorf("%s: exit code %d, want %d and %q, in:\n%s", tc.args, got, tc.want, tc.text, out.String())
		}
		if strings.Contains(out.String(), s3lab.Secret) {
			t.Errorf("%s prints a secret", tc.args)
		}
	}
	left, err := filepath.Glob(filepath.Join(dir, "data", spoolName, "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("the spool still has %q, %v", left, err)
	}
	for _, made := range []string{"dry", "short", "x"} {
		if _, err = os.Stat(filepath.Join(dir, made)); err == nil {
			t.Errorf("%s was made", made)
		}
	}
}
