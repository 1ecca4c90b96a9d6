package schema

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	kjson "sigs.k8s.io/json"
	kyaml "sigs.k8s.io/yaml"
)

// source is one document of a file. Its values are read as kubectl reads them; the
// node tree beside them knows lines and repeated keys.
type source struct {
	// index counts from 1.
	index int
	// offset is how many lines of the file come before the document.
	offset int
	text   []byte
	root   *yaml.Node
}

// split cuts a file into documents: YAML at lines of "---", or JSON objects that
// follow each other.
func split(data []byte) []*source {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if docs, ok := splitJSON(data); ok {
		return docs
	}
	var docs []*source
	var text []byte
	start := 0
	cut := func() {
		docs = append(docs, &source{index: len(docs) + 1, offset: start, text: text})
	}
	for i, line := range bytes.SplitAfter(data, []byte("\n")) {
		rest, marked := bytes.CutPrefix(line, []byte("---"))
		if !marked || (len(rest) > 0 && !bytes.ContainsAny(rest[:1], " \t\r\n")) {
			text = append(text, line...)
			continue
		}
		if !blank(text) {
			cut()
		}
		text, start = append([]byte("   "), rest...), i
	}
	if !blank(text) {
		cut()
	}
	return docs
}

// blank documents hold only comments and white space.
func blank(text []byte) bool {
	for line := range bytes.Lines(text) {
		line = bytes.TrimSpace(line)
		if len(line) > 0 && line[0] != '#' {
			return false
		}
	}
	return true
}

func splitJSON(data []byte) ([]*source, bool) {
	if !bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) {
		return nil, false
	}
	var docs []*source
	dec := json.NewDecoder(bytes.NewReader(data))
	for {
		before := dec.InputOffset()
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			break
		}
		if !bytes.HasPrefix(raw, []byte("{")) {
			return nil, false
		}
		gap := data[before : dec.InputOffset()-int64(len(raw))]
		offset := bytes.Count(data[:before], []byte("\n")) + bytes.Count(gap, []byte("\n"))
		docs = append(docs, &source{index: len(docs) + 1, offset: offset, text: raw})
	}
	return docs, len(docs) > 0 && blank(data[dec.InputOffset():])
}

// read returns the document's value. Repeated keys are causes, beside the value.
func (s *source) read() (any, []Cause) {
	js := s.text
	if !json.Valid(js) {
		var err error
		if js, err = kyaml.YAMLToJSON(s.text); err != nil {
			return nil, []Cause{s.unreadable(err)}
		}
	}
	var value any
	if err := utiljson.Unmarshal(js, &value); err != nil {
		return nil, []Cause{s.unreadable(err)}
	}
	var root yaml.Node
	if err := yaml.Unmarshal(s.text, &root); err == nil && len(root.Content) == 1 {
		s.root = root.Content[0]
		return value, s.repeated(s.root, nil, nil)
	}
	// Some JSON is not YAML. It has lost its lines, and is still read strictly.
	var again any
	strict, err := kjson.UnmarshalStrict(js, &again)
	if err != nil {
		return nil, []Cause{s.unreadable(err)}
	}
	var causes []Cause
	for _, e := range strict {
		causes = append(causes, Cause{Message: e.Error(), Suggestion: "remove one"})
	}
	return value, causes
}

var yamlLine = regexp.MustCompile(`\bline (\d+): `)

func (s *source) unreadable(err error) Cause {
	c := Cause{Message: strings.TrimPrefix(err.Error(), "error converting YAML to JSON: ")}
	c.Message = strings.TrimPrefix(c.Message, "yaml: ")
	if m := yamlLine.FindStringSubmatch(c.Message); m != nil {
		if n, err := strconv.Atoi(m[1]); err == nil {
			c.Line = s.offset + n
			c.Message = strings.Replace(c.Message, m[0], "", 1)
		}
	}
	c.Message = "cannot be read as YAML or JSON: " + c.Message
	c.Suggestion = "check the indentation and the quotes around there"
	return c
}

// repeated finds keys that stand twice in one block: YAML readers silently take one.
func (s *source) repeated(n *yaml.Node, at path, causes []Cause) []Cause {
	switch n.Kind {
	case yaml.MappingNode:
		first := make(map[string]int)
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i]
			here := at.field(key.Value)
			if line, ok := first[key.Value]; ok && key.Kind == yaml.ScalarNode && key.Tag != "!!merge" {
				causes = append(causes, Cause{
					Line: s.offset + key.Line, Field: here.String(),
					Message:    "stands here again after line " + strconv.Itoa(s.offset+line),
					Suggestion: "keep one of them",
				})
			} else {
				first[key.Value] = key.Line
			}
			causes = s.repeated(n.Content[i+1], here, causes)
		}
	case yaml.SequenceNode:
		for i, item := range n.Content {
			causes = s.repeated(item, at.item(i), causes)
		}
	default: // A scalar has no keys, and an alias repeats what was looked at already.
	}
	return causes
}

// line finds the line of the file where a path stands, or where the nearest of its
// parents does. 0 when nothing is known.
func (s *source) line(p path) int {
	n := s.root
	if n == nil {
		return 0
	}
	line := n.Line
	for _, step := range p {
		key, value := child(n, step)
		if value == nil {
			break
		}
		n, line = value, key.Line
	}
	return s.offset + line
}

// child returns the key (or the item itself) and the value of one step.
func child(n *yaml.Node, step string) (key, value *yaml.Node) {
	step = strings.TrimSuffix(strings.TrimPrefix(step, "["), "]")
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == step {
				return n.Content[i], n.Content[i+1]
			}
		}
	case yaml.SequenceNode:
		if i, err := strconv.Atoi(step); err == nil && i >= 0 && i < len(n.Content) {
			return n.Content[i], n.Content[i]
		}
	default: // Nothing lies below a scalar, and what an alias means has another line.
	}
	return nil, nil
}
