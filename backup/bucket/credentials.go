package bucket

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
)

// Credentials say who asks. They print as their source only.
type Credentials struct {
	source string
	values map[string]string
}

// The names of credentials: in the environment as in a Secret.
//
//nolint:gosec // these are names, not values
const (
	awsKey, awsSecret, awsToken          = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"
	cosKey, cosSecret, cosToken          = "TENCENTCLOUD_SECRET_ID", "TENCENTCLOUD_SECRET_KEY", "TENCENTCLOUD_SESSION_TOKEN"
	ossKey, ossSecret, ossToken          = "ALIBABA_CLOUD_ACCESS_KEY_ID", "ALIBABA_CLOUD_ACCESS_KEY_SECRET", "ALIBABA_CLOUD_SECURITY_TOKEN"
	gcsFile, gcsJSON                     = "GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_APPLICATION_CREDENTIALS_JSON"
	azureKey                             = "AZURE_STORAGE_KEY"
	azureTenant, azureClient, azureValue = "AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"
)

// sets are, for each provider, the names that go together; a name in brackets may be missing.
var sets = map[Provider][][]string{
	File:  {{}},
	S3:    {{awsKey, awsSecret, "[" + awsToken + "]"}},
	COS:   {{cosKey, cosSecret}},
	OSS:   {{ossKey, ossSecret}},
	GCS:   {{gcsJSON}},
	Azure: {{azureKey}, {azureTenant, azureClient, azureValue}},
}

// Explicit are credentials from a Secret. Its keys are named as in the environment:
//
//	s3      AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, maybe AWS_SESSION_TOKEN
//	cos     TENCENTCLOUD_SECRET_ID, TENCENTCLOUD_SECRET_KEY
//	oss     ALIBABA_CLOUD_ACCESS_KEY_ID, ALIBABA_CLOUD_ACCESS_KEY_SECRET
//	gs      GOOGLE_APPLICATION_CREDENTIALS_JSON, a service account's key
//	azblob  AZURE_STORAGE_KEY, or AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET
//
// Open refuses other keys, and white space around a value, which an editor leaves behind.
func Explicit(values map[string]string) Credentials {
	return Credentials{"explicit", maps.Clone(values)}
}

// Environment are credentials from this process's environment, by the names that Explicit
// lists; for gs also GOOGLE_APPLICATION_CREDENTIALS, the path of the key's file.
func Environment() Credentials { return Credentials{source: "environment"} }

// Instance is the identity that the cloud gives to this machine or Pod, for s3 (EC2, ECS,
// EKS), gs and azblob; for azblob AZURE_CLIENT_ID chooses among several.
func Instance() Credentials { return Credentials{source: "instance"} }

// String is the source, never a value.
func (c Credentials) String() string {
	if c.source == "" {
		return "none"
	}
	return c.source
}

// GoString is for %#v, which would print what is unexported too.
func (c Credentials) GoString() string { return "bucket.Credentials(" + c.String() + ")" }

// LogValue is String.
func (c Credentials) LogValue() slog.Value { return slog.StringValue(c.String()) }

// resolved credentials are complete for their provider.
type resolved struct {
	instance bool
	values   map[string]string
	identity string
}

// resolve completes credentials, or says what is missing; never a value.
func (c Credentials) resolve(p Provider) (resolved, error) {
	if p == File {
		if c.source == "explicit" && len(c.values) > 0 {
			return resolved{}, errors.New("a directory needs no credentials")
		}
		return resolved{}, nil
	}
	switch c.source {
	case "explicit":
		return c.resolveExplicit(p)
	case "environment":
		values, err := fromEnvironment(p)
		if err != nil {
			return resolved{}, err
		}
		r, err := Credentials{"explicit", values}.resolveExplicit(p)
		if err != nil {
			return resolved{}, fmt.Errorf("in the environment: %w", err)
		}
		return r, nil
	case "instance":
		if p == COS || p == OSS {
			return resolved{}, fmt.Errorf("%s has no instance identity here: give the keys by a Secret or the environment", p)
		}
		return resolved{instance: true, values: map[string]string{azureClient: os.Getenv(azureClient)}, identity: "this machine's identity"}, nil
	default:
		return resolved{}, fmt.Errorf("%s: credentials are missing: from a Secret, the environment or this machine's identity", p)
	}
}

func fromEnvironment(p Provider) (map[string]string, error) {
	values := map[string]string{}
	for _, set := range sets[p] {
		for _, name := range set {
			name = strings.Trim(name, "[]")
			if v := os.Getenv(name); v != "" {
				values[name] = v
			}
		}
	}
	for p2, token := range map[Provider]string{COS: cosToken, OSS: ossToken} {
		if p == p2 && os.Getenv(token) != "" {
			return nil, fmt.Errorf("%s is set, but temporary credentials of %s can't be used: give lasting ones", token, p)
		}
	}
	if file := os.Getenv(gcsFile); p == GCS && values[gcsJSON] == "" && file != "" {
		data, err := os.ReadFile(file) //nolint:gosec // the variable is there to name a file
		if err != nil {
			return nil, fmt.Errorf("%s: %w", gcsFile, err)
		}
		values[gcsJSON] = strings.TrimSpace(string(data))
	}
	if p == Azure && values[azureKey] != "" {
		// The key counts; the names of an application may be set for something else.
		values = map[string]string{azureKey: values[azureKey]}
	}
	return values, nil
}

func (c Credentials) resolveExplicit(p Provider) (resolved, error) {
	for _, name := range slices.Sorted(maps.Keys(c.values)) {
		switch v := c.values[name]; {
		case !knownName(p, name):
			return resolved{}, fmt.Errorf("%s has no credential %q: it wants %s", p, name, wanted(p))
		case v == "":
			return resolved{}, fmt.Errorf("the credential %s is empty", name)
		case strings.TrimSpace(v) != v:
			return resolved{}, fmt.Errorf("the credential %s begins or ends with white space, which is not part of it", name)
		}
	}
	for _, set := range sets[p] {
		if complete(set, c.values) {
			return resolved{values: c.values, identity: identity(p, c.values)}, nil
		}
	}
	return resolved{}, fmt.Errorf("%s: credentials are missing: it wants %s", p, wanted(p))
}

func knownName(p Provider, name string) bool {
	for _, set := range sets[p] {
		if slices.Contains(set, name) || slices.Contains(set, "["+name+"]") {
			return true
		}
	}
	return false
}

// complete is true if all names of the set, and none else, have values.
func complete(set []string, values map[string]string) bool {
	n := 0
	for _, name := range set {
		bare := strings.Trim(name, "[]")
		if values[bare] != "" {
			n++
		} else if bare == name {
			return false
		}
	}
	return n == len(values)
}

func wanted(p Provider) string {
	alternatives := make([]string, 0, len(sets[p]))
	for _, set := range sets[p] {
		alternatives = append(alternatives, strings.Join(set, ", "))
	}
	return strings.Join(alternatives, "; or ")
}

// identity names who asks, by what is public of the credentials.
func identity(p Provider, values map[string]string) string {
	switch p {
	case S3:
		return "access key " + values[awsKey]
	case COS:
		return "secret ID " + values[cosKey]
	case OSS:
		return "access key " + values[ossKey]
	case GCS:
		return "the service account of the key"
	case Azure:
		if values[azureClient] != "" {
			return "application " + values[azureClient]
		}
		return "the storage account's key"
	default:
		return ""
	}
}

// secretValues are what must never be printed.
func (r resolved) secretValues() []string {
	var secrets []string
	for name, v := range r.values {
		public := slices.Contains([]string{awsKey, cosKey, ossKey, azureTenant, azureClient}, name)
		if !public && len(v) >= 4 {
			secrets = append(secrets, v)
		}
	}
	return secrets
}
