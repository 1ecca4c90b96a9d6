package check

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/quorate/quorate/history/record"
	"github.com/quorate/quorate/internal/backoff"
)

// DefaultQuiet is how long nobody may write a prefix before it is taken for left.
const DefaultQuiet = 5 * time.Second

// Leftover is what a run has left below its prefix, since it was killed or told to keep
// it.
type Leftover struct {
	Prefix string `json:"prefix"`
	Keys   int64  `json:"keys"`
	// Deleted is how many of them were.
	Deleted int64 `json:"deleted"`
	// Kept says why what is there stays: a run writes it still, or it is not of a check.
	Kept string `json:"kept,omitempty"`

	revision int64 // of its last change
}

// CleanOptions say what is cleaned.
type CleanOptions struct {
	// Prefix of one run; empty for all that are below /quorate-check/.
	Prefix string
	// Quiet is how long nobody may write it; 0 for DefaultQuiet.
	Quiet time.Duration
	// DryRun deletes nothing.
	DryRun bool
}

// ourPrefix is how runs name theirs, ourKey, what they call their keys below it.
var (
	ourPrefix = regexp.MustCompile(`^` + regexp.QuoteMeta(defaultPrefix) + `[0-9a-f]{16}/$`)
	ourKey    = regexp.MustCompile(`^(k/[0-9]{5}|z/end)$`)
)

// Clean deletes what runs have left: keys that runs of Check make, and that nobody
// writes any more. It reads and deletes a hundred at a time; a key that is changed
// meanwhile stays. Of o only what says how the cluster is reached matters.
func Clean(ctx context.Context, o Options, c CleanOptions) ([]Leftover, error) {
	c.Quiet = orTime(c.Quiet, DefaultQuiet)
	if c.Prefix != "" {
		o.Prefix = c.Prefix
	}
	if err := o.withDefaults(); err != nil {
		return nil, err
	}
	client, err := o.anyone(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = client.Close() }() // All that was asked has been answered.
	var found []Leftover
	if c.Prefix == "" {
		found, err = leftovers(ctx, client)
	} else {
		var one Leftover
		if one, err = lookAt(ctx, client, c.Prefix); one.Keys > 0 {
			found = append(found, one)
		}
	}
	if err != nil || len(found) == 0 {
		return found, denied(o, err)
	}
	if err = backoff.Sleep(ctx, c.Quiet); err != nil {
		return nil, err
	}
	for i := range found {
		if err = found[i].clean(ctx, client, c.DryRun); err != nil {
			return found, denied(o, err)
		}
	}
	return found, nil
}

// anyone is a connection to the first endpoint that answers with a quorum.
func (o *Options) anyone(ctx context.Context) (*clientv3.Client, error) {
	var failed error
	for _, e := range o.Endpoints {
		t := o.target(e)
		call, cancel := context.WithTimeout(ctx, askTime)
		c, err := record.New(record.Options{Forget: true}).Dial(call, t)
		if err == nil {
			_, err = c.Etcd().Get(call, o.Prefix, clientv3.WithCountOnly())
			if err == nil || errors.Is(err, rpctypes.ErrPermissionDenied) {
				cancel()
				return c.Etcd(), nil
			}
			_ = c.Close() // It did not answer.
		}
		cancel()
		failed = errors.Join(failed, fault(t, err))
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return nil, fmt.Errorf("%w at %s\n%w", ErrNobody, strings.Join(o.Endpoints, ", "), failed)
}

// denied says what a user needs who may not.
func denied(o Options, err error) error {
	if errors.Is(err, rpctypes.ErrPermissionDenied) {
		return fmt.Errorf("%w: %s may not read and write what is to be cleaned: name one prefix, or a user with readwrite on it", err, o.User)
	}
	return err
}

// leftovers finds the prefixes of runs, one after another.
func leftovers(ctx context.Context, c *clientv3.Client) ([]Leftover, error) {
	var found []Leftover
	end := clientv3.GetPrefixRangeEnd(defaultPrefix)
	for from := defaultPrefix; from < end; {
		call, cancel := context.WithTimeout(ctx, askTime)
		got, err := c.Get(call, from, clientv3.WithRange(end), clientv3.WithKeysOnly(), clientv3.WithLimit(1))
		cancel()
		if err != nil {
			return found, fmt.Errorf("look for what is left: %w", err)
		}
		if len(got.Kvs) == 0 {
			break
		}
		key := string(got.Kvs[0].GetKey())
		name, _, _ := strings.Cut(strings.TrimPrefix(key, defaultPrefix), "/")
		prefix := defaultPrefix + name + "/"
		if !strings.HasPrefix(key, prefix) {
			from = key + "\x00" // a key without a slash is nobody's whom we know
			continue
		}
		one, err := lookAt(ctx, c, prefix)
		if err != nil {
			return found, err
		}
		if !ourPrefix.MatchString(prefix) {
			one.Kept = "its name was given by a person: name it with its prefix"
		}
		found = append(found, one)
		from = clientv3.GetPrefixRangeEnd(prefix)
	}
	return found, nil
}

// lookAt counts the keys of a prefix, and finds the last change.
func lookAt(ctx context.Context, c *clientv3.Client, prefix string) (Leftover, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	one := Leftover{Prefix: prefix}
	got, err := c.Get(ctx, prefix, clientv3.WithRange(clientv3.GetPrefixRangeEnd(prefix)), clientv3.WithCountOnly())
	if err != nil {
		return one, fmt.Errorf("count what is below %s: %w", prefix, err)
	}
	if one.Keys = got.Count; one.Keys > mostLeft {
		one.Kept = fmt.Sprintf("a check leaves %d keys at most", mostLeft)
	}
	if one.Keys == 0 || one.Kept != "" {
		return one, nil
	}
	got, err = c.Get(ctx, prefix, clientv3.WithRange(clientv3.GetPrefixRangeEnd(prefix)), clientv3.WithKeysOnly(),
		clientv3.WithSort(clientv3.SortByModRevision, clientv3.SortDescend), clientv3.WithLimit(1))
	if err != nil {
		return one, fmt.Errorf("find the last change below %s: %w", prefix, err)
	}
	for _, kv := range got.Kvs {
		one.revision = kv.GetModRevision()
	}
	return one, nil
}

// mostLeft is how many keys a run has at most: those that are fought over, and the last.
const mostLeft = maxKeys + 1

// clean deletes a leftover that nobody has changed since it was found.
func (l *Leftover) clean(ctx context.Context, c *clientv3.Client, dryRun bool) error {
	if l.Kept != "" {
		return nil
	}
	now, err := lookAt(ctx, c, l.Prefix)
	if err != nil {
		return err
	}
	if now.revision != l.revision || now.Keys != l.Keys {
		l.Kept = "it is being written: its run goes on"
		return nil
	}
	keys, err := l.read(ctx, c)
	if err != nil || l.Kept != "" || dryRun {
		return err
	}
	for page := range slices.Chunk(keys, atOnce) {
		unchanged, deletions := make([]clientv3.Cmp, 0, len(page)), make([]clientv3.Op, 0, len(page))
		for _, key := range page {
			unchanged = append(unchanged, clientv3.Compare(clientv3.ModRevision(key), "<", l.revision+1))
			deletions = append(deletions, clientv3.OpDelete(key))
		}
		call, cancel := context.WithTimeout(ctx, askTime)
		done, err := c.Txn(call).If(unchanged...).Then(deletions...).Commit()
		cancel()
		if err != nil {
			return fmt.Errorf("delete what is below %s: %w", l.Prefix, err)
		}
		if !done.Succeeded {
			l.Kept = "it is being written: its run goes on"
			return nil
		}
		l.Deleted += int64(len(page))
	}
	return nil
}

// read lists the keys, a hundred at a time, and refuses those that no run has made.
func (l *Leftover) read(ctx context.Context, c *clientv3.Client) ([]string, error) {
	var keys []string
	end := clientv3.GetPrefixRangeEnd(l.Prefix)
	for from := l.Prefix; ; {
		call, cancel := context.WithTimeout(ctx, askTime)
		got, err := c.Get(call, from, clientv3.WithRange(end), clientv3.WithKeysOnly(), clientv3.WithLimit(atOnce))
		cancel()
		if err != nil {
			return nil, fmt.Errorf("list what is below %s: %w", l.Prefix, err)
		}
		for _, kv := range got.Kvs {
			key := string(kv.GetKey())
			rest, below := strings.CutPrefix(key, l.Prefix)
			if !below || !ourKey.MatchString(rest) {
				l.Kept = fmt.Sprintf("%q is no key of a check: nothing below the prefix was deleted", key)
				return nil, nil
			}
			keys = append(keys, key)
		}
		if len(got.Kvs) == 0 || !got.More {
			return keys, nil
		}
		from = keys[len(keys)-1] + "\x00"
	}
}
