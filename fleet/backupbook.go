package fleet

import (
	"maps"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
)

// bookKey names one cluster's backups in one destination of one policy.
type bookKey struct {
	policy      store.Key
	cluster     string
	destination string
}

// identityOf tells a cluster from another one of its name, and from itself before its
// data was replaced: etcd has another ID then, and backups of their own.
func identityOf(c *v1alpha1.EtcdCluster) string { return string(c.UID) + "/" + c.Status.ClusterID }

// bookEntry is what is known of them.
type bookEntry struct {
	// who is the cluster, and url the destination: of another one nothing is known.
	who string
	url string
	// known says that holdings speak of the store, as of readAt, or of records, where
	// readAt is zero.
	known    bool
	readAt   time.Time
	holdings BackupHoldings
	// triedAt is when the store was asked last, and problem why it did not answer.
	triedAt time.Time
	problem string
	// failures since the server has started.
	failures float64
}

// read notes what the store was found to hold.
func (e *bookEntry) read(at time.Time, h BackupHoldings) {
	e.known, e.readAt, e.triedAt, e.problem, e.holdings = true, at, at, "", h
}

// add notes a backup that a record tells of.
func (e *bookEntry) add(b *v1alpha1.EtcdBackup, d *v1alpha1.BackupDestinationStatus, now time.Time) {
	if d.PointID == "" || d.ProofAt != nil && !d.Proven {
		return
	}
	e.known = true
	h := &HeldBackup{
		PointID: d.PointID, At: began(b), StoredSize: b.Status.StoredSize,
		Took: time.Duration(b.Status.TookMilliseconds) * time.Millisecond,
	}
	if n := e.holdings.Newest; n == nil || n.PointID != h.PointID {
		e.holdings.Points++
	}
	if h.Succeeds(e.holdings.Newest, now) {
		e.holdings.Newest = h
	}
	if d.Proven && h.Succeeds(e.holdings.Proven, now) {
		h.ProofAt, h.RestoreTook = d.ProofAt.Time, time.Duration(d.RestoreMilliseconds)*time.Millisecond
		e.holdings.Proven = h
	}
}

// backupBook remembers what the stores hold, so that they need not be asked each time.
// It is lost with the process, and made anew from records and stores.
type backupBook struct {
	mu      sync.Mutex
	entries map[bookKey]bookEntry
}

// get returns the entry of a cluster; an empty one for another cluster of that name or
// another store.
func (b *backupBook) get(key bookKey, who, url string) bookEntry {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e, ok := b.entries[key]; ok && e.who == who && e.url == url {
		return e
	}
	return bookEntry{who: who, url: url}
}

// change puts an entry in the place of what get returns.
func (b *backupBook) change(key bookKey, who, url string, change func(*bookEntry)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e, ok := b.entries[key]
	if !ok || e.who != who || e.url != url {
		e = bookEntry{who: who, url: url}
	}
	change(&e)
	if b.entries == nil {
		b.entries = map[bookKey]bookEntry{}
	}
	b.entries[key] = e
}

// keep forgets what a policy has on clusters and destinations that it has no more.
func (b *backupBook) keep(policy store.Key, wanted map[bookKey]bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	maps.DeleteFunc(b.entries, func(key bookKey, _ bookEntry) bool { return key.policy == policy && !wanted[key] })
}

// backupMetrics tells the book to Prometheus.
type backupMetrics struct {
	book *backupBook

	success, proven, size, took, restore, points, failures *prometheus.Desc
}

func newBackupMetrics(book *backupBook) *backupMetrics {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("quorate_backup_"+name, help, []string{"namespace", "cluster", "policy", "destination"}, nil)
	}
	return &backupMetrics{
		book:     book,
		success:  desc("last_success_timestamp_seconds", "When the newest backup in the destination began; the time since is what a disaster costs now (RPO)."),
		proven:   desc("last_proven_timestamp_seconds", "When the newest proven backup in the destination began."),
		size:     desc("size_bytes", "What the newest backup takes in the destination."),
		took:     desc("duration_seconds", "How long the newest backup took to take."),
		restore:  desc("restore_seconds", "How long the newest proof took to restore the backup until etcd served (RTO)."),
		points:   desc("points", "Backups of the cluster in the destination."),
		failures: desc("failures_total", "Backups that failed for the destination, since the server has started."),
	}
}

// Describe implements prometheus.Collector.
func (m *backupMetrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.success, m.proven, m.size, m.took, m.restore, m.points, m.failures} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (m *backupMetrics) Collect(out chan<- prometheus.Metric) {
	m.book.mu.Lock()
	entries := maps.Clone(m.book.entries)
	m.book.mu.Unlock()
	for key, e := range entries {
		tell := func(d *prometheus.Desc, kind prometheus.ValueType, value float64) {
			out <- prometheus.MustNewConstMetric(d, kind, value, key.policy.Namespace, key.cluster, key.policy.Name, key.destination)
		}
		tell(m.failures, prometheus.CounterValue, e.failures)
		if !e.known {
			continue
		}
		tell(m.points, prometheus.GaugeValue, float64(e.holdings.Points))
		if n := e.holdings.Newest; n != nil {
			tell(m.success, prometheus.GaugeValue, float64(n.At.Unix()))
			tell(m.size, prometheus.GaugeValue, float64(n.StoredSize))
			tell(m.took, prometheus.GaugeValue, n.Took.Seconds())
		}
		if p := e.holdings.Proven; p != nil {
			tell(m.proven, prometheus.GaugeValue, float64(p.At.Unix()))
			tell(m.restore, prometheus.GaugeValue, p.RestoreTook.Seconds())
		}
	}
}
