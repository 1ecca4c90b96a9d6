package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/backup"
	"github.com/quorate/quorate/backup/bucket"
	"github.com/quorate/quorate/backup/catalog"
	"github.com/quorate/quorate/etcd"
	"github.com/quorate/quorate/store"
)

// Words that stand for an ID.
const (
	wordLatest       = backup.Latest
	wordLatestProven = backup.LatestProven
)

// pickFlags narrow what is meant in a store with several clusters.
type pickFlags struct {
	name      string
	clusterID string
}

func (p *pickFlags) bind(e *env, cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&p.name, "name", "", "the cluster, as NAME or NAMESPACE/NAME, where the store has several")
	f.StringVar(&p.clusterID, "cluster-id", "", "etcd's ID of the cluster in hex, where several had the same name")
	_ = cmd.RegisterFlagCompletionFunc("name", func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		return e.storeNames(cmd, args), noFiles
	})
}

// filter is what the flags ask a catalog for.
func (p *pickFlags) filter(e *env, cmd *cobra.Command) (f catalog.Filter, err error) {
	if p.name != "" {
		c, nameErr := e.clusterName(cmd, "name", p.name)
		if nameErr != nil {
			return f, nameErr
		}
		f.Clusters = []catalog.Cluster{c}
	}
	id, err := etcd.ParseID(strings.TrimPrefix(p.clusterID, "0x"))
	if err != nil || p.clusterID != "" && id == 0 {
		return f, usagef(cmd, "--cluster-id is %q: give etcd's cluster ID in hex, as `quorate backup list` shows it", p.clusterID)
	}
	f.ClusterID = catalog.ID(id)
	return f, nil
}

// readCatalog reads what a store holds of the clusters that are meant.
func (e *env) readCatalog(ctx context.Context, b bucket.Bucket, f catalog.Filter) (*catalog.Catalog, error) {
	done := e.slowly("reading what " + b.String() + " holds")
	defer done()
	return backup.ReadCatalog(ctx, b, catalog.ReadOptions{Filter: f})
}

// lineageLines describe the lineages of a catalog, one a line, by the flags that choose
// them.
func lineageLines(cat *catalog.Catalog) string {
	return backup.Describe(cat, func(r catalog.Ref) string {
		return fmt.Sprintf("--name %s --cluster-id %s (epoch %d)", quoted(r.Cluster.String()), r.ClusterID, r.Epoch)
	})
}

// pick finds the backup that is meant.
func pick(cmd *cobra.Command, b bucket.Bucket, cat *catalog.Catalog, text string) (*catalog.Entry, error) {
	entry, err := backup.Pick(cat, text, time.Time{})
	newest := text == wordLatest || text == wordLatestProven
	switch {
	case err == nil:
		return entry, nil
	case errors.Is(err, backup.ErrUnread):
		return nil, fmt.Errorf("%s: %w; name another one by its ID, or try again", b, err)
	case errors.Is(err, backup.ErrAmbiguous) && newest:
		return nil, usagef(cmd, "%s holds backups of several clusters: say which one is meant:\n%s", b, lineageLines(cat))
	case errors.Is(err, backup.ErrAmbiguous):
		return nil, usagef(cmd, "give all of the ID, or --name and --cluster-id: %v", err)
	case newest && len(cat.Entries) == 0:
		return nil, fmt.Errorf("%s has no backup of what is asked for: %w", b, store.ErrNotFound)
	case text == wordLatestProven:
		return nil, fmt.Errorf("%s has no proven backup of %s: `quorate backup verify` proves one: %w", b, cat.Entries[0].Ref.Cluster, store.ErrNotFound)
	case newest:
		return nil, fmt.Errorf("%s has no complete backup of %s: %w", b, cat.Entries[0].Ref.Cluster, store.ErrNotFound)
	case looksLikeID(text):
		return nil, fmt.Errorf("%s has no backup %s: `quorate backup list` shows what it has: %w", b, text, store.ErrNotFound)
	}
	return nil, usagef(cmd, "%q is no ID of a backup: give one as `quorate backup list` shows it, its last eight digits, %s or %s", text, wordLatest, wordLatestProven)
}

// looksLikeID tells an ID that is not there from a word that is none.
func looksLikeID(text string) bool {
	const nonce = 8
	_, err := strconv.ParseUint(text, 16, 64)
	return err == nil && len(text) == nonce || strings.Count(text, "-") == 2 && strings.Contains(text, "-r")
}

// snapshotUsage is that of --snapshot.
const snapshotUsage = "a snapshot instead of a store and an ID: a file, or the URL of an object"

// origin is what is restored or read: a backup of a store, or a snapshot.
type origin struct {
	backup.Origin
	// catalog that Entry was found in.
	catalog *catalog.Catalog
	spool   string
}

// close lets go of the store.
func (o *origin) close() {
	if o.Bucket != nil {
		_ = o.Bucket.Close() // it was only read
	}
}

// originArgs checks that either URL and ID are given, or a snapshot.
func originArgs(file *string, more int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if *file != "" || cmd.Flags().Changed("snapshot") {
			switch {
			case *file == "":
				return usagef(cmd, "--snapshot is empty: name a file, or an object such as s3://bucket/etcd/nightly.db?region=eu-west-1")
			case len(args) > more:
				return usagef(cmd, "--snapshot names what is read, and %q was given: leave one of them out", args[0])
			}
			return nil
		}
		return argsBetween(2, 2+more, what)(cmd, args)
	}
}

// originOf opens what URL and ID, or --snapshot, name.
func (e *env) originOf(cmd *cobra.Command, args []string, file string, s *storeFlags, p *pickFlags) (*origin, error) {
	o := &origin{}
	var err error
	if o.spool, err = e.spool(s); err != nil {
		return nil, err
	}
	if o.Identities, err = readIdentities(s.identityFile); err != nil {
		return nil, err
	}
	if file != "" {
		if p.name != "" || p.clusterID != "" {
			return nil, usagef(cmd, "--name and --cluster-id choose in a store, and --snapshot names one snapshot: leave them out")
		}
		if err = e.snapshotOf(cmd, &o.Origin, file, s, o.spool); err != nil {
			return nil, err
		}
		return o, nil
	}
	filter, err := p.filter(e, cmd)
	if err != nil {
		return nil, err
	}
	if o.Bucket, err = e.openStore(cmd, args[0], s, o.spool); err != nil {
		return nil, err
	}
	if o.catalog, err = e.readCatalog(cmd.Context(), o.Bucket, filter); err == nil {
		o.Entry, err = pick(cmd, o.Bucket, o.catalog, args[1])
	}
	if err != nil {
		o.close()
		return nil, err
	}
	return o, nil
}

// snapshotOf says where a snapshot lies: in a file of this machine, or, where text is a
// URL, in the store that it opens. The origin's bucket is to be closed.
func (e *env) snapshotOf(cmd *cobra.Command, o *backup.Origin, text string, s *storeFlags, spool string) error {
	if o.File = text; strings.Contains(text, schemeMark) {
		c, name, err := bucket.ParseObject(text)
		if err != nil {
			return usagef(cmd, "%v", err)
		}
		if o.File, o.Object = "", name; c.Provider == bucket.File {
			o.File, o.Object = filepath.Join(c.Prefix, name), ""
		} else if !backup.IsDelta(name) {
			if o.Bucket, err = e.openStore(cmd, c.String(), s, spool); err != nil {
				return err
			}
		}
	}
	if name := filepath.Base(o.File + o.Object); backup.IsDelta(name) {
		return usagef(cmd, "%s: by its name %v", name, backup.ErrDelta)
	}
	if o.Bucket == nil {
		if _, err := os.Stat(o.File); err != nil {
			return fmt.Errorf("--snapshot: %w", err)
		}
	}
	return nil
}

// fetch brings it to this machine. Close it.
func (e *env) fetch(ctx context.Context, o *origin) (*backup.Local, error) {
	done := e.slowly("fetching " + o.String())
	defer done()
	return backup.Fetch(ctx, o.Origin, o.spool, 0)
}

// storeSchemes are offered where a store's URL is wanted.
var storeSchemes = []string{"file:///", "s3://", "cos://", "oss://", "gs://", "azblob://"}

// completeStores offers stores for the first n arguments, and IDs for the one behind
// them.
func (e *env) completeStores(n int) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		switch {
		case len(args) < n:
			return completeStore(cmd, args, word)
		case len(args) == n:
			return e.storeIDs(cmd, args), noFiles
		}
		return nil, noFiles
	}
}

// completeStore offers schemes, and directories.
func completeStore(_ *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
	path, ok := strings.CutPrefix(word, fileScheme)
	if !ok {
		return storeSchemes, cobra.ShellCompDirectiveNoSpace
	}
	found, _ := filepath.Glob(path + "*") // a pattern that is none offers nothing
	var dirs []string
	for _, f := range found {
		if info, err := os.Stat(f); err == nil && info.IsDir() {
			dirs = append(dirs, fileScheme+f+"/")
		}
	}
	return dirs, noFiles | cobra.ShellCompDirectiveNoSpace
}

// glance reads a store's catalog for a press of the tab key; nil if that takes long or
// fails.
func (e *env) glance(cmd *cobra.Command, args []string) *catalog.Catalog {
	if len(args) == 0 || cmd.Context() == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completeTime)
	defer cancel()
	c, err := storeConfig(cmd, args[0])
	if err != nil {
		return nil
	}
	b, err := bucket.Open(ctx, c, bucket.Options{Credentials: bucket.Environment()})
	if err != nil {
		return nil
	}
	defer func() { _ = b.Close() }() // it was only read
	cat, err := backup.ReadCatalog(ctx, b, catalog.ReadOptions{})
	if err != nil {
		return nil
	}
	return cat
}

// storeIDs are the words and the IDs, the newest first.
func (e *env) storeIDs(cmd *cobra.Command, args []string) []string {
	words := []string{wordLatest, wordLatestProven}
	cat := e.glance(cmd, args)
	if cat == nil {
		return words
	}
	for i := range slices.Backward(cat.Entries) {
		if r := cat.Entries[i].Ref; cat.Entries[i].Point != nil {
			words = append(words, r.ID()+"\t"+r.Cluster.String())
		}
	}
	return words
}

func (e *env) storeNames(cmd *cobra.Command, args []string) []string {
	cat := e.glance(cmd, args)
	if cat == nil {
		return nil
	}
	var names []string
	for i := range cat.Entries {
		if n := cat.Entries[i].Ref.Cluster.String(); !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return names
}
