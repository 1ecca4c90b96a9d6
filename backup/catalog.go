package backup

import (
	"context"

	"github.com/quorate/quorate/backup/bucket"
	"github.com/quorate/quorate/backup/catalog"
)

// ReadCatalog reads what a store holds.
func ReadCatalog(ctx context.Context, b bucket.Bucket, o catalog.ReadOptions) (*catalog.Catalog, error) {
	return catalog.Read(ctx, objects{bucket: b}, catalog.Layout{}, o)
}

// Prune deletes what decisions say from a store; see catalog.Prune.
func Prune(ctx context.Context, b bucket.Bucket, decisions []catalog.Decision, o catalog.PruneOptions) (*catalog.Pruned, error) {
	return catalog.Prune(ctx, objects{bucket: b}, catalog.Layout{}, decisions, o)
}
