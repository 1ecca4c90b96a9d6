package bucket_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/quorate/quorate/backup/bucket"
)

func TestParse(t *testing.T) {
	for _, tc := range []struct {
		url  string
		want bucket.Config
	}{
		{"file:///var/backups", bucket.Config{Provider: bucket.File, Prefix: "/var/backups"}},
		{"file:///var/backups/", bucket.Config{Provider: bucket.File, Prefix: "/var/backups"}},
		{"file:///with%20space", bucket.Config{Provider: bucket.File, Prefix: "/with space"}},
		{"s3://b?region=eu-west-1", bucket.Config{Provider: bucket.S3, Bucket: "b", Region: "eu-west-1"}},
		{"s3://b/p/q/?endpoint=host:9000&insecure=true&pathStyle=true", bucket.Config{
			Provider: bucket.S3, Bucket: "b", Prefix: "p/q", Endpoint: "host:9000", Insecure: true, PathStyle: true,
		}},
		{"s3://b?endpoint=[::1]:9000&ca=/ca.pem", bucket.Config{Provider: bucket.S3, Bucket: "b", Endpoint: "[::1]:9000", CA: "/ca.pem"}},
		{"cos://b-1250000000/p?region=ap-guangzhou", bucket.Config{Provider: bucket.COS, Bucket: "b-1250000000", Prefix: "p", Region: "ap-guangzhou"}},
		{"oss://b/p?region=cn-hangzhou", bucket.Config{Provider: bucket.OSS, Bucket: "b", Prefix: "p", Region: "cn-hangzhou"}},
		{"gs://b/p", bucket.Config{Provider: bucket.GCS, Bucket: "b", Prefix: "p"}},
		{"azblob://c/p?account=acc", bucket.Config{Provider: bucket.Azure, Bucket: "c", Prefix: "p", Account: "acc"}},
	} {
		got, err := bucket.Parse(tc.url)
		if err != nil {
			t.Errorf("%s: %v", tc.url, err)
			continue
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s, -want +got:\n%s", tc.url, diff)
		}
		if again, err := bucket.Parse(got.String()); err != nil || again != got {
			t.Errorf("%s is written as %s, which is %+v, %v", tc.url, got, again, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for url, reason := range map[string]string{
		"":                                        "no provider",
		"/var/backups":                            "no provider",
		"ftp://b":                                 `no provider "ftp"`,
		"file://var/backups":                      "three slashes",
		"file:relative":                           "scheme://bucket",
		"file:///a/../b":                          "dotted",
		"file:///a?region=x":                      `file has no "region"; it has: nothing`,
		"s3:///p?region=x":                        "the bucket is missing",
		"s3://b":                                  "region is missing",
		"s3://b?region=x&region=y":                "2 times",
		"s3://b?region=":                          "empty",
		"s3://b?regoin=x":                         `s3 has no "regoin"; it has: ca, endpoint, insecure, pathStyle, region`,
		"s3://b?region=x&insecure=true":           "insecure is for an endpoint",
		"s3://b?endpoint=h&insecure=maybe":        "true or false",
		"s3://b?endpoint=http://h":                "not host or host:port",
		"s3://b?endpoint=h&insecure=true&ca=/f":   "leave out one",
		"s3://b/../c?region=x":                    "begins with a dot",
		"s3://b/.hidden?region=x":                 "begins with a dot",
		"s3://b?region=x&accessKey=AK":            `no "accessKey"`,
		"s3://AK:hidden-secret@b?region=x":        "credentials",
		"s3://AK:hidden-secret\x7f@b?region=x":    "can't be read",
		"s3://b?region=x&secret=hidden-secret":    `no "secret"`,
		"s3://b?region=x;secret=hidden-secret%zz": "can't be read",
		"cos://b?region=ap-guangzhou":             "account's number",
		"cos://b-125":                             "region is missing",
		"oss://b":                                 "region is missing",
		"gs://b?region=x":                         `gs has no "region"`,
		"azblob://c":                              "account is missing",
	} {
		_, err := bucket.Parse(url)
		if err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%q: %v, want %q", url, err, reason)
		}
		if err != nil && strings.Contains(err.Error(), "hidden-secret") {
			t.Errorf("%q: the secret is in %v", url, err)
		}
	}
	c := bucket.Config{Provider: bucket.GCS, Bucket: "b", Account: "x"}
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), `gs has no "account"`) {
		t.Errorf("a struct: %v", err)
	}
}

func TestParseObject(t *testing.T) {
	for raw, want := range map[string]struct {
		store, name string
	}{
		"s3://b/p/v2/Full-00000000-00012345-1700000000.gz?region=x": {"s3://b/p/v2?region=x", "Full-00000000-00012345-1700000000.gz"},
		"s3://b/nightly.db?region=x":                                {"s3://b?region=x", "nightly.db"},
		"gs://b/a%20b/c%3Fd.db":                                     {"gs://b/a%20b", "c?d.db"},
		"file:///nightly.db":                                        {"file:///", "nightly.db"},
		"file:///var/etcd/nightly.db":                               {"file:///var/etcd", "nightly.db"},
	} {
		c, name, err := bucket.ParseObject(raw)
		if err != nil || c.String() != want.store || name != want.name {
			t.Errorf("%s: %s, %q, %v", raw, c, name, err)
		}
	}
	for raw, reason := range map[string]string{
		"s3://b?region=x":              "no object in it",
		"s3://b/?region=x":             "no object in it",
		"s3://b/p/?region=x":           "no object in it",
		"file:///":                     "no object in it",
		"file:///var/":                 "no object in it",
		"s3://b/p/nightly.db":          "region is missing",
		"s3://u:p@b/nightly?region=x":  "has credentials",
		"s3://b/p//nightly?region=x":   "empty or dotted",
		"/var/etcd/nightly.db":         "no provider",
		"file://var/etcd/nightly.db":   "three slashes",
		"s3://b/.hidden/n.db?region=x": "begins with a dot",
	} {
		if c, name, err := bucket.ParseObject(raw); err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%s: %s, %q, %v, want %q", raw, c, name, err, reason)
		}
	}
}

func TestCredentials(t *testing.T) {
	for _, name := range []string{
		"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "TENCENTCLOUD_SECRET_ID", "TENCENTCLOUD_SECRET_KEY",
		"TENCENTCLOUD_SESSION_TOKEN", "GOOGLE_APPLICATION_CREDENTIALS", "AZURE_STORAGE_KEY",
	} {
		t.Setenv(name, "")
	}
	s3 := bucket.Config{Provider: bucket.S3, Bucket: "b", Region: "us-east-1"}
	cos := bucket.Config{Provider: bucket.COS, Bucket: "b-1", Region: "ap-guangzhou"}
	keys := func(pairs ...string) bucket.Credentials {
		m := map[string]string{}
		for i := 0; i < len(pairs); i += 2 {
			m[pairs[i]] = pairs[i+1]
		}
		return bucket.Explicit(m)
	}
	for _, tc := range []struct {
		name   string
		config bucket.Config
		creds  bucket.Credentials
		reason string
	}{
		{"none", s3, bucket.Credentials{}, "credentials are missing"},
		{"half", s3, keys("AWS_ACCESS_KEY_ID", "AK"), "it wants AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, [AWS_SESSION_TOKEN]"},
		{"unknown", s3, keys("accessKey", "hidden-secret"), `no credential "accessKey"`},
		{"another's", s3, keys("TENCENTCLOUD_SECRET_ID", "AK", "TENCENTCLOUD_SECRET_KEY", "hidden-secret"), "no credential"},
		{"empty", s3, keys("AWS_ACCESS_KEY_ID", "AK", "AWS_SECRET_ACCESS_KEY", ""), "AWS_SECRET_ACCESS_KEY is empty"},
		{"newline", s3, keys("AWS_ACCESS_KEY_ID", "AK", "AWS_SECRET_ACCESS_KEY", "hidden-secret\n"), "white space"},
		{"environment", s3, bucket.Environment(), "in the environment: s3: credentials are missing"},
		{"no identity", cos, bucket.Instance(), "no instance identity"},
		{"a directory", bucket.Config{Provider: bucket.File, Prefix: "/"}, keys("AWS_ACCESS_KEY_ID", "AK"), "needs no credentials"},
		{"right", s3, keys("AWS_ACCESS_KEY_ID", "AK", "AWS_SECRET_ACCESS_KEY", "hidden-secret"), ""},
		{"a session", s3, keys("AWS_ACCESS_KEY_ID", "AK", "AWS_SECRET_ACCESS_KEY", "hidden-secret", "AWS_SESSION_TOKEN", "tok"), ""},
		{"an identity", s3, bucket.Instance(), ""},
	} {
		b, err := bucket.Open(t.Context(), tc.config, bucket.Options{Credentials: tc.creds})
		if (err == nil) != (tc.reason == "") || (err != nil && !strings.Contains(err.Error(), tc.reason)) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.reason)
		}
		var log bytes.Buffer
		slog.New(slog.NewJSONHandler(&log, nil)).Info("x", slog.Any("creds", tc.creds), slog.Any("bucket", b))
		printed := fmt.Sprintf("%v %+v %#v %s %v %s", tc.creds, tc.creds, tc.creds, tc.creds, err, log.String())
		if b != nil {
			printed += b.String()
		}
		if strings.Contains(printed, "hidden-secret") {
			t.Errorf("%s: the secret is in %s", tc.name, printed)
		}
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "AK")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "hidden-secret")
	if _, err := bucket.Open(t.Context(), s3, bucket.Options{Credentials: bucket.Environment()}); err != nil {
		t.Errorf("environment: %v", err)
	}
	t.Setenv("TENCENTCLOUD_SESSION_TOKEN", "tok")
	if _, err := bucket.Open(t.Context(), cos, bucket.Options{Credentials: bucket.Environment()}); err == nil || !strings.Contains(err.Error(), "temporary") {
		t.Errorf("a session of cos: %v", err)
	}
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", filepath.Join(t.TempDir(), "missing.json"))
	gcs := bucket.Config{Provider: bucket.GCS, Bucket: "b"}
	if _, err := bucket.Open(t.Context(), gcs, bucket.Options{Credentials: bucket.Environment()}); err == nil || !strings.Contains(err.Error(), "GOOGLE_APPLICATION_CREDENTIALS") {
		t.Errorf("a file that is missing: %v", err)
	}
}

func TestCA(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ca.pem")
	c := bucket.Config{Provider: bucket.S3, Bucket: "b", Endpoint: "h", CA: path}
	creds := bucket.Explicit(map[string]string{"AWS_ACCESS_KEY_ID": "AK", "AWS_SECRET_ACCESS_KEY": "secret"})
	for content, reason := range map[string]string{"": "is empty", "-----BEGIN": "no certificate"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := bucket.Open(t.Context(), c, bucket.Options{Credentials: creds}); err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%q: %v, want %q", content, err, reason)
		}
	}
	c.CA += ".missing"
	if _, err := bucket.Open(t.Context(), c, bucket.Options{Credentials: creds}); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("%v", err)
	}
}
