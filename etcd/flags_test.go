package etcd

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/quorate/quorate/api/v1alpha1"
)

func fullFlags() MemberFlags {
	return MemberFlags{
		Name: "prod-0", DataDir: "/q/data", Address: "10.0.0.1", LogFile: "/q/log/prod-0.log",
		Ports: v1alpha1.Ports{Client: 2379, Peer: 2380, Metrics: 2381},
		TLS:   &MemberTLS{CA: "/q/ca.crt", ServerCert: "/q/s.crt", ServerKey: "/q/s.key", PeerCert: "/q/p.crt", PeerKey: "/q/p.key"},
		Bootstrap: &v1alpha1.Bootstrap{State: v1alpha1.BootstrapNew, Token: "tok", InitialCluster: []v1alpha1.Peer{
			{Name: "prod-0", URL: "https://10.0.0.1:2380"}, {Name: "prod-1", URL: "https://10.0.0.2:2380"},
		}},
		Config: v1alpha1.EtcdConfig{
			QuotaBackend: resource.MustParse("8Gi"), MaxRequest: resource.MustParse("1536Ki"), MaxTxnOps: 128,
			SnapshotCount: 10000, HeartbeatInterval: "100ms", ElectionTimeout: "1s",
			AutoCompaction: v1alpha1.AutoCompaction{Mode: v1alpha1.CompactionPeriodic, Retention: "5m"},
			Logging:        v1alpha1.Logging{Level: "info", MaxSize: 64, MaxBackups: 4},
		},
	}
}

func TestFlagsGolden(t *testing.T) {
	t.Parallel()
	common := []string{
		"--name=prod-0", "--data-dir=/q/data",
		"--listen-client-urls=https://10.0.0.1:2379", "--advertise-client-urls=https://10.0.0.1:2379",
		"--listen-peer-urls=https://10.0.0.1:2380", "--initial-advertise-peer-urls=https://10.0.0.1:2380",
		"--listen-metrics-urls=http://127.0.0.1:2381",
		"--client-cert-auth=true", "--trusted-ca-file=/q/ca.crt", "--cert-file=/q/s.crt", "--key-file=/q/s.key",
		"--peer-client-cert-auth=true", "--peer-trusted-ca-file=/q/ca.crt", "--peer-cert-file=/q/p.crt", "--peer-key-file=/q/p.key",
		"--initial-cluster=prod-0=https://10.0.0.1:2380,prod-1=https://10.0.0.2:2380",
		"--initial-cluster-state=new", "--initial-cluster-token=tok",
		"--logger=zap", "--log-outputs=/q/log/prod-0.log", "--log-level=info", "--enable-log-rotation=true",
		`--log-rotation-config-json={"maxsize":64,"maxage":0,"maxbackups":4,"localtime":false,"compress":false}`,
		"--quota-backend-bytes=8589934592", "--max-request-bytes=1572864", "--max-txn-ops=128", "--snapshot-count=10000",
		"--heartbeat-interval=100", "--election-timeout=1000",
		"--auto-compaction-mode=periodic", "--auto-compaction-retention=5m",
	}
	for version, last := range map[string]string{
		"3.5.26": "--experimental-initial-corrupt-check=true",
		"3.6.11": "--feature-gates=InitialCorruptCheck=true",
		"3.7.3":  "--feature-gates=InitialCorruptCheck=true",
	} {
		got, err := Flags(version, fullFlags())
		if err != nil {
			t.Fatalf("%s: %v", version, err)
		}
		want := slices.Concat(common, []string{last})
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", version, diff)
		}
	}
}

func TestFlagsVariants(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*MemberFlags)
		has    []string
		hasNot []string
	}{
		"plain text": {
			func(f *MemberFlags) { f.TLS = nil },
			[]string{"--listen-client-urls=http://10.0.0.1:2379"},
			[]string{"--client-cert-auth", "--cert-file", "--peer-"},
		},
		"discovery": {
			func(f *MemberFlags) {
				f.DiscoveryCA = "/q/discovery-ca.crt"
				f.Bootstrap.Discovery = &v1alpha1.DiscoveryBootstrap{Endpoints: []string{"https://10.0.0.9:2379"}, Token: "abc", CA: "PEM"}
			},
			[]string{
				"--discovery-endpoints=https://10.0.0.9:2379", "--discovery-token=abc", "--discovery-insecure-transport=false",
				"--discovery-cacert=/q/discovery-ca.crt", "--initial-cluster-state=new",
			},
			[]string{"--initial-cluster=", "--initial-cluster-token"},
		},
		"discovery in plain text": {
			func(f *MemberFlags) {
				f.Bootstrap.Discovery = &v1alpha1.DiscoveryBootstrap{Endpoints: []string{"http://10.0.0.9:2379"}, Token: "abc"}
			},
			[]string{"--discovery-insecure-transport=true"},
			[]string{"--discovery-cacert"},
		},
		"dns": {
			func(f *MemberFlags) {
				f.Bootstrap.DNS = &v1alpha1.DNSSpec{Domain: "etcd.example.com", ServiceName: "prod"}
			},
			[]string{"--discovery-srv=etcd.example.com", "--discovery-srv-name=prod", "--initial-cluster-token=tok", "--initial-cluster-state=new"},
			[]string{"--initial-cluster="},
		},
		"joined": {
			func(f *MemberFlags) { f.Bootstrap = nil },
			[]string{"--initial-cluster=prod-0=https://10.0.0.1:2380", "--initial-cluster-state=existing"},
			[]string{"--initial-cluster-token"},
		},
		"existing": {
			func(f *MemberFlags) { f.Bootstrap.State = v1alpha1.BootstrapExisting },
			[]string{"--initial-cluster-state=existing", "--initial-cluster-token=tok"},
			nil,
		},
		"restored": {
			func(f *MemberFlags) { f.Bootstrap.State = v1alpha1.BootstrapRestored },
			[]string{"--initial-cluster-state=existing", "--initial-cluster-token=tok"},
			nil,
		},
		"ipv6": {
			func(f *MemberFlags) { f.Address = "fd00::1" },
			[]string{"--listen-client-urls=https://[fd00::1]:2379"},
			nil,
		},
		"revisions": {
			func(f *MemberFlags) {
				f.Config.AutoCompaction = v1alpha1.AutoCompaction{Mode: v1alpha1.CompactionRevision, Retention: "1000"}
			},
			[]string{"--auto-compaction-mode=revision", "--auto-compaction-retention=1000"},
			nil,
		},
		"no compaction": {
			func(f *MemberFlags) { f.Config.AutoCompaction.Mode = v1alpha1.CompactionDisabled },
			[]string{"--auto-compaction-retention=0"},
			nil,
		},
		"etcd's defaults": {
			func(f *MemberFlags) { f.Config = v1alpha1.EtcdConfig{} },
			[]string{"--logger=zap"},
			[]string{"--quota", "--max-", "--snapshot-count", "--heartbeat", "--election", "--auto-", "--log-level", "--log-rotation"},
		},
		"decimal quantity": {
			func(f *MemberFlags) { f.Config.QuotaBackend = resource.MustParse("2G") },
			[]string{"--quota-backend-bytes=2000000000"},
			nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := fullFlags()
			c.change(&f)
			args, err := Flags("3.7.3", f)
			if err != nil {
				t.Fatal(err)
			}
			all := "\n" + strings.Join(args, "\n") + "\n"
			for _, want := range c.has {
				if !strings.Contains(all, "\n"+want+"\n") {
					t.Errorf("no %s in%s", want, all)
				}
			}
			for _, not := range c.hasNot {
				if strings.Contains(all, "\n"+not) {
					t.Errorf("unwanted %s in%s", not, all)
				}
			}
		})
	}
}

func TestFlagsRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		version string
		change  func(*MemberFlags)
		says    string
	}{
		"later minor":       {"3.8.0", func(*MemberFlags) {}, "3.8.0"},
		"no patch":          {"3.7", func(*MemberFlags) {}, "3.7.3"},
		"host name":         {"3.7.3", func(f *MemberFlags) { f.Address = "host" }, "not an IP address"},
		"no name":           {"3.7.3", func(f *MemberFlags) { f.Name = "" }, "must not be empty"},
		"port not chosen":   {"3.7.3", func(f *MemberFlags) { f.Ports.Peer = 0 }, "peer port 0"},
		"relative data":     {"3.7.3", func(f *MemberFlags) { f.DataDir = "data" }, "absolute"},
		"comma in log":      {"3.7.3", func(f *MemberFlags) { f.LogFile = "/a,b.log" }, "logging.dir"},
		"unreadable beat":   {"3.7.3", func(f *MemberFlags) { f.Config.HeartbeatInterval = "soon" }, "heartbeatInterval"},
		"election too fast": {"3.7.3", func(f *MemberFlags) { f.Config.ElectionTimeout = "1us" }, "electionTimeout"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := fullFlags()
			c.change(&f)
			_, err := Flags(c.version, f)
			if !errors.Is(err, ErrFlags) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want ErrFlags with %q", err, c.says)
			}
		})
	}
}
