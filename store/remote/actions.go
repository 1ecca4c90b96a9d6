package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/pki"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote/wire"
)

// LogOptions choose what of a member's log is read.
type LogOptions = wire.LogOptions

// Release is an etcd release that the server holds.
type Release = wire.Release

// errNoDryRun: the action can't be tried, only done.
var errNoDryRun = errors.New("it can't be tried without doing it: leave out --dry-run")

// Plan returns the plan of the cluster at key.
func (c *Client) Plan(ctx context.Context, key store.Key) (v1alpha1.Plan, error) {
	return ofCluster[v1alpha1.Plan](ctx, c, key, "plan")
}

// View asks the members of the cluster at key what they are at this moment.
func (c *Client) View(ctx context.Context, key store.Key) (v1alpha1.ClusterView, error) {
	return ofCluster[v1alpha1.ClusterView](ctx, c, key, "view")
}

// PlanFor returns the plan there would be if the cluster were stored as given. It
// is validated as if it were; nothing is written.
func (c *Client) PlanFor(ctx context.Context, cluster *v1alpha1.EtcdCluster) (v1alpha1.Plan, error) {
	return ofProposed[v1alpha1.Plan](ctx, c, cluster, "plan")
}

// Placement says where the members of the cluster at key stand, and where those that are
// missing would come.
func (c *Client) Placement(ctx context.Context, key store.Key) (v1alpha1.Placement, error) {
	return ofCluster[v1alpha1.Placement](ctx, c, key, "placement")
}

// PlacementFor is Placement if the cluster were stored as given. It is validated as if it
// were; nothing is written.
func (c *Client) PlacementFor(ctx context.Context, cluster *v1alpha1.EtcdCluster) (v1alpha1.Placement, error) {
	return ofProposed[v1alpha1.Placement](ctx, c, cluster, "placement")
}

// ofCluster reads what the server says of a cluster below its path.
func ofCluster[T any](ctx context.Context, c *Client, key store.Key, what string) (answer T, err error) {
	path, err := itemPath(what, v1alpha1.KindCluster, key, what)
	if err != nil {
		return answer, err
	}
	err = c.call(ctx, http.MethodGet, path, nil, nil, &answer)
	return answer, err
}

// ofProposed is ofCluster if the cluster were stored as given.
func ofProposed[T any](ctx context.Context, c *Client, cluster *v1alpha1.EtcdCluster, what string) (answer T, err error) {
	path, err := itemPath(what, v1alpha1.KindCluster, store.KeyOf(cluster), what)
	if err != nil {
		return answer, err
	}
	sent := cluster.DeepCopy()
	v1alpha1.SetType(sent, v1alpha1.KindCluster.Kind, v1alpha1.KindCluster.APIVersion)
	err = c.call(ctx, http.MethodPost, path, nil, sent, &answer)
	return answer, err
}

// Rebalance says what would place the fleet's members better.
func (c *Client) Rebalance(ctx context.Context) (v1alpha1.Rebalance, error) {
	var r v1alpha1.Rebalance
	err := c.call(ctx, http.MethodGet, wire.PathRebalance, nil, nil, &r)
	return r, err
}

// Usage adds up what members ask for and use, by host, class, zone, pool, label=KEY or
// host-label=KEY.
func (c *Client) Usage(ctx context.Context, by string) (v1alpha1.Usage, error) {
	var u v1alpha1.Usage
	err := c.call(ctx, http.MethodGet, wire.PathUsage, url.Values{"by": {by}}, nil, &u)
	return u, err
}

// Preview returns the restore with the status that it would begin with: which backup it
// is, and what would be lost. Nothing is written.
func (c *Client) Preview(ctx context.Context, restore *v1alpha1.EtcdRestore) (*v1alpha1.EtcdRestore, error) {
	path, err := itemPath("preview", v1alpha1.KindRestore, store.KeyOf(restore), "preview")
	if err != nil {
		return nil, err
	}
	sent := restore.DeepCopy()
	v1alpha1.SetType(sent, v1alpha1.KindRestore.Kind, v1alpha1.KindRestore.APIVersion)
	seen := &v1alpha1.EtcdRestore{}
	if err = c.call(ctx, http.MethodPost, path, nil, sent, seen); err != nil {
		return nil, err
	}
	return seen, nil
}

// Accept lets the cluster at key go on after the fleet's store was restored. Token
// names the plan that was read; store.ErrConflict when it has changed since.
func (c *Client) Accept(ctx context.Context, key store.Key, token string) error {
	path, err := itemPath("accept the plan of", v1alpha1.KindCluster, key, "accept")
	if err == nil && c.dryRun {
		err = fmt.Errorf("accept the plan of %s: %w", key, errNoDryRun)
	}
	if err != nil {
		return err
	}
	return c.call(ctx, http.MethodPost, path, nil, wire.Accept{Token: token}, nil)
}

// SignMember has the server sign a request (PEM) for a certificate of the member
// at key. Usage is pki.Server or pki.Peer.
func (c *Client) SignMember(ctx context.Context, key store.Key, usage pki.Usage, csr []byte) (pki.Bundle, error) {
	path, err := itemPath("sign for", v1alpha1.KindMember, key, "certificate")
	if err != nil {
		return pki.Bundle{}, err
	}
	var cert wire.Certificate
	if err := c.call(ctx, http.MethodPost, path, nil, wire.MemberCSR{Usage: string(usage), CSR: string(csr)}, &cert); err != nil {
		return pki.Bundle{}, err
	}
	return pki.Bundle{Certificate: []byte(cert.Certificate), CA: []byte(cert.CA)}, nil
}

// ClientCertificate has the server sign a request (PEM) for a client certificate
// of the cluster at key, and returns where its members are. A ttl of 0 leaves the
// lifetime to the server; it is rounded up to seconds.
func (c *Client) ClientCertificate(ctx context.Context, key store.Key, csr []byte, ttl time.Duration) (bundle pki.Bundle, endpoints []string, err error) {
	path, err := itemPath("sign for", v1alpha1.KindCluster, key, "clientcertificate")
	if err != nil {
		return pki.Bundle{}, nil, err
	}
	var cert wire.Certificate
	in := wire.ClientCSR{CSR: string(csr), TTLSeconds: int64((ttl + time.Second - 1) / time.Second)}
	if err := c.call(ctx, http.MethodPost, path, nil, in, &cert); err != nil {
		return pki.Bundle{}, nil, err
	}
	return pki.Bundle{Certificate: []byte(cert.Certificate), CA: []byte(cert.CA)}, cert.Endpoints, nil
}

// Logs reads the log of the member at key, through its host's agent. Reading ends
// with io.EOF only when nothing is missing; with Follow it ends with ctx or Close.
func (c *Client) Logs(ctx context.Context, key store.Key, opts LogOptions) (io.ReadCloser, error) {
	path, err := itemPath("read the log of", v1alpha1.KindMember, key, "log")
	if err != nil {
		return nil, err
	}
	query := url.Values{"tail": {strconv.Itoa(opts.Tail)}}
	if opts.Source != "" {
		query.Set("source", opts.Source)
	}
	if opts.Follow {
		query.Set("follow", "true")
	}
	return c.open(ctx, request{method: http.MethodGet, path: path, query: query})
}

// MemberMetrics reads the metrics of the member's etcd as it serves them, in the
// text format of Prometheus, through its host's agent.
func (c *Client) MemberMetrics(ctx context.Context, key store.Key) (io.ReadCloser, error) {
	path, err := itemPath("read the metrics of", v1alpha1.KindMember, key, "metrics")
	if err != nil {
		return nil, err
	}
	return c.open(ctx, request{method: http.MethodGet, path: path})
}

// RestoreData reads the backup that the member at key is to be formed from, and returns
// its size in bytes, -1 where that is not known. Reading ends with io.EOF only when
// nothing is missing. store.ErrConflict unless the member waits for its data;
// store.ErrForbidden to all but the agent of its host and admins.
func (c *Client) RestoreData(ctx context.Context, key store.Key) (io.ReadCloser, int64, error) {
	path, err := itemPath("read the backup for", v1alpha1.KindMember, key, "snapshot")
	if err != nil {
		return nil, 0, err
	}
	resp, err := c.do(ctx, request{method: http.MethodGet, path: path}) //nolint:bodyclose // the caller closes the download
	if err != nil {
		return nil, 0, err
	}
	return &download{resp: resp, from: c.Server()}, resp.ContentLength, nil
}

// KillMember kills the member's etcd without warning, as a crash would.
// store.ErrForbidden unless its host's agent allows faults.
func (c *Client) KillMember(ctx context.Context, key store.Key) error {
	path, err := itemPath("kill", v1alpha1.KindMember, key, "kill")
	if err == nil && c.dryRun {
		err = fmt.Errorf("kill %s: %w", key, errNoDryRun)
	}
	if err != nil {
		return err
	}
	return c.call(ctx, http.MethodPost, path, nil, nil, nil)
}

// Load has the agent of a host drive a load as specified, and reads what its worker
// writes: lines of progress, and the result in the last. The load ends when reading
// does. store.ErrForbidden unless the agent allows loads.
func (c *Client) Load(ctx context.Context, host string, specification []byte) (io.ReadCloser, error) {
	key := store.Key{Name: host}
	path, err := itemPath("drive a load from", v1alpha1.KindHost, key, "load")
	if err == nil && c.dryRun {
		err = fmt.Errorf("drive a load from %s: %w", host, errNoDryRun)
	}
	if err != nil {
		return nil, err
	}
	return c.open(ctx, request{method: http.MethodPost, path: path, body: bytes.NewReader(specification), length: int64(len(specification))})
}

// CheckHost has the agent of a host check it, which takes about five seconds, with round
// trips to the peers given: ADDRESS or ADDRESS:PORT.
func (c *Client) CheckHost(ctx context.Context, host string, peers []string) (v1alpha1.HostPreflight, error) {
	var p v1alpha1.HostPreflight
	path, err := itemPath("check", v1alpha1.KindHost, store.Key{Name: host}, "check")
	if err == nil && c.dryRun {
		err = fmt.Errorf("check host %s: %w", host, errNoDryRun)
	}
	if err != nil {
		return p, err
	}
	err = c.call(ctx, http.MethodPost, path, nil, wire.CheckHost{Peers: peers}, &p)
	return p, err
}

// Releases lists the etcd releases that the server holds.
func (c *Client) Releases(ctx context.Context) ([]Release, error) {
	var list wire.List[Release]
	if err := c.call(ctx, http.MethodGet, wire.PathReleases, nil, nil, &list); err != nil {
		return nil, err
	}
	return list.Items, nil
}

// OpenRelease reads the executable with that digest. The reader must check it.
func (c *Client) OpenRelease(ctx context.Context, digest string) (io.ReadCloser, error) {
	return c.open(ctx, request{method: http.MethodGet, path: wire.PathReleases + "/" + url.PathEscape(digest)})
}

// UploadRelease gives the server an archive of etcd as upstream publishes it.
// Version and sha256, of the archive in hex, are checked where not empty.
func (c *Client) UploadRelease(ctx context.Context, archive io.Reader, version, sha256 string) (Release, error) {
	if c.dryRun {
		return Release{}, fmt.Errorf("upload a release: %w", errNoDryRun)
	}
	query := url.Values{}
	if version != "" {
		query.Set("version", version)
	}
	if sha256 != "" {
		query.Set("sha256", sha256)
	}
	resp, err := c.do(ctx, request{method: http.MethodPost, path: wire.PathReleases, query: query, body: archive})
	if err != nil {
		return Release{}, err
	}
	defer func() { _ = drain(resp.Body) }() // all that was wanted has been read
	var added Release
	err = c.decode(resp, &added)
	return added, err
}

// Backup reads a backup of the server's store. Reading ends with io.EOF only when
// nothing is missing.
func (c *Client) Backup(ctx context.Context) (io.ReadCloser, error) {
	return c.open(ctx, request{method: http.MethodPost, path: wire.PathBackup})
}

// RotateKey has the server seal every Secret with a new key, and returns how many
// there were.
func (c *Client) RotateKey(ctx context.Context) (int, error) {
	var r wire.KeyRotated
	if c.dryRun {
		return 0, fmt.Errorf("rotate the sealing key: %w", errNoDryRun)
	}
	err := c.call(ctx, http.MethodPost, wire.PathSealingKey, nil, nil, &r)
	return r.Secrets, err
}

// Version returns the server's version of Quorate.
func (c *Client) Version(ctx context.Context) (string, error) {
	var v wire.Version
	err := c.call(ctx, http.MethodGet, wire.PathVersion, nil, nil, &v)
	return v.Version, err
}

func itemPath(op string, kind v1alpha1.Kind, key store.Key, more string) (string, error) {
	return wire.ObjectPath(kind, key.Namespace, key.Name, more), checkKey(op, kind, key)
}
