package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/keten-ledger/keten/internal/catalog"
	"github.com/keten-ledger/keten/internal/readmodel"
	"github.com/keten-ledger/keten/ledger"
)

// The codes of problems. They are part of the contract: clients branch on them.
const (
	codeMalformed       = "malformed_json"
	codeInvalid         = "invalid_request"
	codeUnknownType     = "unknown_type"
	codeUnknownTemplate = "unknown_template"
	codeKeyReused       = "idempotency_key_reused"
	codeTooLarge        = "body_too_large"
	codeMediaType       = "unsupported_media_type"
	codeBodyTimeout     = "body_timeout"
	codeCrossOrigin     = "cross_origin"
	codeUnknownHost     = "unknown_host"
	codeNotFound        = "not_found"
	codeNoRoute         = "no_such_route"
	codeMethod          = "method_not_allowed"
	codeNotRetryable    = "not_retryable"
	codeRunChanged      = "run_changed"
	codeRefused         = "refused"
	codeOutcomeUnknown  = "outcome_unknown"
	codeOverloaded      = "overloaded"
	codeUnavailable     = "unavailable"
	codeBehind          = "projection_behind"
	codeContended       = "contended"
	codeHistoryLost     = "history_lost"
	codeNotReady        = "not_ready"
	codeInvalidToken    = "invalid_token"
	codeAttemptClosed   = "attempt_closed"
	codeNoOutcomes      = "outcomes_not_configured"
	codeInternal        = "internal"
)

// describe is the table from codes to statuses and titles. retryAfter is the
// Retry-After header in seconds, 0 for none.
func describe(code string) (status int, title string, retryAfter int) {
	switch code {
	case codeMalformed:
		return http.StatusBadRequest, "The body is not one JSON document", 0
	case codeInvalid:
		return http.StatusUnprocessableEntity, "The request breaks a rule", 0
	case codeUnknownType:
		return http.StatusUnprocessableEntity, "There is no such task type", 0
	case codeUnknownTemplate:
		return http.StatusNotFound, "There is no such template", 0
	case codeKeyReused:
		return http.StatusUnprocessableEntity, "The Idempotency-Key belongs to another request", 0
	case codeTooLarge:
		return http.StatusRequestEntityTooLarge, "The body is too large", 0
	case codeMediaType:
		return http.StatusUnsupportedMediaType, "The body must be application/json", 0
	case codeBodyTimeout:
		return http.StatusRequestTimeout, "The body took too long to arrive", 0
	case codeCrossOrigin:
		return http.StatusForbidden, "A page of another origin may not do this", 0
	case codeUnknownHost:
		return http.StatusMisdirectedRequest, "The API is not called by this name", 0
	case codeNotFound:
		return http.StatusNotFound, "There is no such resource", 0
	case codeNoRoute:
		return http.StatusNotFound, "There is nothing at this path", 0
	case codeMethod:
		return http.StatusMethodNotAllowed, "The path does not take this method", 0
	case codeNotRetryable:
		return http.StatusConflict, "The collection cannot be retried now", 0
	case codeRunChanged:
		return http.StatusConflict, "Another run has started meanwhile", 0
	case codeRefused:
		return http.StatusConflict, "The ledger refused the command", 0
	case codeOutcomeUnknown:
		return http.StatusServiceUnavailable, "It is not known whether the command was written", 1
	case codeOverloaded:
		return http.StatusServiceUnavailable, "Too many commands are being written", 1
	case codeUnavailable:
		return http.StatusServiceUnavailable, "A service behind the API cannot be reached", 2
	case codeBehind:
		return http.StatusServiceUnavailable, "The read model is behind", 1
	case codeContended:
		return http.StatusServiceUnavailable, "Others changed the same thing again and again", 1
	case codeHistoryLost:
		return http.StatusServiceUnavailable, "The ledger has lost history", 0
	case codeInvalidToken:
		return http.StatusUnauthorized, "The token is not good for this", 0
	case codeAttemptClosed:
		return http.StatusConflict, "The attempt has ended otherwise", 0
	case codeNoOutcomes:
		return http.StatusNotImplemented, "The server takes no outcomes from outside", 0
	case codeNotReady:
		return http.StatusServiceUnavailable, "The process is not ready", 2
	}
	return http.StatusInternalServerError, "Something went wrong here", 0
}

// A Problem is an RFC 9457 problem document.
type Problem struct { //nolint:errname // RFC 9457's word
	Type      string       `doc:"Identifies the kind of problem; names its code."                          example:"urn:keten:problem:not_retryable"        json:"type"`
	Title     string       `doc:"What kind of problem it is, the same for every problem of the code."      example:"The collection cannot be retried now"   json:"title"`
	Status    int          `doc:"The HTTP status."                                                         example:"409"                                    json:"status"`
	Code      string       `doc:"What programs branch on; stable."                                         example:"not_retryable"                          json:"code"`
	Detail    string       `doc:"What happened this time, for people."                                     example:"The collection's status is succeeded."  json:"detail,omitempty"`
	RequestID string       `doc:"The request's id, also in the header X-Request-Id and in the server's log." json:"request_id,omitempty"`
	Errors    []FieldError `doc:"Each part of the request that breaks a rule."                             json:"errors,omitempty"                          nullable:"false"`

	header http.Header
}

// A FieldError names one part of a request that breaks a rule: by Path when it
// is in the body, else by Location.
type FieldError struct {
	Path     string `doc:"JSON pointer into the body."                                              example:"/tasks/0/type"                     json:"path,omitempty"`
	Location string `doc:"A part other than one within the body: body, query.limit, header.Prefer." json:"location,omitempty"`
	Message  string `doc:"The rule in words."                                                       example:"there is no task type \"dns.push\"" json:"message"`
}

// Error implements error.
func (p *Problem) Error() string { return p.Code + ": " + p.Detail }

// GetStatus implements [huma.StatusError].
func (p *Problem) GetStatus() int { return p.Status }

// GetHeaders implements [huma.HeadersError].
func (p *Problem) GetHeaders() http.Header { return p.header }

// ContentType implements [huma.ContentTypeFilter].
func (p *Problem) ContentType(string) string { return "application/problem+json" }

func newProblem(code, format string, args ...any) *Problem {
	status, title, retryAfter := describe(code)
	p := &Problem{Type: "urn:keten:problem:" + code, Title: title, Status: status, Code: code, Detail: fmt.Sprintf(format, args...)}
	if retryAfter > 0 {
		p.header = http.Header{"Retry-After": {strconv.Itoa(retryAfter)}}
	}
	return p
}

func (p *Problem) with(header, value string) *Problem {
	if p.header == nil {
		p.header = http.Header{}
	}
	p.header.Set(header, value)
	return p
}

// problem is the table from errors to problems. What it does not know is
// logged and answered without a word about the inside.
func (a *API) problem(ctx context.Context, err error) *Problem {
	p := known(ctx, err)
	if p == nil {
		a.logger.ErrorContext(ctx, "request failed", slog.Any("error", err), slog.String("request_id", infoOf(ctx).id))
		p = internal()
	}
	p.RequestID = infoOf(ctx).id
	return p
}

func known(ctx context.Context, err error) *Problem {
	var p *Problem
	switch {
	case errors.As(err, &p):
		return p
	case errors.Is(err, readmodel.ErrNotFound):
		return newProblem(codeNotFound, "There is no such collection, or not yet in the read model.")
	case errors.Is(err, readmodel.ErrBadCursor):
		return badParameter("query.cursor", "is not a cursor of this list")
	case errors.Is(err, readmodel.ErrBehind):
		return newProblem(codeBehind, "The read model did not get as far as was asked for in time.")
	case errors.Is(err, readmodel.ErrUnreachable), errors.Is(err, readmodel.ErrNotMigrated):
		return newProblem(codeUnavailable, "The read model cannot be reached.")
	case ctx.Err() != nil: // the client went away, or the server stops
		return newProblem(codeUnavailable, "The request was ended before it was answered.")
	}
	return nil
}

// write answers with a problem outside of huma.
func (a *API) write(w http.ResponseWriter, r *http.Request, p *Problem) {
	p.RequestID = infoOf(r.Context()).id
	body, err := json.Marshal(p)
	if err != nil { // strings and numbers only: cannot be
		panic(err)
	}
	maps.Copy(w.Header(), p.header)
	w.Header().Set("Content-Type", p.ContentType(""))
	w.Header().Set("Content-Length", strconv.Itoa(len(body)+1))
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(body, '\n')) // a client that is gone reads no error either
}

// fromHuma turns the problems that huma makes, of parameters, into ours.
func fromHuma(ctx huma.Context, _ string, v any) (any, error) {
	model, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	p := newProblem(codeInvalid, "A parameter breaks a rule.")
	if model.Status != p.Status {
		p = internal()
	}
	p.RequestID = infoOf(ctx.Context()).id
	for _, detail := range model.Errors {
		if detail != nil {
			p.Errors = append(p.Errors, FieldError{Location: detail.Location, Message: detail.Message})
		}
	}
	slices.SortStableFunc(p.Errors, func(x, y FieldError) int { return strings.Compare(x.Location, y.Location) })
	return p, nil
}

func internal() *Problem {
	return newProblem(codeInternal, "The server's log says more, under this request's id.")
}

func noSuchRoute() *Problem { return newProblem(codeNoRoute, "See /openapi.json for what there is.") }

func methodNotAllowed() *Problem {
	return newProblem(codeMethod, "The header Allow names the methods.")
}

func crossOrigin() *Problem {
	return newProblem(codeCrossOrigin, "The browser says that the request comes from a page of another origin.")
}

func unknownHost() *Problem {
	return newProblem(codeUnknownHost, "Call the API by an address or as localhost; other names are for its operator to allow (--http-hosts).")
}

func mediaType() *Problem {
	return newProblem(codeMediaType, "Send the body as Content-Type: application/json, without Content-Encoding.")
}

func bodyTooLarge() *Problem {
	return newProblem(codeTooLarge, "The body may be %d bytes long.", maxBodyBytes)
}

func bodyTimeout() *Problem {
	return newProblem(codeBodyTimeout, "The whole body must arrive within %s.", bodyWait)
}

func bodyBroken() *Problem {
	return newProblem(codeMalformed, "The body could not be read to its end.")
}

// badParameter is about a part of the request that is not in the body.
func badParameter(location, format string, args ...any) *Problem {
	p := newProblem(codeInvalid, "A parameter breaks a rule.")
	p.Errors = []FieldError{{Location: location, Message: fmt.Sprintf(format, args...)}}
	return p
}

// badBody turns an error of [ledger.DecodeStrict], [ledger.Encode] or a check
// of the ledger's into a problem. prefix stands before the error's path.
func badBody(prefix string, err error) *Problem {
	var invalid *ledger.InvalidError
	if !errors.As(err, &invalid) {
		invalid = &ledger.InvalidError{Rule: "cannot be encoded"}
	}
	code := codeInvalid
	if errors.Is(err, ledger.ErrMalformed) {
		code = codeMalformed
	}
	return badFields(code, []FieldError{fieldError(prefix+invalid.Path, invalid.Rule)})
}

// badFields is about parts of the body.
func badFields(code string, fields []FieldError) *Problem {
	p := newProblem(code, "The body breaks a rule.")
	p.Errors = fields
	return p
}

func fieldError(path, message string) FieldError {
	if path == "" {
		return FieldError{Location: "body", Message: message}
	}
	return FieldError{Path: path, Message: message}
}

// violations are what the catalog says of a value that stands at prefix.
func violations(prefix string, err *catalog.ValidationError) []FieldError {
	fields := make([]FieldError, len(err.Violations))
	for i, v := range err.Violations {
		fields[i] = fieldError(prefix+v.Path, v.Message)
	}
	return fields
}

func unknownTemplate(name string) *Problem {
	return newProblem(codeUnknownTemplate, "The catalog has no template %q.", name)
}

func keyReused() *Problem {
	return newProblem(codeKeyReused, "The Idempotency-Key was used with another body. Use a new key for a new request.")
}

func noSuchCollection() *Problem {
	return newProblem(codeNotFound, "There is no such collection, or not yet in the read model.")
}

func noSuchTask() *Problem { return newProblem(codeNotFound, "The collection has no such task.") }

func noSuchAttempt() *Problem {
	return newProblem(codeNotFound, "The task has no such attempt, or not yet in the read model.")
}

func noSuchCommand() *Problem {
	return newProblem(codeNotFound, "There is no such command, or its record has not been folded yet.")
}

func notRetryable(status ledger.Status) *Problem {
	return newProblem(codeNotRetryable, "The collection's status is %s; failed and canceled ones can be retried.", status)
}

func runChanged(asked, current int, status ledger.Status) *Problem {
	return newProblem(codeRunChanged, "Run %d was to be retried; the collection's run is %d now, and %s.", asked, current, status)
}

// refused is for verdicts that a decision made anew would not change.
func refused(verdict ledger.Verdict, reason ledger.Reason) *Problem {
	if reason == ledger.ReasonAhead {
		return newProblem(codeHistoryLost, "The log ends before the position that this was decided on. An operator must look at it.")
	}
	return newProblem(codeRefused, "The verdict is %s: %s.", verdict, reason)
}

func contended() *Problem {
	return newProblem(codeContended, "Nothing came of %d attempts; the last one was refused.", maxDecisions)
}

func behindWindow() *Problem {
	return newProblem(codeBehind, "The read model is too far behind the ledger to decide this on it. Nothing was written.")
}

func ledgerAway() *Problem {
	return newProblem(codeUnavailable, "The ledger cannot be reached. Nothing was written.")
}

// appendFailed tells an append that was never made from one that may land.
func appendFailed(err error, command string) *Problem {
	var overload interface{ Overloaded() bool }
	if errors.As(err, &overload) && overload.Overloaded() {
		return newProblem(codeOverloaded, "Nothing was written. Send the request again, slower.")
	}
	return newProblem(codeOutcomeUnknown, "The record may be written now, later or never; %s will say. "+
		"With an Idempotency-Key, and for a retry with run, it is safe to send the same request again.", command)
}

func notReady(err error) *Problem {
	return newProblem(codeNotReady, "%s", strings.ReplaceAll(err.Error(), "\n", "; "))
}

func noOutcomes() *Problem {
	return newProblem(codeNoOutcomes, "The server was started without a key for outcome tokens (--outcome-key-file).")
}

func noToken() *Problem {
	return newProblem(codeInvalidToken, "Send the token that the task's handler handed out, as Authorization: Bearer <token>.").
		with("WWW-Authenticate", "Bearer")
}

func invalidToken(why string) *Problem {
	return newProblem(codeInvalidToken, "%s.", strings.ToUpper(why[:1])+why[1:]).with("WWW-Authenticate", `Bearer error="invalid_token"`)
}

// attemptClosed is about an attempt that another outcome has ended.
func attemptClosed(row *readmodel.Attempt) *Problem {
	how := string(row.Status)
	if row.Error != nil {
		how += " (" + row.Error.Code + ")"
	}
	return newProblem(codeAttemptClosed, "The attempt has ended as %s, and only its first outcome counts.", how)
}

// reportLost is [appendFailed] for a reported outcome.
func reportLost(err error) *Problem {
	p := appendFailed(err, "")
	if p.Code == codeOutcomeUnknown {
		p.Detail = "The outcome may be written now, later or never. It is safe to send the same request again."
	}
	return p
}
