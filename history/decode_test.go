package history

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
)

// FuzzDecode: what the quick way reads, encoding/json reads as the same.
func FuzzDecode(f *testing.F) {
	for _, text := range []string{
		`{"op":{"client":1,"endpoint":"m1","call":2,"return":9223372036854775807,"kind":"txn","outcome":"unknown","error":"late","if":[{"key":"a","field":"value","op":"=","value":"b","number":-3}],"then":[{"kind":"put","key":"a","end":"b","value":"c","lease":4,"limit":5,"revision":6,"prevKV":true}],"else":[{"kind":"range","key":"a"}],"serializable":true,"revision":7,"succeeded":true,"results":[{"kvs":[{"key":"a","value":"b","version":1,"create":2,"mod":3,"lease":4}],"count":1,"more":true,"deleted":2},{}],"lease":8,"ttl":-1}}`,
		`{"response":{"id":1,"at":2,"revision":3,"created":true,"progress":true,"fragment":true,"canceled":true,"compactRevision":4,"error":"e","events":[{"deleted":true,"isCreate":true,"kv":{"key":"a"},"prev":{"key":"a","value":"\u00e9"}}]}}`,
		`{"op":{"client":01}}`, `{"op":{}} `, `{"op":{},"op":{"client":1}}`, `{"op":{"CLIENT":1}}`, `{"op":{"then":[]}}`, `{"op":{"then":null}}`, "{\"op\":{\"error\":\"\xff\"}}", `{"op":{"call":-}}`, `{"op":{"call":1.5}}`, `{"op":{"call":--1}}`, `{"op":{"call":-01}}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var quick, slow line
		if quick.plain(text, interner{}) != nil {
			return
		}
		require.NoError(t, json.Unmarshal(text, &slow))
		if again, err := json.Marshal(slow); err != nil || !bytes.Equal(again, text) {
			return // such as the same name twice: no Writer writes it so
		}
		if diff := cmp.Diff(slow, quick); diff != "" {
			t.Fatalf("-json +quick:\n%s", diff)
		}
	})
}
