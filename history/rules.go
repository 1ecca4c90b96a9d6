package history

// Rule is the stable name of a promise that was broken. docs/check.md explains each.
type Rule string

// The rules.
const (
	LostWrite       Rule = "lost-write"
	WrongValue      Rule = "wrong-value"
	WrongVersion    Rule = "wrong-version"
	StaleRead       Rule = "stale-read"
	FutureRead      Rule = "future-read"
	WrongRead       Rule = "wrong-read"
	DuplicateWrite  Rule = "duplicate-write"
	PhantomWrite    Rule = "phantom-write"
	RefusedWrite    Rule = "refused-write-happened"
	SplitTxn        Rule = "split-txn"
	TxnOutcome      Rule = "txn-outcome"
	RevisionOrder   Rule = "revision-order"
	RevisionBack    Rule = "revision-back"
	NotLinearizable Rule = "not-linearizable"
	WatchOrder      Rule = "watch-order"
	WatchDuplicate  Rule = "watch-duplicate"
	WatchMissing    Rule = "watch-missing"
	WatchSplit      Rule = "watch-split"
	WatchResume     Rule = "watch-resume"
	WatchProgress   Rule = "watch-progress"
	WatchPrevKV     Rule = "watch-prevkv"
	WatchCreate     Rule = "watch-create"
	WatchFilter     Rule = "watch-filter"
	WatchPhantom    Rule = "watch-phantom"
	LeaseEarly      Rule = "lease-early"
	LeaseKeyStays   Rule = "lease-revoked-key-stays"
	LeaseAttach     Rule = "lease-attach"
	LeaseBack       Rule = "lease-back"
	HashDiffers     Rule = "hash-differs"
)

// Rules are all of them, in the order of docs/check.md.
func Rules() []Rule {
	return []Rule{
		LostWrite, WrongValue, WrongVersion, StaleRead, FutureRead, WrongRead, DuplicateWrite, PhantomWrite, RefusedWrite,
		SplitTxn, TxnOutcome, RevisionOrder, RevisionBack, NotLinearizable,
		WatchOrder, WatchDuplicate, WatchMissing, WatchSplit, WatchResume, WatchProgress, WatchPrevKV, WatchCreate, WatchFilter, WatchPhantom,
		LeaseEarly, LeaseKeyStays, LeaseAttach, LeaseBack, HashDiffers,
	}
}

// meanings say what a broken promise is worth, and where to look.
var meanings = map[Rule]string{
	LostWrite:       "A write that etcd acknowledged is not there. Nothing written to this cluster can be relied on: look at what lies below the members' data directories (write caches, unsynced disks, restored snapshots), then at the release's known bugs.",
	WrongValue:      "A key holds something else than what was written at its revision: data is damaged on the way or at rest. Compare the members' hashes and replace the one that differs.",
	WrongVersion:    "Version, create revision, mod revision or lease of a key is not what its history makes it. Compare-and-swap by these numbers is not safe.",
	StaleRead:       "A linearizable read was answered from before a write that had been completed. A member answers without asking the quorum: look for a leader that was cut off or paused, and for clocks if leases of leadership are in use.",
	FutureRead:      "Something was seen before it was asked for. Either the recorder's clock is not monotonic, or two histories share a prefix.",
	WrongRead:       "A read shows a state that never was at its revision. A member's data differs from what was agreed: compare hashes at equal revisions.",
	DuplicateWrite:  "One request happened twice: it was repeated below the client, or replayed after a crash.",
	PhantomWrite:    "Something changed that nobody asked for. Either somebody else writes to the prefix, or the cluster invents changes.",
	RefusedWrite:    "A request was refused as not done, and was done all the same. Clients that repeat what was refused do it twice.",
	SplitTxn:        "A transaction happened in part, or took the branch that its conditions forbid. Nothing built on transactions is safe.",
	TxnOutcome:      "A transaction says that its conditions held where they did not, or the other way round.",
	RevisionOrder:   "Revisions do not grow in the order in which things happened. Watches, caches and compare-and-swap depend on that order.",
	RevisionBack:    "A member went back to an older revision without having been restarted.",
	NotLinearizable: "There is no order of these calls, each between its begin and its end, that explains all answers.",
	WatchOrder:      "A watch delivered events out of order. A cache made from it keeps old values for new.",
	WatchDuplicate:  "A watch delivered an event twice.",
	WatchMissing:    "A watch left out an event that it had to deliver. A cache made from it is wrong from then on, and does not know it.",
	WatchSplit:      "The events of one revision came in several messages without being marked as parts. Who resumes in between loses the rest.",
	WatchResume:     "A watch that was resumed at a revision left out events behind it.",
	WatchProgress:   "A watch said that everything up to a revision was delivered, and it was not.",
	WatchPrevKV:     "An event tells another previous value than the key had.",
	WatchCreate:     "An event says that the key is new where it is not, or the other way round.",
	WatchFilter:     "A watch delivered what it had been asked to leave out, or keys outside its range.",
	WatchPhantom:    "A watch delivered an event that never was.",
	LeaseEarly:      "A lease ended before its time to live had passed since it was granted or renewed last. Locks and elections held by it were given to another while their owner could rely on them.",
	LeaseKeyStays:   "A lease was revoked, and a key attached to it is still there.",
	LeaseAttach:     "A key was attached to a lease that was over, or is attached to another than was asked for.",
	LeaseBack:       "A lease that was over was renewed. Its owner goes on as if it held what another may hold by now.",
	HashDiffers:     "Members have different data at the same revision. Find the one that differs from the majority, and replace it.",
}

// Meaning says what a violation of the rule is worth, and where to look.
func (r Rule) Meaning() string { return meanings[r] }
