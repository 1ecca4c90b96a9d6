package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	filippo "filippo.io/age"
	"github.com/spf13/cobra"

	"github.com/quorate/quorate/backup"
	"github.com/quorate/quorate/backup/bucket"
	"github.com/quorate/quorate/backup/catalog"
	"github.com/quorate/quorate/inspect"
)

// byteSize is a flag that takes 50MiB.
type byteSize int64

var byteUnits = []struct {
	name string
	size float64
}{
	{"KiB", 1 << 10},
	{"MiB", 1 << 20},
	{"GiB", 1 << 30},
	{"TiB", 1 << 40},
	{"KB", 1e3},
	{"MB", 1e6},
	{"GB", 1e9},
	{"TB", 1e12},
	{"K", 1 << 10},
	{"M", 1 << 20},
	{"G", 1 << 30},
	{"T", 1 << 40},
	{"B", 1},
}

// Set implements pflag.Value.
func (b *byteSize) Set(text string) error {
	number, unit := strings.TrimSuffix(strings.TrimSpace(text), "/s"), 1.0
	for _, u := range byteUnits {
		if cut, ok := strings.CutSuffix(number, u.name); ok {
			number, unit = strings.TrimSpace(cut), u.size
			break
		}
	}
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || !(n >= 0) || n*unit >= math.MaxInt64 {
		return errors.New("not a number of bytes")
	}
	*b = byteSize(n * unit)
	return nil
}

// String implements pflag.Value.
func (b *byteSize) String() string {
	if *b == 0 {
		return ""
	}
	return inspect.Size(int64(*b))
}

// Type implements pflag.Value.
func (*byteSize) Type() string { return "size" }

// span is a flag that takes days and weeks beside what time.ParseDuration takes.
type span time.Duration

// Set implements pflag.Value.
func (s *span) Set(text string) error {
	const day = 24 * time.Hour
	for unit, length := range map[string]time.Duration{"d": day, "w": 7 * day} {
		number, ok := strings.CutSuffix(text, unit)
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(number, 64)
		if err != nil || !(n >= 0) || n*float64(length) >= math.MaxInt64 {
			return errors.New("not a time")
		}
		*s = span(n * float64(length))
		return nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return errors.New("not a time")
	}
	*s = span(d)
	return nil
}

// String implements pflag.Value.
func (s *span) String() string {
	if *s == 0 {
		return ""
	}
	return time.Duration(*s).String()
}

// Type implements pflag.Value.
func (*span) Type() string { return "time" }

// keepFlags are a retention policy.
type keepFlags struct {
	policy catalog.Policy
	within span
}

func (k *keepFlags) bind(cmd *cobra.Command) {
	f, p := cmd.Flags(), &k.policy
	f.IntVar(&p.KeepLast, "keep-last", 0, "keep so many of the newest backups")
	f.Var(&k.within, "keep-within", "keep all that are at most so old, such as 36h, 14d or 8w")
	for _, b := range []struct {
		to   *int
		name string
	}{{&p.Hourly, "hour"}, {&p.Daily, "day"}, {&p.Weekly, "week"}, {&p.Monthly, "month"}, {&p.Yearly, "year"}} {
		flag := b.name + "ly"
		if b.name == "day" {
			flag = "daily"
		}
		f.IntVar(b.to, "keep-"+flag, 0, "keep the newest of each "+b.name+" (UTC), for so many "+b.name+"s that have any")
	}
}

// read checks the policy.
func (k *keepFlags) read(cmd *cobra.Command) (catalog.Policy, error) {
	k.policy.KeepWithin = time.Duration(k.within)
	if err := k.policy.Validate(); err != nil {
		return k.policy, usagef(cmd, "%s", strings.TrimPrefix(err.Error(), catalog.ErrPolicy.Error()+": "))
	}
	return k.policy, nil
}

// clusterName reads NAME or NAMESPACE/NAME.
func (e *env) clusterName(cmd *cobra.Command, flag, text string) (catalog.Cluster, error) {
	namespace, name, found := strings.Cut(text, "/")
	if !found {
		namespace, name = e.namespace, text
	}
	bad := func(part string) bool {
		return part == "" || !utf8.ValidString(part) || strings.TrimSpace(part) != part || strings.ContainsRune(part, '/') || strings.ContainsFunc(part, unicode.IsControl)
	}
	if bad(namespace) || bad(name) {
		return catalog.Cluster{}, usagef(cmd, "--%s is %q: give NAME, or NAMESPACE/NAME such as default/prod", flag, text)
	}
	return catalog.Cluster{Namespace: namespace, Name: name}, nil
}

// readPrivate reads a file that other users must not be able to read.
func readPrivate(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode().IsRegular() && info.Mode().Perm()&0o007 != 0 {
		return nil, fmt.Errorf("%s can be read by every user of this machine: chmod 600 %s", path, quoted(path))
	}
	return os.ReadFile(path) //nolint:gosec // the file that a person named
}

// credentialsOf says which provider the name of a credential belongs to.
var credentialsOf = []struct {
	prefix   string
	provider bucket.Provider
}{
	{"AWS_", bucket.S3}, {"TENCENTCLOUD_", bucket.COS}, {"ALIBABA_CLOUD_", bucket.OSS}, {"GOOGLE_", bucket.GCS}, {"AZURE_", bucket.Azure},
}

// readCredentials reads those of one provider from a file, which may hold those of
// others too.
func readCredentials(path string, provider bucket.Provider) (map[string]string, error) {
	raw, err := readPrivate(path)
	if err != nil {
		return nil, err
	}
	all := map[string]string{}
	if bytes.HasPrefix(bytes.TrimSpace(raw), []byte("{")) {
		if json.Unmarshal(raw, &all) != nil { // its error could quote a secret
			return nil, fmt.Errorf("%s is no JSON object of strings", path)
		}
	} else if err = readLines(path, raw, all); err != nil {
		return nil, err
	}
	values := map[string]string{}
	for name, value := range all {
		known := false
		for _, c := range credentialsOf {
			if strings.HasPrefix(name, c.prefix) {
				known = true
				if c.provider == provider {
					values[name] = value
				}
			}
		}
		if !known {
			return nil, fmt.Errorf("%s has %q, which is no credential of a store", path, name)
		}
	}
	return values, nil
}

// readLines reads lines of NAME=VALUE. Errors tell the line's number, not its text.
func readLines(path string, raw []byte, to map[string]string) error {
	lines := bufio.NewScanner(bytes.NewReader(raw))
	lines.Buffer(nil, len(raw)+1)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSuffix(lines.Text(), "\r")
		if text := strings.TrimSpace(line); text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		name, value, ok := strings.Cut(strings.TrimPrefix(line, "export "), "=")
		if !ok || name == "" || strings.ContainsFunc(name, unicode.IsSpace) {
			return fmt.Errorf("%s: line %d is not NAME=VALUE", path, n)
		}
		if _, twice := to[name]; twice {
			return fmt.Errorf("%s: line %d has %s a second time", path, n, name)
		}
		if q := value; len(q) >= 2 && (q[0] == '"' || q[0] == '\'') && q[len(q)-1] == q[0] {
			value = q[1 : len(q)-1]
		}
		to[name] = value
	}
	return lines.Err()
}

// readIdentities reads what opens encrypted backups; none without a file.
func readIdentities(path string) ([]filippo.Identity, error) {
	if path == "" {
		return nil, nil
	}
	raw, err := readPrivate(path)
	if err != nil {
		return nil, fmt.Errorf("--identity-file: %w", err)
	}
	found, err := filippo.ParseIdentities(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("--identity-file: %s holds no age identity, as age-keygen makes one: %w", path, err)
	}
	return found, nil
}

// readRecipients reads age recipients from flags and a file.
func readRecipients(given []string, path string) ([]backup.Recipient, error) {
	if path != "" {
		raw, err := os.ReadFile(path) //nolint:gosec // the file that a person named
		if err != nil {
			return nil, fmt.Errorf("--recipients-file: %w", err)
		}
		given = append(slices.Clone(given), strings.Split(string(raw), "\n")...)
	}
	recipients, err := backup.ParseRecipients(given)
	switch {
	case errors.Is(err, backup.ErrSecretGiven):
		return nil, fmt.Errorf("%w, and the identity by --identity-file", err)
	case err == nil && path != "" && len(recipients) == 0:
		return nil, fmt.Errorf("--recipients-file: %s holds no recipient", path)
	}
	return recipients, err
}
