package cli

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
)

// importEntry is one cluster to import, from flags or from a file.
type importEntry struct {
	// where it stands, for errors: a file and a line.
	where      string
	name       string
	namespace  string
	endpoints  []string
	members    int32
	serverName string
	labels     map[string]string
	ca         []byte
	cert       []byte
	key        []byte
	user       string
	password   string
	// maintain is what may be done to it; nil leaves that as it is.
	maintain []v1alpha1.Maintenance
}

// importForm is what `quorate help import` says of the file.
const importForm = `A file of many lists them under clusters. Files are read relative to it; what
most have in common stands once under defaults:

  defaults:
    cacert: ca.crt
    user: quorate
    passwordFile: quorate.password
  clusters:
  - name: orders
    endpoints: [https://10.0.0.1:2379, https://10.0.0.2:2379]
  - name: stock
    namespace: prod
    endpoints: [https://10.0.1.1:2379]
    members: 5
    serverName: etcd.example
    labels: {team: stock}
    maintain: [Backup]

cert and key name files as cacert does; cacertData, certData, keyData and password
hold the thing itself, as PEM or in base64.`

// importReader reads such a file. All that is wrong in it is reported at once.
type importReader struct {
	file string
	dir  string
	errs []error
	// set are the fields of an entry, by their names in the file.
	set map[string]func(entry *importEntry, value *yaml.Node) error
}

func newImportReader(file string) *importReader {
	r := &importReader{file: file, dir: filepath.Dir(file)}
	text := func(to func(*importEntry) *string) func(*importEntry, *yaml.Node) error {
		return func(entry *importEntry, value *yaml.Node) error { return scalar(value, to(entry)) }
	}
	content := func(to func(*importEntry) *[]byte) func(*importEntry, *yaml.Node) error {
		return func(entry *importEntry, value *yaml.Node) error { return r.content(value, to(entry)) }
	}
	data := func(to func(*importEntry) *[]byte) func(*importEntry, *yaml.Node) error {
		return func(entry *importEntry, value *yaml.Node) error { return inline(value, to(entry)) }
	}
	ca := func(i *importEntry) *[]byte { return &i.ca }
	cert := func(i *importEntry) *[]byte { return &i.cert }
	key := func(i *importEntry) *[]byte { return &i.key }
	r.set = map[string]func(*importEntry, *yaml.Node) error{
		"name":       text(func(i *importEntry) *string { return &i.name }),
		"namespace":  text(func(i *importEntry) *string { return &i.namespace }),
		"serverName": text(func(i *importEntry) *string { return &i.serverName }),
		"user":       text(func(i *importEntry) *string { return &i.user }),
		"password":   text(func(i *importEntry) *string { return &i.password }),
		"passwordFile": func(entry *importEntry, value *yaml.Node) error {
			var raw []byte
			err := r.content(value, &raw)
			entry.password = strings.TrimRight(string(raw), "\r\n")
			return err
		},
		"endpoints": func(entry *importEntry, value *yaml.Node) error {
			if value.Kind != yaml.SequenceNode {
				return errors.New("expected a list of URLs")
			}
			return value.Decode(&entry.endpoints)
		},
		"members": func(entry *importEntry, value *yaml.Node) error {
			n, err := strconv.ParseInt(value.Value, 10, 32)
			if err != nil || n < 1 || n > 9 {
				return fmt.Errorf("got %q, expected the number of members that are expected, 1 to 9", value.Value)
			}
			entry.members = int32(n)
			return nil
		},
		"maintain": func(entry *importEntry, value *yaml.Node) error {
			entry.maintain = []v1alpha1.Maintenance{}
			if err := value.Decode(&entry.maintain); err != nil || value.Kind != yaml.SequenceNode {
				return fmt.Errorf("expected a list such as [%s]", v1alpha1.MaintainBackup)
			}
			for _, m := range entry.maintain {
				if m != v1alpha1.MaintainBackup {
					return fmt.Errorf("got %q, expected %s", m, v1alpha1.MaintainBackup)
				}
			}
			return nil
		},
		"labels": func(entry *importEntry, value *yaml.Node) error {
			if err := value.Decode(&entry.labels); err != nil {
				return errors.New("expected names with texts")
			}
			return nil
		},
		"cacert": content(ca), "cert": content(cert), "key": content(key),
		"cacertData": data(ca), "certData": data(cert), "keyData": data(key),
	}
	return r
}

func scalar(value *yaml.Node, to *string) error {
	if value.Kind != yaml.ScalarNode || value.Tag != "!!str" {
		return fmt.Errorf("got %s, expected text; put it in quotes", value.Value)
	}
	*to = value.Value
	return nil
}

// content reads the file that a field names.
func (r *importReader) content(value *yaml.Node, to *[]byte) error {
	var name string
	if err := scalar(value, &name); err != nil {
		return err
	}
	if !filepath.IsAbs(name) {
		name = filepath.Join(r.dir, name)
	}
	raw, err := os.ReadFile(name) //nolint:gosec // the file that a person named
	*to = raw
	return err
}

// inline reads PEM as it stands, or in base64 as kubeconfigs have it.
func inline(value *yaml.Node, to *[]byte) error {
	var text string
	if err := scalar(value, &text); err != nil {
		return err
	}
	*to = []byte(text)
	if strings.Contains(text, "-----BEGIN ") {
		return nil
	}
	raw, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil || !bytes.Contains(raw, []byte("-----BEGIN ")) {
		return errors.New("it is neither PEM nor PEM in base64; name a file with the field without Data instead")
	}
	*to = raw
	return nil
}

func (r *importReader) fail(at *yaml.Node, format string, args ...any) {
	r.errs = append(r.errs, fmt.Errorf("%s: line %d: %w: %w", r.file, at.Line, fmt.Errorf(format, args...), store.ErrInvalid))
}

// read returns the entries of the file.
func (r *importReader) read(data []byte) ([]importEntry, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	if err := decoder.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("it is empty")
		}
		return nil, fmt.Errorf("%s: %s: `quorate import --help` shows its form: %w", r.file, strings.TrimPrefix(err.Error(), "yaml: "), store.ErrInvalid)
	}
	root := doc.Content[0]
	var defaults, clusters *yaml.Node
	r.fields(root, "the file", func(name string, key, value *yaml.Node) {
		switch name {
		case "defaults":
			defaults = value
		case "clusters":
			clusters = value
		case "apiVersion", "kind", "metadata", "spec":
			r.fail(key, "this is an object: create it with `quorate apply -f %s`", r.file)
		default:
			r.fail(key, "unknown field %q: known are clusters and defaults", name)
		}
	})
	if len(r.errs) == 0 && (clusters == nil || clusters.Kind != yaml.SequenceNode || len(clusters.Content) == 0) {
		r.fail(root, "it lists no clusters: write them as a list under clusters:")
	}
	if len(r.errs) > 0 {
		return nil, errors.Join(r.errs...)
	}
	entries := make([]importEntry, 0, len(clusters.Content))
	lines := map[string]int{}
	for _, node := range clusters.Content {
		entries = append(entries, r.entry(node, defaults, lines))
	}
	if len(r.errs) > 0 {
		return nil, errors.Join(r.errs...)
	}
	return entries, nil
}

// entry reads one cluster, on top of the defaults.
func (r *importReader) entry(node, defaults *yaml.Node, lines map[string]int) importEntry {
	out := importEntry{where: fmt.Sprintf("%s: line %d", r.file, node.Line)}
	if defaults != nil {
		before := len(r.errs)
		r.fields(defaults, "defaults", func(name string, key, value *yaml.Node) {
			if name == "name" || name == "endpoints" {
				r.fail(key, "%s belongs to each cluster: it can't be a default", name)
				return
			}
			r.field(&out, name, key, value)
		})
		if len(lines) > 0 { // said for the first cluster
			r.errs = r.errs[:before]
		}
	}
	r.fields(node, "a cluster", func(name string, key, value *yaml.Node) { r.field(&out, name, key, value) })
	switch {
	case out.name == "":
		r.fail(node, "the cluster has no name: give it one")
	case lines[out.namespace+"/"+out.name] != 0:
		r.fail(node, "cluster %s stands already at line %d: keep one of them", out.name, lines[out.namespace+"/"+out.name])
	case len(out.endpoints) == 0:
		r.fail(node, "cluster %s has no endpoints: give client URLs, such as [https://10.0.0.1:2379]", out.name)
	}
	lines[out.namespace+"/"+out.name] = node.Line
	return out
}

func (r *importReader) field(out *importEntry, name string, key, value *yaml.Node) {
	set, ok := r.set[name]
	if !ok {
		known := make([]string, 0, len(r.set))
		for k := range r.set {
			known = append(known, k)
		}
		slices.Sort(known)
		r.fail(key, "unknown field %q: known are %s", name, strings.Join(known, ", "))
		return
	}
	if err := set(out, value); err != nil {
		r.fail(value, "%s: %w", name, err)
	}
}

// fields visits those of a mapping.
func (r *importReader) fields(node *yaml.Node, what string, visit func(name string, key, value *yaml.Node)) {
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	if node.Kind != yaml.MappingNode {
		r.fail(node, "%s is no mapping: write NAME: VALUE lines", what)
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		if value.Kind == yaml.AliasNode {
			value = value.Alias
		}
		if seen[key.Value] != 0 {
			r.fail(key, "%s stands here again after line %d: keep one of them", key.Value, seen[key.Value])
			continue
		}
		seen[key.Value] = key.Line
		visit(key.Value, key, value)
	}
}
