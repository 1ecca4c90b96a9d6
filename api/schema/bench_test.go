package schema

import (
	"testing"

	"github.com/quorate/quorate/api/v1alpha1"
)

// BenchmarkLoadShape is what the first decoding or explaining of a kind costs.
func BenchmarkLoadShape(b *testing.B) {
	for b.Loop() {
		if _, err := loadShape(v1alpha1.KindCluster); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCompile is what the first validation of a kind costs beyond that.
func BenchmarkCompile(b *testing.B) {
	k, err := schemaOf(v1alpha1.KindCluster)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := compile(k); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkValidate is an update of a cluster after the first.
func BenchmarkValidate(b *testing.B) {
	c := newCluster(b, "")
	for b.Loop() {
		if err := Validate(b.Context(), c, c); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	text := []byte(clusterHead + "spec:\n  version: 3.7.3\n")
	for b.Loop() {
		if _, err := Decode(b.Context(), text); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkColumns(b *testing.B) {
	c := newCluster(b, "")
	columns, err := Columns(v1alpha1.KindCluster)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := EvalColumns(c, columns); err != nil {
			b.Fatal(err)
		}
	}
}
