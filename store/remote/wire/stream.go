package wire

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strconv"
	"strings"

	"github.com/quorate/quorate/store"
)

// ContentTypeStream is the type of an event stream (server-sent events).
const ContentTypeStream = "text/event-stream"

// maxLine bounds one line of an event stream, in bytes.
const maxLine = 1 << 20

// HeaderLastEventID is how a browser says behind which ID a stream is to go on.
const HeaderLastEventID = "Last-Event-ID"

// Message is one event of a stream, or a comment.
type Message struct {
	// Comment without its colon; a message has either this or the others.
	Comment string
	// ID of the place in the stream behind this message. A message may have no more
	// than that.
	ID string
	// Event is its name.
	Event string
	// Data is JSON.
	Data []byte
}

// WriteMessage writes an event whose data is v as JSON.
func WriteMessage(w io.Writer, event string, v any) error { return WriteMessageID(w, "", event, v) }

// WriteMessageID is WriteMessage with the ID of the place behind the message, unless
// it is empty.
func WriteMessageID(w io.Writer, id, event string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode the event %s: %w", event, err)
	}
	if id != "" {
		id = "id: " + id + "\n"
	}
	_, err = fmt.Fprintf(w, "%sevent: %s\ndata: %s\n\n", id, event, data)
	return err
}

// WriteID writes the ID of a place without a message.
func WriteID(w io.Writer, id string) error {
	_, err := fmt.Fprintf(w, "id: %s\n\n", id)
	return err
}

// WriteComment writes a comment, which clients that don't know it ignore.
func WriteComment(w io.Writer, text string) error {
	_, err := fmt.Fprintf(w, ": %s\n\n", text)
	return err
}

// Messages reads a stream to its end. The last element may be an error; a stream
// that ends between two messages ends without one.
func Messages(r io.Reader) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		var m Message
		lines := bufio.NewScanner(r)
		lines.Buffer(make([]byte, 0, 4096), maxLine)
		for lines.Scan() {
			line := lines.Bytes()
			name, value, _ := bytes.Cut(line, []byte(":"))
			value = bytes.TrimPrefix(value, []byte(" "))
			switch {
			case len(line) == 0:
				if (m.Event != "" || m.ID != "") && !yield(m, nil) {
					return
				}
				m = Message{}
			case len(name) == 0:
				if !yield(Message{Comment: string(value)}, nil) {
					return
				}
			case string(name) == "id":
				m.ID = string(value)
			case string(name) == "event":
				m.Event = string(value)
			case string(name) == "data":
				m.Data = append(m.Data, value...)
			}
		}
		if err := lines.Err(); err != nil {
			yield(Message{}, err)
		}
	}
}

// SetPosition writes a position into a response's header.
func SetPosition(h http.Header, p store.Position) {
	h.Set(HeaderEpoch, strconv.FormatInt(p.Epoch, 10)+"/"+p.EpochID)
	h.Set(HeaderRevision, strconv.FormatInt(p.Revision, 10))
}

// GetPosition reads a position from a response's header.
func GetPosition(h http.Header) (store.Position, error) {
	return parsePosition(h.Get(HeaderEpoch), h.Get(HeaderRevision))
}

// PositionComment is a position as it stands in a stream's heartbeats.
func PositionComment(p store.Position) string {
	return fmt.Sprintf("position %d/%s %d", p.Epoch, p.EpochID, p.Revision)
}

// ParsePositionComment reads what PositionComment made; false for other comments.
func ParsePositionComment(comment string) (store.Position, bool) {
	text, ok := strings.CutPrefix(comment, "position ")
	if !ok {
		return store.Position{}, false
	}
	epoch, revision, _ := strings.Cut(text, " ")
	p, err := parsePosition(epoch, revision)
	return p, err == nil
}

func parsePosition(epoch, revision string) (store.Position, error) {
	number, id, _ := strings.Cut(epoch, "/")
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || id == "" {
		return store.Position{}, fmt.Errorf("%s is %q, not <number>/<id>", HeaderEpoch, epoch)
	}
	r, err := strconv.ParseInt(revision, 10, 64)
	if err != nil {
		return store.Position{}, fmt.Errorf("%s is %q, not a number", HeaderRevision, revision)
	}
	return store.Position{Epoch: n, EpochID: id, Revision: r}, nil
}
