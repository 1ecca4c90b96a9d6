// Package quorate_test checks the house: which package may import which, what
// every file must look like, and that the documents name what exists.
package quorate_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const module = "github.com/quorate/quorate"

// layers lists every top-level directory of packages, lowest first. A package may
// import only lower layers, and its own directory tree.
var layers = []string{
	"internal",
	"api",
	"etcd pki release datadir history",
	"store",
	"driver",
	"fleet hosts formation backup keyspace inspect mirror proxy chaos bench check monitor convert",
	"agent server operator",
	"app",
	"cli",
	"cmd",
}

// reserved gives an outside dependency to the packages that wrap it, or to tests
// alone. The longest prefix decides.
var reserved = map[string]string{
	"k8s.io/":                           "api store/kube driver/kube operator",
	"k8s.io/client-go/util/workqueue/":  "fleet store/kube driver/kube operator",
	"sigs.k8s.io/":                      "api store/kube driver/kube operator",
	"sigs.k8s.io/yaml/":                 "api etcd pki release datadir store driver fleet hosts agent server operator app cli",
	"sigs.k8s.io/controller-runtime/":   "store/kube driver/kube operator",
	"go.etcd.io/etcd/server/":           "datadir store/etcd cli",
	"go.etcd.io/etcd/etcdutl/":          "datadir store/etcd cli",
	"go.etcd.io/etcd/etcdctl/":          "cli",
	"github.com/prometheus/prometheus/": "monitor",
	"github.com/thanos-io/objstore/":    "backup/bucket",
	"github.com/minio/minio-go/":        "backup/bucket",
	"github.com/aliyun/":                "backup/bucket",
	"github.com/tencentyun/":            "backup/bucket",
	"github.com/Azure/":                 "backup/bucket",
	"cloud.google.com/go/":              "backup/bucket",
	"golang.org/x/crypto/ssh/":          "hosts",
	"github.com/spf13/cobra/":           "cli",
	"github.com/coreos/go-systemd/":     "driver/host hosts",
	"github.com/danielgtaylor/huma/":    "server",
	"github.com/santhosh-tekuri/":       "",
	"github.com/google/go-cmp/":         "",
	"github.com/chromedp/":              "",
	"github.com/stretchr/testify/":      "",
	"pgregory.net/rapid/":               "",
	"go.uber.org/goleak/":               "",
	"github.com/rogpeppe/go-internal/":  "",
}

func TestImportDirection(t *testing.T) {
	for file, f := range parse(t, parser.ImportsOnly) {
		if strings.HasSuffix(file, "_test.go") || within(file, "test") {
			continue
		}
		imports := make([]string, 0, len(f.Imports))
		for _, spec := range f.Imports {
			imp, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			imports = append(imports, imp)
		}
		for _, v := range importViolations(path.Dir(file), imports) {
			t.Errorf("%s: %s", file, v)
		}
	}
}

// TestImportViolations shows that TestImportDirection can fail.
func TestImportViolations(t *testing.T) {
	for _, tc := range []struct {
		from, imp string
		want      []string
	}{
		{"fleet", module + "/store", nil},
		{"store/etcd", module + "/store", nil},
		{"store", module + "/store/etcd", nil},
		{"cmd/quorate", module + "/cli", nil},
		{"store", module + "/fleet", []string{"imports fleet, which is not a lower layer"}},
		{"driver/host", module + "/agent", []string{"imports agent, which is not a lower layer"}},
		{"agent", module + "/server", []string{"imports server, which is not a lower layer"}},
		{"pki", module + "/release", []string{"imports release, which is not a lower layer"}},
		{"internal/process", module + "/api/v1alpha1", []string{"imports api/v1alpha1, which is not a lower layer"}},
		{"internal/process", module, []string{"imports the root, which holds no code"}},
		{"api", module + "/util", []string{"imports util, which is in no layer"}},
		{"util", "fmt", []string{"util is in no layer: add it to layers and say why in the commit"}},
		{".", "fmt", []string{"the root holds no code: move the file into a package"}},
		{"cli", module + "/test/prove", []string{"imports test/prove, which is in no layer"}},

		{"api/schema", "k8s.io/apiserver/pkg/cel", nil},
		{"api/v1alpha1", "k8s.io/apimachinery/pkg/types", nil},
		{"operator", "k8s.io/client-go/util/workqueue", nil},
		{"fleet", "k8s.io/client-go/util/workqueue", nil},
		{"fleet", "k8s.io/client-go/rest", []string{"imports k8s.io/client-go/rest, reserved for api store/kube driver/kube operator"}},
		{"cli", "k8s.io/apimachinery/pkg/types", []string{"imports k8s.io/apimachinery/pkg/types, reserved for api store/kube driver/kube operator"}},
		{"cli", "sigs.k8s.io/yaml", nil},
		{"api", "k8s.io/client-go/util/workqueue", []string{"imports k8s.io/client-go/util/workqueue, reserved for fleet store/kube driver/kube operator"}},
		{"store/etcd", "go.etcd.io/etcd/server/v3/embed", nil},
		{"store", "go.etcd.io/etcd/server/v3/embed", []string{"imports go.etcd.io/etcd/server/v3/embed, reserved for datadir store/etcd cli"}},
		{"app", "github.com/spf13/cobra", []string{"imports github.com/spf13/cobra, reserved for cli"}},
		{"cli/cmds", "github.com/spf13/cobra", nil},
		{"store", "github.com/google/go-cmp/cmp", []string{"imports github.com/google/go-cmp/cmp, reserved for tests"}},
		{"store/storetest", "github.com/google/go-cmp/cmp", nil},
		{"fleet", "testing", []string{"imports testing, reserved for tests"}},
	} {
		if diff := cmp.Diff(tc.want, importViolations(tc.from, []string{tc.imp})); diff != "" {
			t.Errorf("%s imports %s (-want +got):\n%s", tc.from, tc.imp, diff)
		}
	}
}

// importViolations says what is wrong with the imports of a package outside tests.
func importViolations(from string, imports []string) []string {
	level := levels()
	if from == "." {
		return []string{"the root holds no code: move the file into a package"}
	}
	if _, ok := level[top(from)]; !ok {
		return []string{from + " is in no layer: add it to layers and say why in the commit"}
	}
	var found []string
	for _, imp := range imports {
		if to, ok := strings.CutPrefix(imp+"/", module+"/"); ok {
			to = path.Clean(to)
			toLevel, known := level[top(to)]
			switch {
			case to == ".":
				found = append(found, "imports the root, which holds no code")
			case !known:
				found = append(found, "imports "+to+", which is in no layer")
			case top(to) != top(from) && toLevel >= level[top(from)]:
				found = append(found, "imports "+to+", which is not a lower layer")
			}
		}
		if dirs, ok := reservation(imp); ok && !within(from, dirs) {
			if dirs != "" {
				found = append(found, "imports "+imp+", reserved for "+dirs)
			} else if !strings.HasSuffix(path.Base(from), "test") { // storetest and its like are tests
				found = append(found, "imports "+imp+", reserved for tests")
			}
		}
	}
	return found
}

// reservation finds the directories that may import imp, if it is reserved at all;
// no directory means tests alone.
func reservation(imp string) (dirs string, ok bool) {
	if top(imp) == "testing" {
		return "", true
	}
	longest := ""
	for dep := range reserved {
		if strings.HasPrefix(imp+"/", dep) && len(dep) > len(longest) {
			longest = dep
		}
	}
	dirs, ok = reserved[longest]
	return dirs, ok
}

func TestEveryPackageHasADocComment(t *testing.T) {
	documented := map[string]bool{}
	for file, f := range parse(t, parser.PackageClauseOnly|parser.ParseComments) {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		documented[path.Dir(file)] = documented[path.Dir(file)] || f.Doc != nil
	}
	for _, dir := range slices.Sorted(maps.Keys(documented)) {
		if !documented[dir] {
			t.Errorf("package %s has no doc comment: say in it what the package is for", dir)
		}
	}
}

// levels maps a top-level directory to its layer, 0 being the lowest.
func levels() map[string]int {
	level := map[string]int{}
	for i, l := range layers {
		for dir := range strings.FieldsSeq(l) {
			level[dir] = i
		}
	}
	return level
}

// parse reads every Go file of the module that a person wrote.
func parse(t *testing.T, mode parser.Mode) map[string]*ast.File {
	t.Helper()
	parsed := map[string]*ast.File{}
	for _, file := range files(t) {
		if path.Ext(file) != ".go" || strings.HasPrefix(path.Base(file), "zz_generated") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, mode)
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		parsed[file] = f
	}
	if len(parsed) == 0 {
		t.Fatal("no Go file was found: the test looks in the wrong place")
	}
	return parsed
}

// files lists the repository's files with slashes, without what is built or
// fetched.
func files(t *testing.T) []string {
	t.Helper()
	var list []string
	err := fs.WalkDir(os.DirFS("."), ".", func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		hidden := len(name) > 1 && name[0] == '.' && name != ".ci"
		if d.IsDir() && (hidden || name == "testdata" || file == "bin" || file == "dist" || file == "test-results") {
			return filepath.SkipDir
		}
		if d.Type().IsRegular() {
			list = append(list, file)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func top(dir string) string {
	first, _, _ := strings.Cut(dir, "/")
	return first
}

func within(dir, dirs string) bool {
	for d := range strings.FieldsSeq(dirs) {
		if dir == d || strings.HasPrefix(dir, d+"/") {
			return true
		}
	}
	return false
}
