package supervisor

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
)

// refusedFor has a member refused for what etcd said as it ended.
func refusedFor(t *testing.T, said string) (*supervisor, time.Time) {
	t.Helper()
	home := Home(t.TempDir())
	s := &supervisor{log: slog.New(slog.DiscardHandler), home: home, order: &Order{DataDir: home.DataDir(), Formation: &FormationOrder{Peers: 3}}}
	now := time.Now()
	s.followFormation()
	s.errors.steps.hear([]byte(said))
	if !s.endedForGood(t.Context(), now) {
		t.Fatalf("a member goes on after %s", said)
	}
	return s, now
}

// TestLookupThatFailedIsTriedAgain: a name server that gave no answer while etcd was
// started keeps a member stopped for seconds, and not until a person comes. It was: a
// founding member whose server was restarted in that second stayed Refused.
func TestLookupThatFailedIsTriedAgain(t *testing.T) {
	t.Parallel()
	const said = `{"level":"warn","msg":"failed to start etcd","error":"error setting up initial cluster: error querying DNS SRV records for _etcd-server-ssl lookup _etcd-server-ssl._tcp.n7.example.com on 10.0.0.2:53: read udp 10.0.0.7:59088->10.0.0.2:53: i/o timeout; error querying DNS SRV records for _etcd-server lookup _etcd-server._tcp.n7.example.com on 10.0.0.2:53: no such host"}`
	s, now := refusedFor(t, said)
	f := s.state.Formation
	if f.Reason != ReasonSRVLookupFailed || !strings.Contains(f.Message, "it is tried again at "+f.Again.UTC().Format(time.RFC3339)) {
		t.Errorf("%s: %s", f.Reason, f.Message)
	}
	if !s.formationRefused(t.Context(), now.Add(lookupAgain-time.Millisecond)) || s.state.Phase != v1alpha1.MemberRefused {
		t.Error("it is started before its time")
	}
	for try := 2; try < 20; try++ {
		now = s.state.Formation.Again
		if s.formationRefused(t.Context(), now) {
			t.Fatalf("try %d: it is not started when its time has come", try)
		}
		s.followFormation()
		s.errors.steps.hear([]byte(said))
		if !s.endedForGood(t.Context(), now) {
			t.Fatalf("try %d: it goes on", try)
		}
		wait := s.state.Formation.Again.Sub(now)
		if want := min(lookupAgain<<(try-1), lookupAtMost); wait != want {
			t.Errorf("after try %d it waits %s, want %s", try, wait, want)
		}
	}
}

// TestWhatIsTriedAgain: what may be put right elsewhere is looked at again by itself, and
// what a person has to correct here is not.
func TestWhatIsTriedAgain(t *testing.T) {
	t.Parallel()
	for reason, again := range map[string]bool{
		ReasonDiscoveryUnreachable: true, ReasonPeersUnreachable: true, ReasonCertificateNotValid: true,
		ReasonSRVRecordsWrong: true, ReasonSRVLookupFailed: true,
		ReasonDiscoveryTokenUnknown: false, ReasonDiscoverySizeWrong: false, ReasonDiscoveryFull: false,
		ReasonWrongInitialCluster: false, ReasonPeerURLMismatch: false, ReasonAlreadyBootstrapped: false, ReasonClusterIDMismatch: false,
	} {
		seen := false
		for i := range signs {
			s := &signs[i]
			if s.reason != reason {
				continue
			}
			seen = true
			if (s.again > 0) != again || again && s.atMost < s.again {
				t.Errorf("%s (%s): again after %s, at most %s", reason, s.text, s.again, s.atMost)
			}
		}
		if !seen {
			t.Errorf("nothing that etcd says means %s", reason)
		}
	}
	s, now := refusedFor(t, fmt.Sprintf(`{"msg":"discovery failed","error":%q}`, "discovery: cluster is full"))
	if !s.formationRefused(t.Context(), now.Add(365*24*time.Hour)) {
		t.Error("a member too many is started again after a year")
	}
}
