package schema

import (
	"encoding/base64"
	"fmt"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/quorate/quorate/api/v1alpha1"
)

// maxSecretBytes is Kubernetes' limit on the data of a Secret.
const maxSecretBytes = 1 << 20

// checkSecret checks what Kubernetes' own, typed validation checks. Values never
// appear in a message.
func checkSecret(s, old *v1alpha1.Secret) []Cause {
	var causes []Cause
	total := 0
	for _, key := range slices.Sorted(maps.Keys(s.Data)) {
		for _, problem := range validation.IsConfigMapKey(key) {
			causes = append(causes, Cause{Field: path{"data"}.key(key).String(), Message: problem})
		}
		total += len(s.Data[key])
	}
	if total > maxSecretBytes {
		causes = append(causes, Cause{
			Field:   "data",
			Message: fmt.Sprintf("holds %d bytes, and a Secret holds at most %d", total, maxSecretBytes),
		})
	}
	if s.Type == v1alpha1.SecretTypeTLS {
		for _, key := range []string{"tls.crt", "tls.key"} {
			if _, ok := s.Data[key]; !ok {
				causes = append(causes, Cause{
					Field: path{"data"}.key(key).String(), Message: "is required by type " + string(s.Type),
					Suggestion: "put the PEM text under stringData, or base64 of it under data",
				})
			}
		}
	}
	if old == nil {
		return causes
	}
	if typeOf(s) != typeOf(old) {
		causes = append(causes, Cause{
			Field:      "type",
			Message:    fmt.Sprintf("got %q, but it is %q and can't be changed", typeOf(s), typeOf(old)),
			Suggestion: "delete the Secret and create it anew",
		})
	}
	if old.Immutable != nil && *old.Immutable {
		if s.Immutable == nil || !*s.Immutable {
			causes = append(causes, Cause{Field: "immutable", Message: "can't be unset once it is true"})
		}
		if !v1alpha1.Equal(s.Data, old.Data) {
			causes = append(causes, Cause{Field: "data", Message: "can't be changed: the Secret is immutable"})
		}
	}
	return causes
}

func typeOf(s *v1alpha1.Secret) string {
	if s.Type == "" {
		return "Opaque"
	}
	return string(s.Type)
}

// foldStringData moves stringData into data, as the API server does on writing.
func foldStringData(m map[string]any) {
	text, ok := m["stringData"].(map[string]any)
	delete(m, "stringData")
	if !ok {
		return
	}
	data, ok := m["data"].(map[string]any)
	if !ok {
		data = make(map[string]any, len(text))
	}
	for key, value := range text {
		if s, ok := value.(string); ok {
			data[key] = base64.StdEncoding.EncodeToString([]byte(s))
		}
	}
	m["data"] = data
}
