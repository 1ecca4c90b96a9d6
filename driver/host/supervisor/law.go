package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strconv"
	"time"

	"github.com/quorate/quorate/datadir"
)

// ChangeIdentity changes the home's identity file under its lock: change gets the
// identity, new for the member of that UID and name if there is none yet, and
// reports whether it is to be saved. An identity that can't be read is left alone:
// the error is datadir.ErrIdentity.
func (h Home) ChangeIdentity(uid, name string, change func(*datadir.Identity) bool) error {
	return h.withIdentityLock(func() error {
		id, err := datadir.LoadIdentity(h.IdentityFile())
		if errors.Is(err, fs.ErrNotExist) {
			id, err = datadir.Identity{MemberUID: uid, Name: name}, nil
		}
		if err != nil {
			return err
		}
		if !change(&id) {
			return nil
		}
		return id.Save(h.IdentityFile())
	})
}

// LoadIdentity reads the home's identity; none yet is a new one.
func (h Home) LoadIdentity() (datadir.Identity, error) {
	id, err := datadir.LoadIdentity(h.IdentityFile())
	if errors.Is(err, fs.ErrNotExist) {
		return datadir.Identity{}, nil
	}
	return id, err
}

// Expectation is what the order knows of the data directory.
func (o *Order) Expectation() (datadir.Expectation, error) {
	want := datadir.Expectation{
		Joined: o.Joined,
		Mark:   datadir.Mark{Term: uint64(max(o.Mark.Term, 0)), Index: uint64(max(o.Mark.Index, 0))},
	}
	for _, id := range []struct {
		hex  string
		into *uint64
	}{{o.ClusterID, &want.ClusterID}, {o.MemberID, &want.MemberID}} {
		if id.hex == "" {
			continue
		}
		v, err := strconv.ParseUint(id.hex, 16, 64)
		if err != nil {
			return want, fmt.Errorf("%w: ID %q of the order is not hexadecimal", ErrCorrupt, id.hex)
		}
		*id.into = v
	}
	return want, nil
}

// judge applies the law to the data directory, with what the order and the
// identity know together. What can't be told is refused.
func (s *supervisor) judge() DataVerdict {
	refuse := func(err error) DataVerdict {
		return DataVerdict{Refused: true, Reason: string(datadir.ReasonUnreadable), Message: err.Error()}
	}
	id, err := s.home.LoadIdentity()
	if err != nil {
		return refuse(fmt.Errorf("%w; put the file back from a copy, or let the member be replaced", err))
	}
	if id.MemberUID != "" && id.MemberUID != string(s.order.UID) {
		return DataVerdict{Refused: true, Reason: string(datadir.ReasonForeign), Message: fmt.Sprintf(
			"%s is of the member with UID %s, not of %s/%s with UID %s; put this member's own home back",
			s.home.IdentityFile(), id.MemberUID, s.order.Namespace, s.order.Name, s.order.UID)}
	}
	want, err := s.order.Expectation()
	if err != nil {
		return refuse(err)
	}
	verdict, err := datadir.Check(s.order.DataDir, want.Merge(id.Expectation()))
	if err != nil {
		return refuse(err)
	}
	if verdict.State == datadir.Refused {
		return DataVerdict{Refused: true, Reason: string(verdict.Reason), Message: verdict.Message}
	}
	return DataVerdict{Reason: string(verdict.State)}
}

// changeIdentity is for the member of the order.
func (s *supervisor) changeIdentity(change func(*datadir.Identity) bool) error {
	var uid, name string
	if s.order != nil {
		uid, name = string(s.order.UID), s.order.Name
	}
	return s.home.ChangeIdentity(uid, name, change)
}

// recordStart notes that an etcd was started, before it is.
func (s *supervisor) recordStart() error {
	return s.changeIdentity(func(id *datadir.Identity) bool {
		id.Starting()
		return true
	})
}

func (s *supervisor) startedOnce() bool {
	id, err := s.home.LoadIdentity()
	return err != nil || id.StartedOnce
}

// identityKnown reports whether the identity file holds the member's IDs. It is
// asked every second until it does.
func (s *supervisor) identityKnown() bool {
	if !s.idsKnown {
		id, err := s.home.LoadIdentity()
		s.idsKnown = err == nil && id.MemberID != ""
	}
	return s.idsKnown
}

// learn takes from the log what the member has become: its IDs while etcd runs,
// and how far its log goes once it has ended.
func (s *supervisor) learn(ctx context.Context) {
	if s.order == nil {
		return
	}
	change := learnRunning
	if s.child == nil {
		change = learnStopped
	}
	var learnErr error
	err := s.changeIdentity(func(id *datadir.Identity) (changed bool) {
		changed, learnErr = change(id, s.order.DataDir)
		return changed
	})
	// A log that is being begun may be read too early, and one that stays unreadable
	// is refused at the next start.
	if err = errors.Join(err, learnErr); err != nil {
		level := slog.LevelWarn
		if s.child != nil && time.Since(s.child.StartedAt) < intentWait*20 {
			level = slog.LevelDebug // etcd is making its directory
		}
		s.log.Log(ctx, level, "note the member's identity", slog.Any("error", err))
	}
}

func learnStopped(id *datadir.Identity, dataDir string) (bool, error) {
	tail, err := id.RecordStop(dataDir)
	return err == nil && !tail.Empty, err
}

func learnRunning(id *datadir.Identity, dataDir string) (bool, error) {
	tail, err := datadir.ReadTail(dataDir)
	if err != nil || tail.Empty || tail.MemberID == 0 {
		return false, err
	}
	// What runs was started: it may only not have been noted.
	id.StartedOnce = true
	if datadir.Judge(tail, id.Expectation()).State != datadir.OK {
		return false, nil
	}
	id.ClusterID, id.MemberID = datadir.FormatID(tail.ClusterID), datadir.FormatID(tail.MemberID)
	return true, nil
}
