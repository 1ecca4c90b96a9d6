package schema

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	utiljson "k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"

	"github.com/quorate/quorate/api/v1alpha1"
)

// YAML writes objects as YAML documents separated by "---".
func YAML(objs ...v1alpha1.Object) ([]byte, error) {
	var out bytes.Buffer
	for i, obj := range objs {
		m, err := Map(obj)
		if err != nil {
			return nil, err
		}
		raw, err := yaml.Marshal(m)
		if err != nil {
			return nil, fmt.Errorf("write %s as YAML: %w", describe(obj), err)
		}
		if i > 0 {
			out.WriteString("---\n")
		}
		out.Write(raw)
	}
	return out.Bytes(), nil
}

// List makes the v1 List of objects, as kubectl prints several.
func List(objs []v1alpha1.Object) (map[string]any, error) {
	items := make([]any, 0, len(objs))
	for _, obj := range objs {
		m, err := Map(obj)
		if err != nil {
			return nil, err
		}
		items = append(items, m)
	}
	return map[string]any{"apiVersion": "v1", "kind": "List", "metadata": map[string]any{}, "items": items}, nil
}

// JSONPath fills in a kubectl template such as {.spec.version}; the braces and the
// leading dot may be left out. What the object does not have is "".
func JSONPath(obj v1alpha1.Object, template string) (string, error) {
	m, err := Map(obj)
	if err != nil {
		return "", err
	}
	return execute(m, template)
}

// JSONPathList is JSONPath over the List of objects, as kubectl evaluates several:
// {.items[*].metadata.name}.
func JSONPathList(objs []v1alpha1.Object, template string) (string, error) {
	m, err := List(objs)
	if err != nil {
		return "", err
	}
	return execute(m, template)
}

func execute(m map[string]any, template string) (string, error) {
	if !strings.Contains(template, "{") {
		template = "{." + strings.TrimPrefix(strings.TrimPrefix(template, "$"), ".") + "}"
	}
	jp, err := parseJSONPath(template)
	if err != nil {
		return "", err
	}
	var out bytes.Buffer
	if err := jp.Execute(&out, m); err != nil {
		return "", fmt.Errorf("jsonpath %s: %w", template, err)
	}
	return out.String(), nil
}

// describe names an object for people: its kind and key.
func describe(obj v1alpha1.Object) string {
	return objectName(v1alpha1.KindOf(obj).Kind, obj.GetNamespace(), obj.GetName())
}

func objectName(kind, namespace, name string) string {
	switch {
	case name == "":
		return kind
	case namespace == "":
		return kind + " " + name
	}
	return kind + " " + namespace + "/" + name
}

// JSONPathValue is JSONPath over any value that can be written as JSON.
func JSONPathValue(v any, template string) (string, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("jsonpath %s: %w", template, err)
	}
	var m map[string]any
	if err := utiljson.Unmarshal(raw, &m); err != nil {
		return "", fmt.Errorf("jsonpath %s: %w", template, err)
	}
	return execute(m, template)
}
