package schema

import (
	"encoding/base64"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
)

// quantity is what is read as a size. Kubernetes' own pattern lets 1e999999999 pass,
// which takes hours to compare with anything.
var quantity = regexp.MustCompile(`^[+-]?[0-9]{1,18}(\.[0-9]{1,9})?([numkMGTPE]|[KMGTPE]i|[eE][0-9]{1,2})?$`)

// walker compares a value as it was read with the fields that are known, and
// collects all that is unknown or of another type.
type walker struct {
	causes []Cause
	// quiet keeps values out of the messages: they are secret.
	quiet bool
}

func (w *walker) add(at path, message, suggestion string) {
	w.causes = append(w.causes, Cause{Field: at.String(), Message: message, Suggestion: suggestion})
}

// walk checks v against s. A null stands for a field that was left out.
func (w *walker) walk(v any, s *schema.Structural, at path) {
	if v == nil {
		return
	}
	if s.XIntOrString {
		text, isText := v.(string)
		_, isNumber := v.(int64)
		if !isNumber && (!isText || !quantity.MatchString(text)) {
			w.mistyped(v, s, at)
		}
		return
	}
	switch s.Type {
	case "object":
		m, ok := v.(map[string]any)
		if !ok {
			w.mistyped(v, s, at)
			return
		}
		w.object(m, s, at)
	case "array":
		list, ok := v.([]any)
		if !ok {
			w.mistyped(v, s, at)
			return
		}
		for i, item := range list {
			if s.Items != nil {
				w.walk(item, s.Items, at.item(i))
			}
		}
	default:
		w.scalar(v, s, at)
	}
}

func (w *walker) object(m map[string]any, s *schema.Structural, at path) {
	for _, name := range slices.Sorted(maps.Keys(m)) {
		if prop, ok := s.Properties[name]; ok {
			w.walk(m[name], &prop, at.field(name))
			continue
		}
		if s.AdditionalProperties != nil {
			if s.AdditionalProperties.Structural != nil {
				w.walk(m[name], s.AdditionalProperties.Structural, at.key(name))
			}
			continue
		}
		if s.XPreserveUnknownFields {
			continue
		}
		w.add(at.field(name), "unknown field", didYouMean(name, slices.Sorted(maps.Keys(s.Properties))))
	}
}

func (w *walker) scalar(v any, s *schema.Structural, at path) {
	ok := false
	switch v := v.(type) {
	case string:
		ok = s.Type == "string"
		if ok && s.ValueValidation != nil && s.ValueValidation.Format == formatBytes {
			if _, err := base64.StdEncoding.DecodeString(v); err != nil {
				w.add(at, "is not base64", "put plain text under stringData, or encode it with base64 -w0")
			}
		}
	case bool:
		ok = s.Type == "boolean"
	case int64:
		ok = s.Type == "integer" || s.Type == "number"
	case float64:
		ok = s.Type == "number"
	}
	if !ok {
		w.mistyped(v, s, at)
	}
}

func (w *walker) mistyped(v any, s *schema.Structural, at path) {
	given := show(v)
	if w.quiet {
		given = typeName(v)
	}
	w.add(at, fmt.Sprintf("got %s, expected %s", given, expected(s)), w.remedy(v, s))
}

// remedy is the next step for a value of another type.
func (w *walker) remedy(v any, s *schema.Structural) string {
	_, isMap := v.(map[string]any)
	_, isList := v.([]any)
	switch {
	case s.Type == "string" && !isMap && !isList:
		// A bare 3.7 is a number to YAML, and a bare Off or yes is a boolean.
		if b, ok := v.(bool); ok && !w.quiet {
			word := strconv.FormatBool(b)
			for _, e := range enumOf(s) {
				if (strings.EqualFold(e, "off") && !b) || (strings.EqualFold(e, "on") && b) {
					word = e
				}
			}
			return fmt.Sprintf("put it in quotes, %q: YAML reads a bare word such as off or yes as a boolean", word)
		}
		return "put it in quotes: YAML reads it as " + typeName(v)
	case s.Type == "array" && !isMap && !isList:
		return "write it as a list: a line starting with \"- \" for each"
	case s.XIntOrString:
		return "write a number with a unit: Ki, Mi or Gi"
	}
	return meaning(s)
}

// didYouMean is the suggestion for a name that is none of the known.
func didYouMean(name string, known []string) string {
	if best := nearest(name, known); best != "" {
		return "did you mean " + best + "?"
	}
	const few = 12
	switch {
	case len(known) == 0:
		return "nothing can stand here"
	case len(known) > few:
		return "known are " + strings.Join(known[:few], ", ") + ", …"
	}
	return "known are " + strings.Join(known, ", ")
}

func expected(s *schema.Structural) string {
	if s.XIntOrString {
		return "a size such as 8Gi"
	}
	if values := enumOf(s); len(values) > 0 {
		return "one of " + strings.Join(values, ", ")
	}
	switch s.Type {
	case "integer":
		return "a whole number"
	case "number":
		return "a number"
	case "boolean":
		return "true or false"
	case "object":
		return "a block of fields"
	case "array":
		return "a list"
	}
	if s.ValueValidation != nil && s.ValueValidation.Format == formatTime {
		return "a time such as 2026-11-20T14:00:00Z"
	}
	return "text"
}

func typeName(v any) string {
	switch v.(type) {
	case string:
		return "text"
	case bool:
		return "a boolean"
	case int64, float64:
		return "a number"
	case []any:
		return "a list"
	case map[string]any:
		return "a block of fields"
	}
	return "nothing"
}

// show writes a given value, short enough for a line.
func show(v any) string {
	const most = 60
	switch v := v.(type) {
	case string:
		if r := []rune(v); len(r) > most {
			v = string(r[:most]) + "…"
		}
		return strconv.Quote(v)
	case int64, float64, bool:
		return fmt.Sprint(v)
	}
	return typeName(v)
}

func enumOf(s *schema.Structural) []string {
	if s.ValueValidation == nil || len(s.ValueValidation.Enum) == 0 {
		return nil
	}
	values := make([]string, 0, len(s.ValueValidation.Enum))
	for _, e := range s.ValueValidation.Enum {
		values = append(values, fmt.Sprint(e.Object))
	}
	return values
}
