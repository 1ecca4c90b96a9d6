package cli

import (
	"bytes"
	"strings"
	"testing"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/etcd"
	"github.com/quorate/quorate/inspect"
)

func TestVerdict(t *testing.T) {
	found := func(s inspect.Severity) []inspect.Finding { return []inspect.Finding{{Severity: s}} }
	for _, tc := range []struct {
		report inspect.Report
		want   int
	}{
		{inspect.Report{State: v1alpha1.StateHealthy}, exitOK},
		{inspect.Report{State: v1alpha1.StateHealthy, Findings: found(inspect.Info)}, exitOK},
		{inspect.Report{State: v1alpha1.StateHealthy, Findings: found(inspect.Warning)}, exitWarning},
		{inspect.Report{State: v1alpha1.StateDegraded, Findings: found(inspect.Critical)}, exitCritical},
		{inspect.Report{State: v1alpha1.StateUnavailable, Findings: found(inspect.Critical)}, exitCritical},
		{inspect.Report{State: v1alpha1.StateUnknown, Findings: found(inspect.Critical)}, exitUnreachable},
	} {
		err := verdict(&tc.report)
		if got := exitCode(err); got != tc.want {
			t.Errorf("%s with %s: got %d, want %d", tc.report.State, tc.report.Worst(), got, tc.want)
		}
		if err != nil && errorText(err) != "" {
			t.Errorf("a verdict is printed as an error: %q", errorText(err))
		}
	}
}

func TestPrintReport(t *testing.T) {
	r := &inspect.Report{
		State: v1alpha1.StateDegraded, Summary: "it serves, and m1 is down",
		Findings: []inspect.Finding{
			{
				ID: "member-down", Severity: inspect.Critical, Title: "m1 is down", Evidence: []string{"first", "second"},
				Why: strings.Repeat("word ", 40), Fix: "start it", Commands: []string{"systemctl start etcd   # there"}, Docs: "docs/doctor.md#member-down",
			},
			{ID: "member-count", Severity: inspect.Info, Title: "even"},
		},
		Observation: &inspect.Observation{Members: []inspect.Member{{Name: "m1", Endpoint: "http://a:1", Reach: inspect.Reach{Cause: etcd.FaultUnknownAuthority}}}},
	}
	var out bytes.Buffer
	e := newEnv([]string{"quorate"}, Stdio{In: eof{}, Out: &out, Err: &out})
	e.printReport(r, false)
	for _, want := range []string{
		"degraded: it serves, and m1 is down\n", "m1       http://a:1   certificate unknown authority", "\n✗ CRITICAL  m1 is down\n",
		"\n  seen   first\n         second\n", "\n           systemctl start etcd   # there\n", "\n  more   docs/doctor.md#member-down\n",
		"\n1 more finding is worth to know: add --all\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, out.String())
		}
	}
	for line := range strings.Lines(out.String()) {
		if len([]rune(line)) > reportWidth+1 {
			t.Errorf("a line is too long: %q", line)
		}
	}
	out.Reset()
	r.State, r.Summary, r.Findings = v1alpha1.StateHealthy, "3 of 3 members answer", r.Findings[1:]
	e.printReport(r, false)
	if got := out.String(); got != "healthy: 3 of 3 members answer\n" {
		t.Errorf("healthy is %q", got)
	}
}

func TestUnanswered(t *testing.T) {
	for cause, want := range map[etcd.FaultKind]string{
		etcd.FaultBlackHole: "no answer", etcd.FaultSpeaksTLS: "tls required", etcd.FaultPlain: "not tls", inspect.NoURL: "no url",
	} {
		if got := unanswered(cause); got != want {
			t.Errorf("%s is %q, want %q", cause, got, want)
		}
	}
}
