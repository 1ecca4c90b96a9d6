package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// mutating are the commands that change something and must be able to only say what
// they would do. Plan --accept asks instead.
var mutating = []string{
	"quorate apply", "quorate backup copy", "quorate backup prune", "quorate backup put-back", "quorate backup run", "quorate backup verify", "quorate bench", "quorate bench clean", "quorate bench matrix", "quorate cert issue", "quorate chaos sweep", "quorate check clean", "quorate check run", "quorate delete", "quorate down", "quorate edit", "quorate discovery delete", "quorate discovery token", "quorate host add", "quorate host cordon", "quorate host drain", "quorate render ansible", "quorate render compose", "quorate render static-pod", "quorate render supervisord", "quorate render systemd", "quorate host label", "quorate host remove", "quorate host token", "quorate host unlabel",
	"quorate host uncordon", "quorate import", "quorate label", "quorate release add", "quorate restart", "quorate restore", "quorate restore cluster", "quorate resume",
	"quorate server restore", "quorate server rotate-key", "quorate server token", "quorate suspend",
}

// harmless are the others: they only read, or run until they are told to stop.
var harmless = []string{
	"quorate completion", "quorate completion bash", "quorate completion fish", "quorate completion powershell", "quorate completion zsh",
	"quorate", "quorate agent", "quorate backup", "quorate backup browse", "quorate backup diff", "quorate backup list", "quorate backup show", "quorate bench compare", "quorate bench worker", "quorate cert", "quorate cert list", "quorate chaos", "quorate chaos hold", "quorate chaos list",
	"quorate chaos probe", "quorate check", "quorate check history", "quorate console", "quorate describe",
	"quorate diff", "quorate doctor", "quorate etcdctl", "quorate etcdutl", "quorate events", "quorate explain", "quorate get",
	"quorate discovery", "quorate discovery list", "quorate dns", "quorate dns records", "quorate host", "quorate host check", "quorate host describe", "quorate host usage", "quorate place", "quorate render", "quorate host list", "quorate logs", "quorate member", "quorate plan",
	"quorate release", "quorate release list", "quorate server", "quorate server backup", "quorate snapshot", "quorate snapshot check", "quorate snapshot hash", "quorate status",
	"quorate up", "quorate version", "quorate wait",
}

func walk(cmd *cobra.Command, visit func(*cobra.Command)) {
	visit(cmd)
	for _, c := range cmd.Commands() {
		walk(c, visit)
	}
}

func TestEveryCommandExplainsItself(t *testing.T) {
	var seen []string
	walk(Root(), func(c *cobra.Command) {
		path := c.CommandPath()
		if c.IsAdditionalHelpTopicCommand() {
			if c.Long == "" || c.Short == "" {
				t.Errorf("the topic %q lacks a text", path)
			}
			return
		}
		seen = append(seen, path)
		for _, v := range violations(c) {
			t.Errorf("%s: %s", path, v)
		}
	})
	for _, path := range slices.Concat(mutating, harmless) {
		if !slices.Contains(seen, path) {
			t.Errorf("there is no command %q: take it off the list", path)
		}
	}
}

func violations(c *cobra.Command) []string {
	var found []string
	for name, text := range map[string]string{"Short": c.Short, "Long": c.Long, "Example": c.Example} {
		if text == "" {
			found = append(found, "has no "+name)
		}
	}
	if strings.HasSuffix(c.Short, ".") {
		found = append(found, "Short ends with a period")
	}
	for line := range strings.Lines(c.Long) {
		if len(strings.TrimSpace(line)) > 84 {
			found = append(found, "Long has a line that is too long for a terminal: "+line)
		}
	}
	for line := range strings.Lines(c.Example) {
		if !strings.HasPrefix(line, "  quorate") {
			found = append(found, "Example has a line that is not to be copied: "+line)
		}
	}
	if c.Args == nil && !c.DisableFlagParsing {
		found = append(found, "does not check its arguments")
	}
	path := c.CommandPath()
	switch {
	case slices.Contains(mutating, path):
		if c.Flags().Lookup("dry-run") == nil {
			found = append(found, "changes something and has no --dry-run")
		}
	case !slices.Contains(harmless, path):
		found = append(found, "is on neither list: does it change something?")
	}
	return found
}

// TestViolations shows that TestEveryCommandExplainsItself can fail.
func TestViolations(t *testing.T) {
	root := &cobra.Command{Use: "quorate"}
	bad := &cobra.Command{Use: "delete", Short: "Delete.", Example: "quorate delete", RunE: runGroup}
	root.AddCommand(bad)
	got := violations(bad)
	slices.Sort(got)
	want := []string{
		"Example has a line that is not to be copied: quorate delete", "Short ends with a period",
		"changes something and has no --dry-run", "does not check its arguments", "has no Long",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

// TestExamplesParse runs every example as far as its flags and arguments: what is
// printed in a help must be accepted.
func TestExamplesParse(t *testing.T) {
	walk(Root(), func(c *cobra.Command) {
		for line := range strings.Lines(c.Example) {
			line, _, _ = strings.Cut(strings.ReplaceAll(strings.TrimSpace(line), "<64 hex digits>", strings.Repeat("a", 64)), " > ")
			if i := strings.LastIndex(line, " | "); i >= 0 {
				line = line[i+3:]
			}
			args := strings.Fields(strings.ReplaceAll(line, "'", ""))[1:]
			root := Root()
			cmd, rest, err := root.Find(args)
			if err != nil {
				t.Errorf("%s: %v", line, err)
				continue
			}
			if cmd.DisableFlagParsing {
				continue
			}
			if err := cmd.ParseFlags(rest); err != nil {
				t.Errorf("%s: %v", line, err)
				continue
			}
			if err := cmd.ValidateArgs(cmd.Flags().Args()); err != nil {
				t.Errorf("%s: %v", line, err)
			}
		}
	})
}

// run runs a command in this process, away from the user's own files.
func run(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	for _, name := range []string{envServer, envToken, envCAFile} {
		t.Setenv(name, "")
	}
	t.Setenv(envDataDir, t.TempDir())
	// The program is found by its name, so that hints name it so.
	bin := t.TempDir()
	if err := os.Symlink("/proc/self/exe", filepath.Join(bin, "quorate")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+string(filepath.ListSeparator)+os.Getenv("PATH"))
	var out, errs bytes.Buffer
	code = Main(t.Context(), append([]string{"quorate"}, args...), Stdio{In: eof{}, Out: &out, Err: &errs})
	return code, out.String(), errs.String()
}

func TestExitCodesAndTexts(t *testing.T) {
	for _, tc := range []struct {
		args   string
		code   int
		stderr string
	}{
		{"--help", exitOK, ""},
		{"help exit-codes", exitOK, ""},
		{"gett", exitUsage, `error: there is no command "quorate gett": did you mean get or cert or agent?`},
		{"ge clusters", exitUsage, `there is no command "quorate ge"`},
		{"get", exitUsage, "error: KIND is missing\n  see `quorate get --help`"},
		{"get clusterz", exitUsage, `there is no kind "clusterz": use one of clusters, members, hosts, tasks, backuppolicies, backups, restores, secrets`},
		{"get clusters --nope", exitUsage, "unknown flag: --nope\n  see `quorate get --help`"},
		{"get clusters -o xml", exitUsage, `--output is "xml": use one of table, wide`},
		{"get clusters -o jsonpath=", exitUsage, "--output jsonpath= wants a template"},
		{"get cluster a -A", exitUsage, "-A and -l choose among all objects"},
		{"get clusters -l a", exitUsage, `--selector has the term "a"`},
		{"get clusters", exitUnreachable, "start one with `quorate up`"},
		{"get clusters --server http://127.0.0.1:1", exitUnreachable, "--token-file, or in QUORATE_TOKEN"},
		{"describe cluster", exitUsage, "name one object: KIND NAME, or KIND/NAME"},
		{"describe cluster a b", exitUsage, `"b" is one argument too many`},
		{"apply", exitUsage, "-f is missing"},
		{"apply -f /does/not/exist", exitFailed, "read /does/not/exist: stat /does/not/exist: no such file"},
		{"plan", exitUsage, "NAME is missing"},
		{"plan a --yes", exitUsage, "--yes answers --accept"},
		{"wait cluster/a", exitUsage, "--for is missing"},
		{"wait cluster/a --for ready", exitUsage, `--for is "ready"`},
		{"get clusters,klusters", exitUsage, `there is no kind "klusters"`},
		{"get clusters,members a", exitUsage, `"a" is a name, and there are several kinds`},
		{"get clusters,members -w", exitUsage, "--watch shows one kind at a time, and 2 were given"},
		{"diff", exitUsage, "-f is missing"},
		{"edit cluster", exitUsage, "name one object"},
		{"label cluster a", exitUsage, "LABEL=VALUE or LABEL- is missing"},
		{"label clusters b=c", exitUsage, "name the objects to label, or choose them with -l or --all"},
		{"label cluster a b=c --all", exitUsage, "-l and --all choose among all objects, and names were given"},
		{"label cluster a b=c b-", exitUsage, "the label b is to be set and removed"},
		{"label cluster a quorate.io/cluster=c", exitUsage, "is Quorate's own"},
		{"delete", exitUsage, "name what to delete"},
		{"delete cluster", exitUsage, "name the objects"},
		{"delete cluster a -f x", exitUsage, "-f says what to delete"},
		{"status a -A", exitUsage, `-A asks for all clusters, and "a" was named`},
		{"status -w -o yaml", exitUsage, "--watch goes with"},
		{"cert issue -c a --cn b", exitUsage, "--out is missing"},
		{"cert issue -c a --out b", exitUsage, "--cn is missing"},
		{"console --ttl 2h", exitUsage, "choose up to 1h"},
		{"host cordon", exitUsage, "NAME is missing"},
		{"host token", exitUsage, "NAME is missing"},
		{"host token a --ttl 1ms", exitUsage, "--ttl is 1ms"},
		{"host token a -o xml", exitUsage, `--output is "xml"`},
		{"host drain", exitUsage, "NAME is missing"},
		{"host remove", exitUsage, "NAME is missing"},
		{"host unlabel a", exitUsage, "NAME LABEL is missing"},
		{"host label a", exitUsage, "LABEL=VALUE or LABEL- is missing"},
		{"etcdutl --member a hashkv", exitUsage, "-c is missing"},
		{"etcdutl -c a snapshot status x", exitUsage, "leave out -c"},
		{"logs a --source x", exitUsage, `--source is "x": use one of etcd, error, supervisor`},
		{"etcdctl get x", exitUsage, "-c is missing"},
		{"etcdctl -c", exitUsage, "-c wants a value"},
		{"etcdctl -c a get x", exitUnreachable, "start one with `quorate up`"},
		{"events -w -o yaml", exitUsage, "--watch writes lines"},
		{"server foo", exitUsage, `there is no command "quorate server foo"`},
		{"server token a --role god", exitUsage, `--role is "god": use admin, viewer or agent`},
		{"server token a", exitUsage, "--host is missing"},
		{"server token a --role viewer --host b", exitUsage, "--host belongs to --role agent"},
		{"release ad", exitUsage, `there is no command "quorate release ad"`},
		{"release add x --sha256 12", exitUsage, "give 64 hex digits"},
		{"agent", exitUsage, "--address is missing"},
		{"member", exitUsage, "--home is missing"},
		{"up --members 0", exitUsage, "--members is 0: choose 1 to 9"},
		{"up extra", exitUsage, `takes no arguments, and "extra" was given`},
		{"up --ephemeral --data-dir x", exitUsage, "--ephemeral keeps nothing"},
		{"down", exitNotFound, "no `quorate up` is running or was left behind"},
		{"get clusters -v loud --server http://127.0.0.1:1", exitUnreachable, ""},
		{"explain etcdcluster.spec.replica", exitUsage, "`quorate explain etcdcluster.spec` lists"},
		{"explain etcdcluster.spek.x", exitUsage, "`quorate explain etcdcluster` lists"},
		{"explain klusters.spec", exitUsage, `there is no kind "klusters": use one of clusters`},
		{"help foo", exitUsage, `there is no command "quorate foo"`},
		{"help server foo", exitUsage, `there is no command "quorate server foo"`},
		{"help server backup", exitOK, ""},
		{"--version", exitOK, ""},
		{"logs a --tail -5", exitUsage, "--tail is -5"},
		{"logs a --tail x", exitUsage, `--tail is "x": give a whole number`},
		{"wait cluster/a --timeout 5", exitUsage, `--timeout is "5": give a duration such as 30s`},
		{"up --listen 0.0.0.0:7379", exitUsage, "run `quorate server` with --tls-cert-file"},
		{"up --listen foo", exitUsage, "give HOST:PORT"},
		{"up --members abc", exitUsage, `--members is "abc": give a whole number`},
		{"up --version foo", exitUsage, `--version is "foo"`},
		{"up --cluster Bad_Name", exitUsage, `--cluster is "Bad_Name"`},
		{"apply -f -", exitRefused, "there is no object in the standard input\n"},
		{"explain etcdcluster.spec.replicas", exitOK, ""},
		{"version", exitOK, ""},
		{"check", exitOK, ""},
		{"check runn", exitUsage, `there is no command "quorate check runn"`},
		{"check run", exitUsage, "--endpoints is missing: name a client URL"},
		{"check run -c a --cacert b", exitUsage, "-c takes certificates from the server"},
		{"check run --endpoints a --cert b", exitUsage, "--cert and --key belong together"},
		{"check run --endpoints a -o xml", exitUsage, `--output is "xml"`},
		{"check run --endpoints ftp://a", exitUsage, "give a client URL such as https://10.0.0.1:2379"},
		{"check run --endpoints a --mix putt=1", exitUsage, `--mix: the mix has "putt": use put, delete, get`},
		{"check run --endpoints a --mix put", exitUsage, `the mix has "put": write such as put=3,get=1`},
		{"check run --endpoints a --clients 0", exitUsage, "--clients is 0: give a number above 0"},
		{"check run --endpoints a --clients 5000", exitUsage, "choose 1 to 1000"},
		{"check run --endpoints a --rate -1", exitUsage, "--rate is -1"},
		{"check run --endpoints a --rate x", exitUsage, `--rate is "x": give a number`},
		{"check run --endpoints a --seed x", exitUsage, `--seed is "x": give a whole number of 0 or more`},
		{"check run --endpoints a --duration 0s", exitUsage, "--duration is 0s: give a time above 0"},
		{"check run --endpoints a --hash maybe", exitUsage, `hash is "maybe": use auto, always or never`},
		{"check run --endpoints a --prefix /", exitUsage, `the prefix is "/"`},
		{"check run --endpoints a --disturb fire", exitUsage, `--disturb has "fire": use kill, pause`},
		{"check run --endpoints a --every 1s", exitUsage, "--every goes with --disturb"},
		{"check run --endpoints a --disturb kill --for 1h", exitUsage, "--for is 1h0m0s: give 10ms to 5m0s"},
		{"check run --endpoints a --user root", exitUsage, "put it into QUORATE_ETCD_PASSWORD"},
		{"check run --endpoints http://127.0.0.1:1", exitUnreachable, "error: nobody answers at http://127.0.0.1:1"},
		{"check run -c a", exitUnreachable, "start one with `quorate up`"},
		{"check history", exitUsage, "FILE is missing"},
		{"check history /does/not/exist", exitFailed, "read the history: open /does/not/exist"},
	} {
		t.Run(tc.args, func(t *testing.T) {
			code, _, stderr := run(t, strings.Fields(tc.args)...)
			if code != tc.code || !strings.Contains(stderr, tc.stderr) {
				t.Errorf("exit code %d, want %d; stderr %q, want %q in it", code, tc.code, stderr, tc.stderr)
			}
			if strings.Contains(stderr, "Usage:") {
				t.Errorf("an error dumps the usage: %q", stderr)
			}
		})
	}
}
