package remote

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"syscall"

	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote/wire"
)

// maxStatus bounds how much of a failure is read, in bytes.
const maxStatus = 1 << 20

// request is one exchange with the server.
type request struct {
	method string
	path   string
	query  url.Values
	// body, or nil. Length is its size in bytes, or 0 when it is not known.
	body    io.Reader
	length  int64
	trailer http.Header
}

// do sends a request and returns the response once the position of the store it
// comes from was found good. Failures of the server come as errors.
func (c *Client) do(ctx context.Context, req request) (*http.Response, error) {
	u := *c.base
	joined := u.JoinPath(req.path)
	joined.RawQuery = req.query.Encode()
	r, err := http.NewRequestWithContext(ctx, req.method, joined.String(), req.body)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", req.method, req.path, err)
	}
	if req.length > 0 {
		r.ContentLength = req.length
	}
	r.Trailer = req.trailer
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	if c.instance != "" {
		r.Header.Set(wire.HeaderInstance, c.instance)
	}
	if req.body != nil && req.trailer == nil {
		r.Header.Set("Content-Type", "application/json")
	}
	// Held against what was seen before sending: of two requests under way, the
	// answer with the lower revision may come last.
	before := c.seen.Seen()
	resp, err := c.http.Do(r)
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	if err := c.accept(ctx, resp, before); err != nil {
		// Not drained: it may be a stream. What a failure says has been read.
		return nil, errors.Join(err, resp.Body.Close())
	}
	return resp, nil
}

// accept decides whether a response may be used.
func (c *Client) accept(ctx context.Context, resp *http.Response, before store.Position) error {
	pos, err := wire.GetPosition(resp.Header)
	if err != nil {
		return fmt.Errorf("%w: what answers at %s is not a Quorate server (%s, %w): check the URL and what stands in between",
			store.ErrUnavailable, c.Server(), resp.Status, err)
	}
	// Who does not know the token may be any server: its position means nothing.
	if resp.StatusCode != http.StatusUnauthorized {
		if err := c.observe(ctx, pos, before); err != nil {
			return err
		}
	}
	if resp.StatusCode < 300 {
		return nil
	}
	return failure(resp)
}

// observe holds a position against what was seen before the request, and remembers
// it.
func (c *Client) observe(ctx context.Context, pos, before store.Position) error {
	err := pos.Check(before)
	if err == nil {
		err = c.seen.Observe(pos)
	}
	switch {
	case errors.Is(err, store.ErrStale):
		return fmt.Errorf("server %s: %w", c.Server(), err)
	case err != nil:
		c.log.WarnContext(ctx, "position of the store not kept", slog.Any("error", err))
	}
	return nil
}

// failure is the Status of a failed response.
func failure(resp *http.Response) error {
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxStatus))
	st := &wire.Status{}
	if err != nil || json.Unmarshal(raw, st) != nil || st.Reason == "" {
		return fmt.Errorf("%w: the server answered %s", store.ErrUnavailable, resp.Status)
	}
	return st
}

// unreachable says which server could not be reached, and what to do.
func (c *Client) unreachable(ctx context.Context, err error) error {
	if urlErr, ok := errors.AsType[*url.Error](err); ok {
		err = urlErr.Err // the URL is said anyway
	}
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w: %s: %w: is `quorate up` or `quorate server` running?", store.ErrUnavailable, c.Server(), err)
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %s did not answer in time: %w", store.ErrUnavailable, c.Server(), ctx.Err())
	}
	return fmt.Errorf("%w: %s: %w", store.ErrUnavailable, c.Server(), err)
}

// drain lets the connection be used again, unless that would take long.
func drain(body io.ReadCloser) error {
	_, _ = io.CopyN(io.Discard, body, 64<<10) // best effort: otherwise the connection is closed
	return body.Close()
}

// call sends in as JSON, unless it is nil, and reads the answer into out, unless
// that is nil.
func (c *Client) call(ctx context.Context, method, path string, query url.Values, in, out any) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	req := request{method: method, path: path, query: query}
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("%s %s: %w", method, path, err)
		}
		req.body, req.length = bytes.NewReader(raw), int64(len(raw))
	}
	resp, err := c.do(ctx, req)
	if err != nil {
		return err
	}
	defer func() { _ = drain(resp.Body) }() // all that was wanted has been read
	if out == nil {
		return nil
	}
	return c.decode(resp, out)
}

// decode reads a response as JSON. It may have been meant to be longer, so that
// what was asked for may have happened.
func (c *Client) decode(resp *http.Response, out any) error {
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("%w: %s broke off its answer: %w", store.ErrUnavailable, c.Server(), err)
	}
	return nil
}

// open starts a download, whose end may tell of a failure.
func (c *Client) open(ctx context.Context, req request) (io.ReadCloser, error) {
	resp, err := c.do(ctx, req) //nolint:bodyclose // the caller closes the download
	if err != nil {
		return nil, err
	}
	return &download{resp: resp, from: c.Server()}, nil
}

// download is a body that came to a good end only if its trailer says nothing.
type download struct {
	resp *http.Response
	from string
}

// Read reads the body; its end is io.EOF only when nothing is missing.
func (d *download) Read(p []byte) (int, error) {
	n, err := d.resp.Body.Read(p)
	switch {
	case errors.Is(err, io.EOF):
		if text := d.resp.Trailer.Get(wire.TrailerError); text != "" {
			return n, fmt.Errorf("%w: %s broke off: %s", store.ErrUnavailable, d.from, text)
		}
	case err != nil:
		err = fmt.Errorf("%w: %s broke off: %w", store.ErrUnavailable, d.from, err)
	}
	return n, err
}

// Close ends the download.
func (d *download) Close() error { return d.resp.Body.Close() }
