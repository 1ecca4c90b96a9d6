package web

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
)

const (
	// logTail is how many lines a log begins with.
	logTail = 300
	// maxLogLine bounds what is shown of a line, in bytes.
	maxLogLine = 16 << 10
)

type memberData struct {
	frame

	Member *v1alpha1.EtcdMember
	// View is nil while the cluster can't be asked.
	View    *v1alpha1.MemberView
	Events  []store.Event
	Cluster string
	Applied string
}

func (c *console) memberPage(v *visit) error {
	ctx, cancel := v.bounded()
	defer cancel()
	d, err := c.member(ctx, v, firstTime)
	if err != nil {
		return err
	}
	key := v.key()
	events, err := v.api.Events(ctx, store.EventOptions{Namespace: key.Namespace, Kind: v1alpha1.KindMember.Kind, Name: key.Name})
	if err != nil {
		return err
	}
	d.Events = latest(events, shownEvents)
	return c.pages.render(v, http.StatusOK, "member", d)
}

func (c *console) memberLive(v *visit) error {
	ctx, cancel := v.bounded()
	defer cancel()
	d, err := c.member(ctx, v, pageTime)
	if err != nil {
		return err
	}
	return c.pages.render(v, http.StatusOK, "member/live", d)
}

func (c *console) member(ctx context.Context, v *visit, patience time.Duration) (*memberData, error) {
	key := v.key()
	d := &memberData{Member: &v1alpha1.EtcdMember{}}
	if err := v.api.Get(ctx, key, d.Member); err != nil {
		return nil, err
	}
	d.frame = c.frame(v, "member", key.Name).with("quorate logs " + key.Name + " -f" + inNamespace(key.Namespace))
	d.Path = "/members/" + key.Namespace + "/" + key.Name
	d.Cluster = clusterPath(key.Namespace, d.Member.Spec.ClusterName)
	view, _, err := viewWithin(ctx, v, store.Key{Namespace: key.Namespace, Name: d.Member.Spec.ClusterName}, patience)
	if err == nil {
		if i := slices.IndexFunc(view.Members, func(m v1alpha1.MemberView) bool { return m.Name == key.Name }); i >= 0 {
			d.View = &view.Members[i]
		}
	}
	return d, nil
}

// logLine is a line of a member's log as the page shows it. Etcd writes JSON; what
// is none is shown as it is.
type logLine struct {
	Time    string `json:"time,omitempty"`
	Level   string `json:"level,omitempty"`
	Message string `json:"message"`
	More    string `json:"more,omitempty"`
}

// memberLog streams a member's log.
func (c *console) memberLog(v *visit) error {
	ctx, cancel := c.streaming(v.r.Context())
	defer cancel()
	source := v.r.URL.Query().Get("source")
	log, err := v.api.Logs(ctx, v.key(), remote.LogOptions{Source: source, Tail: logTail, Follow: true})
	if err != nil {
		if codeOf(err) == http.StatusUnauthorized {
			return err
		}
		// An event stream that answers otherwise is taken for broken, and asked for again.
		return c.logFailed(v, err)
	}
	defer func() { _ = log.Close() }()                         // it ends with this request anyway
	defer context.AfterFunc(ctx, func() { _ = log.Close() })() // a read that waits would not notice
	lines, flush := readLines(ctx, log), c.beginStream(v)
	ticker := time.NewTicker(beat)
	defer ticker.Stop()
	for {
		text := ": alive\n\n"
		select {
		case <-ctx.Done():
			return nil
		case batch, ok := <-lines:
			if !ok {
				return nil
			}
			raw, err := json.Marshal(batch)
			if err != nil {
				return nil // a line of text marshals
			}
			text = message("lines", raw)
		case <-ticker.C:
		}
		if c.say(v, flush, text) != nil {
			return nil
		}
	}
}

func (*console) beginStream(v *visit) func() error {
	flush := lifted(v)
	v.Header().Set("Content-Type", "text/event-stream")
	v.Header().Set("X-Accel-Buffering", "no")
	v.WriteHeader(http.StatusOK)
	return flush
}

func (c *console) logFailed(v *visit, err error) error {
	if v.r.Context().Err() != nil {
		return nil //nolint:nilerr // who has gone does not read why
	}
	flush := c.beginStream(v)
	raw, jsonErr := json.Marshal(err.Error())
	if jsonErr != nil {
		return jsonErr
	}
	_ = c.say(v, flush, message("failed", raw)) // who has gone does not read why
	return nil
}

// readLines yields the lines that have come, as many at a time as there are.
func readLines(ctx context.Context, log io.Reader) <-chan []logLine {
	one, out := make(chan logLine, 256), make(chan []logLine)
	go func() {
		defer close(one)
		r := bufio.NewReaderSize(log, maxLogLine)
		for {
			raw, long, err := r.ReadLine()
			if err != nil {
				return
			}
			text := string(raw)
			for long && err == nil {
				_, long, err = r.ReadLine()
			}
			select {
			case one <- parseLine(text):
			case <-ctx.Done():
				return
			}
		}
	}()
	go func() {
		defer close(out)
		for line := range one {
			batch := []logLine{line}
			for len(batch) < cap(one) {
				select {
				case more, ok := <-one:
					if ok {
						batch = append(batch, more)
						continue
					}
				default:
				}
				break
			}
			select {
			case out <- batch:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// parseLine takes a line of etcd's JSON apart.
func parseLine(text string) logLine {
	fields := map[string]json.RawMessage{}
	if !strings.HasPrefix(text, "{") || json.Unmarshal([]byte(text), &fields) != nil {
		return logLine{Message: text}
	}
	line := logLine{Message: take(fields, "msg"), Level: take(fields, "level"), Time: take(fields, "ts")}
	if line.Time == "" {
		line.Time = take(fields, "time")
	}
	line.Time = inUTC(line.Time)
	line.Level = strings.ToLower(line.Level)
	delete(fields, "logger")
	keys := make([]string, 0, len(fields))
	for k := range fields {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	var more strings.Builder
	for _, k := range keys {
		value := strings.Trim(string(fields[k]), `"`)
		more.WriteString(k + "=" + value + " ")
	}
	line.More = strings.TrimSpace(more.String())
	return line
}

// inUTC brings the time of a line into the zone of the page: etcd writes that of its
// host. What is no time stays as it is.
func inUTC(stamp string) string {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999Z0700"} {
		if t, err := time.Parse(layout, stamp); err == nil {
			return t.UTC().Format(time.RFC3339Nano)
		}
	}
	return stamp
}

func take(fields map[string]json.RawMessage, name string) string {
	raw, ok := fields[name]
	if !ok {
		return ""
	}
	var text string
	if json.Unmarshal(raw, &text) != nil {
		return ""
	}
	delete(fields, name)
	return text
}
