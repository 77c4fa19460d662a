package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/pflag"
)

// Bounds of one call to the API.
const (
	callTimeout    = 60 * time.Second
	maxAnswerBytes = 64 << 20
)

// collection and task are what the client shows of the API's resources.
type collection struct {
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Template   string            `json:"template"`
	Status     string            `json:"status"`
	Run        int               `json:"run"`
	Retryable  bool              `json:"retryable"`
	Labels     map[string]string `json:"labels"`
	CreatedAt  time.Time         `json:"created_at"`
	FinishedAt *time.Time        `json:"finished_at"`
	TaskCount  int               `json:"task_count"`
	TasksDone  int               `json:"tasks_done"`
	Current    *currentTask      `json:"current_task"`
	Error      *taskError        `json:"error"`
	Tasks      []task            `json:"tasks"`
	Position   string            `json:"position"`
}

type currentTask struct {
	Name    string `json:"name"`
	Attempt int    `json:"attempt"`
}

type task struct {
	ID         string          `json:"id"`
	Index      int             `json:"index"`
	Name       string          `json:"name"`
	Type       string          `json:"type"`
	Status     string          `json:"status"`
	Attempts   int             `json:"attempts"`
	Result     json.RawMessage `json:"result"`
	Message    string          `json:"message"`
	Error      *taskError      `json:"error"`
	StartedAt  *time.Time      `json:"started_at"`
	FinishedAt *time.Time      `json:"finished_at"`
	DurationMS *int64          `json:"duration_ms"`
	Worker     string          `json:"worker"`
	Progress   *progress       `json:"progress"`
}

type progress struct {
	Percent int    `json:"percent"`
	Text    string `json:"text"`
}

// text is a progress in one line: 40 % prove the domain.
func (p *progress) text() string {
	if p == nil {
		return ""
	}
	return strings.TrimSpace(strconv.Itoa(p.Percent) + " % " + p.Text)
}

type taskError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Detail  string `json:"detail"`
}

type page struct {
	Collections []collection     `json:"collections"`
	NextCursor  string           `json:"next_cursor"`
	Counts      map[string]int64 `json:"counts"`
}

// problem is an RFC 9457 problem document.
type problem struct {
	Status int    `json:"status"`
	Code   string `json:"code"`
	Title  string `json:"title"`
	Detail string `json:"detail"`
	Errors []struct {
		Path     string `json:"path"`
		Location string `json:"location"`
		Message  string `json:"message"`
	} `json:"errors"`
}

func (p *problem) Error() string {
	var b strings.Builder
	b.WriteString(cleanText(p.Detail))
	if p.Detail == "" {
		b.WriteString(cleanText(p.Title))
	}
	for _, e := range p.Errors {
		fmt.Fprintf(&b, "\n  %s: %s", cleanText(e.Path+e.Location), cleanText(e.Message))
	}
	fmt.Fprintf(&b, " (%d %s)", p.Status, cleanText(p.Code))
	return b.String()
}

// client talks to the API.
type client struct {
	base   string
	http   *http.Client
	output string

	mu   sync.Mutex
	seen map[string]string // position of each collection that was answered: later reads are not older
}

func (c *client) addFlags(f *pflag.FlagSet) {
	f.StringVar(&c.base, "api", "http://127.0.0.1:8080", "URL of the API")
	f.StringVarP(&c.output, "output", "o", "table", "table or json")
}

func (c *client) check() error {
	if u, err := url.Parse(c.base); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return exitWith(exitUsage, fmt.Errorf("--api: %q is not an http or https URL", c.base))
	}
	if c.output != "table" && c.output != "json" {
		return exitWith(exitUsage, fmt.Errorf("--output: %q is neither table nor json", c.output))
	}
	c.base = strings.TrimRight(c.base, "/")
	c.http = &http.Client{Timeout: callTimeout}
	return nil
}

// call sends one request and decodes the answer into out, which may be nil.
// It returns the answer's bytes as they came.
func (c *client) call(ctx context.Context, method, path string, header http.Header, in, out any) ([]byte, error) {
	var body io.Reader
	if in != nil {
		b, asItIs := in.(json.RawMessage)
		if !asItIs {
			var err error
			if b, err = json.Marshal(in); err != nil {
				return nil, fmt.Errorf("encode the request: %w", err)
			}
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, fmt.Errorf("make the request: %w", err)
	}
	maps.Copy(req.Header, header)
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, exitWith(exitUnavailable, fmt.Errorf("reach the API: %w", err))
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswerBytes))
	if err != nil {
		return nil, exitWith(exitUnavailable, fmt.Errorf("read the API's answer: %w", err))
	}
	if res.StatusCode >= 300 {
		return nil, problemError(res.StatusCode, answer)
	}
	if out != nil {
		if err := json.Unmarshal(answer, out); err != nil {
			return nil, fmt.Errorf("read the API's answer: %w", err)
		}
	}
	return answer, nil
}

func problemError(status int, answer []byte) error {
	p := &problem{Status: status, Title: http.StatusText(status)}
	if err := json.Unmarshal(answer, p); err != nil {
		p = &problem{Status: status, Title: http.StatusText(status)}
	}
	switch status {
	case http.StatusNotFound:
		return exitWith(exitNotFound, p)
	case http.StatusServiceUnavailable, http.StatusBadGateway:
		return exitWith(exitUnavailable, p)
	}
	return p
}

// collection reads one collection, at least as new as it was seen before. query
// may be empty.
func (c *client) collection(ctx context.Context, id, query string) (col collection, raw []byte, err error) {
	header := http.Header{}
	c.mu.Lock()
	if at := c.seen[id]; at != "" {
		header.Set("Keten-At-Least", at)
	}
	c.mu.Unlock()
	raw, err = c.call(ctx, http.MethodGet, "/v1/collections/"+url.PathEscape(id)+query, header, nil, &col)
	c.note(&col)
	return col, raw, err
}

func (c *client) note(col *collection) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen == nil {
		c.seen = map[string]string{}
	}
	if col.ID != "" && col.Position != "" {
		c.seen[col.ID] = col.Position
	}
}

// start starts a collection from a template. key may be empty.
func (c *client) start(ctx context.Context, template, key string, body any) (col collection, raw []byte, err error) {
	path := "/v1/collections"
	if template != "" {
		path = "/v1/templates/" + url.PathEscape(template)
	}
	header := http.Header{}
	if key != "" {
		header.Set("Idempotency-Key", key)
	}
	raw, err = c.call(ctx, http.MethodPost, path, header, body, &col)
	c.note(&col)
	return col, raw, err
}

func (c *client) retry(ctx context.Context, id string, run int, reason string) (col collection, raw []byte, err error) {
	body := map[string]any{}
	if run > 0 {
		body["run"] = run
	}
	if reason != "" {
		body["reason"] = reason
	}
	raw, err = c.call(ctx, http.MethodPost, "/v1/collections/"+url.PathEscape(id)+"/retry", nil, body, &col)
	c.note(&col)
	return col, raw, err
}

func ended(status string) bool {
	return status == "succeeded" || status == "failed" || status == "canceled"
}

// outcome is nil for a collection that succeeded, else an error with the exit
// code for it.
func outcome(cols ...collection) error {
	for _, col := range cols {
		if col.Status != "succeeded" {
			return exitWith(exitNotDone, fmt.Errorf("collection %s: run %d %s", col.ID, col.Run, col.Status))
		}
	}
	return nil
}

// follow polls collections until each has ended and calls show whenever one of
// them looks different.
func (c *client) follow(ctx context.Context, ids []string, every time.Duration, show func([]collection)) ([]collection, error) {
	cols := make([]collection, len(ids))
	last := make([]string, len(ids))
	for {
		changed, open := false, false
		for i, id := range ids {
			if ended(cols[i].Status) {
				continue
			}
			col, raw, err := c.collection(ctx, id, "")
			if err != nil {
				return cols, err
			}
			cols[i] = col
			if string(raw) != last[i] {
				changed, last[i] = true, string(raw)
			}
			open = open || !ended(col.Status)
		}
		if changed {
			show(cols)
		}
		if !open {
			return cols, nil
		}
		select {
		case <-ctx.Done():
			return cols, timedOut(ctx)
		case <-time.After(every):
		}
	}
}

// timedOut tells the end of --timeout from a signal.
func timedOut(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return exitWith(exitTimeout, errors.New("waited as long as --timeout allows"))
	}
	return exitWith(exitFailure, errors.New("interrupted"))
}

func keyValues(args []string) (map[string]any, error) {
	m := map[string]any{}
	for _, a := range args {
		k, v, ok := strings.Cut(a, "=")
		if !ok || k == "" {
			return nil, exitWith(exitUsage, fmt.Errorf("argument %q: want name=value", a))
		}
		m[k] = literal(v)
	}
	return m, nil
}

// literal reads numbers, booleans, objects and lists as JSON, all else as text.
func literal(v string) any {
	if _, err := strconv.ParseFloat(v, 64); err != nil && v != "true" && v != "false" && !strings.HasPrefix(v, "{") && !strings.HasPrefix(v, "[") {
		return v
	}
	if json.Valid([]byte(v)) {
		return json.RawMessage(v)
	}
	return v
}
