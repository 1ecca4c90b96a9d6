package schema

import (
	"encoding/json"
	"fmt"
	"maps"

	"k8s.io/apimachinery/pkg/runtime"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/jsonmergepatch"

	"github.com/quorate/quorate/api/v1alpha1"
)

// ThreeWay merges a file into the live object as `kubectl apply` does: what the
// file says is set; what it said when last applied and says no longer is dropped
// (a block that it drops goes whole); what others have set stays. Live is nil when there is no object yet. It returns
// the object to write, and whether it differs from live; neither live nor doc is
// changed.
//
// What was applied is kept in AnnotationLastApplied, except for Secrets, where it
// would repeat the data in the clear: the file replaces the data of a Secret whole,
// and adds to its labels and annotations.
//
// A uid or resourceVersion in the file stays in the result, so that writing it
// conflicts when the object is no longer the one that was read.
func ThreeWay(live v1alpha1.Object, doc Document) (v1alpha1.Object, bool, error) {
	kind := v1alpha1.KindOf(doc.Object)
	if kind.Kind == "" || doc.Raw == nil {
		return nil, false, fmt.Errorf("%w: apply needs a document that Decode returned", ErrInvalid)
	}
	if live == nil {
		return created(doc)
	}
	if v1alpha1.KindOf(live).Kind != kind.Kind || live.GetName() != doc.Object.GetName() {
		return nil, false, fmt.Errorf("%w: %s can't be applied to %s", ErrInvalid, describe(doc.Object), describe(live))
	}
	k, before, err := defaultedMap(live)
	if err != nil {
		return nil, false, err
	}
	var after map[string]any
	if kind.Kind == v1alpha1.KindSecret.Kind {
		after = mergeSecret(before, doc.Raw)
	} else if after, err = mergeFile(live, before, doc.Raw); err != nil {
		return nil, false, fmt.Errorf("merge %s into what is there: %w", describe(live), err)
	}
	keepServed(after, before, doc.Raw)
	if doc.Generation > 0 && doc.Generation == live.GetGeneration() {
		// Only status has been written since the file was made: no one's wish is lost.
		block(after, "metadata")["resourceVersion"] = live.GetResourceVersion()
	}
	if err = k.applyDefaults(after); err != nil {
		return nil, false, err
	}
	merged, err := fromMap(kind, after)
	if err != nil {
		return nil, false, err
	}
	was, err := fromMap(kind, before)
	if err != nil {
		return nil, false, err
	}
	is, err := fromMap(kind, after)
	if err != nil {
		return nil, false, err
	}
	is.SetUID(was.GetUID())
	is.SetResourceVersion(was.GetResourceVersion())
	if v1alpha1.Equal(is, was) {
		return is, false, nil
	}
	noteFile(live, merged, before, after, doc)
	return merged, true, nil
}

// noteFile lets an exported file be edited and applied more than once. What it was
// exported from has changed by its first application; that this was the last change
// of the spec is known by the generation which that application made.
func noteFile(live, merged v1alpha1.Object, before, after map[string]any, doc Document) {
	meta, _ := doc.Raw["metadata"].(map[string]any)
	version, _ := meta["resourceVersion"].(string)
	if _, secret := merged.(*v1alpha1.Secret); secret || version == "" {
		return
	}
	if live.GetAnnotations()[v1alpha1.AnnotationAppliedFrom] == appliedFrom(version, live.GetGeneration()) {
		merged.SetResourceVersion(live.GetResourceVersion())
	}
	makes := live.GetGeneration()
	if !v1alpha1.Equal(before["spec"], after["spec"]) {
		makes++
	}
	annotations := maps.Clone(merged.GetAnnotations())
	if annotations == nil {
		annotations = make(map[string]string, 1)
	}
	annotations[v1alpha1.AnnotationAppliedFrom] = appliedFrom(version, makes)
	merged.SetAnnotations(annotations)
}

func appliedFrom(resourceVersion string, generation int64) string {
	return fmt.Sprintf("%s made %d", resourceVersion, generation)
}

func created(doc Document) (v1alpha1.Object, bool, error) {
	obj, ok := doc.Object.DeepCopyObject().(v1alpha1.Object)
	if !ok {
		return nil, false, fmt.Errorf("%w: %T", ErrUnknownKind, doc.Object)
	}
	obj.SetUID("")
	obj.SetResourceVersion("")
	if _, secret := obj.(*v1alpha1.Secret); secret {
		return obj, true, nil
	}
	applied, err := lastApplied(doc.Raw)
	if err != nil {
		return nil, false, err
	}
	annotations := maps.Clone(obj.GetAnnotations())
	if annotations == nil {
		annotations = make(map[string]string, 1)
	}
	annotations[v1alpha1.AnnotationLastApplied] = applied
	obj.SetAnnotations(annotations)
	return obj, true, nil
}

// lastApplied is the text of the annotation: the file without its preconditions.
func lastApplied(raw map[string]any) (string, error) {
	file := runtime.DeepCopyJSON(raw)
	if meta, ok := file["metadata"].(map[string]any); ok {
		delete(meta, "uid")
		delete(meta, "resourceVersion")
	}
	text, err := json.Marshal(file)
	if err != nil {
		return "", fmt.Errorf("keep what was applied: %w", err)
	}
	return string(text), nil
}

func mergeFile(live v1alpha1.Object, before, raw map[string]any) (map[string]any, error) {
	applied, err := lastApplied(raw)
	if err != nil {
		return nil, err
	}
	file := runtime.DeepCopyJSON(raw)
	block(block(file, "metadata"), "annotations")[v1alpha1.AnnotationLastApplied] = applied

	modified, err := json.Marshal(file)
	if err != nil {
		return nil, err
	}
	current, err := json.Marshal(before)
	if err != nil {
		return nil, err
	}
	original := live.GetAnnotations()[v1alpha1.AnnotationLastApplied]
	if original != "" && !json.Valid([]byte(original)) {
		return nil, fmt.Errorf("its annotation %s is not JSON: remove the annotation and apply again", v1alpha1.AnnotationLastApplied)
	}
	patch, err := jsonmergepatch.CreateThreeWayJSONMergePatch([]byte(original), modified, current)
	if err != nil {
		return nil, err
	}
	var change map[string]any
	if err := utiljson.Unmarshal(patch, &change); err != nil {
		return nil, err
	}
	after := runtime.DeepCopyJSON(before)
	mergePatch(after, change)
	return after, nil
}

// mergePatch is RFC 7386 on values whose integers stay integers.
func mergePatch(target, patch map[string]any) {
	for name, value := range patch {
		change, ok := value.(map[string]any)
		switch {
		case value == nil:
			delete(target, name)
		case !ok:
			target[name] = value
		default:
			inner, ok := target[name].(map[string]any)
			if !ok {
				inner = make(map[string]any, len(change))
				target[name] = inner
			}
			mergePatch(inner, change)
		}
	}
}

// mergeSecret replaces what a Secret holds and adds labels and annotations.
func mergeSecret(before, raw map[string]any) map[string]any {
	after, file := runtime.DeepCopyJSON(before), runtime.DeepCopyJSON(raw)
	delete(after, "data")
	for _, name := range []string{"data", "type", "immutable"} {
		if file[name] != nil {
			after[name] = file[name]
		}
	}
	meta := block(file, "metadata")
	for _, name := range []string{"labels", "annotations"} {
		if given, ok := meta[name].(map[string]any); ok {
			mergePatch(block(block(after, "metadata"), name), given)
		}
	}
	return after
}

// keepServed puts back what a file has no say in, whatever an older annotation
// claimed was applied.
func keepServed(after, before, raw map[string]any) {
	to, from := block(after, "metadata"), block(before, "metadata")
	keep := append([]string{"name", "namespace"}, served...)
	file, _ := raw["metadata"].(map[string]any)
	for _, name := range []string{"uid", "resourceVersion"} {
		to[name] = file[name]
		if file[name] == nil {
			keep = append(keep, name)
		}
	}
	for _, name := range keep {
		delete(to, name)
		if from[name] != nil {
			to[name] = from[name]
		}
	}
	delete(after, "status")
	if before["status"] != nil {
		after["status"] = before["status"]
	}
}

// block returns the map under a name, made if it is not there.
func block(m map[string]any, name string) map[string]any {
	inner, ok := m[name].(map[string]any)
	if !ok {
		inner = make(map[string]any)
		m[name] = inner
	}
	return inner
}
