package scripts_test

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/cli"
)

// notRun are the examples that no script runs as they stand, each with its reason.
var notRun = map[string]string{
	"quorate agent --server https://10.0.0.2:7379 --join-token-file join-token --host db1 --address 10.0.0.7": "names a machine; join.txtar joins with a token",
	"quorate agent --host db1 --address 10.0.0.7 --names db1.example.com --zone a":                            "names a machine; server.txtar runs an agent on this one",
	"quorate agent --address 10.0.0.7 --allow-faults":                                                         "names a machine; up.txtar kills a member through the agent of `up`",
	"quorate member --home /var/lib/quorate/members/default.playground-1.0a1b2c3d":                            "is started by the agent in every script with a cluster",

	"quorate host check db1 --peer 10.0.0.8 --peer 10.0.0.9:2380":                                       "names machines; host-check.txtar measures to this one",
	"quorate host check --local --data-dir /var/lib/quorate --address 10.0.0.7 --peer 10.0.0.8 -o json": "names machines; host-check.txtar measures to this one",

	"quorate server": "listens on a port that others may hold; server.txtar runs it on a free one",
	"quorate server --listen 10.0.0.2:7379 --tls-self-made --tls-names quorate.example.com":               "names a machine; join.txtar makes a certificate for this one",
	"quorate server --listen 10.0.0.2:7379 --tls-cert-file server.crt --tls-key-file server.key":          "names a machine",
	"quorate server --discovery-listen 10.0.0.2:7382 --dns-listen 10.0.0.2:53":                            "names a machine; formation.txtar runs both on this one",
	"quorate server --store-endpoints https://10.0.0.3:2379 --store-ca-file ca.crt":                       "names a machine; the tests of store/etcd run on an external etcd",
	"quorate --server https://quorate.example.com:7379 --token-file token server backup fleet.tar":        "names a machine; reference.txtar backs up the one that runs",
	"quorate release add https://mirror.example.com/etcd/v3.6.16/etcd-v3.6.16-linux-amd64.tar.gz":         "names a machine; the tests of package release serve such a mirror",
	"quorate release add /opt/etcd/bin --version 3.5.35 --dry-run":                                        "names a directory; release.txtar adds one from a directory",
	"quorate release add etcd-v3.6.16-linux-amd64.tar.gz --sha256 <64 hex digits>":                        "has a digest to be filled in; the tests of package release check it",
	"quorate doctor --endpoints https://10.0.0.1:2379 --cacert ca.crt --cert client.crt --key client.key": "names a machine",
	"quorate doctor --endpoints https://10.0.0.1:2379 --cacert ca.crt --user root -o json":                "names a machine",

	"quorate host add ssh://root@10.0.0.7 --zone a":                                      "names a machine; the tests of hosts/install add machines with sshd and with systemd",
	"quorate host add ssh://ops@db1.example.com --address 10.0.0.7 --name db1 --dry-run": "names a machine; the tests of hosts/install look at one",
	"quorate host add ssh://root@10.0.0.7 ssh://root@10.0.0.8 --identity ~/.ssh/fleet":   "names machines; the tests of hosts/install add several",
	"quorate host add --from hosts.yaml --count 2 --zone b":                              "names machines; the tests of hosts/install add some of a list",
	"quorate host remove db1 --uninstall":                                                "logs in on a machine; the tests of hosts/install take an agent off one",

	"quorate check run --endpoints http://127.0.0.1:2379":                                                              "disturbs whatever has etcd's usual port; check.txtar runs it on a cluster of its own",
	"quorate check clean --endpoints http://127.0.0.1:2379 --prefix /mine/":                                            "asks whatever has etcd's usual port; check.txtar cleans a cluster of its own",
	"quorate check run --endpoints https://10.0.0.1:2379 --cacert ca.crt --cert client.crt --key client.key --rate 50": "names a machine",

	"quorate bench --endpoints http://127.0.0.1:2379":         "loads whatever listens there; bench.txtar loads a cluster of its own",
	"quorate bench -c playground --from db1,db2 --rate 20000": "names machines; the tests of --from drive a load from agents",

	"quorate backup run --endpoints https://10.0.0.1:2379 --cacert ca.crt --cert client.crt --key client.key --name prod --to s3://backups/etcd?region=eu-west-1 --to s3://backups-far/etcd?region=us-east-1 --encrypt-to age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p --identity-file backup.key": "names a machine and stores of Amazon; backup.txtar encrypts, and backs up into two directories",
	"quorate backup run -f policy.yaml --once --endpoints http://127.0.0.1:2379 --name prod -o json":                "asks whatever has etcd's usual port; policy.txtar names a cluster of its own",
	"quorate backup list s3://backups/etcd?region=eu-west-1":                                                        "names a store of Amazon; backup.txtar lists a directory",
	"quorate backup copy ./backups s3://backups/etcd?region=eu-west-1 --all --dry-run":                              "names a store of Amazon; backup.txtar copies to a directory",
	"quorate backup prune s3://backups/etcd?region=eu-west-1 --name default/prod --keep-daily 30 --keep-monthly 12": "names a store of Amazon; backup.txtar prunes a directory",

	"quorate restore --snapshot s3://backups/shoot/v2/Full-00000000-00012345-1700000000.gz?region=eu-west-1 --to-dir ./from-object":                                                                                                       "names a store of Amazon; foreign.txtar restores such an object from a directory",
	"quorate restore s3://backups/etcd?region=eu-west-1 latest-proven --name default/prod --initial-cluster a=https://10.0.0.1:2380,b=https://10.0.0.2:2380,c=https://10.0.0.3:2380 --member a=/var/lib/etcd --token restored-2026-11-21": "names a store of Amazon; backup.txtar restores from a directory",

	"quorate restore cluster prod-then --policy nightly --of prod --point latest --not-after 2026-11-21T03:00:00Z":                                "names a time; restore-cluster.txtar names another, of which there is nothing",
	"quorate restore cluster prod --store s3://backups/etcd?region=eu-west-1 --credentials-secret backup-store --of default/prod --version 3.7.3": "names a store of Amazon; restore-cluster.txtar restores from a directory alone",
	"quorate restore cluster shoot --store s3://backups/shoot?region=eu-west-1 --object v2/Full-00000000-00012345-1700000000.gz --version 3.7.3":  "names a store of Amazon; restore-cluster.txtar restores such an object from a directory",

	"quorate import orders --endpoints http://10.0.0.1:2379":                                                                       "names a machine; import.txtar imports from this one",
	"quorate import orders --endpoints https://10.0.0.1:2379 --cacert ca.crt --cert client.crt --key client.key":                   "names a machine; import.txtar imports from this one",
	"quorate import orders --endpoints https://10.0.0.1:2379 --cacert ca.crt --cert client.crt --key client.key --maintain Backup": "names a machine; import.txtar imports from this one",
	"quorate import orders --endpoints https://10.0.0.1:2379 --cacert ca.crt --user quorate --password-file password":              "names a machine; the tests of test/e2e import with users",
}

// TestReferenceRuns: every example of the reference stands in a script, or on the list
// above.
func TestReferenceRuns(t *testing.T) {
	files, err := filepath.Glob("*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d scripts, %v", len(files), err)
	}
	var scripts strings.Builder
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		scripts.Write(raw)
	}
	examples := examplesOf(cli.Root())
	for _, v := range unrun(examples, scripts.String(), slices.Collect(maps.Keys(notRun))) {
		t.Error(v)
	}
	for _, example := range slices.Sorted(maps.Keys(notRun)) {
		if !slices.Contains(examples, example) {
			t.Errorf("%s: is no example any more: take it off the list", example)
		}
	}
}

func examplesOf(cmd *cobra.Command) []string {
	var list []string
	for line := range strings.Lines(cmd.Example) {
		list = append(list, strings.TrimSpace(line))
	}
	for _, c := range cmd.Commands() {
		list = append(list, examplesOf(c)...)
	}
	return list
}

// unrun says which examples no script runs with nothing added to them.
func unrun(examples []string, scripts string, excused []string) []string {
	var found []string
	for _, example := range examples {
		whole := regexp.MustCompile(`(?m)(^|[\s'"])` + regexp.QuoteMeta(example) + `( >.*| &\w*&?|['"].*)?$`)
		runs, excuse := whole.MatchString(scripts), slices.Contains(excused, example)
		switch {
		case !runs && !excuse:
			found = append(found, example+": no script runs it: add it to one, or say in notRun why not")
		case runs && excuse:
			found = append(found, example+": a script runs it: take it off notRun")
		}
	}
	return found
}

// TestUnrun shows that TestReferenceRuns can fail.
func TestUnrun(t *testing.T) {
	const scripts = "exec quorate a b -c\nexec quorate up &up&\nexec sh -c 'quorate d >x'\nquorate e | quorate f -\nexits 4 quorate g"
	for example, want := range map[string]int{
		"quorate a b -c": 0, "quorate a b": 1, "quorate up": 0, "quorate d": 0, "quorate e": 1, "quorate e | quorate f -": 0, "quorate g": 0, "quorate": 1,
	} {
		if got := unrun([]string{example}, scripts, nil); len(got) != want {
			t.Errorf("%s: %q", example, got)
		}
	}
	if got := unrun([]string{"quorate g", "quorate h"}, scripts, []string{"quorate g", "quorate h"}); len(got) != 1 {
		t.Errorf("excused: %q", got)
	}
}
