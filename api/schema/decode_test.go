package schema

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/quorate/quorate/api/v1alpha1"
)

// TestMistakes: each message names the path, what was given and the next step.
func TestMistakes(t *testing.T) {
	cases := []struct {
		name, text string
		line       int
		want       string
	}{
		{"misspelt", clusterHead + "spec:\n  version: 3.7.3\n  etcd:\n    quotaBackendd: 8Gi\n", 8, "EtcdCluster playground: spec.etcd.quotaBackendd: unknown field; did you mean quotaBackend?"},
		{"case", clusterHead + "spec:\n  version: 3.7.3\n  Replicas: 3\n", 7, "spec.Replicas: unknown field; did you mean replicas?"},
		{"far off", clusterHead + "spec:\n  version: 3.7.3\n  ports: {http: 80}\n", 7, "spec.ports.http: unknown field; known are client, metrics, peer"},
		{"metadata", clusterHead + "  label: {a: b}\nspec:\n  version: 3.7.3\n", 5, "metadata.label: unknown field; did you mean labels?"},
		{"top", clusterHead + "specs:\n  version: 3.7.3\nspec: {version: 3.7.3}\n", 5, "specs: unknown field; did you mean spec?"},
		{"text for a number", clusterHead + "spec:\n  version: 3.7.3\n  replicas: three\n", 7, `spec.replicas: got "three", expected a whole number; Replicas is the number of members`},
		{"a fraction", clusterHead + "spec:\n  version: 3.7.3\n  replicas: 2.5\n", 7, "spec.replicas: got 2.5, expected a whole number"},
		{"a number for text", clusterHead + "spec:\n  version: 3.7\n", 6, "spec.version: got 3.7, expected text; put it in quotes: YAML reads it as a number"},
		{"a bare word that is a boolean", clusterHead + "spec:\n  version: 3.7.3\n  etcd: {autoCompaction: {mode: Off}}\n", 7, `mode: got false, expected one of Periodic, Revision, Disabled`},
		{"a number for a label", clusterHead + "  labels:\n    rev: 7\nspec: {version: 3.7.3}\n", 6, "metadata.labels[rev]: got 7, expected text; put it in quotes"},
		{"text for a list", clusterHead + "spec:\n  version: 3.7.3\n  tls:\n    extraSANs: a.example\n", 8, `spec.tls.extraSANs: got "a.example", expected a list; write it as a list`},
		{"text for a block", clusterHead + "spec: 3.7.3\n", 5, `spec: got "3.7.3", expected a block of fields`},
		{"a boolean for a size", clusterHead + "spec:\n  version: 3.7.3\n  etcd: {quotaBackend: true}\n", 7, "spec.etcd.quotaBackend: got true, expected a size such as 8Gi"},
		{"near an enum", clusterHead + "spec:\n  version: 3.7.3\n  deletionPolicy: Retian\n", 7, `got "Retian", expected one of Retain, Delete; did you mean Retain?`},
		{"required", clusterHead + "spec: {}\n", 5, "spec.version: version is required: say which etcd release the members run"},
		{"no name", "apiVersion: quorate.io/v1alpha1\nkind: EtcdCluster\nspec: {version: 3.7.3}\n", 1, "metadata.name: is required; give the EtcdCluster a name"},
		{"bad name", strings.Replace(clusterHead, "playground", "Play_Ground", 1) + "spec: {version: 3.7.3}\n", 4, "write play-ground"},
		{"twice", clusterHead + "spec:\n  version: 3.7.3\n  replicas: 3\n  replicas: 5\n", 8, "spec.replicas: stands here again after line 7; keep one of them"},
		{"kind", strings.Replace(clusterHead, "EtcdCluster", "EtcdClustr", 1), 2, `kind: got "EtcdClustr", which is unknown; did you mean EtcdCluster?`},
		{"no kind", "spec: {}\n", 1, "kind: is required; one of EtcdCluster, EtcdMember"},
		{"apiVersion", strings.Replace(clusterHead, "v1alpha1", "v1", 1), 1, "write apiVersion: quorate.io/v1alpha1"},
		{"not an object", "# a comment\n- a\n", 2, "is a list, expected an object; begin with apiVersion"},
		{"not YAML", clusterHead + "spec: {version: 3.7.3\n", 5, "cannot be read as YAML or JSON"},
		{"tab", clusterHead + "spec:\n\tversion: 3.7.3\n", 6, "cannot be read as YAML or JSON"},
		{"second document", clusterHead + "spec: {version: 3.7.3}\n---\n# another\n" + strings.Replace(strings.TrimPrefix(hostText, "\n"), "{address", "{zone: 1, address", 1), 11, "(document 2): EtcdHost h1"},
		{"in a list", "apiVersion: v1\nkind: List\nitems:\n- apiVersion: quorate.io/v1alpha1\n  kind: EtcdHost\n  metadata: {name: h}\n  spec:\n    zoen: z1\n", 8, "EtcdHost h: spec.zoen: unknown field; did you mean zone?"},
		{"in JSON", "{\n  \"apiVersion\": \"quorate.io/v1alpha1\",\n  \"kind\": \"EtcdHost\",\n  \"metadata\": {\"name\": \"h\"},\n  \"spec\": {\"address\": 1}\n}", 5, "spec.address: got 1, expected text"},
		{"twice in JSON that is not YAML", `{"apiVersion": "quorate.io/v1alpha1", "kind": "EtcdHost", "metadata": {"name": "h"}, "spec": {"zone": "\ud83d\ude00", "address": "10.0.0.7", "address": "10.0.0.8"}}`, 0, `address`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			docs, err := Decode(t.Context(), []byte(c.text))
			if docs != nil {
				t.Error("objects were returned beside the error")
			}
			var all *Error
			if !errors.As(err, &all) {
				t.Fatalf("want an error with %q, got %v", c.want, err)
			}
			for _, cause := range all.Causes {
				if strings.Contains(cause.String(), c.want) {
					if c.line != 0 && cause.Line != c.line {
						t.Errorf("at line %d, want %d: %s", cause.Line, c.line, cause)
					}
					return
				}
			}
			t.Fatalf("want a cause with\n%s\ngot\n%v", c.want, err)
		})
	}
}

func TestAllMistakesAtOnce(t *testing.T) {
	_, err := Decode(t.Context(), []byte(`apiVersion: quorate.io/v1alpha1
kind: EtcdCluster
metadata: {name: "A!"}
spec:
  replicas: three
  deletionPolicy: Keep
  etcd:
    quotaBackendd: 8Gi
    logging: {maxSize: -1}
---
apiVersion: quorate.io/v1alpha1
kind: EtcdHots
`))
	want := []string{
		"line 8: EtcdCluster A!: spec.etcd.quotaBackendd: unknown field; did you mean quotaBackend?",
		`line 5: EtcdCluster A!: spec.replicas: got "three", expected a whole number; Replicas is the number of members`,
		`line 3: EtcdCluster A!: metadata.name: got "A!": a lowercase RFC 1123 subdomain`,
		`line 6: EtcdCluster A!: spec.deletionPolicy: got "Keep", expected one of Retain, Delete`,
		"line 9: EtcdCluster A!: spec.etcd.logging.maxSize: got -1, which should be greater than or equal to 1; MaxSize of one file in MiB",
		`line 12 (document 2): kind: got "EtcdHots", which is unknown; did you mean EtcdHost?`,
	}
	if err == nil {
		t.Fatal("no error")
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("missing %q", w)
		}
	}
	if got := strings.Count(err.Error(), "\n") + 1; got != len(want) {
		t.Errorf("%d lines, want %d", got, len(want))
	}
	if !errors.Is(err, ErrInvalid) || !errors.Is(err, ErrUnknownKind) || errors.Is(err, ErrUnknownField) {
		t.Error("errors.Is finds the wrong kinds")
	}
	if t.Failed() {
		t.Logf("got:\n%v", err)
	}
}

func TestDecodeReadsEveryForm(t *testing.T) {
	cluster := clusterHead + "spec:\n  version: 3.7.3\n"
	asJSON := `{"apiVersion":"quorate.io/v1alpha1","kind":"EtcdCluster","metadata":{"name":"b"},"spec":{"version":"3.7.3"}}`
	cases := []struct {
		name, text string
		names      []string
		lines      []int
	}{
		{"one", cluster, []string{"playground"}, []int{1}},
		{"nothing", "", nil, nil},
		{"comments", "# nothing\n---\n# at all\n", nil, nil},
		{"several", "\ufeff# first\n---\n" + cluster + "--- # second\n" + strings.TrimPrefix(hostText, "\n") + "---\n", []string{"playground", "h1"}, []int{3, 10}},
		{"windows", strings.ReplaceAll(cluster+"---\n"+cluster, "\n", "\r\n"), []string{"playground", "playground"}, []int{1, 8}},
		{"JSON", asJSON, []string{"b"}, []int{1}},
		{"JSON in a row", asJSON + "\n" + asJSON + "\n", []string{"b", "b"}, []int{1, 2}},
		{"flow YAML", "{apiVersion: quorate.io/v1alpha1, kind: EtcdHost, metadata: {name: h}, spec: {address: 10.0.0.7}}", []string{"h"}, []int{1}},
		{"List", `{"apiVersion":"v1","kind":"List","metadata":{},"items":[` + asJSON + "," + asJSON + `]}`, []string{"b", "b"}, []int{1, 1}},
		{"typed list", `{"apiVersion":"quorate.io/v1alpha1","kind":"EtcdClusterList","items":[` + asJSON + `]}`, []string{"b"}, []int{1}},
		{"empty list", "apiVersion: v1\nkind: List\nitems: []\n", nil, nil},
		{"nulls", cluster + "  ports: null\n  replicas: null\nstatus: null\n", []string{"playground"}, []int{1}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			docs, err := Decode(t.Context(), []byte(c.text))
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			var lines []int
			for _, d := range docs {
				names, lines = append(names, d.Object.GetName()), append(lines, d.Line)
				if cl, ok := d.Object.(*v1alpha1.EtcdCluster); ok && cl.Spec.Replicas != 3 {
					t.Errorf("replicas is %d, want the default", cl.Spec.Replicas)
				}
			}
			if diff := cmp.Diff(c.names, names); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(c.lines, lines); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestWhatGetPrintsCanBeApplied: status and what the fleet sets are dropped.
func TestWhatGetPrintsCanBeApplied(t *testing.T) {
	c := newCluster(t, "")
	c.UID, c.ResourceVersion, c.Generation = "u", "7", 3
	c.CreationTimestamp = v1alpha1.Now()
	c.Finalizers = []string{v1alpha1.FinalizerCluster}
	c.Annotations = map[string]string{v1alpha1.AnnotationLastApplied: "{}"}
	c.Status.Ready = "3/3"
	v1alpha1.SetCondition(&c.Status.Conditions, v1alpha1.Condition{Type: "Available", Status: "True", Reason: "Yes"})
	text, err := YAML(c, c)
	if err != nil {
		t.Fatal(err)
	}
	docs, err := Decode(t.Context(), text)
	if err != nil {
		t.Fatal(err)
	}
	if len(docs) != 2 {
		t.Fatalf("%d documents, want 2", len(docs))
	}
	got := as[*v1alpha1.EtcdCluster](t, docs[0].Object)
	if got.Status.Ready != "" || got.Finalizers != nil || got.Generation != 0 || !got.CreationTimestamp.IsZero() || got.Annotations != nil {
		t.Errorf("kept what is the fleet's: %+v", got)
	}
	if got.UID != "u" || got.ResourceVersion != "7" {
		t.Errorf("lost the preconditions: %+v", got.ObjectMeta)
	}
	if !v1alpha1.Equal(got.Spec, c.Spec) {
		t.Errorf("the spec changed: %s", cmp.Diff(c.Spec, got.Spec))
	}
	if _, ok := docs[0].Raw["status"]; ok {
		t.Error("status stayed in the raw document")
	}
}

func TestRawHasNoDefaults(t *testing.T) {
	docs, err := Decode(t.Context(), []byte(clusterHead+"spec: {version: 3.7.3, etcd: {maxTxnOps: 512}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"apiVersion": "quorate.io/v1alpha1", "kind": "EtcdCluster",
		"metadata": map[string]any{"name": "playground"},
		"spec":     map[string]any{"version": "3.7.3", "etcd": map[string]any{"maxTxnOps": int64(512)}},
	}
	if diff := cmp.Diff(want, docs[0].Raw); diff != "" {
		t.Fatal(diff)
	}
}

func TestUnmarshalKeepsEverything(t *testing.T) {
	m := decode[*v1alpha1.EtcdMember](t, memberText)
	m.Finalizers = []string{v1alpha1.FinalizerMember}
	m.UID, m.ResourceVersion, m.CreationTimestamp = "u", "9", v1alpha1.NewTime(v1alpha1.Now().Truncate(time.Second))
	m.Status = v1alpha1.EtcdMemberStatus{Phase: v1alpha1.MemberRunning, Process: &v1alpha1.ProcessStatus{PID: 1 << 40}}
	raw, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Unmarshal(raw)
	if err != nil {
		t.Fatal(err)
	}
	if !v1alpha1.Equal(got, m) {
		t.Fatalf("changed on the wire: %+v", got)
	}
	_, err = Unmarshal([]byte(strings.Replace(string(raw), `"phase"`, `"fase"`, 1)))
	wantCause(t, err, "status.fase", "did you mean phase?")
	_, err = Unmarshal([]byte(strings.Replace(string(raw), `"Running"`, `1`, 1)))
	wantCause(t, err, "status.phase", "got 1, expected text")
	for _, text := range []string{"", "[]", "{", `{"kind":"Pod"}`} {
		if _, err := Unmarshal([]byte(text)); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, text := range []string{
		clusterHead + "spec: {version: 3.7.3}\n", memberText, taskText, hostText, memberText + "---" + hostText,
		"apiVersion: v1\nkind: List\nitems: [{}, 3, null]\n", "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData: {a: b}\n",
		"a: &a [*a]\n", "a: &a {b: *a}\n<<: *a\n", "? {a: b}\n: c\n", "{\"a\": 1, \"a\": 2}", "!!binary x", "- - - -\n",
		clusterHead + "spec: {version: 3.7.3, etcd: {quotaBackend: 1e999999999}}\n", clusterHead + "spec: {version: &v 3.7.3, tls: {extraSANs: [*v, null]}}\n",
		"apiVersion: quorate.io/v1alpha1\nkind: EtcdCluster\nmetadata: []\nspec: 1\nstatus: x\n",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		docs, err := Decode(t.Context(), data)
		if err != nil {
			if !errors.Is(err, ErrInvalid) || err.Error() == "" || docs != nil {
				t.Fatalf("not an *Error with a text: %v", err)
			}
			return
		}
		for _, d := range docs {
			if d.Object == nil || d.Raw == nil || d.Object.GetName() == "" {
				t.Fatalf("an object without name passed: %+v", d)
			}
			if _, changed, err := ThreeWay(nil, d); err != nil || !changed {
				t.Fatalf("what was decoded can't be applied: %v", err)
			}
		}
		// What the wire carries is read by the same code, and must not panic either.
		_, _ = Unmarshal(data)
	})
}
