package etcd

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
)

// ErrFlags says that no argument list can be made of a member's configuration.
var ErrFlags = errors.New("no etcd arguments for this configuration")

// MemberTLS are the paths of a member's certificates. Client and peer listeners
// trust the same CA, and both demand certificates of those who connect.
type MemberTLS struct {
	CA         string
	ServerCert string
	ServerKey  string
	PeerCert   string
	PeerKey    string
}

// MemberFlags is what an etcd's argument list is made of.
type MemberFlags struct {
	// Name of the member, as in Bootstrap.
	Name string
	// DataDir is absolute.
	DataDir string
	// Address is the IP address to listen on and to be reached at.
	Address string
	// Ports, none of them 0. Metrics are served on 127.0.0.1 only.
	Ports v1alpha1.Ports
	// TLS; nil serves plain text.
	TLS *MemberTLS
	// Bootstrap is how the member first joins; nil once it has joined.
	Bootstrap *v1alpha1.Bootstrap
	// DiscoveryCA is the absolute path of the file that holds Bootstrap.Discovery.CA;
	// empty where there is none.
	DiscoveryCA string
	// Config tunes the member. Zero values leave etcd's own defaults.
	Config v1alpha1.EtcdConfig
	// LogFile is the absolute path that etcd writes and rotates its log at; LogStderr
	// leaves the log to whoever runs etcd.
	LogFile string
	// Loopback has it listen for clients at 127.0.0.1 too, as kubeadm's members do.
	Loopback bool
}

// LogStderr in place of a log file is the error output.
const LogStderr = "stderr"

// ClientURL is where the member's clients connect.
func (f *MemberFlags) ClientURL() string { return f.url(f.Ports.Client) }

// PeerURL is where the member's peers connect.
func (f *MemberFlags) PeerURL() string { return f.url(f.Ports.Peer) }

// MetricsURL serves /metrics and /health in plain text, on loopback.
func (f *MemberFlags) MetricsURL() string {
	return "http://127.0.0.1:" + strconv.Itoa(int(f.Ports.Metrics))
}

func (f *MemberFlags) url(port int32) string {
	scheme := "https"
	if f.TLS == nil {
		scheme = "http"
	}
	return scheme + "://" + net.JoinHostPort(f.Address, strconv.Itoa(int(port)))
}

// Flags returns the complete arguments, without argv[0], that etcd of the given
// version ("3.7.3") takes. Nothing is left to etcd's environment. ErrFlags where
// the version is not known, or a value can't be said in flags.
func Flags(version string, f MemberFlags) ([]string, error) {
	minor, err := knownMinor(version)
	if err != nil {
		return nil, err
	}
	if err = f.check(); err != nil {
		return nil, err
	}
	args := f.listeners()
	args = append(args, f.tlsFlags()...)
	bootstrap, err := f.bootstrapFlags(minor)
	if err != nil {
		return nil, err
	}
	args = append(args, bootstrap...)
	args = append(args, f.logFlags()...)
	tuning, err := f.tuning()
	if err != nil {
		return nil, err
	}
	args = append(args, tuning...)
	if check := f.Config.InitialCorruptCheck; check != nil && !*check {
		return args, nil
	}
	if minor == 5 {
		return append(args, "--experimental-initial-corrupt-check=true"), nil
	}
	return append(args, "--feature-gates=InitialCorruptCheck=true"), nil
}

// Minor is the minor of a version such as 3.6.1 or 3.6; 0 where it is not known.
func Minor(version string) int {
	parts := strings.Split(version, ".")
	if len(parts) < 2 || parts[0] != "3" {
		return 0
	}
	n, err := strconv.Atoi(parts[1])
	if err != nil {
		return 0
	}
	return n
}

// knownMinor is the minor of a release whose flags are known.
func knownMinor(version string) (int, error) {
	if minor := Minor(version); strings.Count(version, ".") == 2 && minor >= 5 && minor <= 7 {
		return minor, nil
	}
	return 0, fmt.Errorf("%w: version %q: the flags of 3.5, 3.6 and 3.7 are known; name a release such as 3.7.3", ErrFlags, version)
}

func (f *MemberFlags) check() error {
	if f.Name == "" || strings.ContainsAny(f.Name, ",=") {
		return fmt.Errorf("%w: member name %q: it must not be empty or hold a comma or an equals sign", ErrFlags, f.Name)
	}
	if net.ParseIP(f.Address) == nil {
		return fmt.Errorf("%w: address %q of member %s is not an IP address: etcd listens on addresses, not on names", ErrFlags, f.Address, f.Name)
	}
	for what, port := range map[string]int32{"client": f.Ports.Client, "peer": f.Ports.Peer, "metrics": f.Ports.Metrics} {
		if port < 1 || port > 65535 {
			return fmt.Errorf("%w: %s port %d of member %s: it must have been chosen before", ErrFlags, what, port, f.Name)
		}
	}
	if !filepath.IsAbs(f.DataDir) {
		return fmt.Errorf("%w: data directory %q of member %s must be absolute", ErrFlags, f.DataDir, f.Name)
	}
	// etcd reads the log's path as a list, and as a URL.
	if f.LogFile != LogStderr && (!filepath.IsAbs(f.LogFile) || strings.ContainsAny(f.LogFile, ",%?#")) {
		return fmt.Errorf("%w: log file %q of member %s must be absolute and hold none of , %% ? #; set logging.dir", ErrFlags, f.LogFile, f.Name)
	}
	return nil
}

func (f *MemberFlags) listeners() []string {
	clients := f.ClientURL()
	if f.Loopback && !net.ParseIP(f.Address).IsLoopback() {
		local := *f
		local.Address = "127.0.0.1"
		clients = local.ClientURL() + "," + clients
	}
	return []string{
		"--name=" + f.Name,
		"--data-dir=" + f.DataDir,
		"--listen-client-urls=" + clients,
		"--advertise-client-urls=" + f.ClientURL(),
		"--listen-peer-urls=" + f.PeerURL(),
		"--initial-advertise-peer-urls=" + f.PeerURL(),
		"--listen-metrics-urls=" + f.MetricsURL(),
	}
}

func (f *MemberFlags) tlsFlags() []string {
	if f.TLS == nil {
		return nil
	}
	return []string{
		"--client-cert-auth=true",
		"--trusted-ca-file=" + f.TLS.CA,
		"--cert-file=" + f.TLS.ServerCert,
		"--key-file=" + f.TLS.ServerKey,
		"--peer-client-cert-auth=true",
		"--peer-trusted-ca-file=" + f.TLS.CA,
		"--peer-cert-file=" + f.TLS.PeerCert,
		"--peer-key-file=" + f.TLS.PeerKey,
	}
}

func (f *MemberFlags) bootstrapFlags(minor int) ([]string, error) {
	b := f.Bootstrap
	switch {
	case b == nil:
		// etcd wants to find itself in the list even where it no longer reads it.
		return []string{"--initial-cluster=" + f.Name + "=" + f.PeerURL(), "--initial-cluster-state=existing"}, nil
	case b.Discovery != nil:
		return f.discoveryFlags(minor)
	case b.DNS != nil:
		// The list of members is in the records: etcd takes one or the other.
		args := []string{"--discovery-srv=" + b.DNS.Domain}
		if b.DNS.ServiceName != "" {
			args = append(args, "--discovery-srv-name="+b.DNS.ServiceName)
		}
		return append(args, "--initial-cluster-state=new", "--initial-cluster-token="+b.Token), nil
	}
	peers := make([]string, 0, len(b.InitialCluster))
	for _, p := range b.InitialCluster {
		peers = append(peers, p.Name+"="+p.URL)
	}
	state := "new"
	if b.State == v1alpha1.BootstrapExisting || b.State == v1alpha1.BootstrapRestored {
		// A restored member has its directory. Without it, etcd must not form an empty
		// cluster in place of the restored one.
		state = "existing"
	}
	return []string{
		"--initial-cluster=" + strings.Join(peers, ","),
		"--initial-cluster-state=" + state,
		"--initial-cluster-token=" + b.Token,
	}, nil
}

// discoveryFlags name the discovery service of version 3, which has the list of
// members; its token takes the place of the cluster's.
func (f *MemberFlags) discoveryFlags(minor int) ([]string, error) {
	d := f.Bootstrap.Discovery
	if minor < 6 {
		return nil, fmt.Errorf("%w: member %s: discovery needs etcd 3.6 or later: 3.5 knows only the discovery of version 2, which is gone", ErrFlags, f.Name)
	}
	if len(d.Endpoints) == 0 || d.Token == "" {
		return nil, fmt.Errorf("%w: member %s: discovery without endpoints or without a token", ErrFlags, f.Name)
	}
	secure := true
	for _, e := range d.Endpoints {
		secure = secure && strings.HasPrefix(e, "https://")
	}
	args := []string{
		"--discovery-endpoints=" + strings.Join(d.Endpoints, ","),
		"--discovery-token=" + d.Token,
		"--discovery-insecure-transport=" + strconv.FormatBool(!secure),
	}
	if secure && f.DiscoveryCA != "" {
		args = append(args, "--discovery-cacert="+f.DiscoveryCA)
	}
	return append(args, "--initial-cluster-state=new"), nil
}

// logFlags let etcd write and rotate its own file: a pipe would tie its life to
// that of the reader.
func (f *MemberFlags) logFlags() []string {
	l := f.Config.Logging
	args := []string{"--logger=zap", "--log-outputs=" + f.LogFile}
	if l.Level != "" {
		args = append(args, "--log-level="+string(l.Level))
	}
	if l.MaxSize > 0 && f.LogFile != LogStderr {
		args = append(args, "--enable-log-rotation=true", fmt.Sprintf(
			`--log-rotation-config-json={"maxsize":%d,"maxage":0,"maxbackups":%d,"localtime":false,"compress":false}`,
			l.MaxSize, l.MaxBackups))
	}
	return args
}

func (f *MemberFlags) tuning() ([]string, error) {
	c := &f.Config
	var args []string
	number := func(flag string, v int64) {
		if v > 0 {
			args = append(args, "--"+flag+"="+strconv.FormatInt(v, 10))
		}
	}
	number("quota-backend-bytes", c.QuotaBackend.Value())
	number("max-request-bytes", c.MaxRequest.Value())
	number("max-txn-ops", int64(c.MaxTxnOps))
	number("snapshot-count", c.SnapshotCount)
	for _, d := range []struct{ field, flag, value string }{
		{"heartbeatInterval", "heartbeat-interval", c.HeartbeatInterval},
		{"electionTimeout", "election-timeout", c.ElectionTimeout},
	} {
		if d.value == "" {
			continue
		}
		v, err := time.ParseDuration(d.value)
		if err != nil || v < time.Millisecond {
			return nil, fmt.Errorf("%w: %s %q of member %s: it must be a duration of at least 1ms, such as 100ms", ErrFlags, d.field, d.value, f.Name)
		}
		number(d.flag, v.Milliseconds())
	}
	switch c.AutoCompaction.Mode {
	case v1alpha1.CompactionPeriodic:
		args = append(args, "--auto-compaction-mode=periodic", "--auto-compaction-retention="+c.AutoCompaction.Retention)
	case v1alpha1.CompactionRevision:
		args = append(args, "--auto-compaction-mode=revision", "--auto-compaction-retention="+c.AutoCompaction.Retention)
	case v1alpha1.CompactionDisabled:
		args = append(args, "--auto-compaction-mode=periodic", "--auto-compaction-retention=0")
	}
	return args, nil
}
