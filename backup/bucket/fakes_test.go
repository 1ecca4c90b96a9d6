package bucket_test

import (
	"bytes"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// fake is a cloud's store as far as its library needs one, without a network. It refuses what
// is not signed as the provider's documents demand: the signatures are computed here by hand.
type fake struct {
	tb testing.TB
	// sign says what is wrong with a request's signature.
	sign func(*http.Request) error
	// serve answers a request.
	serve func(f *fake, req *http.Request, key string, body []byte) *http.Response
	// dir is a path before every key.
	dir string
	// disturb answers before anything else does, if it is not nil.
	disturb func(*http.Request) *http.Response

	mu       sync.Mutex
	objects  map[string]object
	staged   map[string][]byte
	requests int
}

type object struct {
	data    []byte
	at      time.Time
	headers []string
}

func newObject(data []byte) object {
	at, sum, check := time.Now(), md5.Sum(data), crc(data)
	return object{data, at, []string{
		"ETag", `"` + hex.EncodeToString(sum[:]) + `"`, "Last-Modified", at.UTC().Format(http.TimeFormat),
		"Content-Type", "application/octet-stream", "X-Oss-Hash-Crc64ecma", check, "X-Cos-Hash-Crc64ecma", check,
	}}
}

func (f *fake) RoundTrip(req *http.Request) (*http.Response, error) {
	var body []byte
	if req.Body != nil {
		var err error
		body, err = io.ReadAll(req.Body)
		if err = errors.Join(err, req.Body.Close(), req.Context().Err()); err != nil {
			return nil, err // as if the connection broke
		}
	}
	if req.Context().Err() != nil {
		return nil, req.Context().Err()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests++
	if req.ContentLength > 0 && int64(len(body)) != req.ContentLength {
		return nil, fmt.Errorf("%d of %d bytes came", len(body), req.ContentLength)
	}
	if f.disturb != nil {
		if res := f.disturb(req); res != nil {
			return complete(req, res), nil
		}
	}
	if err := f.sign(req); err != nil {
		f.tb.Errorf("%s %s is not signed as it should be: %v", req.Method, req.URL, err)
		return complete(req, answer(http.StatusForbidden, "<Error><Code>SignatureDoesNotMatch</Code></Error>")), nil
	}
	key := strings.TrimPrefix(strings.TrimPrefix(req.URL.Path, f.dir), "/")
	return complete(req, f.serve(f, req, key, body)), nil
}

func answer(status int, body string, header ...string) *http.Response {
	res := &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body))}
	for i := 0; i < len(header); i += 2 {
		res.Header.Set(header[i], header[i+1])
	}
	return res
}

func complete(req *http.Request, res *http.Response) *http.Response {
	res.Request, res.Proto, res.ProtoMajor, res.ProtoMinor = req, "HTTP/1.1", 1, 1
	res.Status = fmt.Sprintf("%d %s", res.StatusCode, http.StatusText(res.StatusCode))
	if res.Header.Get("Date") == "" {
		res.Header.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	}
	if res.Header.Get("Content-Length") == "" {
		res.Header.Set("Content-Length", strconv.FormatInt(res.ContentLength, 10))
	}
	if req.Method == http.MethodHead {
		res.Body = http.NoBody
	}
	return res
}

var ecma = crc64.MakeTable(crc64.ECMA)

// crc is the one of COS and OSS.
func crc(data []byte) string { return strconv.FormatUint(crc64.Checksum(data, ecma), 10) }

// read answers GET and HEAD.
func (o object) read(req *http.Request) *http.Response {
	data := o.data
	ranges := req.Header.Get("Range")
	for name, values := range req.Header {
		if strings.EqualFold(name, "X-Ms-Range") {
			ranges = values[0]
		}
	}
	if ranges == "" || req.Method == http.MethodHead {
		return answer(http.StatusOK, string(data), o.headers...)
	}
	from, to, _ := strings.Cut(strings.TrimPrefix(ranges, "bytes="), "-")
	first, _ := strconv.Atoi(from)
	last := len(data) - 1
	if n, err := strconv.Atoi(to); err == nil {
		last = n
	}
	if first > last || last >= len(data) {
		// OSS answers so to a range that is not all there.
		return answer(http.StatusOK, string(data), o.headers...)
	}
	part := fmt.Sprintf("bytes %d-%d/%d", first, last, len(data))
	return answer(http.StatusPartialContent, string(data[first:last+1]), "Content-Range", part, "Last-Modified", o.at.UTC().Format(http.TimeFormat))
}

func notFound(code string) *http.Response {
	return answer(http.StatusNotFound, "<Error><Code>"+code+"</Code><Message>It is not there.</Message></Error>", "X-Ms-Error-Code", code)
}

// serveXML is COS and OSS.
func serveXML(f *fake, req *http.Request, key string, body []byte) *http.Response {
	switch {
	case key == "" && req.Method == http.MethodGet:
		return f.listXML(req.URL.Query())
	case req.Method == http.MethodPut:
		f.objects[key] = newObject(body)
		return answer(http.StatusOK, "", f.objects[key].headers...)
	case req.Method == http.MethodDelete:
		delete(f.objects, key)
		return answer(http.StatusNoContent, "")
	}
	o, there := f.objects[key]
	if !there {
		return notFound("NoSuchKey")
	}
	return o.read(req)
}

type listXML struct {
	XMLName     xml.Name `xml:"ListBucketResult"`
	IsTruncated bool
	NextMarker  string
	Contents    []contentXML
}

type contentXML struct {
	Key          string
	Size         int
	LastModified string
	ETag         string
}

// page is small, so that lists have several.
const page = 100

func (f *fake) listXML(query url.Values) *http.Response {
	escape := func(s string) string { return s }
	if query.Get("encoding-type") == "url" {
		escape = url.QueryEscape
	}
	var list listXML
	for _, key := range slices.Sorted(maps.Keys(f.objects)) {
		if !strings.HasPrefix(key, query.Get("prefix")) || key <= query.Get("marker") {
			continue
		}
		if len(list.Contents) == page {
			list.IsTruncated = true
			list.NextMarker = list.Contents[page-1].Key
			break
		}
		o := f.objects[key]
		list.Contents = append(list.Contents, contentXML{escape(key), len(o.data), o.at.UTC().Format("2006-01-02T15:04:05.000Z"), `"x"`})
	}
	out, err := xml.Marshal(list)
	if err != nil {
		f.tb.Error(err)
	}
	return answer(http.StatusOK, string(out), "Content-Type", "application/xml")
}

// serveAzure is Azure.
func serveAzure(f *fake, req *http.Request, key string, body []byte) *http.Response {
	query := req.URL.Query()
	switch {
	case query.Get("comp") == "list":
		return f.listAzure(query)
	case query.Get("comp") == "block":
		f.staged[key+"\x00"+query.Get("blockid")] = bytes.Clone(body)
		return answer(http.StatusCreated, "")
	case query.Get("comp") == "blocklist":
		return f.commit(key, body)
	case req.Method == http.MethodPut:
		f.objects[key] = newObject(body)
		return answer(http.StatusCreated, "", f.objects[key].headers...)
	}
	o, there := f.objects[key]
	switch {
	case !there:
		return notFound("BlobNotFound")
	case req.Method == http.MethodDelete:
		delete(f.objects, key)
		return answer(http.StatusAccepted, "")
	}
	return o.read(req)
}

func (f *fake) commit(key string, body []byte) *http.Response {
	var blocks struct{ Latest []string }
	if err := xml.Unmarshal(body, &blocks); err != nil {
		f.tb.Error(err)
	}
	var data []byte
	for _, id := range blocks.Latest {
		block, there := f.staged[key+"\x00"+id]
		if _, err := base64.StdEncoding.DecodeString(id); err != nil || !there {
			return answer(http.StatusBadRequest, "<Error><Code>InvalidBlockList</Code></Error>", "X-Ms-Error-Code", "InvalidBlockList")
		}
		data = append(data, block...)
	}
	f.objects[key] = newObject(data)
	return answer(http.StatusCreated, "", f.objects[key].headers...)
}

type listAzure struct {
	XMLName    xml.Name   `xml:"EnumerationResults"`
	Blobs      []blobItem `xml:"Blobs>Blob"`
	NextMarker string
}

type blobItem struct {
	Name       string
	Properties struct {
		LastModified  string `xml:"Last-Modified"`
		ContentLength int    `xml:"Content-Length"`
	}
}

func (f *fake) listAzure(query url.Values) *http.Response {
	var list listAzure
	for _, key := range slices.Sorted(maps.Keys(f.objects)) {
		if !strings.HasPrefix(key, query.Get("prefix")) || key <= query.Get("marker") {
			continue
		}
		if len(list.Blobs) == page {
			list.NextMarker = list.Blobs[page-1].Name
			break
		}
		item := blobItem{Name: key}
		item.Properties.LastModified = f.objects[key].at.UTC().Format(http.TimeFormat)
		item.Properties.ContentLength = len(f.objects[key].data)
		list.Blobs = append(list.Blobs, item)
	}
	out, err := xml.Marshal(list)
	if err != nil {
		f.tb.Error(err)
	}
	return answer(http.StatusOK, string(out), "Content-Type", "application/xml")
}
