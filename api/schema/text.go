package schema

import (
	"strings"

	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
)

// documented is a field's description, taken apart.
type documented struct {
	about      string
	defaultsTo string
	why        string
}

// parseDescription takes "Text. Default: value. Why: reason." apart.
func parseDescription(description string) documented {
	text := strings.Join(strings.Fields(description), " ")
	var d documented
	rest, why, _ := strings.Cut(text, "Why: ")
	about, def, found := strings.Cut(rest, "Default: ")
	if !found {
		return documented{about: text}
	}
	d.about = strings.TrimSpace(about)
	d.defaultsTo = strings.TrimSuffix(strings.TrimSpace(def), ".")
	d.why = strings.TrimSpace(why)
	return d
}

// meaning is the first sentence of a field's description, as a suggestion.
func meaning(s *schema.Structural) string {
	return firstSentence(parseDescription(s.Description).about)
}

func firstSentence(text string) string {
	for i := range text {
		if text[i] == '.' && strings.HasPrefix(text[i+1:], " ") && !strings.HasSuffix(text[:i], "e.g") {
			return text[:i]
		}
	}
	return strings.TrimSuffix(text, ".")
}

// at finds the schema of a path, or nil.
func at(s *schema.Structural, p path) *schema.Structural {
	for _, step := range p {
		switch {
		case s == nil:
			return nil
		case strings.HasPrefix(step, "[") && s.Items != nil:
			s = s.Items
		case s.AdditionalProperties != nil:
			s = s.AdditionalProperties.Structural
		default:
			prop, ok := s.Properties[step]
			if !ok {
				return nil
			}
			s = &prop
		}
	}
	return s
}
