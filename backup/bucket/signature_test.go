package bucket_test

import (
	"bytes"
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/backup/bucket"
	"github.com/quorate/quorate/backup/bucket/buckettest"
)

const (
	fakeKey    = "AKFAKE"
	fakeSecret = "a-fake-secret-that-nobody-may-print"
)

func mac(h func() hash.Hash, key, text string) []byte {
	m := hmac.New(h, []byte(key))
	m.Write([]byte(text))
	return m.Sum(nil)
}

func sha1Hex(text string) string {
	sum := sha1.Sum([]byte(text))
	return hex.EncodeToString(sum[:])
}

func (f *fake) open(t *testing.T, c bucket.Config, values map[string]string) bucket.Bucket {
	t.Helper()
	return open(t, c, bucket.Options{
		Credentials: bucket.Explicit(values), SpoolDir: t.TempDir(),
		Transport: func(http.RoundTripper) http.RoundTripper { return f },
	})
}

func newFake(tb testing.TB, serve func(*fake, *http.Request, string, []byte) *http.Response, sign func(*http.Request) error) *fake {
	tb.Helper()
	return &fake{tb: tb, serve: serve, sign: sign, objects: map[string]object{}, staged: map[string][]byte{}}
}

// signedCOS is Tencent's «Request signature», q-sign-algorithm=sha1.
func signedCOS(req *http.Request) error {
	fields := map[string]string{}
	for pair := range strings.SplitSeq(req.Header.Get("Authorization"), "&") {
		key, value, _ := strings.Cut(pair, "=")
		fields[key] = value
	}
	if fields["q-sign-algorithm"] != "sha1" || fields["q-ak"] != fakeKey {
		return fmt.Errorf("the header says %v", fields)
	}
	escape := func(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }
	list := func(names string, get func(string) string) string {
		var pairs []string
		for name := range strings.SplitSeq(names, ";") {
			if name != "" {
				pairs = append(pairs, name+"="+escape(get(name)))
			}
		}
		return strings.Join(pairs, "&")
	}
	params := list(fields["q-url-param-list"], req.URL.Query().Get)
	headers := list(fields["q-header-list"], func(name string) string {
		if name == "host" {
			return req.URL.Host
		}
		if name == "content-length" {
			return strconv.FormatInt(req.ContentLength, 10)
		}
		return req.Header.Get(name)
	})
	request := fmt.Sprintf("%s\n%s\n%s\n%s\n", strings.ToLower(req.Method), req.URL.Path, params, headers)
	signKey := hex.EncodeToString(mac(sha1.New, fakeSecret, fields["q-key-time"]))
	text := fmt.Sprintf("sha1\n%s\n%s\n", fields["q-sign-time"], sha1Hex(request))
	if want := hex.EncodeToString(mac(sha1.New, signKey, text)); want != fields["q-signature"] {
		return fmt.Errorf("the signature of %q is %s, not %s", request, want, fields["q-signature"])
	}
	if !strings.Contains(fields["q-header-list"], "host") {
		return errors.New("the host is not signed")
	}
	return nil
}

// signedOSS is Alibaba's signature in the header, version 1.
func signedOSS(name string) func(*http.Request) error {
	return func(req *http.Request) error {
		var lines []string
		for key := range req.Header {
			if lower := strings.ToLower(key); strings.HasPrefix(lower, "x-oss-") {
				lines = append(lines, lower+":"+req.Header.Get(key)+"\n")
			}
		}
		slices.Sort(lines)
		resource := "/" + name + req.URL.Path
		if req.URL.Query().Has("objectMeta") {
			resource += "?objectMeta"
		}
		text := strings.Join([]string{req.Method, req.Header.Get("Content-MD5"), req.Header.Get("Content-Type"), req.Header.Get("Date")}, "\n") +
			"\n" + strings.Join(lines, "") + resource
		want := "OSS " + fakeKey + ":" + base64.StdEncoding.EncodeToString(mac(sha1.New, fakeSecret, text))
		if got := req.Header.Get("Authorization"); got != want {
			return fmt.Errorf("the signature of %q is %s, not %s", text, want, got)
		}
		if _, err := http.ParseTime(req.Header.Get("Date")); err != nil {
			return err
		}
		return nil
	}
}

// signedAzure is Microsoft's «Authorize with Shared Key», for blobs.
func signedAzure(account string, key []byte) func(*http.Request) error {
	return func(req *http.Request) error {
		length := ""
		if req.ContentLength > 0 {
			length = strconv.FormatInt(req.ContentLength, 10)
		}
		h := req.Header
		lines := []string{
			req.Method, h.Get("Content-Encoding"), h.Get("Content-Language"), length, h.Get("Content-MD5"), h.Get("Content-Type"), h.Get("Date"),
			h.Get("If-Modified-Since"), h.Get("If-Match"), h.Get("If-None-Match"), h.Get("If-Unmodified-Since"), h.Get("Range"),
		}
		var own []string
		for name := range h { // not all in canonical form
			if lower := strings.ToLower(name); strings.HasPrefix(lower, "x-ms-") {
				own = append(own, lower+":"+h[name][0])
			}
		}
		slices.Sort(own)
		lines = append(lines, own...)
		resource := []string{"/" + account + req.URL.EscapedPath()}
		query := req.URL.Query()
		for _, name := range slices.Sorted(maps.Keys(query)) {
			resource = append(resource, strings.ToLower(name)+":"+query.Get(name))
		}
		text := strings.Join(lines, "\n") + "\n" + strings.Join(resource, "\n")
		want := "SharedKey " + account + ":" + base64.StdEncoding.EncodeToString(mac(sha256.New, string(key), text))
		if got := h.Get("Authorization"); got != want {
			return fmt.Errorf("the signature of %q is %s, not %s", text, want, got)
		}
		return nil
	}
}

func TestCOS(t *testing.T) {
	values := map[string]string{"TENCENTCLOUD_SECRET_ID": fakeKey, "TENCENTCLOUD_SECRET_KEY": fakeSecret}
	c := bucket.Config{Provider: bucket.COS, Bucket: "backups-1250000000", Region: "ap-guangzhou", Prefix: "p"}
	buckettest.Run(t, func(t *testing.T) bucket.Bucket {
		t.Helper()
		f := newFake(t, serveXML, func(req *http.Request) error {
			if req.URL.Host != "backups-1250000000.cos.ap-guangzhou.myqcloud.com" || req.URL.Scheme != "https" {
				return fmt.Errorf("it went to %s", req.URL)
			}
			return signedCOS(req)
		})
		return f.open(t, c, values)
	})
	testCloudFaults(t, c, values, serveXML)
}

func TestOSS(t *testing.T) {
	values := map[string]string{"ALIBABA_CLOUD_ACCESS_KEY_ID": fakeKey, "ALIBABA_CLOUD_ACCESS_KEY_SECRET": fakeSecret}
	c := bucket.Config{Provider: bucket.OSS, Bucket: "backups", Region: "cn-hangzhou", Prefix: "p"}
	signed := signedOSS("backups")
	buckettest.Run(t, func(t *testing.T) bucket.Bucket {
		t.Helper()
		f := newFake(t, serveXML, func(req *http.Request) error {
			if req.URL.Host != "backups.oss-cn-hangzhou.aliyuncs.com" || req.URL.Scheme != "https" {
				return fmt.Errorf("it went to %s", req.URL)
			}
			return signed(req)
		})
		return f.open(t, c, values)
	})
	testCloudFaults(t, c, values, serveXML)
}

func TestAzure(t *testing.T) {
	key := base64.StdEncoding.EncodeToString([]byte(fakeSecret))
	values := map[string]string{"AZURE_STORAGE_KEY": key}
	c := bucket.Config{Provider: bucket.Azure, Bucket: "backups", Account: "acc", Prefix: "p"}
	signed := signedAzure("acc", []byte(fakeSecret))
	buckettest.Run(t, func(t *testing.T) bucket.Bucket {
		t.Helper()
		f := newFake(t, serveAzure, func(req *http.Request) error {
			if req.URL.Host != "acc.blob.core.windows.net" || req.URL.Scheme != "https" {
				return fmt.Errorf("it went to %s", req.URL)
			}
			return signed(req)
		})
		f.dir = "/backups"
		return f.open(t, c, values)
	})
	testCloudFaults(t, c, values, serveAzure)
}

// testCloudFaults has a store answer what it should not.
func testCloudFaults(t *testing.T, c bucket.Config, values map[string]string, serve func(*fake, *http.Request, string, []byte) *http.Response) {
	t.Helper()
	root, noBucket := "", "NoSuchBucket"
	if c.Provider == bucket.Azure {
		root, noBucket = "/"+c.Bucket, "ContainerNotFound"
	}
	say := func(status int, code string, at time.Time) *http.Response {
		return answer(status, "<Error><Code>"+code+"</Code><Message>so it is</Message></Error>",
			"X-Ms-Error-Code", code, "Content-Type", "application/xml", "Date", at.UTC().Format(http.TimeFormat))
	}
	for name, tc := range map[string]struct {
		status int
		code   string
		at     time.Time
		kind   error
	}{
		"denied":    {403, "AccessDenied", time.Now(), bucket.ErrDenied},
		"no bucket": {404, noBucket, time.Now(), bucket.ErrNoBucket},
		"skew":      {403, "RequestTimeTooSkewed", time.Now().Add(-time.Hour), bucket.ErrClockSkew},
		"full":      {507, "InsufficientStorage", time.Now(), bucket.ErrNoSpace},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t, serve, func(*http.Request) error { return nil })
			f.dir = root
			f.disturb = func(*http.Request) *http.Response { return say(tc.status, tc.code, tc.at) }
			b := f.open(t, c, values)
			_, err := b.Put(t.Context(), "x", bytes.NewReader([]byte("x")), bucket.PutOptions{})
			want(t, err, tc.kind)
			if strings.Contains(err.Error(), fakeSecret) || strings.Contains(err.Error(), "\n") || len(f.objects) > 0 {
				t.Errorf("%v, and there are %d objects", err, len(f.objects))
			}
		})
	}
	t.Run("busy at first", func(t *testing.T) {
		f := newFake(t, serve, func(*http.Request) error { return nil })
		f.dir = root
		f.disturb = func(*http.Request) *http.Response {
			if f.requests > 2 {
				return nil
			}
			return say(503, "ServerBusy", time.Now())
		}
		b := f.open(t, c, values)
		for _, body := range []io.Reader{strings.NewReader("seekable"), pipe([]byte("pipe"))} {
			f.requests = 0
			if _, err := b.Put(t.Context(), "x", body, bucket.PutOptions{}); err != nil {
				t.Errorf("put: %v", err)
			}
		}
		if got := string(buckettest.Read(t, b, "x")); got != "pipe" {
			t.Errorf("it holds %q", got)
		}
	})
}

// TestGCS: a service account's key becomes a signed assertion, for which Google gives the
// token that every request bears.
func TestGCS(t *testing.T) {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if wrong := signedAssertion(r.FormValue("assertion"), &private.PublicKey); wrong != nil || !strings.HasSuffix(r.FormValue("grant_type"), "jwt-bearer") {
			t.Errorf("the assertion: %v", wrong)
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"access_token":"tok","token_type":"Bearer","expires_in":3600}`)
	}))
	defer tokens.Close()
	account, err := json.Marshal(map[string]string{
		"type": "service_account", "client_email": "backup@project.iam.gserviceaccount.com", "private_key_id": "id", "token_uri": tokens.URL,
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
	})
	if err != nil {
		t.Fatal(err)
	}
	paths := map[string]int{}
	f := newFake(t, func(f *fake, req *http.Request, _ string, body []byte) *http.Response {
		paths[req.Method+" "+req.URL.Host+req.URL.Path]++
		if req.Method == http.MethodPost && !bytes.Contains(body, []byte("\r\n\r\nhello\r\n")) {
			f.tb.Errorf("the upload's body is %q", body)
		}
		if req.Method == http.MethodDelete {
			return answer(http.StatusNoContent, "")
		}
		about := `{"name":"p/x","bucket":"backups","size":"5","updated":"2026-01-02T03:04:05Z","generation":"1"}`
		if strings.HasSuffix(req.URL.Path, "/o") && req.Method == http.MethodGet {
			about = `{"items":[` + about + `]}`
		}
		return answer(http.StatusOK, about, "Content-Type", "application/json")
	}, func(req *http.Request) error {
		if got := req.Header.Get("Authorization"); got != "Bearer tok" {
			return fmt.Errorf("it bears %q", got)
		}
		return nil
	})
	b := f.open(t, bucket.Config{Provider: bucket.GCS, Bucket: "backups", Prefix: "p"}, map[string]string{"GOOGLE_APPLICATION_CREDENTIALS_JSON": string(account)})
	if info, putErr := b.Put(t.Context(), "x", strings.NewReader("hello"), bucket.PutOptions{}); putErr != nil || info.Size != 5 {
		t.Errorf("put: %+v, %v", info, putErr)
	}
	if got := buckettest.Names(t, b, ""); !slices.Equal(got, []string{"x"}) {
		t.Errorf("listed: %q", got)
	}
	if err = b.Delete(t.Context(), "x"); err != nil {
		t.Error(err)
	}
	// More was stored than was sent.
	_, err = b.Put(t.Context(), "x", strings.NewReader("hell"), bucket.PutOptions{Size: 5})
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("put of a body that is too short: %v", err)
	}
	for _, path := range []string{"POST storage.googleapis.com/upload/storage/v1/b/backups/o", "GET storage.googleapis.com/storage/v1/b/backups/o/p/x"} {
		if paths[path] == 0 {
			t.Errorf("%s was not asked, but %v", path, paths)
		}
	}
}

func signedAssertion(assertion string, public *rsa.PublicKey) error {
	parts := strings.Split(assertion, ".")
	if len(parts) != 3 {
		return errors.New("it has no three parts")
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	return rsa.VerifyPKCS1v15(public, crypto.SHA256, sum[:], signature)
}
