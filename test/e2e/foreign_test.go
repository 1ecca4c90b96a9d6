package e2e_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/quorate/quorate/pki"
	"github.com/quorate/quorate/test/etcdlab"
)

// foreign is an etcd cluster that Quorate did not make.
type foreign struct {
	*etcdlab.Cluster
	t  *testing.T
	ca *etcdlab.Authority
}

// startForeign starts an etcd cluster and waits until it serves.
func startForeign(t *testing.T, o etcdlab.Options) *foreign {
	t.Helper()
	// Nobody is to be elected just because the machine is busy.
	o.Flags = append(o.Flags, "--heartbeat-interval=100", "--election-timeout=1000")
	f := &foreign{etcdlab.New(t, o), t, o.CA}
	if f.TLS != nil {
		f.TLS.InsecureSkipVerify = true // the servers may carry names of no use
	}
	f.Ready()
	return f
}

// certify makes the servers' certificate anew; etcd reads it for the next connection.
func (f *foreign) certify(name string, validity time.Duration) {
	f.t.Helper()
	f.ca.Write(f.t, f.Dir, "server", pki.Server, func(r *pki.Request) { r.Hosts, r.Validity = []string{name}, validity })
}

func (f *foreign) signal(i int, s syscall.Signal) {
	f.t.Helper()
	must(f.t, f.Members[i].Signal(s))
}

// authOn makes root and a user without any role, and turns authentication on.
func (f *foreign) authOn(user, password string) {
	f.t.Helper()
	_, err := f.Members[0].Dial().UserAdd(f.t.Context(), user, password)
	must(f.t, err)
	f.EnableAuth("root")
}

// position is the revision and the raft index of the first member.
func (f *foreign) position() (revision int64, index uint64) {
	f.t.Helper()
	m := f.Members[0]
	st, err := m.Dial().Status(f.t.Context(), m.Client)
	must(f.t, err)
	return st.Header.GetRevision(), st.RaftIndex
}
