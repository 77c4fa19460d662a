package handlers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"

	"go.opentelemetry.io/otel/propagation"

	"github.com/keten-ledger/keten/executor"
	"github.com/keten-ledger/keten/ledger"
)

// CodeHTTPUnreachable is the code of a request that got no answer.
const CodeHTTPUnreachable = "http_unreachable"

// maxSecretBytes bounds a file with a header's value.
const maxSecretBytes = 8 << 10

// A Meaning is what the status of an answer means for the task.
type Meaning string

// The meanings of a status.
const (
	MeansSuccess Meaning = "success" // the body is the result
	MeansRetry   Meaning = "retry"   // a failure that another attempt may mend
	MeansFail    Meaning = "fail"    // a failure for good
	MeansPending Meaning = "pending" // the outcome comes later, from outside
)

// HTTPConfig says how a type's tasks are run as an HTTP request.
type HTTPConfig struct {
	// Method is GET, POST, PUT, PATCH or DELETE; empty means POST. GET has no
	// body.
	Method string
	// URL is called, http or https, without user information. Required.
	URL string
	// Headers are sent, and HeadersFrom with the trimmed content of the file of
	// that path, at most 8 KiB, which is read for each attempt. Names are not
	// those that requests are framed with, and not those that Keten sets:
	// Idempotency-Key, Traceparent, Tracestate.
	Headers, HeadersFrom map[string]string
	// Deferred says that the server may report the outcome later: the body
	// then has outcome_token and, if OutcomeURL is set, outcome_url, and the
	// status 202 means pending. Only with it may a status mean that.
	Deferred bool
	// OutcomeURL is where Keten's API answers, such as https://keten.example.
	OutcomeURL string
	// Status says what a status means, 200 to 599. Others: 2xx success, 408,
	// 425, 429 and 5xx retry, else fail.
	Status map[int]Meaning
	// AllowPrivate lets the connection go to any address, else it must be a
	// public one or in Allowed.
	AllowPrivate bool
	Allowed      []netip.Prefix
	// Audience of its failures; empty means operator. What an operator must
	// see to, such as a secret that is missing, is always for operators.
	Audience ledger.Audience
}

type request struct {
	cfg       HTTPConfig
	host      string // for messages: URLs may hold secrets
	transport *http.Transport
}

// HTTP returns a handler that makes one request for each attempt. The body is
// one JSON document: args, previous, collection_id, task_id, run, attempt, fence,
// deadline, type and name. The header Idempotency-Key is the task's id, of a
// finally task with the run behind it, so it is the same in every attempt. A
// successful answer's body is the result, an empty one is none; that of another
// one may be an RFC 9457 problem, whose title and detail become the message.
// Retry-After is heeded. Neither redirects nor proxies are followed, and a
// connection to an address that is not public is refused. The attempt takes as
// long as the handler's context lasts.
//
// The error says what is wrong with the configuration.
func HTTP(cfg HTTPConfig) (executor.RawHandler, error) {
	if cfg.Method == "" {
		cfg.Method = http.MethodPost
	}
	u, err := cfg.check()
	if err != nil {
		return nil, err
	}
	r := &request{cfg: cfg, host: u.Host, transport: newTransport(cfg)}
	return r.handle, nil
}

func (c *HTTPConfig) check() (*url.URL, error) {
	if !slices.Contains([]string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}, c.Method) {
		return nil, fmt.Errorf("method %q is none of GET, POST, PUT, PATCH, DELETE", c.Method)
	}
	u, err := url.Parse(c.URL)
	switch {
	case err != nil:
		return nil, errors.New("url cannot be parsed") // the error would repeat it
	case u.Scheme != "http" && u.Scheme != "https", u.Host == "", u.Opaque != "":
		return nil, errors.New("url must be absolute, with http or https")
	case u.User != nil:
		return nil, errors.New("url must not hold a user or a password: use headers from files")
	}
	if c.Deferred && c.Method == http.MethodGet {
		return nil, errors.New("a deferred task needs a body for its token, and GET has none")
	}
	if err := c.checkHeaders(); err != nil {
		return nil, err
	}
	for status, m := range c.Status {
		switch {
		case status < 200 || status > 599:
			return nil, fmt.Errorf("status %d is not between 200 and 599", status)
		case !slices.Contains([]Meaning{MeansSuccess, MeansRetry, MeansFail, MeansPending}, m):
			return nil, fmt.Errorf("status %d means %q, want success, retry, fail or pending", status, m)
		case m == MeansPending && !c.Deferred:
			return nil, fmt.Errorf("status %d means pending, and the type is not deferred", status)
		}
	}
	return u, nil
}

func (c *HTTPConfig) checkHeaders() error {
	seen := map[string]bool{}
	for _, headers := range []map[string]string{c.Headers, c.HeadersFrom} {
		for name := range headers {
			canonical := http.CanonicalHeaderKey(name)
			switch {
			case !isToken(name):
				return fmt.Errorf("header %q is not a header's name", name)
			case isReserved(canonical):
				return fmt.Errorf("header %s is set by Keten or by the connection", canonical)
			case seen[canonical]:
				return fmt.Errorf("header %s is given twice", canonical)
			}
			seen[canonical] = true
		}
	}
	for name, value := range c.Headers {
		if !isHeaderValue(value) {
			return fmt.Errorf("header %s has a value that cannot be sent", name)
		}
	}
	for name, path := range c.HeadersFrom {
		if path == "" {
			return fmt.Errorf("header %s comes from a file without a name", name)
		}
	}
	return nil
}

func isReserved(canonical string) bool {
	return slices.Contains([]string{
		"Host", "Content-Length", "Transfer-Encoding", "Connection", "Keep-Alive", "Proxy-Authorization", "Proxy-Connection", "Te", "Trailer", "Upgrade", "Expect",
		"Idempotency-Key", "Traceparent", "Tracestate",
	}, canonical)
}

// isToken is RFC 9110's token, of which header names are made.
func isToken(s string) bool {
	for i := range len(s) {
		b := s[i]
		if ('a' > b || b > 'z') && ('A' > b || b > 'Z') && ('0' > b || b > '9') && strings.IndexByte("!#$%&'*+-.^_`|~", b) < 0 {
			return false
		}
	}
	return s != ""
}

func isHeaderValue(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f })
}

func (r *request) handle(ctx context.Context, t executor.RawTask) (json.RawMessage, error) {
	req, err := r.build(ctx, t)
	if err != nil {
		return nil, err
	}
	res, err := r.transport.RoundTrip(req)
	if err != nil {
		return nil, r.unanswered(ctx, err)
	}
	defer res.Body.Close()
	switch m := r.meaning(res.StatusCode); m {
	case MeansSuccess:
		return r.result(ctx, res)
	case MeansPending:
		return nil, executor.ErrPending
	default:
		return nil, r.refused(res, m)
	}
}

func (r *request) build(ctx context.Context, t executor.RawTask) (*http.Request, error) {
	body, err := r.body(t)
	if err != nil {
		return nil, err
	}
	var reader io.Reader
	if r.cfg.Method != http.MethodGet {
		reader = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, r.cfg.Method, r.cfg.URL, reader)
	if err != nil {
		return nil, executor.Permanent(errors.New("the request cannot be made")) // checked before
	}
	req.Header.Set("Accept", "application/json, application/problem+json")
	req.Header.Set("User-Agent", "keten")
	if reader != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for name, value := range r.cfg.Headers {
		req.Header.Set(name, value)
	}
	for name, path := range r.cfg.HeadersFrom {
		value, err := readSecret(path)
		if err != nil {
			return nil, misconfigured("header %s: %w", name, err)
		}
		req.Header.Set(name, value)
	}
	// Not by Set: under the name that net/http knows, it would send the request
	// again by itself when a kept connection ends, and one attempt is one request.
	req.Header["idempotency-key"] = []string{idempotencyKey(t)}
	propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(req.Header))
	return req, nil
}

// body is the task, for a deferred one with what its outcome is reported with.
func (r *request) body(t executor.RawTask) ([]byte, error) {
	doc := struct {
		document

		OutcomeToken string `json:"outcome_token,omitempty"`
		OutcomeURL   string `json:"outcome_url,omitempty"`
	}{document: newDocument(t)}
	if r.cfg.Deferred {
		if t.OutcomeToken == nil {
			return nil, misconfigured("the type is deferred, and this executor has no key for outcome tokens")
		}
		token, err := t.OutcomeToken()
		if err != nil {
			return nil, misconfigured("make an outcome token: %w", err)
		}
		doc.OutcomeToken = token
		if r.cfg.OutcomeURL != "" {
			doc.OutcomeURL = strings.TrimRight(r.cfg.OutcomeURL, "/") + "/v1/tasks/" + t.TaskID.String() + "/outcome"
		}
	}
	b, err := json.Marshal(doc)
	if err != nil {
		return nil, executor.Permanent(fmt.Errorf("encode the task: %w", err))
	}
	return b, nil
}

// idempotencyKey is the task's id. Finally tasks have the same id in every run,
// and are another task each time.
func idempotencyKey(t executor.RawTask) string {
	for i := range ledger.MaxTasks {
		if t.TaskID == ledger.TaskID(t.Collection, ledger.KindTask, i) {
			return t.TaskID.String()
		}
	}
	return fmt.Sprintf("%s-%d", t.TaskID, t.Run)
}

// misconfigured is for operators, whoever the type's failures are for.
func misconfigured(format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return &executor.Error{Code: ledger.CodeConfig, Message: err.Error(), Audience: ledger.AudienceOperator, Err: err}
}

// readSecret never says what is in the file.
func readSecret(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSecretBytes+1))
	if err != nil {
		return "", err
	}
	value := strings.TrimSpace(string(b))
	switch {
	case len(b) > maxSecretBytes:
		return "", fmt.Errorf("%s is longer than %d bytes", path, maxSecretBytes)
	case value == "":
		return "", fmt.Errorf("%s is empty", path)
	case !isHeaderValue(value):
		return "", fmt.Errorf("%s has more than one line, or characters that cannot be sent", path)
	}
	return value, nil
}
