package server

import (
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote/wire"
)

// response adds to each response what all carry, and cuts off clients that don't
// read. It deliberately hides io.ReaderFrom, which would write a whole file under
// one deadline.
type response struct {
	http.ResponseWriter

	control  *http.ResponseController
	position func() store.Position
	stall    time.Duration
	code     int
}

func (s *Server) newResponse(w http.ResponseWriter) *response {
	return &response{ResponseWriter: w, control: http.NewResponseController(w), position: s.opts.Position, stall: s.stall}
}

// Unwrap serves http.ResponseController.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader stamps the response with the store's position: after what was asked
// has been done, so that it covers it.
func (w *response) WriteHeader(code int) {
	if w.code == 0 {
		w.code = code
		wire.SetPosition(w.Header(), w.position())
		w.Header().Set("X-Content-Type-Options", "nosniff")
	}
	w.ResponseWriter.WriteHeader(code)
}

// Write gives the client a fresh while to take the next piece.
func (w *response) Write(p []byte) (int, error) {
	if w.code == 0 {
		w.WriteHeader(http.StatusOK)
	}
	// A writer without deadlines, as in tests, is not a slow client.
	_ = w.control.SetWriteDeadline(time.Now().Add(w.stall))
	return w.ResponseWriter.Write(p) //nolint:gosec // each answer names its type, which no browser may guess
}

// flush sends what was written.
func (w *response) flush() error {
	_ = w.control.SetWriteDeadline(time.Now().Add(w.stall))
	return w.control.Flush()
}

// endless lifts the read deadline, for a request whose client says no more or may
// say more at any time.
func (w *response) endless() { _ = w.control.SetReadDeadline(time.Time{}) }

// hangUp ends the connection with the response: what is left of the request's
// body is not waited for.
func (w *response) hangUp() {
	if w.code == 0 {
		w.Header().Set("Connection", "close")
	}
	w.stopReading()
}

// stopReading lets reads of the request fail from now on. Unlike the other
// methods it may be called at any time.
func (w *response) stopReading() { _ = w.control.SetReadDeadline(time.Unix(1, 0)) }

// json answers with v.
func (w *response) json(code int, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, err = w.Write(append(data, '\n'))
	return err
}

// fail answers with a Status. Once the body has begun, the reason goes into the
// trailer.
func (w *response) fail(st *wire.Status) {
	if w.code != 0 {
		// A short body that was not sent yet would go out with its length, and without
		// a trailer: as if it were whole.
		_ = w.flush()
		w.Header().Set(http.TrailerPrefix+wire.TrailerError, oneLine(st.Message))
		return
	}
	if st.Code == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="quorate"`)
	}
	// Whoever hung up does not read why.
	_ = w.json(st.Code, st)
}

// oneLine makes text fit for a header.
func oneLine(text string) string {
	return strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }), " ")
}
