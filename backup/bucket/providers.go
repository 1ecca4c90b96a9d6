package bucket

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/go-kit/log"
	"github.com/prometheus/common/model"
	"github.com/thanos-io/objstore"
	"github.com/thanos-io/objstore/providers/azure"
	"github.com/thanos-io/objstore/providers/cos"
	"github.com/thanos-io/objstore/providers/gcs"
	"github.com/thanos-io/objstore/providers/oss"
)

// component is what stores see in the User-Agent, after objstore's own "thanos-".
const component = "quorate"

// chunkSize is what GCS's library keeps in memory, in bytes.
const chunkSize = 8 << 20

func openCloud(ctx context.Context, c Config, creds resolved, rt http.RoundTripper, s *session, spool string) (driver, error) {
	d := &cloud{s: s, spool: spool, end: func() error { return nil }}
	wrap := func(http.RoundTripper) http.RoundTripper { return rt }
	switch c.Provider {
	case COS:
		return d, d.fixed(openCOS(c, creds, wrap))
	case OSS:
		conf := ossConfig(c, creds)
		// Its library knows no context, so each call gets one of its own, which is cheap.
		d.use = func(ctx context.Context) (objstore.Bucket, error) {
			bound := func(http.RoundTripper) http.RoundTripper { return &boundTripper{ctx, rt} }
			return oss.NewBucketWithConfig(log.NewNopLogger(), conf, component, bound)
		}
		_, err := d.use(ctx)
		return d, err
	case GCS:
		// What opens a bucket may end before it is used, and tokens are fetched again later.
		bkt, err := gcs.NewBucketWithConfig(context.WithoutCancel(ctx), log.NewNopLogger(),
			gcs.Config{Bucket: c.Bucket, ServiceAccount: creds.values[gcsJSON], ChunkSizeBytes: chunkSize, MaxRetries: 3}, component, wrap)
		if err != nil {
			return nil, err
		}
		d.streams, d.collects, d.gcs, d.end = true, true, bkt.Handle(), bkt.Close
		return d, d.fixed(bkt, nil)
	case Azure:
		d.streams, d.collects = true, true
		return d, d.fixed(openAzure(c, creds, wrap))
	default:
		return nil, fmt.Errorf("there is no provider %q", c.Provider)
	}
}

func (c *cloud) fixed(bkt objstore.Bucket, err error) error {
	c.use = func(context.Context) (objstore.Bucket, error) { return bkt, nil }
	return err
}

// boundTripper ends requests with ctx.
type boundTripper struct {
	ctx  context.Context
	base http.RoundTripper
}

func (t *boundTripper) RoundTrip(req *http.Request) (*http.Response, error) {
	return t.base.RoundTrip(req.WithContext(t.ctx))
}

type wrapper = func(http.RoundTripper) http.RoundTripper

func openCOS(c Config, creds resolved, wrap wrapper) (objstore.Bucket, error) {
	name, app, _ := cutLast(c.Bucket, "-")
	conf := cos.Config{
		Bucket: name, AppId: app, Region: c.Region, SecretId: creds.values[cosKey], SecretKey: creds.values[cosSecret],
		MaxRetries: 1, // what is repeated is decided, counted and told here
	}
	if c.Endpoint != "" {
		conf.Endpoint = c.endpointURL(c.Bucket + "." + c.Endpoint)
		if isAddress(c.Endpoint) {
			conf.Endpoint = c.endpointURL(c.Endpoint)
		}
	}
	return cos.NewBucketWithConfig(log.NewNopLogger(), conf, component, wrap)
}

func ossConfig(c Config, creds resolved) oss.Config {
	endpoint := c.Endpoint
	if endpoint == "" {
		endpoint = "oss-" + c.Region + ".aliyuncs.com"
	}
	return oss.Config{
		Endpoint: c.endpointURL(endpoint), Bucket: c.Bucket,
		AccessKeyID: creds.values[ossKey], AccessKeySecret: creds.values[ossSecret],
	}
}

func openAzure(c Config, creds resolved, wrap wrapper) (objstore.Bucket, error) {
	conf := azure.Config{
		Endpoint: "blob.core.windows.net", StorageAccountName: c.Account, ContainerName: c.Bucket, StorageAccountKey: creds.values[azureKey],
		// Blocks of a stream can only be sent again by its own library.
		PipelineConfig: azure.PipelineConfig{
			MaxTries: 3, RetryDelay: model.Duration(500 * time.Millisecond), MaxRetryDelay: model.Duration(5 * time.Second),
		},
	}
	if creds.instance {
		conf.UserAssignedID = creds.values[azureClient]
	} else {
		conf.AzTenantID, conf.ClientID, conf.ClientSecret = creds.values[azureTenant], creds.values[azureClient], creds.values[azureValue]
	}
	return azure.NewBucketWithConfig(log.NewNopLogger(), conf, component, wrap)
}
