package bucket

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Provider is a kind of store.
type Provider string

// The providers; the values are the schemes of their URLs.
const (
	// File is a directory of this machine, or one mounted there.
	File Provider = "file"
	// S3 is Amazon's, and all that speak its protocol.
	S3 Provider = "s3"
	// COS is Tencent Cloud's.
	COS Provider = "cos"
	// OSS is Alibaba Cloud's.
	OSS Provider = "oss"
	// GCS is Google Cloud's.
	GCS Provider = "gs"
	// Azure is Azure's Blob Storage; a bucket is a container.
	Azure Provider = "azblob"
)

// Config says which bucket. Credentials are no part of it.
type Config struct {
	Provider Provider
	// Bucket's name; the container of Azure. Empty for File.
	Bucket string
	// Prefix is put before every name; for File it is the absolute directory, which must
	// be there: a disk that is not mounted is not written around.
	Prefix string
	// Endpoint of S3, COS and OSS: host or host:port. Empty is the provider's own for Region.
	Endpoint string
	// Region of S3, COS and OSS. For S3 with an Endpoint it is us-east-1 if empty.
	Region string
	// Account is Azure's storage account.
	Account string
	// Insecure speaks HTTP without TLS, with an Endpoint only.
	Insecure bool
	// PathStyle has S3 put the bucket into the path also for Amazon, Google and Alibaba, and not
	// into the host's name; for other endpoints it is always so.
	PathStyle bool
	// CA is a file with certificates in PEM form that S3's and COS's are checked with.
	CA string
}

// field says which providers have a field, and how it is set from a URL's query.
type field struct {
	providers []Provider
	set       func(*Config, string) error
	get       func(Config) string
}

func text(at func(*Config) *string, providers ...Provider) field {
	return field{
		providers: providers,
		set: func(c *Config, v string) error {
			*at(c) = v
			return nil
		},
		get: func(c Config) string { return *at(&c) },
	}
}

func flag(at func(*Config) *bool, providers ...Provider) field {
	return field{
		providers: providers,
		set: func(c *Config, v string) (err error) {
			if *at(c), err = strconv.ParseBool(v); err != nil {
				return errors.New("is true or false")
			}
			return nil
		},
		get: func(c Config) string {
			if *at(&c) {
				return "true"
			}
			return ""
		},
	}
}

// fields are the keys of a URL's query.
var fields = map[string]field{
	"endpoint":  text(func(c *Config) *string { return &c.Endpoint }, S3, COS, OSS),
	"region":    text(func(c *Config) *string { return &c.Region }, S3, COS, OSS),
	"account":   text(func(c *Config) *string { return &c.Account }, Azure),
	"insecure":  flag(func(c *Config) *bool { return &c.Insecure }, S3, COS, OSS),
	"pathStyle": flag(func(c *Config) *bool { return &c.PathStyle }, S3),
	"ca":        text(func(c *Config) *string { return &c.CA }, S3, COS),
}

// Parse reads the URL form of a Config:
//
//	file:///directory
//	s3://bucket/prefix?region=eu-west-1
//	s3://bucket/prefix?endpoint=host:port&insecure=true&pathStyle=true&ca=/file.pem
//	cos://bucket-appid/prefix?region=ap-guangzhou
//	oss://bucket/prefix?region=cn-hangzhou
//	gs://bucket/prefix
//	azblob://container/prefix?account=name
//
// What a provider does not have is refused, and credentials are: they would end up in logs.
func Parse(raw string) (Config, error) {
	u, err := url.Parse(raw)
	if err != nil {
		// The error of url.Parse quotes all of it, maybe with a password.
		return Config{}, errors.New("the bucket's URL can't be read: its form is scheme://bucket/prefix?key=value")
	}
	switch {
	case u.User != nil:
		return Config{}, errors.New("the bucket's URL has credentials: give them by a Secret or the environment, since URLs end up in logs")
	case u.Fragment != "" || u.Opaque != "":
		return Config{}, errors.New("the bucket's URL is not of the form scheme://bucket/prefix?key=value")
	}
	c := Config{Provider: Provider(u.Scheme), Bucket: u.Host, Prefix: strings.Trim(u.Path, "/")}
	if c.Provider == File {
		if u.Host != "" {
			return Config{}, fmt.Errorf("file://%s: a directory's URL has three slashes: file:///directory", u.Host)
		}
		c.Bucket, c.Prefix = "", u.Path
		if c.Prefix != "/" {
			c.Prefix = strings.TrimRight(u.Path, "/")
		}
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return Config{}, errors.New("the query of the bucket's URL can't be read: its form is ?key=value&key=value")
	}
	for _, key := range slices.Sorted(maps.Keys(query)) {
		f, known := fields[key]
		switch {
		case !known || !slices.Contains(f.providers, c.Provider):
			return Config{}, fmt.Errorf("%s has no %q; it has: %s", c.Provider, key, keysOf(c.Provider))
		case len(query[key]) > 1:
			return Config{}, fmt.Errorf("%q is given %d times", key, len(query[key]))
		case query[key][0] == "":
			return Config{}, fmt.Errorf("%q is empty", key)
		}
		if err = f.set(&c, query[key][0]); err != nil {
			return Config{}, fmt.Errorf("%q: %w", key, err)
		}
	}
	return c, c.Validate()
}

// ParseObject reads the URL of one object: that of its bucket, as Parse reads it, with the
// object's name behind the prefix. The name is the last element, and all before it is the
// Config's prefix.
func ParseObject(raw string) (c Config, name string, err error) {
	if c, err = Parse(raw); err != nil {
		return Config{}, "", err
	}
	dir, name := path.Split(c.Prefix)
	u, err := url.Parse(raw)
	if err != nil || name == "" || strings.HasSuffix(u.Path, "/") {
		return Config{}, "", fmt.Errorf("%s names a bucket or a directory, and no object in it: put the object's name behind it, such as /v2/Full-00000000-00012345-1700000000.gz", c)
	}
	if c.Prefix = strings.TrimSuffix(dir, "/"); c.Provider == File && c.Prefix == "" {
		c.Prefix = "/"
	}
	return c, name, c.Validate()
}

func keysOf(p Provider) string {
	var keys []string
	for key, f := range fields {
		if slices.Contains(f.providers, p) {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return "nothing"
	}
	slices.Sort(keys)
	return strings.Join(keys, ", ")
}

// Validate says what is missing, and what the provider does not have.
func (c Config) Validate() error {
	if !slices.Contains([]Provider{File, S3, COS, OSS, GCS, Azure}, c.Provider) {
		return fmt.Errorf("there is no provider %q: it is file, s3, cos, oss, gs or azblob", c.Provider)
	}
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		if f := fields[key]; f.get(c) != "" && !slices.Contains(f.providers, c.Provider) {
			return fmt.Errorf("%s has no %q; it has: %s", c.Provider, key, keysOf(c.Provider))
		}
	}
	if c.Provider == File {
		return c.validateFile()
	}
	if c.Bucket == "" {
		return fmt.Errorf("%s: the bucket is missing", c.Provider)
	}
	if strings.ContainsAny(c.Bucket, "/?#@: ") {
		return fmt.Errorf("%s: %q is no name of a bucket", c.Provider, c.Bucket)
	}
	if c.Prefix != "" {
		if err := checkName(c.Prefix); err != nil {
			return fmt.Errorf("the prefix: %w", err)
		}
	}
	if c.Insecure && c.Endpoint == "" {
		return fmt.Errorf("%s: insecure is for an endpoint of your own; %s always has TLS", c.Provider, c.Provider)
	}
	if c.Insecure && c.CA != "" {
		return errors.New("insecure has no TLS, so ca is of no use: leave out one of them")
	}
	if c.Endpoint != "" && (strings.ContainsAny(c.Endpoint, "/?#@ ") || strings.HasPrefix(c.Endpoint, ":")) {
		return fmt.Errorf("the endpoint %q is not host or host:port", c.Endpoint)
	}
	return c.validateCloud()
}

func (c Config) validateFile() error {
	switch {
	case c.Bucket != "":
		return errors.New("file: a directory has no bucket, only a prefix, which is its path")
	case !filepath.IsAbs(c.Prefix):
		return fmt.Errorf("file: the directory %q is not absolute", c.Prefix)
	case path.Clean(c.Prefix) != c.Prefix:
		return fmt.Errorf("file: the directory %q has empty or dotted elements", c.Prefix)
	}
	return nil
}

func (c Config) validateCloud() error {
	switch c.Provider {
	case S3, OSS, COS:
		if c.Region == "" && c.Endpoint == "" {
			return fmt.Errorf("%s: the region is missing, or an endpoint", c.Provider)
		}
	case Azure:
		if c.Account == "" {
			return errors.New("azblob: the storage account is missing")
		}
	default:
	}
	if c.Provider == COS {
		// The bucket's name is told apart from the account's number by the last dash.
		name, app, found := cutLast(c.Bucket, "-")
		if !found || name == "" || strings.Trim(app, "0123456789") != "" || app == "" {
			return fmt.Errorf("cos: the bucket %q does not end with the account's number, as in backups-1250000000", c.Bucket)
		}
	}
	return nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// String is the URL form, which Parse reads.
func (c Config) String() string {
	u := url.URL{Scheme: string(c.Provider), Host: c.Bucket, Path: c.Prefix}
	if c.Provider != File && c.Prefix != "" {
		u.Path = "/" + c.Prefix
	}
	query := url.Values{}
	for key, f := range fields {
		if v := f.get(c); v != "" {
			query.Set(key, v)
		}
	}
	// Colons and slashes need no escape in a query, and people read this.
	u.RawQuery = strings.NewReplacer("%3A", ":", "%2F", "/").Replace(query.Encode())
	if c.Provider == File {
		return "file://" + u.EscapedPath()
	}
	return u.String()
}

// sub is the Config of a part.
func (c Config) sub(prefix string) Config {
	if c.Provider == File {
		c.Prefix = path.Join(c.Prefix, prefix)
	} else {
		c.Prefix = join(c.Prefix, prefix)
	}
	return c
}

// scheme and address of the endpoint.
func (c Config) endpointURL(host string) string {
	if c.Insecure {
		return "http://" + host
	}
	return "https://" + host
}

// isAddress is true for an endpoint that is an IP address or localhost, which can't have
// the bucket before it.
func isAddress(endpoint string) bool {
	host := endpoint
	if u, err := url.Parse("//" + endpoint); err == nil {
		host = u.Hostname()
	}
	_, err := netip.ParseAddr(host)
	return err == nil || host == "localhost"
}
