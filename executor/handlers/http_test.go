package handlers_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"

	"github.com/keten-ledger/keten/executor"
	"github.com/keten-ledger/keten/executor/handlers"
	"github.com/keten-ledger/keten/ledger"
)

// calling makes a handler that calls a server of the test.
func calling(t *testing.T, serve http.HandlerFunc, edit ...func(*handlers.HTTPConfig)) executor.RawHandler {
	t.Helper()
	srv := httptest.NewServer(serve)
	t.Cleanup(srv.Close)
	cfg := handlers.HTTPConfig{URL: srv.URL + "/s3cret/path?key=s3cret", AllowPrivate: true}
	for _, e := range edit {
		e(&cfg)
	}
	h, err := handlers.HTTP(cfg)
	require.NoError(t, err)
	return h
}

func answer(status int, header, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if name, value, ok := strings.Cut(header, ": "); ok {
			w.Header().Set(name, value)
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func TestHTTPHandsTheTaskInAndTheResultOut(t *testing.T) {
	t.Parallel()
	var got *http.Request
	var body []byte
	secret := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(secret, []byte("  Bearer one \n"), 0o600))
	h := calling(t, func(w http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
		_, _ = io.WriteString(w, ` {"n": 12345678901234567890} `)
	}, func(c *handlers.HTTPConfig) {
		c.Method, c.Headers = http.MethodPut, map[string]string{"X-Team": "web"}
		c.HeadersFrom = map[string]string{"authorization": secret}
	})
	span := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled})
	task := rawTask()
	task.Type, task.Name = "dns.publish", "publish"
	task.TaskID = ledger.TaskID(task.Collection, ledger.KindTask, 7)
	result, err := h(trace.ContextWithSpanContext(t.Context(), span), task)
	require.NoError(t, err)
	require.Equal(t, `{"n": 12345678901234567890}`, string(result))
	require.Equal(t, http.MethodPut, got.Method)
	require.Equal(t, "/s3cret/path?key=s3cret", got.URL.String())
	require.Equal(t, "application/json", got.Header.Get("Content-Type"))
	require.Equal(t, "web", got.Header.Get("X-Team"))
	require.Equal(t, "Bearer one", got.Header.Get("Authorization"))
	require.Equal(t, task.TaskID.String(), got.Header.Get("Idempotency-Key"))
	require.Equal(t, "00-01000000000000000000000000000000-0200000000000000-01", got.Header.Get("Traceparent"))
	require.Equal(t, `{"args":{"n":12345678901234567890},"previous":"before","collection_id":"018bcfe5-6800-7abc-8102-030405060708",`+
		`"task_id":"`+task.TaskID.String()+`","run":2,"attempt":3,"fence":42,"deadline":"2023-11-14T22:13:20Z","type":"dns.publish","name":"publish"}`, string(body))

	// The secret is read again for each attempt.
	require.NoError(t, os.WriteFile(secret, []byte("Bearer two"), 0o600))
	_, err = h(t.Context(), task)
	require.NoError(t, err)
	require.Equal(t, "Bearer two", got.Header.Get("Authorization"))
	require.Empty(t, got.Header.Get("Traceparent"))
}

// Finally tasks have the same id in every run and are another task each time.
func TestHTTPKeyOfFinallyTasks(t *testing.T) {
	t.Parallel()
	keys := make(chan string, 1)
	h := calling(t, func(_ http.ResponseWriter, r *http.Request) { keys <- r.Header.Get("Idempotency-Key") })
	task := rawTask()
	task.TaskID = ledger.TaskID(task.Collection, ledger.KindFinally, 0)
	_, err := h(t.Context(), task)
	require.NoError(t, err)
	require.Equal(t, task.TaskID.String()+"-2", <-keys)
	task.TaskID = ledger.TaskID(task.Collection, ledger.KindTask, ledger.MaxTasks-1)
	_, err = h(t.Context(), task)
	require.NoError(t, err)
	require.Equal(t, task.TaskID.String(), <-keys)
}

func TestHTTPWithGetHasNoBody(t *testing.T) {
	t.Parallel()
	h := calling(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "[%q,%d,%q]", r.Method, len(b), r.Header.Get("Content-Type"))
	}, func(c *handlers.HTTPConfig) { c.Method = http.MethodGet })
	result, err := h(t.Context(), rawTask())
	require.NoError(t, err)
	require.JSONEq(t, `["GET",0,""]`, string(result))
}

func TestHTTPMeanings(t *testing.T) {
	t.Parallel()
	mapped := func(c *handlers.HTTPConfig) {
		c.Deferred = true
		c.Status = map[int]handlers.Meaning{409: handlers.MeansSuccess, 404: handlers.MeansRetry, 500: handlers.MeansFail, 200: handlers.MeansPending, 202: handlers.MeansSuccess}
	}
	deferred := func(c *handlers.HTTPConfig) { c.Deferred = true }
	plain := func(*handlers.HTTPConfig) {}
	for _, tt := range []struct {
		status int
		edit   func(*handlers.HTTPConfig)
		want   handlers.Meaning
	}{
		{200, plain, handlers.MeansSuccess},
		{201, plain, handlers.MeansSuccess},
		{202, plain, handlers.MeansSuccess},
		{202, deferred, handlers.MeansPending},
		{200, deferred, handlers.MeansSuccess},
		{301, plain, handlers.MeansFail},
		{400, plain, handlers.MeansFail},
		{409, plain, handlers.MeansFail},
		{408, plain, handlers.MeansRetry},
		{425, plain, handlers.MeansRetry},
		{429, plain, handlers.MeansRetry},
		{500, plain, handlers.MeansRetry},
		{503, plain, handlers.MeansRetry},
		{409, mapped, handlers.MeansSuccess},
		{404, mapped, handlers.MeansRetry},
		{500, mapped, handlers.MeansFail},
		{200, mapped, handlers.MeansPending},
		{202, mapped, handlers.MeansSuccess},
	} {
		h := calling(t, answer(tt.status, "", `{"ok":true}`), tt.edit)
		task := rawTask()
		task.OutcomeToken = func() (string, error) { return "token", nil }
		result, err := h(t.Context(), task)
		switch tt.want {
		case handlers.MeansSuccess:
			require.NoError(t, err, tt.status)
			require.JSONEq(t, `{"ok":true}`, string(result))
		case handlers.MeansPending:
			require.ErrorIs(t, err, executor.ErrPending, tt.status)
		default:
			failed := failure(t, err)
			require.Equal(t, tt.want == handlers.MeansRetry, failed.Retryable, tt.status)
			require.Equal(t, ledger.CodeHTTPStatus, failed.Code)
			require.Contains(t, failed.Message, fmt.Sprintf("answered %d %s", tt.status, http.StatusText(tt.status)))
			require.Contains(t, failed.Detail, `{"ok":true}`)
		}
	}
}

func TestHTTPResults(t *testing.T) {
	t.Parallel()
	h := calling(t, answer(204, "", ""))
	result, err := h(t.Context(), rawTask())
	require.NoError(t, err)
	require.Empty(t, result)
	largest := `"` + strings.Repeat("x", ledger.MaxPayloadBytes-2) + `"`
	h = calling(t, answer(200, "", largest))
	result, err = h(t.Context(), rawTask())
	require.NoError(t, err)
	require.Len(t, result, ledger.MaxPayloadBytes)
	for body, want := range map[string]string{
		"<html>":              "(200 OK) is not a result: is not valid JSON",
		`{"a":1,"a":2}`:       "is not a result",
		largest[:5] + largest: "is not a result: is longer than 262144 bytes",
	} {
		h := calling(t, answer(200, "", body))
		_, err := h(t.Context(), rawTask())
		failed := failure(t, err)
		require.Equal(t, ledger.CodeInvalidResult, failed.Code)
		require.Contains(t, failed.Message, want)
		require.False(t, failed.Retryable)
		require.LessOrEqual(t, len(failed.Detail), 16<<10)
	}
}

// No more is read of an answer than a result may have.
func TestHTTPReadsNoEndlessAnswer(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]string{200: ledger.CodeInvalidResult, 400: ledger.CodeHTTPStatus} {
		h := calling(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			for err := error(nil); err == nil; {
				_, err = io.WriteString(w, strings.Repeat("x", 1<<16))
			}
		})
		ctx, stop := context.WithTimeout(t.Context(), patience)
		_, err := h(ctx, rawTask())
		stop()
		require.Equal(t, want, failure(t, err).Code)
	}
}

func TestHTTPHeedsRetryAfter(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]time.Duration{
		"120": 2 * time.Minute, " 5 ": 5 * time.Second, "0": 0, "-3": 0, "soon": 0, "": 0,
		"999999999999999999": 24 * time.Hour, "99999999999999999999999": 0,
		"Fri, 01 Jan 1999 00:00:00 GMT": 0, "Fri, 01 Jan 2999 00:00:00 GMT": 24 * time.Hour,
	} {
		h := calling(t, answer(503, "Retry-After: "+value, ""))
		_, err := h(t.Context(), rawTask())
		require.Equal(t, want, failure(t, err).RetryAfter, value)
	}
	h := calling(t, answer(503, "Retry-After: "+time.Now().Add(time.Hour).UTC().Format(http.TimeFormat), ""))
	_, err := h(t.Context(), rawTask())
	require.InDelta(t, time.Hour.Seconds(), failure(t, err).RetryAfter.Seconds(), 60)
	h = calling(t, answer(400, "Retry-After: 120", ""))
	_, err = h(t.Context(), rawTask())
	require.Zero(t, failure(t, err).RetryAfter, "a failure for good")
}

func TestHTTPReadsProblems(t *testing.T) {
	t.Parallel()
	const problem = "Content-Type: application/problem+json; charset=utf-8"
	for body, want := range map[string]string{
		`{"title":"No credit","detail":"Your balance is 30.","status":403}`: "No credit: Your balance is 30.",
		`{"title":"No credit"}`:              "No credit",
		`{"detail":"a\u0000b","status":"x"}`: "a?b",
		`{"title":{}}`:                       "answered 403 Forbidden",
		`not JSON`:                           "answered 403 Forbidden",
	} {
		h := calling(t, answer(403, problem, body), func(c *handlers.HTTPConfig) { c.Audience = ledger.AudienceUser })
		_, err := h(t.Context(), rawTask())
		failed := failure(t, err)
		require.Contains(t, failed.Message, want)
		require.Contains(t, failed.Detail, body)
		require.Equal(t, ledger.AudienceUser, failed.Audience)
	}
	h := calling(t, answer(403, "Content-Type: application/json", `{"title":"No credit"}`))
	_, err := h(t.Context(), rawTask())
	require.NotContains(t, failure(t, err).Message, "No credit", "that is no problem document")
	h = calling(t, answer(500, problem, `{"title":"`+strings.Repeat("x", 100_000)))
	_, err = h(t.Context(), rawTask())
	require.LessOrEqual(t, len(failure(t, err).Detail), 17<<10)
}

func TestHTTPDeferred(t *testing.T) {
	t.Parallel()
	var body map[string]any
	h := calling(t, func(w http.ResponseWriter, r *http.Request) {
		body = nil
		_ = json.NewDecoder(r.Body).Decode(&body)
		w.WriteHeader(http.StatusAccepted)
	}, func(c *handlers.HTTPConfig) { c.Deferred, c.OutcomeURL = true, "https://keten.example/" })
	task := rawTask()
	for _, none := range []func() (string, error){nil, func() (string, error) { return "", errors.New("no key") }} {
		task.OutcomeToken = none
		_, err := h(t.Context(), task)
		require.Equal(t, ledger.CodeConfig, failure(t, err).Code)
		require.Nil(t, body, "nothing was asked for")
	}
	task.OutcomeToken = func() (string, error) { return "one-time", nil }
	_, err := h(t.Context(), task)
	require.ErrorIs(t, err, executor.ErrPending)
	require.Equal(t, "one-time", body["outcome_token"])
	require.Equal(t, "https://keten.example/v1/tasks/"+task.TaskID.String()+"/outcome", body["outcome_url"])
	require.Equal(t, task.TaskID.String(), body["task_id"])
}

func TestHTTPSecretsThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "secret")
	asked := false
	h := calling(t, func(http.ResponseWriter, *http.Request) { asked = true }, func(c *handlers.HTTPConfig) {
		c.HeadersFrom, c.Audience = map[string]string{"Authorization": path}, ledger.AudienceUser
	})
	check := func(want string) {
		t.Helper()
		_, err := h(t.Context(), rawTask())
		failed := failure(t, err)
		require.Equal(t, ledger.CodeConfig, failed.Code)
		require.Equal(t, ledger.AudienceOperator, failed.Audience)
		require.Contains(t, failed.Message, want)
		require.NotContains(t, failed.Message+failed.Detail, "s3cret")
		require.False(t, asked)
	}
	check("header Authorization: open " + path + ": no such file or directory")
	for text, want := range map[string]string{
		"\n":                           "is empty",
		"s3cret\ns3cret":               "more than one line",
		"s3cret\x00":                   "characters that cannot be sent",
		strings.Repeat("s3cret", 2000): "is longer than 8192 bytes",
	} {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		check(want)
	}
}

// The guard looks at the address that is connected to, so no spelling and no
// name leads around it.
func TestHTTPGoesToPublicAddressesOnly(t *testing.T) {
	t.Parallel()
	asked := make(chan string, 100)
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked <- r.Host }))
	t.Cleanup(srv.Close)
	_, port, err := net.SplitHostPort(srv.Listener.Addr().String())
	require.NoError(t, err)
	names, err := net.DefaultResolver.LookupHost(t.Context(), "localhost")
	require.NoError(t, err, "a name that leads to loopback")
	require.NotEmpty(t, names)
	for _, host := range []string{
		"localhost", "127.0.0.1", "127.1.2.3", "0.0.0.0", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]",
		"10.0.0.1", "172.16.0.1", "192.168.0.1", "100.64.0.1", "169.254.169.254", "[fe80::1]", "[fd00:ec2::254]", "[fc00::1]", "224.0.0.1", "255.255.255.255",
	} {
		h, err := handlers.HTTP(handlers.HTTPConfig{URL: "http://" + host + ":" + port + "/", Audience: ledger.AudienceUser})
		require.NoError(t, err)
		_, err = h(t.Context(), rawTask())
		failed := failure(t, err)
		require.Equal(t, ledger.CodeConfig, failed.Code, "%s: %v", host, err)
		require.Equal(t, ledger.AudienceOperator, failed.Audience)
		require.Contains(t, failed.Message, "is not a public one")
		require.False(t, failed.Retryable)
	}
	require.Empty(t, asked)

	h, err := handlers.HTTP(handlers.HTTPConfig{URL: srv.URL, Allowed: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::1/128")}})
	require.NoError(t, err)
	_, err = h(t.Context(), rawTask())
	require.Equal(t, ledger.CodeConfig, failure(t, err).Code, "others are allowed, not this one")
	h, err = handlers.HTTP(handlers.HTTPConfig{URL: srv.URL, Allowed: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	require.NoError(t, err)
	_, err = h(t.Context(), rawTask())
	require.NoError(t, err)
	require.Len(t, asked, 1)
}

func TestHTTPFollowsNoRedirect(t *testing.T) {
	t.Parallel()
	asked := 0
	h := calling(t, func(w http.ResponseWriter, r *http.Request) {
		asked++
		http.Redirect(w, r, "/elsewhere?token=s3cret", http.StatusTemporaryRedirect)
	})
	_, err := h(t.Context(), rawTask())
	failed := failure(t, err)
	require.Contains(t, failed.Message, "answered 307 Temporary Redirect: redirects are not followed")
	require.NotContains(t, failed.Message, "s3cret")
	require.False(t, failed.Retryable)
	require.Equal(t, 1, asked)
}

func TestHTTPUsesNoProxy(t *testing.T) {
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }))
	t.Cleanup(proxy.Close)
	t.Setenv("HTTP_PROXY", proxy.URL)
	t.Setenv("http_proxy", proxy.URL)
	h, err := handlers.HTTP(handlers.HTTPConfig{URL: "http://keten.invalid/", AllowPrivate: true})
	require.NoError(t, err)
	_, err = h(t.Context(), rawTask())
	require.Equal(t, handlers.CodeHTTPUnreachable, failure(t, err).Code)
}

// An answer that drips on for ever ends with the context, and so does one that
// never begins.
func TestHTTPEndsWithItsContext(t *testing.T) {
	t.Parallel()
	for _, begin := range []bool{true, false} {
		over := make(chan struct{})
		t.Cleanup(func() { close(over) })
		began := make(chan struct{})
		h := calling(t, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			if begin {
				_, _ = io.WriteString(w, `"`)
				_ = http.NewResponseController(w).Flush()
			}
			close(began)
			for {
				select {
				case <-over:
					return
				case <-r.Context().Done():
					return
				case <-time.After(time.Millisecond):
					if begin {
						_, _ = io.WriteString(w, "x")
						_ = http.NewResponseController(w).Flush()
					}
				}
			}
		})
		cause := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		go func() { <-began; cancel(cause) }()
		_, err := h(ctx, rawTask())
		require.ErrorIs(t, err, cause)
		deadline, stop := context.WithTimeout(t.Context(), 100*time.Millisecond)
		began = make(chan struct{})
		_, err = h(deadline, rawTask())
		stop()
		require.ErrorIs(t, err, context.DeadlineExceeded)
	}
}

func TestHTTPUnreachable(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(answer(200, "", ""))
	addr := srv.Listener.Addr().String()
	srv.Close()
	cut := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "1")
	}
	h, err := handlers.HTTP(handlers.HTTPConfig{URL: "http://" + addr + "/s3cret", AllowPrivate: true})
	require.NoError(t, err)
	tlsServer := httptest.NewTLSServer(answer(200, "", ""))
	t.Cleanup(tlsServer.Close)
	untrusted, err := handlers.HTTP(handlers.HTTPConfig{URL: tlsServer.URL + "/s3cret", AllowPrivate: true})
	require.NoError(t, err)
	for want, h := range map[string]executor.RawHandler{
		"connection refused": h, "the answer ended too early": calling(t, cut), "certificate": untrusted,
	} {
		_, err = h(t.Context(), rawTask())
		failed := failure(t, err)
		require.Equal(t, handlers.CodeHTTPUnreachable, failed.Code)
		require.True(t, failed.Retryable)
		require.Contains(t, failed.Message, want)
		require.NotContains(t, failed.Message+failed.Detail, "s3cret")
	}
}

func TestHTTPConfigIsChecked(t *testing.T) {
	t.Parallel()
	const url = "https://dns.example/"
	for want, cfg := range map[string]handlers.HTTPConfig{
		"url must be absolute":                {URL: "/records"},
		"with http or https":                  {URL: "file:///etc/passwd"},
		"url cannot be parsed":                {URL: "http://a b/s3cret"},
		"must not hold a user":                {URL: "https://s3cret@dns.example/"},
		`method "TRACE" is none of`:           {URL: url, Method: "TRACE"},
		"GET has none":                        {URL: url, Method: "GET", Deferred: true},
		`header "a b" is not a header's name`: {URL: url, Headers: map[string]string{"a b": "x"}},
		"header Host is set by":               {URL: url, Headers: map[string]string{"host": "x"}},
		"header Idempotency-Key is set by":    {URL: url, HeadersFrom: map[string]string{"idempotency-key": "x"}},
		"header X-A is given twice":           {URL: url, Headers: map[string]string{"x-a": "x"}, HeadersFrom: map[string]string{"X-A": "/x"}},
		"header A has a value that cannot":    {URL: url, Headers: map[string]string{"A": "s3cret\r\nB: c"}},
		"header A comes from a file without":  {URL: url, HeadersFrom: map[string]string{"A": ""}},
		"status 199 is not between":           {URL: url, Status: map[int]handlers.Meaning{199: handlers.MeansFail}},
		`status 200 means "good"`:             {URL: url, Status: map[int]handlers.Meaning{200: "good"}},
		"the type is not deferred":            {URL: url, Status: map[int]handlers.Meaning{202: handlers.MeansPending}},
	} {
		_, err := handlers.HTTP(cfg)
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "s3cret")
	}
}

// One attempt is one request, also when a connection that was kept ends before the
// answer: the server may have done what it was asked.
func TestHTTPSendsOneRequestPerAttempt(t *testing.T) {
	t.Parallel()
	var requests atomic.Int64
	h := calling(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // what comes of it is seen at the other end
		if requests.Add(1) == 1 {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		panic(http.ErrAbortHandler)
	})
	_, err := h(t.Context(), rawTask())
	require.NoError(t, err)
	_, err = h(t.Context(), rawTask())
	require.True(t, failure(t, err).Retryable)
	require.EqualValues(t, 2, requests.Load())
}

// Where a redirect leads to is not told, also when it leads nowhere.
func TestHTTPKeepsARedirectsPlaceToItself(t *testing.T) {
	t.Parallel()
	h := calling(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", "http://user:s3cret@[bad/%zz")
		w.WriteHeader(http.StatusFound)
	})
	_, err := h(t.Context(), rawTask())
	failed := failure(t, err)
	require.Equal(t, ledger.CodeHTTPStatus, failed.Code)
	require.False(t, failed.Retryable)
	require.NotContains(t, failed.Message+failed.Detail, "s3cret")
}
