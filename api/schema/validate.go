package schema

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	structural "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel/model"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/common"

	"github.com/quorate/quorate/api/v1alpha1"
)

// Validate checks obj as the Kubernetes API server would: metadata, schema, CEL
// rules, and against old, the stored state (nil on create), the rules of change. As
// there, what was already wrong in old and has not been touched is let through.
// Absent fields count as defaulted; obj is not changed. Errors: *Error.
func Validate(ctx context.Context, obj, old v1alpha1.Object) error {
	k, m, err := defaultedMap(obj)
	if err != nil {
		return err
	}
	causes := checkMeta(k.kind, obj, old, false)
	var before map[string]any
	if old != nil {
		if v1alpha1.KindOf(old).Kind != k.kind.Kind {
			return fmt.Errorf("%s can't become %s: %w", describe(old), describe(obj), ErrInvalid)
		}
		if _, before, err = defaultedMap(old); err != nil {
			return err
		}
	}
	if secret, ok := obj.(*v1alpha1.Secret); ok {
		oldSecret, _ := old.(*v1alpha1.Secret)
		causes = append(causes, checkSecret(secret, oldSecret)...)
	} else {
		more, err := k.check(ctx, m, before, len(causes) > 0)
		if err != nil {
			return err
		}
		causes = append(causes, more...)
	}
	for i := range causes {
		causes[i].Object = describe(obj)
	}
	return asError(causes)
}

func defaultedMap(obj v1alpha1.Object) (*kindSchema, map[string]any, error) {
	m, err := Map(obj)
	if err != nil {
		return nil, nil, err
	}
	k, err := schemaOf(v1alpha1.KindOf(obj))
	if err != nil {
		return nil, nil, err
	}
	return k, m, k.applyDefaults(m)
}

// check runs the compiled schema over m, which has its defaults. With blocked set,
// or when the schema itself is not met, the CEL rules are left out: they could only
// stumble over the same.
func (k *kindSchema) check(ctx context.Context, m, old map[string]any, blocked bool) ([]Cause, error) {
	s, err := k.shape()
	if err != nil {
		return nil, err
	}
	rules, err := k.checks()
	if err != nil || s.crd == nil {
		return nil, err
	}
	var errs field.ErrorList
	var celOptions []cel.Option
	if old == nil {
		errs = validation.ValidateCustomResource(nil, m, rules.schema)
	} else {
		same := common.NewCorrelatedObject(m, old, &model.Structural{Structural: s.structural})
		errs = validation.ValidateCustomResourceUpdate(nil, m, old, rules.schema, validation.WithRatcheting(same))
		celOptions = append(celOptions, cel.WithRatcheting(same))
	}
	errs = append(errs, listtype.ValidateListSetsAndMaps(nil, s.structural, m)...)
	causes := make([]Cause, 0, len(errs))
	for _, e := range errs {
		causes = append(causes, schemaCause(s.full, e))
	}
	if blocked || slices.ContainsFunc(errs, blocking) {
		return causes, nil
	}
	// A nil map in an interface is not nil to the validator.
	var oldValue any
	if old != nil {
		oldValue = old
	}
	broken, _ := rules.cel.Validate(ctx, nil, s.structural, m, oldValue, celconfig.RuntimeCELCostBudget, celOptions...)
	for _, e := range broken {
		if len(errs) > 0 && strings.Contains(e.Detail, " evaluating rule: ") {
			// The rule stumbled over what is named already.
			continue
		}
		causes = append(causes, Cause{Field: fieldOf(e), Message: e.Detail})
	}
	return causes, nil
}

// blocking errors make CEL rules meaningless; the API server has the same list.
func blocking(e *field.Error) bool {
	switch e.Type {
	case field.ErrorTypeNotSupported, field.ErrorTypeRequired, field.ErrorTypeTooLong,
		field.ErrorTypeTooMany, field.ErrorTypeTypeInvalid:
		return true
	default:
		return false
	}
}

func fieldOf(e *field.Error) string {
	if e.Field == "<nil>" {
		return ""
	}
	return e.Field
}

var inBody = regexp.MustCompile(`^\S* ?in body `)

// schemaCause turns an error of the API server's validator into what was given,
// what is expected and what the field means.
func schemaCause(s *structural.Structural, e *field.Error) Cause {
	c := Cause{Field: fieldOf(e)}
	here := at(s, parsePath(c.Field))
	if here == nil {
		here = &structural.Structural{}
	}
	detail := inBody.ReplaceAllString(e.Detail, "")
	c.Suggestion = meaning(here)
	switch e.Type {
	case field.ErrorTypeRequired:
		c.Message = "is required"
	case field.ErrorTypeNotSupported:
		values := enumOf(here)
		c.Message = fmt.Sprintf("got %s, expected one of %s", show(e.BadValue), strings.Join(values, ", "))
		if best := nearest(fmt.Sprint(e.BadValue), values); best != "" {
			c.Suggestion = "did you mean " + best + "?"
		}
	case field.ErrorTypeTooLong, field.ErrorTypeTooMany, field.ErrorTypeDuplicate:
		c.Message = e.ErrorBody()
	default:
		c.Message = fmt.Sprintf("got %s, which %s", show(e.BadValue), detail)
	}
	return c
}

// checkMeta checks name, namespace, labels and the like by Kubernetes' rules. A
// file may leave the namespace to whoever applies it.
func checkMeta(kind v1alpha1.Kind, obj, old v1alpha1.Object, file bool) []Cause {
	meta := v1alpha1.ObjectMeta{
		Name: obj.GetName(), Namespace: obj.GetNamespace(),
		Labels: obj.GetLabels(), Annotations: obj.GetAnnotations(),
		Finalizers: obj.GetFinalizers(), OwnerReferences: obj.GetOwnerReferences(),
	}
	if file && kind.Namespaced && meta.Namespace == "" {
		meta.Namespace = "default"
	}
	at := field.NewPath("metadata")
	errs := apivalidation.ValidateObjectMeta(&meta, kind.Namespaced, apivalidation.NameIsDNSSubdomain, at)
	causes := make([]Cause, 0, len(errs))
	for _, e := range errs {
		causes = append(causes, metaCause(kind, e))
	}
	if old == nil {
		return causes
	}
	for _, f := range []struct{ name, was, is string }{
		{"name", old.GetName(), obj.GetName()},
		{"namespace", old.GetNamespace(), obj.GetNamespace()},
		{"uid", string(old.GetUID()), string(obj.GetUID())},
	} {
		if f.was != f.is {
			causes = append(causes, Cause{
				Field:      at.Child(f.name).String(),
				Message:    fmt.Sprintf("got %q, but it is %q and can't be changed", f.is, f.was),
				Suggestion: "create another object instead",
			})
		}
	}
	return causes
}

func metaCause(kind v1alpha1.Kind, e *field.Error) Cause {
	c := Cause{Field: fieldOf(e), Message: e.ErrorBody()}
	switch {
	case e.Type == field.ErrorTypeRequired:
		c.Message = "is required"
		if c.Field == "metadata.name" {
			c.Suggestion = "give the " + kind.Kind + " a name"
		}
	case e.Type == field.ErrorTypeForbidden && c.Field == "metadata.namespace":
		c.Message, c.Suggestion = "must be left out: "+kind.Plural+" belong to no namespace", "remove it"
	case e.Type == field.ErrorTypeInvalid:
		c.Message = fmt.Sprintf("got %s: %s", show(e.BadValue), e.Detail)
		name, _ := e.BadValue.(string)
		fixed := strings.Trim(strings.NewReplacer("_", "-", " ", "-").Replace(strings.ToLower(name)), "-.")
		if c.Field == "metadata.name" && fixed != name && len(apivalidation.NameIsDNSSubdomain(fixed, false)) == 0 {
			c.Suggestion = "write " + fixed
		}
	}
	return c
}
