package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/app"
	"github.com/quorate/quorate/internal/process"
	"github.com/quorate/quorate/pki"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
	"github.com/quorate/quorate/test/load"
)

const playground = "playground"

var playgroundKey = store.Key{Namespace: "default", Name: playground}

// seen is what a member was seen to be.
type seen struct {
	name            string
	pid, supervisor int64
	version, digest string
	// exe is the digest of the file that the process runs.
	exe       string
	memberID  string
	clientURL string
	dataDir   string
	// process names pid for all time.
	process  process.ID
	restarts int64
}

// sight is what a cluster was seen to be, by the names of its members.
type sight map[string]seen

func (u *up) client() (*remote.Client, error) {
	cfg, err := remote.LoadConfig(app.ClientConfigFile(u.dir))
	if err != nil {
		return nil, err
	}
	return remote.New(cfg, remote.Options{})
}

// cluster reads the cluster.
func (u *up) cluster(ctx context.Context) (*v1alpha1.EtcdCluster, error) {
	c, err := u.client()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	cluster := &v1alpha1.EtcdCluster{}
	return cluster, c.Get(ctx, playgroundKey, cluster)
}

// members reads the members.
func (u *up) members(ctx context.Context) ([]*v1alpha1.EtcdMember, error) {
	c, err := u.client()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	objects, err := c.List(ctx, v1alpha1.KindMember, store.ListOptions{Namespace: playgroundKey.Namespace})
	if err != nil {
		return nil, err
	}
	members := make([]*v1alpha1.EtcdMember, 0, len(objects))
	for _, o := range objects {
		if m, ok := o.(*v1alpha1.EtcdMember); ok {
			members = append(members, m)
		}
	}
	return members, nil
}

func (u *up) member(ctx context.Context, name string) (*v1alpha1.EtcdMember, error) {
	members, err := u.members(ctx)
	if err != nil {
		return nil, err
	}
	for _, m := range members {
		if m.Name == name {
			return m, nil
		}
	}
	return nil, fmt.Errorf("there is no member %s", name)
}

// settle waits until the cluster is healthy, all members run, and each is another
// process than the one given, if any was.
func (u *up) settle(ctx context.Context, not ...int64) (sight, error) {
	var s sight
	err := poll(ctx, "all members healthy", func() (string, bool, error) {
		cluster, err := u.cluster(ctx)
		if err != nil {
			return "", false, err
		}
		if s, err = u.look(ctx); err != nil {
			return "", false, err
		}
		for _, m := range s {
			for _, pid := range not {
				if m.pid == pid || m.pid == 0 {
					return m.name + " has not been restarted", false, nil
				}
			}
		}
		return cluster.Status.Ready + ", " + cluster.Status.Summary, isHealthy(cluster), nil
	})
	return s, err
}

func isHealthy(c *v1alpha1.EtcdCluster) bool {
	return c.Status.Ready == fmt.Sprintf("%d/%d", c.Spec.Replicas, c.Spec.Replicas) &&
		c.Status.ObservedGeneration == c.Generation && v1alpha1.IsTrue(c.Status.Conditions, v1alpha1.ConditionAvailable) &&
		!v1alpha1.IsTrue(c.Status.Conditions, v1alpha1.ConditionProgressing)
}

// look sees each member as its host reports it, and as /proc has it.
func (u *up) look(ctx context.Context) (sight, error) {
	members, err := u.members(ctx)
	if err != nil {
		return nil, err
	}
	s := sight{}
	for _, m := range members {
		one := seen{
			name: m.Name, version: m.Spec.Release.Version, memberID: m.Spec.MemberID,
			clientURL: m.Status.ClientURL, dataDir: m.Status.DataDir,
		}
		if p := m.Status.Process; p != nil {
			one.pid, one.supervisor, one.digest, one.restarts = p.PID, p.SupervisorPID, p.Digest, p.Restarts
			// One that has just ended has none.
			one.process, _ = process.Identify(int(p.PID))
		}
		s[m.Name] = one
	}
	return s, nil
}

// withDigests adds the digest of what each process really runs.
func (s sight) withDigests() (sight, error) {
	for name, m := range s {
		digest, err := fileDigest(fmt.Sprintf("/proc/%d/exe", m.pid))
		if err != nil {
			return nil, err
		}
		m.exe = digest
		s[name] = m
	}
	return s, nil
}

func (s sight) ids() []process.ID {
	ids := make([]process.ID, 0, len(s))
	for _, m := range s {
		ids = append(ids, m.process)
	}
	return ids
}

func (s sight) endpoints() []string {
	urls := make([]string, 0, len(s))
	for _, m := range s {
		urls = append(urls, m.clientURL)
	}
	return urls
}

func fileDigest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close() //nolint:errcheck // read only
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), nil
}

// loadRate is in writes a second.
const loadRate = 500

// clientTLS asks for a client certificate, which outlives the server.
func (u *up) clientTLS(ctx context.Context) (*tls.Config, error) {
	c, err := u.client()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	key, err := pki.NewKey()
	if err != nil {
		return nil, err
	}
	csr, err := pki.NewRequest(key, "prove")
	if err != nil {
		return nil, err
	}
	bundle, _, err := c.ClientCertificate(ctx, playgroundKey, csr, time.Hour)
	if err != nil {
		return nil, err
	}
	return pki.ClientTLS(bundle.Certificate, key, bundle.CA)
}

// load begins to write to the cluster.
func (u *up) load(ctx context.Context, s sight, run string) (*load.Writer, error) {
	config, err := u.clientTLS(ctx)
	if err != nil {
		return nil, err
	}
	return load.Start(ctx, load.Config{Endpoints: s.endpoints(), TLS: config, Rate: loadRate, Run: run})
}
