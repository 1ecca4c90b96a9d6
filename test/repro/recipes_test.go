package repro_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/quorate/quorate/history"
	"github.com/quorate/quorate/history/record"
)

// compactOnDelete compacts at the very revision of a delete. A watch may begin at
// the compacted revision, and the delete has to be in it (#18089).
func compactOnDelete(s *stage) {
	s.cluster(labOptions{})
	c := s.client(s.Members[0])
	s.put(c, "k")
	deleted := s.remove(c, "k")
	s.compact(c, deleted)
	s.watch(c, deleted)
}

// compactOnDeleteAndCrash is the same where the compaction was cut off: in batches
// of one revision, and with nothing committed behind its last batch (#19179).
func compactOnDeleteAndCrash(s *stage) {
	s.cluster(labOptions{flags: []string{"--experimental-compaction-batch-limit=1", "--backend-batch-interval=1h"}})
	m := s.Members[0]
	c := s.client(m)
	s.put(c, "k")
	deleted := s.remove(c, "k")
	s.compact(c, deleted)
	s.logged(m, compacted)
	s.watch(c, deleted)
	m.Restart()
	m.Ready()
	s.logged(m, compacted) // it is done again
	s.watch(s.client(m), deleted)
}

// compacted is what etcd logs when a compaction is over.
const compacted = "finished scheduled compaction"

// crashAfterCompaction deletes all there is, compacts it in one whole batch, and
// crashes between the commit of that batch and that of the mark that it is done
// (#17780).
func crashAfterCompaction(s *stage) {
	s.cluster(labOptions{flags: []string{"--experimental-compaction-batch-limit=4", "--backend-batch-interval=1h"}})
	m := s.Members[0]
	c := s.client(m)
	s.put(c, "a")
	s.put(c, "b")
	s.remove(c, "a")
	s.compact(c, s.remove(c, "b"))
	s.logged(m, compacted)
	m.Restart()
	m.Ready()
	c = s.client(m)
	s.read(c)
	s.put(c, "a")
	s.put(c, "b")
	s.read(c)
}

// crashAfterDefrag crashes when a defragmentation has committed what was pending,
// and before anything else was (#14685).
func crashAfterDefrag(s *stage) {
	s.cluster(labOptions{flags: []string{"--backend-batch-interval=1h"}})
	m := s.Members[0]
	c := s.client(m)
	for range 10 {
		s.put(c, "k")
	}
	s.read(c)
	if _, err := c.Etcd().Defragment(s.ctx, m.Client); err != nil {
		s.t.Fatal(err)
	}
	m.Restart()
	m.Ready()
	c = s.client(m)
	s.read(c)
	s.put(c, "k")
	s.read(c)
}

// progressAhead asks for progress on a watch that has yet to be told the past
// (#15220).
func progressAhead(s *stage) {
	s.cluster(labOptions{})
	c := s.client(s.Members[0])
	last := int64(0)
	for i := range 300 {
		last = s.put(c, fmt.Sprint("k", i))
	}
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	told := int64(0)
	err := c.Watch(ctx, history.Watch{Key: prefix, End: prefixEnd, StartRevision: s.start + 1}, record.WatchOptions{
		Ask: 5 * time.Millisecond,
		Seen: func(r *history.WatchResponse) {
			if r.Progress && told == 0 {
				told = r.Revision
			}
			// Also where progress came too early, what it was about comes then.
			if n := len(r.Events); told >= last || (n > 0 && r.Events[n-1].KV.ModRevision >= last && told > 0) {
				cancel()
			}
		},
	})
	if told < last {
		s.t.Fatalf("progress was told up to %d, not %d: %v", told, last, err)
	}
}

// compactedReadInTxn reads a compacted revision in a transaction that also writes:
// the member that is asked refuses it, the others drop the read as none of theirs
// (#18667).
func compactedReadInTxn(s *stage) {
	if readAndWrite(s, -2) == history.OK {
		s.t.Fatal("a read of a compacted revision was answered")
	}
}

// readInTxn is the same with a revision that can be read.
func readInTxn(s *stage) {
	if outcome := readAndWrite(s, 0); outcome != history.OK {
		s.t.Fatalf("a read of the newest revision was not answered: %s", outcome)
	}
}

func readAndWrite(s *stage, offset int64) history.Outcome {
	s.cluster(labOptions{members: 3})
	c := s.client(s.Members[0])
	last := int64(0)
	for i := range 5 {
		last = s.put(c, fmt.Sprint("k", i))
	}
	s.compact(c, last)
	op := c.Do(s.ctx, history.Operation{Kind: history.Txn, Then: []history.Request{
		{Kind: history.Put, Key: prefix + "x", Value: s.value()},
		{Kind: history.Range, Key: prefix + "k1", Revision: last + offset},
	}})
	for i, m := range s.Members {
		s.put(s.client(m), fmt.Sprint("k", i))
	}
	for _, m := range s.Members {
		s.read(s.client(m))
	}
	return op.Outcome
}

// sharedBufferOff lets etcd commit while it takes long to compare.
const sharedBufferOff = "--experimental-txn-mode-write-with-shared-buffer=false"

// crashWhileApplying kills a member while it takes long to apply a transaction, when
// it has just committed that it did (#13766).
func crashWhileApplying(s *stage) {
	s.cluster(labOptions{members: 3, flags: []string{"--backend-batch-interval=1s", sharedBufferOff}})
	victim, c := s.Members[0], s.client(s.Members[1])
	// What is compared lies beside the prefix, and so does what is written then.
	for i := range 400 {
		var ops []clientv3.Op
		for j := range 100 {
			ops = append(ops, clientv3.OpPut(fmt.Sprintf("/beside/%d/%d", i, j), "v"))
		}
		if _, err := c.Etcd().Txn(s.ctx).Then(ops...).Commit(); err != nil {
			s.t.Fatal(err)
		}
	}
	var long []clientv3.Cmp
	for range 100 {
		long = append(long, clientv3.Compare(clientv3.Version("/beside/").WithPrefix(), ">", 0))
	}
	s.read(s.client(victim)) // it has applied what the others have
	commits := s.commits(victim)
	s.put(c, "k")
	s.committed(victim, commits)
	commits = s.commits(victim)
	s.put(c, "k") // so that the next commit has something to do
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Its answer may come too late: it is not part of the history.
		_, _ = c.Etcd().Txn(s.ctx).If(long...).Then(clientv3.OpPut("/beside/x", "y")).Commit()
	}()
	s.committed(victim, commits)
	victim.Restart()
	<-done
	for _, m := range s.Members {
		m.Ready()
	}
	for i, m := range s.Members {
		s.put(s.client(m), fmt.Sprint("k", i))
	}
	for _, m := range s.Members {
		s.read(s.client(m))
	}
}

// commits is how often a member has committed to its database.
func (s *stage) commits(m *member) (count int) {
	s.t.Helper()
	s.metric(m, commitCount, func(n int) bool {
		count = n
		return true
	})
	return count
}

// committed waits until it has done so more often than before.
func (s *stage) committed(m *member, before int) {
	s.t.Helper()
	s.metric(m, commitCount, func(n int) bool { return n > before })
}

const commitCount = "etcd_disk_backend_commit_duration_seconds_count"

// metric waits until a member's metric is as wanted.
func (s *stage) metric(m *member, name string, wanted func(int) bool) {
	s.t.Helper()
	line := regexp.MustCompile(`(?m)^` + name + ` (\d+)$`)
	s.until(name+" of "+m.Name, func(ctx context.Context) error {
		text, err := metrics(ctx, m)
		if err != nil {
			return err
		}
		found := line.FindSubmatch(text)
		if found == nil {
			return fmt.Errorf("%s has no metric %s", m.Name, name)
		}
		n, err := strconv.Atoi(string(found[1]))
		if err == nil && !wanted(n) {
			err = fmt.Errorf("it is %d", n)
		}
		return err
	})
}

func metrics(ctx context.Context, m *member) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.Client+"/metrics", http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	return io.ReadAll(resp.Body)
}
