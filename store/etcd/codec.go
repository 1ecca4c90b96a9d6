package etcd

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
)

// record is how a Secret stands in etcd: what may be secret is in Sealed, and the
// annotations are, since last-applied-configuration repeats the whole file.
type record struct {
	v1alpha1.Secret `json:",inline"`

	Sealed *sealed `json:"sealed"`
}

// secretParts are the parts of a Secret that are sealed.
type secretParts struct {
	Data        map[string][]byte `json:"data,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// additional binds sealed data to the object it belongs to.
func additional(key string, uid v1alpha1.UID) []byte {
	return []byte(key + "\x00" + string(uid))
}

// encode turns an object into the bytes that stand at key.
func (s *Store) encode(key string, obj v1alpha1.Object) ([]byte, error) {
	obj = copyOf(obj)
	kind := v1alpha1.KindOf(obj)
	v1alpha1.SetType(obj, kind.Kind, kind.APIVersion)
	obj.SetResourceVersion("")
	secret, ok := obj.(*v1alpha1.Secret)
	if !ok {
		raw, err := json.Marshal(obj)
		if err != nil {
			return nil, fmt.Errorf("%w: it can't be written as JSON: %w", store.ErrInvalid, err)
		}
		return raw, nil
	}
	plain, err := json.Marshal(secretParts{Data: secret.Data, Annotations: secret.Annotations})
	if err != nil {
		return nil, fmt.Errorf("encode the secret: %w", err)
	}
	box, err := s.keyring.seal(plain, additional(key, secret.UID))
	if err != nil {
		return nil, err
	}
	secret.Data, secret.StringData, secret.Annotations = nil, nil, nil
	raw, err := json.Marshal(record{Secret: *secret, Sealed: &box})
	if err != nil {
		return nil, fmt.Errorf("encode the sealed secret: %w", err)
	}
	return raw, nil
}

// decode fills obj, which is emptied first, from the bytes that stand at key.
func (s *Store) decode(key string, raw []byte, revision int64, obj v1alpha1.Object) error {
	reset(obj)
	if secret, ok := obj.(*v1alpha1.Secret); ok {
		if err := s.decodeSecret(key, raw, secret); err != nil {
			return err
		}
	} else if err := json.Unmarshal(raw, obj); err != nil {
		return fmt.Errorf("the record at %s can't be read: %w: restore the store with `quorate server restore`", key, err)
	}
	kind := v1alpha1.KindOf(obj)
	v1alpha1.SetType(obj, kind.Kind, kind.APIVersion)
	obj.SetResourceVersion(formatRevision(revision))
	return nil
}

func (s *Store) decodeSecret(key string, raw []byte, secret *v1alpha1.Secret) error {
	var r record
	// The cause is left out: it could quote what is secret.
	if err := json.Unmarshal(raw, &r); err != nil || r.Sealed == nil {
		return fmt.Errorf("the record at %s is not a sealed secret: restore the store with `quorate server restore`", key)
	}
	plain, err := s.keyring.open(*r.Sealed, additional(key, r.UID))
	if err != nil {
		return fmt.Errorf("open the secret at %s: %w", key, err)
	}
	var parts secretParts
	if err := json.Unmarshal(plain, &parts); err != nil {
		return fmt.Errorf("the secret at %s was sealed by another version of quorate", key)
	}
	*secret = r.Secret
	secret.Data, secret.StringData, secret.Annotations = parts.Data, nil, parts.Annotations
	return nil
}

// parts of an object as JSON, each canonical: fields in order, maps sorted.
type parts struct {
	// spec is all but metadata and status.
	spec     []byte
	status   []byte
	metadata []byte
}

func split(obj v1alpha1.Object) (parts, error) {
	raw, err := json.Marshal(obj)
	if err != nil {
		return parts{}, fmt.Errorf("%w: it can't be written as JSON: %w", store.ErrInvalid, err)
	}
	var fields map[string]json.RawMessage
	if err = json.Unmarshal(raw, &fields); err != nil {
		return parts{}, fmt.Errorf("%w: it is not a JSON object: %w", store.ErrInvalid, err)
	}
	p := parts{status: fields["status"], metadata: fields["metadata"]}
	for _, field := range []string{"apiVersion", "kind", "metadata", "status"} {
		delete(fields, field)
	}
	if p.spec, err = json.Marshal(fields); err != nil {
		return parts{}, fmt.Errorf("compare: %w", err)
	}
	return p, nil
}

func (p parts) equal(q parts) bool {
	return bytes.Equal(p.spec, q.spec) && bytes.Equal(p.status, q.status) && bytes.Equal(p.metadata, q.metadata)
}

// setStatus copies the status of from into to, which are of one type. Kinds
// without a status have none to copy.
func setStatus(to, from v1alpha1.Object) {
	dst := reflect.ValueOf(to).Elem().FieldByName("Status")
	if dst.IsValid() {
		dst.Set(reflect.ValueOf(copyOf(from)).Elem().FieldByName("Status"))
	}
}

// assign makes to what from is; they are of one type.
func assign(to, from v1alpha1.Object) {
	reflect.ValueOf(to).Elem().Set(reflect.ValueOf(from).Elem())
}

func reset(obj v1alpha1.Object) {
	reflect.ValueOf(obj).Elem().SetZero()
}

func copyOf(obj v1alpha1.Object) v1alpha1.Object {
	kind := v1alpha1.KindOf(obj)
	c := kind.New()
	// Every kind's deep copy is of its own type.
	reflect.ValueOf(c).Elem().Set(reflect.ValueOf(obj.DeepCopyObject()).Elem())
	return c
}

// foldStringData moves stringData into data, as Kubernetes does on writing.
func foldStringData(obj v1alpha1.Object) {
	secret, ok := obj.(*v1alpha1.Secret)
	if !ok || secret.StringData == nil {
		return
	}
	if secret.Data == nil && len(secret.StringData) > 0 {
		secret.Data = make(map[string][]byte, len(secret.StringData))
	}
	for k, v := range secret.StringData {
		secret.Data[k] = []byte(v)
	}
	secret.StringData = nil
}
