package bucket

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"strings"

	"cloud.google.com/go/storage"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/aliyun/aliyun-oss-go-sdk/oss"
	"github.com/minio/minio-go/v7"
	"github.com/tencentyun/cos-go-sdk-v5"
	"google.golang.org/api/googleapi"
)

// meanings of the codes that stores give, over the status of HTTP. The names of all stores
// are in one table: they took them from S3, and where they differ they do not collide.
var meanings = map[string]verdict{
	"RequestTimeTooSkewed":         {kind: ErrClockSkew},
	"AccessForbidden":              {kind: ErrDenied},
	"NoSuchBucket":                 {kind: ErrNoBucket, hint: "make the bucket, or look at its name and region"},
	"ContainerNotFound":            {kind: ErrNoBucket, hint: "make the container, or look at its name"},
	"ContainerBeingDeleted":        {kind: ErrNoBucket},
	"AuthorizationHeaderMalformed": {kind: ErrDenied, hint: "look at the region: the bucket is in another one"},
	"PermanentRedirect":            {kind: ErrNoBucket, hint: "look at the region and the endpoint: the bucket is elsewhere"},
	"TemporaryRedirect":            {kind: ErrUnavailable, transient: true},
	"InvalidAccessKeyId":           {kind: ErrDenied, hint: "the access key does not exist or was revoked: make a new one"},
	"SignatureDoesNotMatch":        {kind: ErrDenied, hint: "the secret is not that of the key"},
	"ExpiredToken":                 {kind: ErrDenied, hint: "the session token has expired: get a new one"},
	"ObjectLocked":                 {kind: ErrLocked},
	"FileImmutable":                {kind: ErrLocked},
	"BlobImmutableDueToPolicy":     {kind: ErrLocked},
	"InvalidRetentionPeriod":       {kind: ErrRefused},
	"InvalidArgument":              {kind: ErrRefused, hint: "look at the name of the bucket and of the object"},
	"InvalidBucketName":            {kind: ErrRefused, hint: "look at the name of the bucket"},
	"InsufficientStorage":          {kind: ErrNoSpace},
	"StorageFull":                  {kind: ErrNoSpace},
	"QuotaExceeded":                {kind: ErrNoSpace},
	"QuotaFull":                    {kind: ErrNoSpace},
	"XMinioStorageFull":            {kind: ErrNoSpace},
	"XMinioAdminBucketQuota":       {kind: ErrNoSpace},
	"BadDigest":                    {kind: ErrCorrupt, transient: true},
	"InvalidDigest":                {kind: ErrCorrupt, transient: true},
	"Md5Mismatch":                  {kind: ErrCorrupt, transient: true},
	"XAmzContentSHA256Mismatch":    {kind: ErrCorrupt, transient: true},
	"XAmzContentChecksumMismatch":  {kind: ErrCorrupt, transient: true},
	"IncompleteBody":               {kind: ErrUnavailable, transient: true},
	"RequestTimeout":               {kind: ErrUnavailable, transient: true},
	"SlowDown":                     {kind: ErrUnavailable, transient: true},
	"Throttling":                   {kind: ErrUnavailable, transient: true},
	"OperationAborted":             {kind: ErrUnavailable, transient: true},
	"NoSuchUpload":                 {kind: ErrUnavailable, hint: "the unfinished upload was removed by somebody else"},
	"PreconditionFailed":           {kind: ErrCorrupt, hint: "it was replaced while it was read"},
}

// classifyHTTP says what an error of a store that speaks HTTP means.
func classifyHTTP(err error) verdict {
	if errors.Is(err, storage.ErrObjectNotExist) {
		return verdict{kind: ErrNotFound}
	}
	if errors.Is(err, storage.ErrBucketNotExist) {
		return meanings["NoSuchBucket"]
	}
	if status, code, message := answer(err); status != 0 || code != "" {
		return classifyAnswer(status, code, message)
	}
	if isCertificate(err) {
		return verdict{kind: ErrUnavailable, hint: "the store's certificate is not trusted: give its CA, or look at the endpoint"}
	}
	if strings.Contains(err.Error(), "server gave HTTP response to HTTPS client") {
		return verdict{kind: ErrUnavailable, hint: "the endpoint has no TLS: give insecure=true if that is meant"}
	}
	// No answer came, or not all of it.
	return verdict{kind: ErrUnavailable, transient: true}
}

func isCertificate(err error) bool {
	_, verification := errors.AsType[*tls.CertificateVerificationError](err)
	_, authority := errors.AsType[x509.UnknownAuthorityError](err)
	_, host := errors.AsType[x509.HostnameError](err)
	_, record := errors.AsType[tls.RecordHeaderError](err)
	return verification || authority || host || record
}

// answer finds what the store said; the status is 0 if no answer came.
func answer(err error) (status int, code, message string) {
	if e, ok := errors.AsType[minio.ErrorResponse](err); ok {
		return e.StatusCode, e.Code, e.Message
	}
	if e, ok := errors.AsType[*cos.ErrorResponse](err); ok {
		if e.Response != nil {
			status = e.Response.StatusCode
		}
		return status, e.Code, e.Message
	}
	if e, ok := errors.AsType[oss.ServiceError](err); ok {
		return e.StatusCode, e.Code, e.Message
	}
	if e, ok := errors.AsType[oss.CRCCheckError](err); ok {
		return 0, "BadDigest", e.Error()
	}
	if e, ok := errors.AsType[*azcore.ResponseError](err); ok {
		return e.StatusCode, e.ErrorCode, ""
	}
	if e, ok := errors.AsType[*googleapi.Error](err); ok {
		return e.Code, "", e.Message
	}
	return 0, "", ""
}

func classifyAnswer(status int, code, message string) verdict {
	lower := strings.ToLower(message)
	bare := strings.ReplaceAll(lower, " ", "")
	switch {
	case strings.Contains(bare, "objectlockconfiguration") || strings.Contains(code, "ObjectLockConfiguration"):
		return verdict{kind: ErrRefused, hint: "the bucket has no object lock: switch it on, for which it must have versions"}
	case strings.Contains(lower, "object lock") || strings.Contains(lower, "worm protected") || strings.Contains(lower, "retention"):
		if status == http.StatusForbidden || code == "AccessDenied" {
			return verdict{kind: ErrLocked}
		}
	case strings.Contains(lower, "no space left") || strings.Contains(lower, "quota exceeded"):
		return verdict{kind: ErrNoSpace}
	case strings.Contains(lower, "bucket does not exist"):
		return meanings["NoSuchBucket"]
	}
	if v, known := meanings[code]; known {
		return v
	}
	switch status {
	case http.StatusNotFound:
		return verdict{kind: ErrNotFound}
	case http.StatusUnauthorized, http.StatusForbidden:
		return verdict{kind: ErrDenied, hint: "give this identity the permission, or other credentials"}
	case http.StatusInsufficientStorage:
		return verdict{kind: ErrNoSpace}
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusConflict:
		return verdict{kind: ErrUnavailable, transient: true}
	case http.StatusMovedPermanently, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return meanings["PermanentRedirect"]
	case http.StatusPreconditionFailed:
		return meanings["PreconditionFailed"]
	}
	if status >= http.StatusInternalServerError || status < http.StatusBadRequest {
		return verdict{kind: ErrUnavailable, transient: true}
	}
	return verdict{kind: ErrRefused}
}
