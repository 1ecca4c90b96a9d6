package fleet

import (
	"strings"
	"testing"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/etcd"
)

// answer is a member as it answers; leader 0 is none.
func answer(id, leader etcd.ID) etcd.MemberAnswer {
	return etcd.MemberAnswer{
		Member: etcd.Member{ID: id, Name: "m" + id.String()}, Endpoint: "http://h" + id.String() + ":2379", Answered: true,
		Status: etcd.Status{ClusterID: 7, MemberID: id, Leader: leader, Term: 2, Version: "3.10." + id.String()},
	}
}

func silent(id etcd.ID, kind etcd.FaultKind) etcd.MemberAnswer {
	a := answer(id, 0)
	a.Answered, a.Status = false, etcd.Status{}
	a.Fault = &etcd.Fault{Kind: kind, Endpoint: a.Endpoint, Cause: "cause", Next: "next"}
	return a
}

// TestImportedConditions: what is believed of an observed cluster, and in which word
// it is said.
func TestImportedConditions(t *testing.T) {
	learner := answer(3, 1)
	learner.Learner, learner.Status.Learner = true, true
	expired := answer(2, 1)
	expired.Fault = &etcd.Fault{Kind: etcd.FaultExpired, Endpoint: "http://h2:2379", Cause: "its certificate expired", Next: "renew it"}
	full := answer(2, 1)
	full.Status.Errors = []string{"memberID:2  alarm:NOSPACE "}
	seed := &etcd.Fault{Kind: etcd.FaultBlackHole, Endpoint: "http://lb:2379", Cause: "no answer at all", Next: "see"}
	for _, tc := range []struct {
		name      string
		survey    etcd.Survey
		problem   *problem
		available v1alpha1.Condition
		degraded  string
		says      string
		state     v1alpha1.ClusterState
	}{
		{
			"healthy",
			etcd.Survey{Members: []etcd.MemberAnswer{answer(1, 1), answer(2, 1), answer(3, 1)}},
			nil,
			v1alpha1.Condition{Status: v1alpha1.True, Reason: "QuorumServes"},
			"AllHealthy", "", v1alpha1.StateHealthy,
		},
		{
			"an endpoint of no use",
			etcd.Survey{Members: []etcd.MemberAnswer{answer(1, 1), answer(2, 1), answer(3, 1)}, Deaf: []*etcd.Fault{seed}},
			nil,
			v1alpha1.Condition{Status: v1alpha1.True, Reason: "QuorumServes"},
			"AllHealthy", "http://lb:2379: no answer", v1alpha1.StateHealthy,
		},
		{
			"a healthy learner",
			etcd.Survey{Members: []etcd.MemberAnswer{answer(1, 1), answer(2, 1), learner}},
			nil,
			v1alpha1.Condition{Status: v1alpha1.True, Reason: "QuorumServes"},
			"AllHealthy", "", v1alpha1.StateHealthy,
		},
		{
			"one down",
			etcd.Survey{Members: []etcd.MemberAnswer{answer(1, 1), answer(2, 1), silent(3, etcd.FaultRefused)}},
			nil,
			v1alpha1.Condition{Status: v1alpha1.True, Reason: "QuorumServes"},
			"MembersDown", "member m3: http://h3:2379: cause: next", v1alpha1.StateDegraded,
		},
		{
			"one silent",
			etcd.Survey{Members: []etcd.MemberAnswer{answer(1, 1), answer(2, 1), silent(3, etcd.FaultSilent)}},
			nil,
			v1alpha1.Condition{Status: v1alpha1.True, Reason: "QuorumServes"},
			"NotResponding", "member m3", v1alpha1.StateDegraded,
		},
		{
			"two behind a firewall, a leader is followed",
			etcd.Survey{Members: []etcd.MemberAnswer{silent(1, etcd.FaultBlackHole), answer(2, 1), silent(3, etcd.FaultBlackHole)}},
			nil,
			v1alpha1.Condition{Status: v1alpha1.True, Reason: "QuorumServes", Message: "only 1 of 3 members can be asked"},
			"NoAnswer", "m1", v1alpha1.StateDegraded,
		},
		{
			"two down, the survivor still speaks of a leader",
			etcd.Survey{Members: []etcd.MemberAnswer{answer(1, 1), silent(2, etcd.FaultRefused), silent(3, etcd.FaultRefused)}},
			nil,
			v1alpha1.Condition{Status: v1alpha1.False, Reason: "QuorumLost", Message: "1 of 3 members serve, 2 are needed"},
			"QuorumLost", "m2", v1alpha1.StateUnavailable,
		},
		{
			"no leader",
			etcd.Survey{Members: []etcd.MemberAnswer{answer(1, 0), answer(2, 0), silent(3, etcd.FaultBlackHole)}},
			nil,
			v1alpha1.Condition{Status: v1alpha1.False, Reason: "QuorumLost"},
			"QuorumLost", "it knows no leader", v1alpha1.StateUnavailable,
		},
		{
			"all down",
			etcd.Survey{Members: []etcd.MemberAnswer{silent(1, etcd.FaultRefused), silent(2, etcd.FaultRefused)}},
			nil,
			v1alpha1.Condition{Status: v1alpha1.False, Reason: "AllMembersDown"},
			"AllMembersDown", "http://h1:2379, http://h2:2379: cause: next", v1alpha1.StateUnavailable,
		},
		{
			"all refuse the certificate",
			etcd.Survey{Members: []etcd.MemberAnswer{silent(1, etcd.FaultClientRefused), silent(2, etcd.FaultClientRefused)}},
			nil,
			v1alpha1.Condition{Status: v1alpha1.Unknown, Reason: "ClientCertificateRefused"},
			"ClientCertificateRefused", "cluster c", v1alpha1.StateUnknown,
		},
		{
			"each for another reason",
			etcd.Survey{Members: []etcd.MemberAnswer{silent(1, etcd.FaultRefused), silent(2, etcd.FaultSilent)}},
			nil,
			v1alpha1.Condition{Status: v1alpha1.Unknown, Reason: "Unreachable"},
			"Unreachable", "", v1alpha1.StateUnknown,
		},
		{
			"certificate run out on a live connection",
			etcd.Survey{Members: []etcd.MemberAnswer{answer(1, 1), expired, answer(3, 1)}},
			nil,
			v1alpha1.Condition{Status: v1alpha1.True, Reason: "QuorumServes"},
			"CertificateExpired", "m2", v1alpha1.StateDegraded,
		},
		{
			"alarm",
			etcd.Survey{Members: []etcd.MemberAnswer{answer(1, 1), full, answer(3, 1)}},
			nil,
			v1alpha1.Condition{Status: v1alpha1.True, Reason: "QuorumServes"},
			"AlarmRaised", "NOSPACE on m2", v1alpha1.StateDegraded,
		},
		{
			"a stranger",
			etcd.Survey{Strangers: []etcd.Stranger{{Endpoint: "http://h1:2379", ClusterID: 9}}},
			nil,
			v1alpha1.Condition{Status: v1alpha1.Unknown, Reason: "OtherCluster"},
			"OtherCluster", "answers for the etcd cluster 9, and cluster c is 7", v1alpha1.StateUnknown,
		},
		{
			"a stranger beside the others",
			etcd.Survey{Members: []etcd.MemberAnswer{answer(1, 1), answer(2, 1), answer(3, 1)}, Strangers: []etcd.Stranger{{Endpoint: "http://x:2379", ClusterID: 9}}},
			nil,
			v1alpha1.Condition{Status: v1alpha1.True, Reason: "QuorumServes"},
			"OtherCluster", "http://x:2379", v1alpha1.StateDegraded,
		},
		{
			"too few",
			etcd.Survey{Members: []etcd.MemberAnswer{answer(1, 1)}},
			nil,
			v1alpha1.Condition{Status: v1alpha1.True, Reason: "QuorumServes"},
			"MembersMissing", "has 1 members, and 3 are expected", v1alpha1.StateDegraded,
		},
		{
			"the login alone",
			etcd.Survey{Members: []etcd.MemberAnswer{answer(1, 1), answer(2, 1), answer(3, 1)}, Login: &etcd.Fault{Kind: etcd.FaultLoginFailed, Endpoint: "e"}},
			nil,
			v1alpha1.Condition{Status: v1alpha1.True, Reason: "QuorumServes"},
			"LoginFailed", "cluster c", v1alpha1.StateDegraded,
		},
		{
			"no Secret",
			etcd.Survey{},
			&problem{"CredentialsMissing", "apply it"},
			v1alpha1.Condition{Status: v1alpha1.Unknown, Reason: "CredentialsMissing"},
			"CredentialsMissing", "apply it", v1alpha1.StateUnknown,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := &v1alpha1.EtcdCluster{Spec: v1alpha1.EtcdClusterSpec{
				Management: v1alpha1.ManagementObserve, Replicas: 3, Import: &v1alpha1.ImportSpec{Endpoints: []string{"http://h1:2379"}},
			}}
			c.Name, c.Status.ClusterID = "c", "7"
			if strings.HasPrefix(tc.name, "all") || strings.HasPrefix(tc.name, "each") {
				c.Spec.Replicas = 2
			}
			tc.survey.ClusterID = 7
			o := &observation{cluster: c, survey: tc.survey, problem: tc.problem}
			a, d := o.available(), o.degraded()
			if a.Status != tc.available.Status || a.Reason != tc.available.Reason || !strings.Contains(a.Message, tc.available.Message) {
				t.Errorf("available is %s, %s: %s", a.Status, a.Reason, a.Message)
			}
			if d.Reason != tc.degraded || !strings.Contains(d.Message, tc.says) || (d.Status == v1alpha1.True) == (d.Reason == "AllHealthy") {
				t.Errorf("degraded is %s, %s: %s", d.Status, d.Reason, d.Message)
			}
			if v := o.view(); v.State != tc.state || (v.Message == "") != (v.State == v1alpha1.StateHealthy) {
				t.Errorf("view is %s: %s", v.State, v.Message)
			}
			before := c.Status.DeepCopy()
			setImportedStatus(o, before)
			after := before.DeepCopy()
			setImportedStatus(o, after)
			if !v1alpha1.Equal(before, after) || after.ClusterID != "7" {
				t.Errorf("the status changes by itself: %+v, %+v", before, after)
			}
		})
	}
}

func TestImportedVersion(t *testing.T) {
	o := &observation{survey: etcd.Survey{Members: []etcd.MemberAnswer{answer(1, 1), answer(2, 1), silent(3, etcd.FaultRefused)}}}
	o.survey.Members[1].Status.Version = "3.4.23"
	if got := o.lowestVersion(); got != "3.4.23" {
		t.Errorf("the lowest version is %s", got)
	}
}

// TestImportAccess: what a Secret may hold, and what is wrong with one.
func TestImportAccess(t *testing.T) {
	spec := &v1alpha1.ImportSpec{Endpoints: []string{"https://a:1"}, ServerName: "n"}
	good, err := ImportAccess(spec, &v1alpha1.Secret{Data: map[string][]byte{"username": []byte("u"), "password": []byte("p\n")}})
	if err != nil || good.Username != "u" || good.Password != "p" || good.TLS.ServerName != "n" {
		t.Errorf("got %+v, %v", good, err)
	}
	for want, data := range map[string]map[string][]byte{
		"only one of tls.crt and tls.key":     {"tls.crt": []byte("x")},
		"do not go together":                  {"tls.crt": []byte("x"), "tls.key": []byte("y")},
		"ca.crt holds no certificate":         {"ca.crt": []byte("x")},
		"only one of username and password":   {"password": []byte("x")},
		"only one of username and password: ": {"username": []byte("x")},
	} {
		if _, err := ImportAccess(spec, &v1alpha1.Secret{Data: data}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v", data, err)
		}
	}
}
