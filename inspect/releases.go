package inspect

import (
	"cmp"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/quorate/quorate/etcd"
)

// release is an etcd version. A pre-release counts as the release itself.
type release struct{ major, minor, patch int }

// parseRelease reads a version such as 3.5.21; what can't be read is 0.
func parseRelease(s string) release {
	s, _, _ = strings.Cut(strings.TrimPrefix(s, "v"), "-")
	var r release
	for i, part := range strings.SplitN(s, ".", 3) {
		n, err := strconv.Atoi(part)
		if err != nil {
			return release{}
		}
		*[]*int{&r.major, &r.minor, &r.patch}[i] = n
	}
	return r
}

func (r release) compare(other release) int {
	return cmp.Or(cmp.Compare(r.major, other.major), cmp.Compare(r.minor, other.minor), cmp.Compare(r.patch, other.patch))
}

func (r release) is(major, minor int) bool { return r.major == major && r.minor == minor }

// bug is a known fault of some releases.
type bug struct {
	id string
	// affected are ranges: from the first to the last that has it.
	affected []between
	severity Severity
	title    string
	why      string
	// fixed is what to go to, by minor.
	fixed string
	// source is where etcd's maintainers say so.
	source string
	// until it is fixed, what keeps from harm; may be empty.
	until string
	// when it concerns this cluster; nil for always.
	when func(*Observation) bool
	// seen says that this cluster looks as the bug leaves it, which is a warning
	// then; nil where that can't be told.
	seen func(*Observation) bool
}

// between is a range of releases of one minor, both ends included.
type between struct{ from, to release }

func within(minor, from, to int) between {
	return between{release{3, minor, from}, release{3, minor, to}}
}

// every release of a minor: none of those that are known has the fix.
func every(minor int) between { return within(minor, 0, math.MaxInt) }

const (
	issues = "https://github.com/etcd-io/etcd/issues/"
	pulls  = "https://github.com/etcd-io/etcd/pull/"
)

// bugs of etcd that an operator must know of. Each source was read. Where several
// minors have a bug, the fix of each is in a pull request of its own, and which
// releases have it is in etcd's CHANGELOG.
var bugs = []bug{
	{
		id: "bug-data-inconsistency", affected: []between{within(5, 0, 2)}, severity: Critical,
		title: "killed under load, a member may lose writes that were acknowledged, and differ from the others ever after",
		why:   "The consistent index is not saved together with the data. etcd's maintainers advised against 3.5.0 to 3.5.2 in production.",
		fixed: "3.5.3 or later, the latest 3.5 at best; then compare the members' hashes, since the damage stays", source: issues + "13766",
	},
	{
		id: "bug-defrag-crash", affected: []between{within(5, 0, 5)}, severity: Warning,
		title: "a crash during a defragmentation makes a member's revision differ from the others'",
		why:   "Entries are applied a second time after the restart.",
		fixed: "3.5.6 or later, the latest 3.5 at best", source: "https://github.com/etcd-io/etcd/pull/14685",
	},
	{
		// Fixed by pull request 14648 in 3.5.6 and by 14649 in 3.4.22.
		id: "bug-auth-snapshot", affected: []between{within(5, 5, 5), within(4, 20, 21)}, severity: Warning,
		title: "with authentication on, a member that was added may hold other data than the rest",
		why:   "What is allowed is not loaded from the snapshot that a new member starts from.",
		fixed: "3.4.22, 3.5.6 or later", source: "https://github.com/etcd-io/etcd/pull/14648", when: authMayBeOn,
	},
	{
		// Issue 14370. Fixed by pull request 14424 in 3.5.5 and by 14423 in 3.4.21.
		id: "bug-single-durability", affected: []between{within(4, 0, 20), within(5, 0, 4)}, severity: Critical,
		title: "a single member may acknowledge a write before it is on disk",
		why:   "After a crash that write is gone.",
		fixed: "3.4.21, 3.5.5 or later, the latest 3.5 at best", source: issues + "14370 and https://github.com/etcd-io/etcd/pull/14424",
		when: func(o *Observation) bool { voters, _, _ := o.tally(); return voters == 1 },
	},
	{
		// Fixed by pull request 17865 in 3.5.14 and by 17864 in 3.4.32.
		id: "bug-compaction-crash", affected: []between{within(5, 0, 13), within(4, 0, 31)}, severity: Warning,
		title: "a crash during a compaction may make a member's revision go back, so that members differ",
		why:   "Compacting the latest revision removes it when it is a deletion.",
		fixed: "3.4.32, 3.5.14 or later", source: issues + "17780",
	},
	{
		// Issue 17529 among others. Fixed by pull requests 17612 and 17425 in 3.5.13,
		// and by 17610 and 17465 in 3.4.31.
		id: "bug-watch-loss", affected: []between{within(4, 0, 30), within(5, 0, 12)}, severity: Warning,
		title: "watches may miss events after a compaction, and an old leader may revoke leases that are alive",
		why:   "Applications that rely on watches and leases, as Kubernetes does, then act on what is not so.",
		fixed: "3.4.31, 3.5.13 or later", source: "https://github.com/etcd-io/etcd/pull/17612 and https://github.com/etcd-io/etcd/pull/17425",
	},
	{
		// Issue 15220, fixed by pull requests 15695 in 3.5.8 and 15697 in 3.4.25, and
		// issue 15271, fixed by 15515 and 15520 in the same.
		id: "bug-watch-order", affected: []between{within(4, 0, 24), within(5, 0, 7)}, severity: Warning,
		title: "watches may be told of progress ahead of events, and of the past a second time when their member gets a snapshot",
		why:   "Who takes progress for the truth, as Kubernetes does for reads from its cache, works with what is outdated.",
		fixed: "3.4.25, 3.5.8 or later", source: issues + "15220 and " + issues + "15271",
	},
	{
		// Issue 18089, fixed in 3.5.16, and what was left of it, issue 19179, by pull
		// requests 19249 in 3.5.18 and 19251 in 3.4.36.
		id: "bug-watch-deletion", affected: []between{within(4, 0, 35), within(5, 0, 17)}, severity: Warning,
		title: "a watch that begins at the compacted revision may miss a deletion",
		why:   "Applications that come back to a watch then keep what is gone. After a crash in a compaction it is so for good.",
		fixed: "3.4.36, 3.5.18 or later", source: issues + "18089 and " + issues + "19179",
	},
	{
		// Fixed by pull requests 20290 in 3.5.22, 20286 in 3.6.2 and 20291 in 3.4.38.
		id: "bug-watch-future", affected: []between{within(4, 0, 37), within(5, 0, 21), within(6, 0, 1)}, severity: Warning,
		title: "a watch may deliver what lies before its beginning, when its member is behind and gets a snapshot",
		why:   "Applications that go on with a watch at another member see events again that they had.",
		fixed: "3.4.38, 3.5.22, 3.6.2 or later", source: issues + "20221", when: several,
	},
	{
		// Issue 20418, fixed by pull requests 21421 in 3.5.28, 21417 in 3.6.9 and 21423
		// in 3.4.42; the race with a leader change by 21387, 21378 and 21385 in the same.
		id: "bug-stale-reads", affected: []between{within(4, 0, 41), within(5, 0, 27), within(6, 0, 8)}, severity: Warning,
		title: "a linearizable read may be outdated, when processes stall or the leader changes",
		why:   "Who reads before writing, such as a lock or an election, decides on what is not so any more.",
		fixed: "3.4.42, 3.5.28, 3.6.9 or later", source: issues + "20418 and " + pulls + "21387", when: several,
	},
	{
		// Fixed by pull requests 20616 in 3.5.23, 20615 in 3.6.5 and 20813 in 3.4.38.
		id: "bug-lease-renew", affected: []between{within(4, 0, 37), within(5, 0, 22), within(6, 0, 4)}, severity: Warning,
		title: "a lease may be said to be renewed when it has just been revoked",
		why:   "Its holder goes on as if it had the lock, and its keys are gone.",
		fixed: "3.4.38, 3.5.23, 3.6.5 or later", source: pulls + "20590",
	},
	{
		// Issue 20271, fixed by pull requests 20653 in 3.5.23, 20650 in 3.6.5 and 20659
		// in 3.4.38.
		id: "bug-snapshot-defrag", affected: []between{within(4, 0, 37), within(5, 0, 22), within(6, 0, 4)}, severity: Warning,
		title: "a member that is defragmented while it gets a snapshot from the leader may corrupt its database",
		why:   "The one puts a new file in place of the database, and so does the other. The member panics then, or later.",
		fixed: "3.4.38, 3.5.23, 3.6.5 or later", until: "Until then defragment only members that keep up with the leader.",
		source: issues + "20271 and " + pulls + "20653", when: several,
	},
	{
		// A member that was not asked drops the reads of a transaction, and with them the
		// reason to refuse it; so does the one that was, when it comes back from a crash
		// and applies it again: a single member is not safe from it. Fixed by pull request
		// 21432 in 3.7.0, and nowhere else: 3.5.35 and 3.6.16 have it, see
		// TestOlderEtcdCompactedRead, and nobody maintains 3.4. That is no reason to warn
		// everybody who runs the latest 3.5 or 3.6.
		id: "bug-compacted-read", affected: []between{every(4), every(5), every(6)}, severity: Info,
		title:  "a transaction that writes, and reads at a compacted revision, makes members differ",
		why:    "The member that is asked refuses it, and the others carry it out. From then on they hold different data, for good, and nothing says so. A single member that is killed right behind it carries it out when it is back.",
		fixed:  "3.7.0 or later, by way of each minor between: no 3.5 up to 3.5.35 and no 3.6 up to 3.6.16 has the fix",
		until:  "Until then, let no client read at a given revision in a transaction that writes.",
		source: issues + "18667 and " + pulls + "21432",
		seen:   func(o *Observation) bool { return len(divergence(o)) > 0 },
	},
	{
		id: "bug-auth-bypass", affected: []between{within(4, 0, 41), within(5, 0, 27), within(6, 0, 8)}, severity: Critical,
		title: "CVE-2026-33413, CVE-2026-33343: clients get around authentication and permissions",
		why:   "Strangers can list members, raise alarms, use leases and compact; any user can read and write all keys by nested transactions.",
		fixed: "3.4.42, 3.5.28, 3.6.9 or later", source: "https://github.com/etcd-io/etcd/security/advisories/GHSA-q8m4-xhhv-38mg", when: authMayBeOn,
	},
	{
		id: "bug-watch-bypass", affected: []between{within(5, 0, 32), within(6, 0, 13), within(7, 0, 0)}, severity: Warning,
		title: "CVE-2026-73499: who may read one key can watch all keys behind it",
		why:   "Permissions to read don't hold for watches that are open-ended.",
		fixed: "3.5.33, 3.6.14, 3.7.1 or later", source: "https://github.com/advisories/GHSA-xg4h-6gfc-h4m8", when: authMayBeOn,
	},
	{
		// Pull requests 21687 (3.5.30), 21685 (3.6.11), 21688 (3.4.44).
		id: "bug-put-bypass", affected: []between{within(4, 0, 43), within(5, 0, 29), within(6, 0, 10)}, severity: Warning,
		title: "CVE-2026-44283: by transactions a user can read keys that may only be written, and attach leases to keys",
		why:   "What a put in a transaction gives back of the former value, and which lease it names, is not checked.",
		fixed: "3.4.44, 3.5.30, 3.6.11 or later", source: "https://github.com/etcd-io/etcd/security/advisories/GHSA-x35m-3gp4-4fh5", when: authMayBeOn,
	},
	{
		id: "upgrade-to-3.6", affected: []between{within(5, 0, 25)}, severity: Info,
		title: "before an upgrade to 3.6 it must be at 3.5.26 or later",
		why:   "Learners that were promoted, and members that were removed, may come back in 3.6: it then refuses to start with `too many learner members in cluster`.",
		fixed: "3.5.26 or later on every member before the upgrade", source: issues + "19557, " + issues + "20793, https://github.com/etcd-io/etcd/pull/20995",
	},
	{
		id: "upgrade-to-3.7", affected: []between{within(6, 0, 10)}, severity: Info,
		title: "before an upgrade to 3.7 it must be at 3.6.11 or later",
		why:   "Earlier patch releases may not run beside 3.7 while the members are upgraded one by one.",
		fixed: "3.6.11 or later on every member before the upgrade", source: "https://etcd.io/docs/v3.7/upgrades/upgrade_3_7/",
	},
}

// several: there are members that can differ.
func several(o *Observation) bool { return len(o.of()) > 1 }

// authMayBeOn: whether authentication is on is known when nobody named a user and
// was let in, or when a user was named.
func authMayBeOn(o *Observation) bool {
	if o.Login != nil {
		return o.Login.Cause != etcd.FaultNoAuth
	}
	for _, m := range o.of() {
		if m.Reach.Cause == etcd.FaultLoginWanted || m.Serializable != nil && m.Serializable.Failed != nil &&
			(m.Serializable.Failed.Cause == etcd.FaultLoginWanted || m.Serializable.Failed.Cause == etcd.FaultDenied) {
			return true
		}
	}
	return false
}

// releases: what is known of the versions that run?
func releases(o *Observation) []Finding {
	versions := o.versions()
	if len(versions) == 0 {
		return nil
	}
	found := o.outdated(versions)
	for _, b := range bugs {
		if b.when != nil && !b.when(o) {
			continue
		}
		var who []string
		hit := ""
		for _, m := range o.answering() {
			if v := parseRelease(m.Latest().Version); b.hits(v) {
				who, hit = append(who, m.Label()), m.Latest().Version
			}
		}
		if len(who) == 0 {
			continue
		}
		f := Finding{
			ID: b.id, Severity: b.severity, Subject: cluster,
			Title:    fmt.Sprintf("etcd %s: %s", hit, b.title),
			Evidence: []string{fmt.Sprintf("%s: %s", plural(len(who), "member runs it", "members run it"), andList(who)), "source: " + b.source},
			Why:      b.why,
			Fix:      strings.TrimSpace(fmt.Sprintf("Upgrade to %s, one member at a time, followers first. %s", b.fixed, b.until)),
			Commands: []string{o.command("snapshot save before-upgrade.db", o.answering()[:1]...), o.command("endpoint status -w table", o.answering()...)},
		}
		if b.seen != nil && b.seen(o) {
			f.Severity = Warning
			f.Evidence = append(f.Evidence, "members differ here, and this may be why")
		}
		found = append(found, f)
	}
	return append(found, o.mixed(versions)...)
}

func (b *bug) hits(v release) bool {
	for _, r := range b.affected {
		if v.compare(r.from) >= 0 && v.compare(r.to) <= 0 {
			return true
		}
	}
	return false
}

// outdated tells releases that etcd's project no longer maintains.
func (o *Observation) outdated(versions []string) []Finding {
	oldest := parseRelease(versions[0])
	if oldest == (release{}) || oldest.compare(release{3, 5, 0}) >= 0 {
		return nil
	}
	return []Finding{{
		ID: "end-of-life", Severity: Warning, Subject: cluster,
		Title:    fmt.Sprintf("etcd %s is no longer maintained", versions[0]),
		Evidence: []string{"versions: " + andList(versions), "source: https://etcd.io/docs/v3.6/op-guide/versioning/ (3.4 went out of support with 3.6)"},
		Why:      "Nobody mends what is found in it any more, security included. Doctor sees less of it, too: it tells neither its quota nor when it compacted.",
		Fix:      "Upgrade one minor at a time, each with a snapshot before: 3.4 to the latest 3.5, then to 3.6. Distributions' packages are often years behind.",
		Commands: []string{o.command("snapshot save before-upgrade.db", o.answering()[:1]...)},
	}}
}

// mixed tells members that run different versions.
func (o *Observation) mixed(versions []string) []Finding {
	if len(versions) < 2 {
		return nil
	}
	f := Finding{
		ID: "mixed-versions", Severity: Info, Subject: cluster,
		Title: "The members run different patch releases: " + andList(versions),
		Why:   "They get along, and what a newer one mends holds for that one only.",
		Fix:   "Finish the upgrade, one member at a time.",
	}
	first := parseRelease(versions[0])
	last := parseRelease(versions[len(versions)-1])
	if !last.is(first.major, first.minor) {
		f.Severity = Warning
		f.Title = "The members run different minor releases: " + andList(versions)
		f.Why = "The cluster works as the oldest one does. It is meant for the hour of an upgrade: a mixed cluster can't be downgraded or restored as easily as a whole one."
	}
	for _, m := range o.answering() {
		f.Evidence = append(f.Evidence, m.Label()+": etcd "+m.Latest().Version)
	}
	f.Commands = []string{o.command("endpoint status -w table", o.answering()...)}
	return []Finding{f}
}
