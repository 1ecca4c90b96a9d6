package etcd

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"
)

// fileKinds say how the configuration file writes a flag's value, which is a string
// where nothing else stands here.
var fileKinds = map[string]func(string) (any, error){
	"log-outputs":                        func(v string) (any, error) { return strings.Split(v, ","), nil },
	"enable-log-rotation":                parseBool,
	"experimental-initial-corrupt-check": parseBool,
	"quota-backend-bytes":                parseInt,
	"max-request-bytes":                  parseInt,
	"max-txn-ops":                        parseInt,
	"snapshot-count":                     parseInt,
	"heartbeat-interval":                 parseInt,
	"election-timeout":                   parseInt,
	"client-cert-auth":                   parseBool,
}

func parseBool(v string) (any, error) { return strconv.ParseBool(v) }

func parseInt(v string) (any, error) { return strconv.ParseInt(v, 10, 64) }

// securityKeys are the flags of TLS, which the file keeps in a block each for clients
// and for peers.
var securityKeys = []string{"client-cert-auth", "trusted-ca-file", "cert-file", "key-file"}

// ConfigFile is the configuration file, in YAML, that has etcd of the given version
// ("3.7.3") do what Flags have it do: `etcd --config-file` reads neither flags nor its
// environment beside it. ErrFlags where Flags says so, and for discovery, which the
// file can't say.
//
// Durations stand in it in the units of the flags: heartbeat-interval and
// election-timeout in milliseconds, as integers. No other duration is used, since 3.7
// reads those of the file as nanoseconds, and earlier versions as text.
func ConfigFile(version string, f MemberFlags) ([]byte, error) {
	args, err := Flags(version, f)
	if err != nil {
		return nil, err
	}
	file := map[string]any{}
	block := func(name string) map[string]any {
		if file[name] == nil {
			file[name] = map[string]any{}
		}
		b, _ := file[name].(map[string]any)
		return b
	}
	for _, arg := range args {
		key, text, ok := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
		if !ok || strings.HasPrefix(key, "discovery-") && !strings.HasPrefix(key, "discovery-srv") {
			return nil, fmt.Errorf("%w: member %s: --%s can't be said in a configuration file; form the cluster by formation.mode Static or DNS", ErrFlags, f.Name, key)
		}
		into := file
		if bare, peer := strings.CutPrefix(key, "peer-"); slices.Contains(securityKeys, bare) {
			into, key = block("client-transport-security"), bare
			if peer {
				into = block("peer-transport-security")
			}
		}
		into[key] = text
		if parse := fileKinds[key]; parse != nil {
			if into[key], err = parse(text); err != nil {
				return nil, fmt.Errorf("%w: member %s: --%s: %w", ErrFlags, f.Name, key, err)
			}
		}
	}
	return yaml.Marshal(file)
}
