package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/backup"
	"github.com/quorate/quorate/datadir"
	"github.com/quorate/quorate/store"
)

const (
	outRaw = "raw"
	// browseLimit is how many keys are shown unless asked otherwise.
	browseLimit = 100
	// shownValue is how much of a value a table shows, in characters.
	shownValue = 120
)

// browseOptions are the flags of `quorate backup browse`.
type browseOptions struct {
	store    storeFlags
	pick     pickFlags
	snapshot string
	prefix   string
	rev      int64
	values   bool
	limit    int
	history  bool
	output   string

	key string
}

// browsedKey is a key of a backup. What is no UTF-8 is told in base64.
type browsedKey struct {
	Key         string  `json:"key,omitempty"`
	KeyBase64   []byte  `json:"keyBase64,omitempty"`
	Deleted     bool    `json:"deleted,omitempty"`
	ModRevision int64   `json:"modRevision"`
	Created     int64   `json:"createRevision,omitempty"`
	Version     int64   `json:"version,omitempty"`
	Lease       string  `json:"lease,omitempty"`
	Size        int     `json:"size"`
	Value       *string `json:"value,omitempty"`
	ValueBase64 []byte  `json:"valueBase64,omitempty"`

	raw, value []byte
}

// browsed is what was read of a backup.
type browsed struct {
	Of       string       `json:"of"`
	Revision int64        `json:"revision"`
	Keys     []browsedKey `json:"keys"`
	// Total is how many there are, which may be more than were asked for.
	Total int `json:"total"`
}

func backupBrowseCommand(e *env) *cobra.Command {
	var o browseOptions
	forms := []string{outTable, outJSON, outYAML, outRaw}
	cmd := &cobra.Command{
		Use:   "browse (URL ID | --snapshot FILE|URL) [KEY]",
		Short: "Read the keys of a backup without restoring it",
		Long: `Read keys out of a backup: it is fetched, checked, and read offline, without an
etcd. A file may be what etcdctl saved, or a full snapshot of etcd-backup-restore.

With KEY, that key alone: its value, or, with --history, every revision of it that
was not compacted away. With -o raw the value is written as it is, byte by byte.
Otherwise the keys below --prefix, in their order. With --rev it is as it was at
that revision.

What a terminal could take for commands is written escaped.`,
		Example: `  quorate backup browse ./backups latest
  quorate backup browse ./backups latest --prefix / --values --limit 10
  quorate backup browse ./backups latest hello
  quorate backup browse ./backups latest hello -o raw > hello.value
  quorate backup browse ./backups latest hello --history
  quorate backup browse --snapshot playground.db --prefix /`,
		Args: originArgs(&o.snapshot, 1, "URL, ID and maybe KEY"),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
			if o.snapshot != "" {
				return nil, noFiles
			}
			return e.completeStores(1)(cmd, args, word)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(cmd, o.output, forms...); err != nil {
				return err
			}
			o.key = keyArg(args, o.snapshot)
			if err := checkBrowse(cmd, &o); err != nil {
				return err
			}
			return e.backupBrowse(cmd, args, &o)
		},
	}
	o.store.bindData(cmd)
	o.pick.bind(e, cmd)
	f := cmd.Flags()
	f.StringVar(&o.snapshot, "snapshot", "", snapshotUsage)
	f.StringVar(&o.prefix, "prefix", "", "only keys that begin so")
	f.Int64Var(&o.rev, "rev", 0, "as it was at this revision (default: the newest)")
	f.BoolVar(&o.values, "values", false, "show the values, too")
	f.IntVar(&o.limit, "limit", browseLimit, "show so many keys at most; 0 for all")
	f.BoolVar(&o.history, "history", false, "all revisions of KEY that are left")
	outputFlag(cmd, &o.output, forms...)
	return cmd
}

// keyArg is the key behind URL and ID, or beside a file; empty if none is named.
func keyArg(args []string, snapshot string) string {
	if snapshot == "" {
		args = args[2:]
	}
	if len(args) == 0 {
		return ""
	}
	return args[0]
}

func checkBrowse(cmd *cobra.Command, o *browseOptions) error {
	switch {
	case o.key != "" && cmd.Flags().Changed("prefix"):
		return usagef(cmd, "KEY is one key, and --prefix many: give one of them")
	case o.history && o.key == "":
		return usagef(cmd, "--history is that of one key: name it behind the ID")
	case o.history && o.rev != 0:
		return usagef(cmd, "--history shows all revisions: leave --rev out")
	case o.output == outRaw && (o.key == "" || o.history):
		return usagef(cmd, "-o raw writes one value: name its KEY, and leave --history out")
	case o.rev < 0:
		return usagef(cmd, "--rev is %d: give a revision above 0", o.rev)
	case o.limit < 0:
		return usagef(cmd, "--limit is %d: give 0 for all, or more", o.limit)
	}
	return nil
}

func (e *env) backupBrowse(cmd *cobra.Command, args []string, o *browseOptions) (err error) {
	ctx := cmd.Context()
	from, err := e.originOf(cmd, args, o.snapshot, &o.store, &o.pick)
	if err != nil {
		return err
	}
	defer from.close()
	local, err := e.fetch(ctx, from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, local.Close()) }()
	found, err := browse(ctx, local, o)
	if err != nil {
		return err
	}
	found.Of = from.String()
	if o.key != "" && len(found.Keys) == 0 {
		return fmt.Errorf("%s has no key %s at revision %d: %w", from, legible(o.key), found.Revision, store.ErrNotFound)
	}
	switch o.output {
	case outRaw:
		return e.printRaw(cmd, found.Keys[0].value)
	case outTable:
		e.printBrowsed(found, o)
		return nil
	}
	return e.printValue(o.output, found)
}

// browse reads what is asked for. The database has no order by key, so that all keys
// of the range are seen; only as many as are shown are kept.
func browse(ctx context.Context, db *backup.Local, o *browseOptions) (*browsed, error) {
	withValues := o.values || o.key != ""
	out := &browsed{Revision: cmp.Or(o.rev, db.Info().Revision), Keys: []browsedKey{}}
	if o.history {
		err := db.History(ctx, o.key, func(c datadir.Change) error {
			out.Keys = append(out.Keys, browsedOf(c, withValues))
			return nil
		})
		out.Total = len(out.Keys)
		return out, err
	}
	keys := datadir.Prefix(o.prefix)
	if o.key != "" {
		keys = datadir.Single(o.key)
	}
	trim := func() {
		slices.SortFunc(out.Keys, func(a, b browsedKey) int { return strings.Compare(string(a.raw), string(b.raw)) })
		if o.limit > 0 && len(out.Keys) > o.limit {
			clear(out.Keys[o.limit:]) // their values are garbage now
			out.Keys = out.Keys[:o.limit]
		}
	}
	err := db.Keys(ctx, o.rev, keys, func(c datadir.Change) error {
		out.Total++
		out.Keys = append(out.Keys, browsedOf(c, withValues))
		if o.limit > 0 && len(out.Keys) >= 2*o.limit {
			trim()
		}
		if o.key != "" {
			return fs.SkipAll
		}
		return nil
	})
	trim()
	return out, err
}

func browsedOf(c datadir.Change, withValue bool) browsedKey {
	k := browsedKey{
		Deleted: c.Deleted, ModRevision: c.Revision, Created: c.Created, Version: c.Version, Size: len(c.Value), raw: slices.Clone(c.Key),
	}
	if utf8.Valid(k.raw) {
		k.Key = string(k.raw)
	} else {
		k.KeyBase64 = k.raw
	}
	if c.Lease != 0 {
		k.Lease = strconv.FormatInt(c.Lease, 16)
	}
	if !withValue || c.Deleted {
		return k
	}
	k.value = slices.Clone(c.Value)
	if utf8.Valid(k.value) {
		text := string(k.value)
		k.Value = &text
	} else {
		k.ValueBase64 = k.value
	}
	return k
}

// printRaw writes a value as it is, save what a terminal would take for commands.
func (e *env) printRaw(cmd *cobra.Command, value []byte) error {
	if isTerminal(e.Out) && legible(string(value)) != string(value) {
		return usagef(cmd, "the value has control characters or is no text, which a terminal would act upon: send it to a file with >, or leave -o raw out")
	}
	_, err := e.Out.Write(value)
	return err
}

// legible is text as a terminal can show it; what holds more than that is quoted.
func legible(text string) string {
	plain := utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) })
	if plain {
		return text
	}
	return strconv.Quote(text)
}

// short is the beginning of a value.
func short(value []byte) string {
	text := legible(string(value[:min(len(value), 4*shownValue)]))
	if r := []rune(text); len(r) > shownValue {
		return string(r[:shownValue]) + "…"
	}
	if len(value) > 4*shownValue {
		text += "…"
	}
	return text
}

func (e *env) printBrowsed(b *browsed, o *browseOptions) {
	if o.key != "" && !o.history {
		k := b.Keys[0]
		e.printf("%s\n", e.painted(bold, legible(o.key)))
		e.fact("changed", fmt.Sprintf("at revision %d, created at %d, version %d", k.ModRevision, k.Created, k.Version))
		if k.Lease != "" {
			e.fact("lease", k.Lease)
		}
		e.printf("  %s%s\n", e.painted(dim, fmt.Sprintf("%-*s", factColumn-2, "value")), legible(string(k.value)))
		return
	}
	g := grid{header: []string{"key", "mod revision", "version", "size", "lease"}}
	if o.values || o.history {
		g.header = append(g.header, "value")
	}
	for _, k := range b.Keys {
		cells := []string{legible(string(k.raw)), strconv.FormatInt(k.ModRevision, 10), strconv.FormatInt(k.Version, 10), strconv.Itoa(k.Size), k.Lease}
		switch {
		case k.Deleted:
			cells[2], cells[3] = "", ""
			cells = append(cells, "deleted")
		case o.values || o.history:
			cells = append(cells, short(k.value))
		}
		g.add(cells...)
	}
	if len(b.Keys) > 0 {
		_ = g.write(e.Out, 0) // As with printf: a reader that has gone away is no failure.
	}
	switch {
	case o.history:
	case b.Total > len(b.Keys):
		e.errorf("%d of %s at revision %d: --limit 0 shows all\n", len(b.Keys), plural(b.Total, "key", "keys"), b.Revision)
	default:
		e.errorf("%s at revision %d\n", plural(b.Total, "key", "keys"), b.Revision)
	}
}
