package handlers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/keten-ledger/keten/executor"
	"github.com/keten-ledger/keten/ledger"
)

// keptAnswerBytes is how much of an unsuccessful answer is kept for operators.
const keptAnswerBytes = 16 << 10

func (r *request) meaning(status int) Meaning {
	if m, ok := r.cfg.Status[status]; ok {
		return m
	}
	switch {
	case status == http.StatusAccepted && r.cfg.Deferred:
		return MeansPending
	case status >= 200 && status < 300:
		return MeansSuccess
	case status == http.StatusRequestTimeout, status == http.StatusTooEarly, status == http.StatusTooManyRequests, status >= 500:
		return MeansRetry
	}
	return MeansFail
}

func (r *request) result(ctx context.Context, res *http.Response) (json.RawMessage, error) {
	body, err := io.ReadAll(io.LimitReader(res.Body, ledger.MaxPayloadBytes+1))
	if err != nil {
		return nil, r.unanswered(ctx, fmt.Errorf("the answer ended too early: %w", err))
	}
	body = bytes.TrimSpace(body)
	switch {
	case len(body) > ledger.MaxPayloadBytes:
		err = fmt.Errorf("is longer than %d bytes", ledger.MaxPayloadBytes)
	case len(body) == 0:
		return nil, nil
	default:
		err = ledger.CheckPayload(body)
	}
	if err != nil {
		return nil, &executor.Error{
			Code: ledger.CodeInvalidResult, Message: fmt.Sprintf("the answer of %s (%s) is not a result: %v", r.host, statusOf(res), err),
			Detail: excerpt(body), Audience: ledger.AudienceOperator, Err: err,
		}
	}
	return body, nil
}

// refused is the failure that an answer means.
func (r *request) refused(res *http.Response, m Meaning) error {
	retryable := m == MeansRetry
	body, _ := io.ReadAll(io.LimitReader(res.Body, keptAnswerBytes)) // what there is of it
	failure := &executor.Error{
		Code: ledger.CodeHTTPStatus, Message: r.host + " answered " + statusOf(res), Detail: excerpt(body), Audience: r.cfg.Audience, Retryable: retryable,
	}
	if problem := problemIn(res, body); problem != "" {
		failure.Message = problem
		failure.Detail = r.host + " answered " + statusOf(res) + "\n" + failure.Detail
	}
	if res.StatusCode >= 300 && res.StatusCode < 400 {
		failure.Message += ": redirects are not followed"
	}
	if retryable {
		failure.RetryAfter = retryAfter(res.Header.Get("Retry-After"), time.Now())
	}
	return failure
}

// statusOf does not repeat what the server calls its status.
func statusOf(res *http.Response) string {
	return strings.TrimSpace(strconv.Itoa(res.StatusCode) + " " + http.StatusText(res.StatusCode))
}

// problemIn returns what an RFC 9457 problem says to people.
func problemIn(res *http.Response, body []byte) string {
	media, _, err := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if err != nil || media != "application/problem+json" {
		return ""
	}
	var p struct {
		Title  string `json:"title"`
		Detail string `json:"detail"`
	}
	var bad *json.UnmarshalTypeError
	if err := json.Unmarshal(body, &p); err != nil && !errors.As(err, &bad) {
		return ""
	}
	title, detail := strings.TrimSpace(safe(p.Title)), strings.TrimSpace(safe(p.Detail))
	if title != "" && detail != "" {
		return title + ": " + detail
	}
	return title + detail
}

// retryAfter reads seconds or a date; 0 is neither, or now.
func retryAfter(value string, now time.Time) time.Duration {
	const most = ledger.MaxBackoffMS * time.Millisecond
	value = strings.TrimSpace(value)
	if seconds, err := strconv.ParseUint(value, 10, 63); err == nil {
		if seconds > uint64(most/time.Second) {
			return most
		}
		return time.Duration(seconds) * time.Second
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), most)
}

func excerpt(body []byte) string { return safe(string(body[:min(len(body), keptAnswerBytes)])) }
