package schema

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/quorate/quorate/api/v1alpha1"
)

func TestExplain(t *testing.T) {
	got, err := Explain("qec.spec.etcd.quotaBackend")
	if err != nil {
		t.Fatal(err)
	}
	rules := got.Rules
	got.Rules = nil
	want := Explanation{
		Kind: "EtcdCluster", APIVersion: "quorate.io/v1alpha1", Path: "spec.etcd.quotaBackend", Type: "quantity",
		Description: "QuotaBackend is the database size at which etcd stops taking writes.", Default: "8Gi",
		Why: "etcd's own 2Gi is reached by a middle-sized Kubernetes, and 8Gi is the most its maintainers recommend.",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if len(rules) != 2 || !strings.HasPrefix(rules[0], "quotaBackend must be a whole number") {
		t.Errorf("rules are %q", rules)
	}
}

func TestExplainEachType(t *testing.T) {
	for _, c := range []struct {
		path, typ, def string
		limits, enum   []string
		required       bool
		children       int
	}{
		{"etcdcluster", "object", "", nil, nil, false, 5},
		{"EtcdCluster.", "object", "", nil, nil, false, 5},
		{"cluster.spec", "object", "", nil, nil, true, 16},
		{"etcdclusters.spec.replicas", "integer", "3", []string{"at least 1", "at most 9"}, nil, false, 0},
		{"etcdcluster.spec.suspended", "boolean", "false", nil, nil, false, 0},
		{"etcdcluster.spec.version", "string", "", []string{"at most 16 characters", `matches ^3\.([4-9]|[1-9][0-9])\.[0-9]+$`}, nil, false, 0},
		{"etcdcluster.spec.deletionPolicy", "string", "Retain", nil, []string{"Retain", "Delete"}, false, 0},
		{"etcdcluster.spec.ports", "object", "the first free ones from 2379, 2380 and 2381 upwards in tens", nil, nil, false, 3},
		{"etcdcluster.spec.tls.extraSANs", "[]string", "", []string{"at most 32 items"}, nil, false, 0},
		{"etcdmember.spec.bootstrap.initialCluster", "[]object", "", nil, nil, true, 2},
		{"etcdmember.spec.bootstrap.initialCluster.url", "string", "", nil, nil, true, 0},
		{"etcdhost.metadata.labels", "map[string]string", "", nil, nil, false, 0},
		{"secret", "object", "", nil, nil, false, 7},
		{"secret.data", "map[string]string", "", nil, nil, false, 0},
	} {
		t.Run(c.path, func(t *testing.T) {
			e, err := Explain(c.path)
			if err != nil {
				t.Fatal(err)
			}
			if e.Description == "" || strings.Contains(e.Description, "Why:") {
				t.Errorf("description is %q", e.Description)
			}
			if e.Type != c.typ || e.Default != c.def || e.Required != c.required || len(e.Children) != c.children {
				t.Errorf("got %+v", e)
			}
			if diff := cmp.Diff(c.limits, e.Limits); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(c.enum, e.Enum); diff != "" {
				t.Error(diff)
			}
		})
	}
	e, err := Explain("cluster.spec")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range e.Children {
		if c.Name == "replicas" {
			if diff := cmp.Diff(Child{Name: "replicas", Type: "integer", Default: "3", Summary: "Replicas is the number of members"}, c); diff != "" {
				t.Error(diff)
			}
		}
		if c.Required {
			t.Errorf("%s: required is %t", c.Name, c.Required)
		}
	}
}

func TestExplainUnknown(t *testing.T) {
	for path, want := range map[string]string{
		"etcdclustr":                       "did you mean etcdcluster?",
		"etcdcluster.spec.etdc":            "did you mean etcd?",
		"etcdcluster.spec.etcd.quota":      "of etcdcluster.spec.etcd; known are",
		"etcdcluster.spec.replicas.number": "nothing can stand here",
		"":                                 "known are",
	} {
		_, err := Explain(path)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: want %q, got %v", path, want, err)
		}
		if !errors.Is(err, ErrUnknownKind) && !errors.Is(err, ErrUnknownField) {
			t.Errorf("%q: no sentinel in %v", path, err)
		}
	}
}

func TestNearest(t *testing.T) {
	known := []string{"etcd", "ports", "quotaBackend", "replicas", "retainFor", "tls"}
	for word, want := range map[string]string{
		"replica": "replicas", "REPLICAS": "replicas", "quotaBackendd": "quotaBackend", "quota-backend": "quotaBackend",
		"erplicas": "replicas", "port": "ports", "nothing": "", "": "", "retain_for": "retainFor",
	} {
		if got := nearest(word, known); got != want {
			t.Errorf("nearest(%q) is %q, want %q", word, got, want)
		}
	}
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "abc", 3}, {"abc", "abc", 0}, {"abc", "acb", 1}, {"kitten", "sitting", 3}, {"äb", "ab", 1}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("distance(%q, %q) is %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

func TestColumns(t *testing.T) {
	c := newCluster(t, "")
	c.CreationTimestamp = v1alpha1.NewTime(v1alpha1.Now().UTC())
	columns, err := Columns(v1alpha1.KindCluster)
	if err != nil {
		t.Fatal(err)
	}
	age := c.CreationTimestamp.Format("2006-01-02T15:04:05Z")
	row := func() map[string]string {
		cells, err := EvalColumns(c, columns)
		if err != nil {
			t.Fatal(err)
		}
		got := make(map[string]string, len(cells))
		for i, cell := range cells {
			got[columns[i].Name] = cell
		}
		return got
	}
	want := map[string]string{"Ready": "", "Quorum": "", "Version": "", "Leader": "", "Status": "", "Management": "Manage", "Age": age}
	if diff := cmp.Diff(want, row()); diff != "" {
		t.Error(diff)
	}
	c.Status.Ready, c.Status.Leader, c.Status.Version = "3/3", "a-0", "3.7.3"
	c.Status.Conditions = []v1alpha1.Condition{{Type: "Degraded", Status: v1alpha1.False}, {Type: v1alpha1.ConditionAvailable, Status: v1alpha1.True}}
	want["Ready"], want["Leader"], want["Quorum"], want["Version"] = "3/3", "a-0", "True", "3.7.3"
	if diff := cmp.Diff(want, row()); diff != "" {
		t.Error(diff)
	}
	m := decode[*v1alpha1.EtcdMember](t, memberText)
	m.Status.Process = &v1alpha1.ProcessStatus{PID: 1 << 40}
	if got, err := EvalColumn(m, Column{JSONPath: ".status.process.pid"}); err != nil || got != "1099511627776" {
		t.Errorf("pid is %q, %v", got, err)
	}
	if _, err := EvalColumn(m, Column{Name: "x", JSONPath: ".a["}); err == nil {
		t.Error("a broken path has a value")
	}
	for _, kind := range v1alpha1.Kinds() {
		columns, err := Columns(kind)
		if err != nil || len(columns) == 0 {
			t.Errorf("%s: %v %v", kind.Kind, columns, err)
		}
		cells, err := EvalColumns(kind.New(), columns)
		if err != nil {
			t.Errorf("%s: %v", kind.Kind, err)
		}
		if kind.Kind != "Secret" && strings.Join(cells, "") != "" {
			t.Errorf("%s: an empty object has cells %q", kind.Kind, cells)
		}
	}
}

func TestJSONPath(t *testing.T) {
	a, b := newCluster(t, ""), newCluster(t, "  tls: {extraSANs: [x, z]}\n")
	b.Name = "b"
	for template, want := range map[string]string{
		"{.spec.version}":          "3.7.3",
		".spec.version":            "3.7.3",
		"spec.version":             "3.7.3",
		"$.spec.version":           "3.7.3",
		"{.status.leader}":         "",
		"{.spec.tls.extraSANs[*]}": "x z",
		`{.metadata.name}{"\n"}`:   "b\n",
		"{.spec.replicas}":         "3",
	} {
		if got, err := JSONPath(b, template); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", template, got, err, want)
		}
	}
	if got, err := JSONPathList([]v1alpha1.Object{a, b}, "{.items[*].metadata.name}"); err != nil || got != "playground b" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := JSONPath(a, "{.spec"); err == nil || !strings.Contains(err.Error(), "as kubectl does") {
		t.Errorf("a broken template: %v", err)
	}
}
