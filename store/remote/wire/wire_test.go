package wire

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/quorate/quorate/store"
)

func TestMessages(t *testing.T) {
	var b bytes.Buffer
	for _, err := range []error{
		WriteComment(&b, "hello"),
		WriteMessage(&b, EventDirty, Key{Namespace: "a", Name: "b"}),
		WriteMessage(&b, EventDirty, Key{Name: "line\nbreak"}),
	} {
		if err != nil {
			t.Fatalf("write: %v", err)
		}
	}
	whole := b.String()
	// The last message of a stream that breaks off before its empty line isn't told.
	for text, want := range map[string]int{whole: 3, strings.TrimSuffix(whole, "\n"): 2, "": 0, "\n\n": 0, "nonsense\n\n": 0} {
		var got []Message
		for m, err := range Messages(strings.NewReader(text)) {
			if err != nil {
				t.Fatalf("read: %v", err)
			}
			got = append(got, m)
		}
		if len(got) != want {
			t.Errorf("%q: %d messages, want %d", text, len(got), want)
		}
		if want == 3 && (got[0].Comment != "hello" || string(got[1].Data) != `{"namespace":"a","name":"b"}` || got[2].Event != EventDirty) {
			t.Errorf("read %q", got)
		}
	}
	for _, err := range Messages(strings.NewReader("data: " + strings.Repeat("x", maxLine+1))) {
		if err == nil {
			t.Fatal("a line without end was read")
		}
	}
}

func FuzzMessages(f *testing.F) {
	f.Add("event: dirty\ndata: {}\n\n: position 1/a 2\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		for m, err := range Messages(strings.NewReader(text)) {
			if _, ok := ParsePositionComment(m.Comment); ok && err != nil {
				t.Fatalf("a message with an error: %v", err)
			}
		}
	})
}

func TestPosition(t *testing.T) {
	want := store.Position{Epoch: 3, EpochID: "a/b", Revision: 7}
	h := http.Header{}
	SetPosition(h, want)
	if got, err := GetPosition(h); err != nil || got != want {
		t.Fatalf("header: %+v, %v", got, err)
	}
	if got, ok := ParsePositionComment(PositionComment(want)); !ok || got != want {
		t.Fatalf("comment: %+v, %t", got, ok)
	}
	for _, bad := range [][2]string{{"", "1"}, {"1", "1"}, {"1/", "1"}, {"x/a", "1"}, {"1/a", ""}, {"1/a", "x"}} {
		h.Set(HeaderEpoch, bad[0])
		h.Set(HeaderRevision, bad[1])
		if p, err := GetPosition(h); err == nil {
			t.Errorf("%q was read as %+v", bad, p)
		}
	}
}

// TestErrorsTravel: errors.Is sees the same on both sides.
func TestErrorsTravel(t *testing.T) {
	for _, want := range []error{
		store.ErrNotFound, store.ErrExists, store.ErrConflict, store.ErrInvalid, store.ErrForbidden, store.ErrUnavailable, store.ErrStale,
	} {
		sent := fmt.Errorf("get it: %w", want)
		code, reason, ok := CodeOf(sent)
		got := Failure(code, reason, sent.Error())
		if !ok || !errors.Is(got, want) || got.Error() != sent.Error() {
			t.Errorf("%v came as %v", sent, got)
		}
	}
	if _, _, ok := CodeOf(errors.New("other")); ok || Failure(500, ReasonInternal, "x").Unwrap() != nil {
		t.Error("another error was taken for one of the store's")
	}
}
