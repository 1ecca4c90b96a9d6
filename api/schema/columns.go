package schema

import (
	"fmt"
	"strings"

	"k8s.io/client-go/util/jsonpath"

	"github.com/quorate/quorate/api/v1alpha1"
)

// Column is a column of a table, as kubectl shows it.
type Column struct {
	// Name is the heading, such as Ready.
	Name string
	// JSONPath into the object, such as .status.ready.
	JSONPath string
	// Type is string, integer, boolean, number or date.
	Type string
	// Wide columns are shown on request only.
	Wide bool
}

// Columns are the table columns of a kind after its name, from its CRD.
func Columns(kind v1alpha1.Kind) ([]Column, error) {
	k, err := schemaOf(kind)
	if err != nil {
		return nil, err
	}
	s, err := k.shape()
	if err != nil {
		return nil, err
	}
	if s.crd == nil {
		return []Column{
			{Name: "Type", JSONPath: ".type", Type: "string"},
			{Name: "Age", JSONPath: ".metadata.creationTimestamp", Type: "date"},
		}, nil
	}
	printed := s.crd.Spec.Versions[0].AdditionalPrinterColumns
	columns := make([]Column, 0, len(printed))
	for _, c := range printed {
		columns = append(columns, Column{Name: c.Name, JSONPath: c.JSONPath, Type: c.Type, Wide: c.Priority > 0})
	}
	return columns, nil
}

// EvalColumn is the text of one cell; "" for what the object does not have. A date
// is in RFC 3339.
func EvalColumn(obj v1alpha1.Object, column Column) (string, error) {
	cells, err := EvalColumns(obj, []Column{column})
	if err != nil {
		return "", err
	}
	return cells[0], nil
}

// EvalColumns is EvalColumn for a row.
func EvalColumns(obj v1alpha1.Object, columns []Column) ([]string, error) {
	m, err := Map(obj)
	if err != nil {
		return nil, err
	}
	cells := make([]string, len(columns))
	for i, c := range columns {
		if cells[i], err = evalPath(m, c.JSONPath); err != nil {
			return nil, fmt.Errorf("column %s of %s: %w", c.Name, v1alpha1.KindOf(obj).Kind, err)
		}
	}
	return cells, nil
}

func evalPath(m map[string]any, path string) (string, error) {
	jp, err := parseJSONPath("{" + path + "}")
	if err != nil {
		return "", err
	}
	found, err := jp.FindResults(m)
	if err != nil {
		return "", fmt.Errorf("jsonpath %s: %w", path, err)
	}
	var texts []string
	for _, values := range found {
		for _, v := range values {
			if !v.IsValid() || !v.CanInterface() || v.Interface() == nil {
				continue
			}
			texts = append(texts, fmt.Sprint(v.Interface()))
		}
	}
	return strings.Join(texts, ","), nil
}

func parseJSONPath(template string) (*jsonpath.JSONPath, error) {
	jp := jsonpath.New("quorate").AllowMissingKeys(true)
	if err := jp.Parse(template); err != nil {
		return nil, fmt.Errorf("jsonpath %s: %w: write it as kubectl does, such as {.spec.version}", template, err)
	}
	return jp, nil
}
