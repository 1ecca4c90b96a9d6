package schema

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"

	"github.com/quorate/quorate/api/v1alpha1"
)

// ErrUnknownField says that the kind has no such field.
var ErrUnknownField = errors.New("unknown field")

// Explanation says what a kind or a field of it is.
type Explanation struct {
	// Kind and APIVersion it belongs to.
	Kind       string
	APIVersion string
	// Path in the object, such as spec.etcd.quotaBackend; empty for the kind itself.
	Path string
	// Type is string, integer, boolean, quantity, object, []string, []object, or
	// map[string]string.
	Type string
	// Required fields have no default and must be given.
	Required bool
	// Description in sentences, without the default and its reason.
	Description string
	// Default in words or as a value; empty where there is none.
	Default string
	// Why is the reason for the default.
	Why string
	// Enum lists the values that are allowed, where only some are.
	Enum []string
	// Limits in words, such as "at least 1".
	Limits []string
	// Rules in words, which the limits can't express.
	Rules []string
	// Children by name.
	Children []Child
}

// Child is a field in one line.
type Child struct {
	Name     string
	Type     string
	Required bool
	Default  string
	// Summary is the first sentence of the description.
	Summary string
}

// Explain looks up a path such as etcdcluster.spec.etcd.quotaBackend. The kind may
// be written as on the command line, with its short and plural names. Errors are
// ErrUnknownKind and ErrUnknownField, and name the nearest that is known.
func Explain(path string) (Explanation, error) {
	name, rest, _ := strings.Cut(strings.Trim(path, "."), ".")
	kind, ok := v1alpha1.KindNamed(name)
	if !ok {
		var known []string
		for _, k := range v1alpha1.Kinds() {
			known = append(known, strings.ToLower(k.Kind), k.Plural)
			known = append(known, k.ShortNames...)
		}
		return Explanation{}, fmt.Errorf("%w %q; %s", ErrUnknownKind, name, didYouMean(name, known))
	}
	k, err := schemaOf(kind)
	if err != nil {
		return Explanation{}, err
	}
	s, err := k.shape()
	if err != nil {
		return Explanation{}, err
	}
	node, required := s.full, false
	var done, rules []string
	for _, step := range strings.FieldsFunc(rest, func(r rune) bool { return r == '.' }) {
		node = elements(node)
		prop, ok := node.Properties[step]
		if !ok {
			at := strings.Join(append([]string{strings.ToLower(kind.Kind)}, done...), ".")
			known := slices.Sorted(maps.Keys(node.Properties))
			return Explanation{}, fmt.Errorf("%w %q of %s; %s", ErrUnknownField, step, at, didYouMean(step, known))
		}
		required = slices.Contains(requiredOf(node), step)
		rules = rulesOn(node, step)
		node, done = &prop, append(done, step)
	}
	e := explain(node)
	e.Rules = append(rules, e.Rules...)
	e.Kind, e.APIVersion, e.Path, e.Required = kind.Kind, kind.APIVersion, strings.Join(done, "."), required
	return e, nil
}

// rulesOn are the rules of a block that speak of one of its fields.
func rulesOn(s *schema.Structural, name string) []string {
	var rules []string
	for _, rule := range s.XValidations {
		if rule.FieldPath == "."+name {
			rules = append(rules, rule.Message)
		}
	}
	return rules
}

func explain(s *schema.Structural) Explanation {
	d := parseDescription(s.Description)
	e := Explanation{
		Type: typeOfSchema(s), Description: d.about, Default: defaultOf(s, d), Why: d.why,
		Enum: enumOf(s), Limits: limitsOf(s),
	}
	for _, rule := range s.XValidations {
		e.Rules = append(e.Rules, rule.Message)
	}
	inner := elements(s)
	required := requiredOf(inner)
	for _, name := range slices.Sorted(maps.Keys(inner.Properties)) {
		prop := inner.Properties[name]
		e.Children = append(e.Children, Child{
			Name: name, Type: typeOfSchema(&prop), Required: slices.Contains(required, name),
			Default: defaultOf(&prop, parseDescription(prop.Description)), Summary: meaning(&prop),
		})
	}
	return e
}

// elements steps from a list to what it lists.
func elements(s *schema.Structural) *schema.Structural {
	if s.Items != nil {
		return s.Items
	}
	return s
}

func requiredOf(s *schema.Structural) []string {
	if s.ValueValidation == nil {
		return nil
	}
	return s.ValueValidation.Required
}

func typeOfSchema(s *schema.Structural) string {
	switch {
	case s.XIntOrString:
		return "quantity"
	case s.Items != nil:
		return "[]" + typeOfSchema(s.Items)
	case s.AdditionalProperties != nil && s.AdditionalProperties.Structural != nil:
		return "map[string]" + typeOfSchema(s.AdditionalProperties.Structural)
	}
	return s.Type
}

// defaultOf is the default as a person would write it. That of a block is nothing to
// write: its fields have their own.
func defaultOf(s *schema.Structural, d documented) string {
	switch v := s.Default.Object.(type) {
	case nil:
		return d.defaultsTo
	case map[string]any:
		return ""
	case string:
		return v
	default:
		text, err := json.Marshal(v)
		if err != nil {
			return d.defaultsTo
		}
		return string(text)
	}
}

func limitsOf(s *schema.Structural) []string {
	v := s.ValueValidation
	if v == nil {
		return nil
	}
	var limits []string
	number := func(prefix string, n *float64) {
		if n != nil {
			limits = append(limits, prefix+strconv.FormatFloat(*n, 'f', -1, 64))
		}
	}
	count := func(prefix string, n *int64, suffix string) {
		if n != nil {
			limits = append(limits, prefix+strconv.FormatInt(*n, 10)+suffix)
		}
	}
	number("at least ", v.Minimum)
	number("at most ", v.Maximum)
	count("at least ", v.MinLength, " characters")
	count("at most ", v.MaxLength, " characters")
	count("at least ", v.MinItems, " items")
	count("at most ", v.MaxItems, " items")
	if v.Pattern != "" && !s.XIntOrString {
		limits = append(limits, "matches "+v.Pattern)
	}
	if v.Format == formatTime {
		limits = append(limits, "a time in RFC 3339, such as 2026-11-20T14:00:00Z")
	}
	return limits
}
