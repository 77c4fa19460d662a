package catalog

import (
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// runners are what can run a type's tasks without a handler in Go.
func runners() []string { return []string{"exec", "http", "sleep"} }

// readRunner reads the one runner of a type, if any.
func readRunner(t *Type, fields map[string]cursor) {
	first := ""
	for _, name := range runners() {
		f, ok := fields[name]
		switch {
		case !ok:
			continue
		case first != "":
			f.fail("a type has one runner at most, and this one has %s", first)
			continue
		}
		first = name
		switch name {
		case "exec":
			t.Exec = readExec(f)
		case "http":
			t.HTTP = readHTTP(f)
		case "sleep":
			t.Sleep = readSleep(f)
		}
	}
}

func readHTTP(at cursor) *HTTP {
	fields := at.fields([]string{"method", "url", "headers", "headers_from", "deferred", "status", "allow_private"}, nil)
	at.require(fields, "url")
	h := &HTTP{Method: defaultMethod, Headers: map[string]string{}, HeadersFrom: map[string]string{}, Status: map[int]string{}}
	if f, ok := fields["method"]; ok {
		h.Method = f.choice(http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete)
	}
	if f, ok := fields["url"]; ok {
		h.URL = readURL(f)
	}
	if f, ok := fields["headers"]; ok {
		readHeaders(f, h.Headers, readHeaderValue)
	}
	if f, ok := fields["headers_from"]; ok {
		readHeaders(f, h.HeadersFrom, readPath)
		checkTwice(f, h.Headers)
	}
	if f, ok := fields["deferred"]; ok {
		h.Deferred = f.boolean()
	}
	if f, ok := fields["status"]; ok {
		readStatus(f, h)
	}
	if f, ok := fields["allow_private"]; ok {
		h.AllowPrivate = f.boolean()
	}
	if h.Deferred && h.Method == http.MethodGet {
		fields["deferred"].fail("must be false with method GET, which has no body for the token")
	}
	return h
}

// readURL does not repeat a URL in errors: it may hold a secret.
func readURL(at cursor) string {
	text, ok := at.text(1, maxURLBytes)
	if !ok {
		return ""
	}
	u, err := url.Parse(text)
	switch {
	case !strings.HasPrefix(text, "http://") && !strings.HasPrefix(text, "https://"):
		at.fail("must start with http:// or https://")
	case err != nil, u.Hostname() == "":
		at.fail("is not a URL with a host")
	case u.User != nil:
		at.fail("must not hold a user or a password: put credentials into a file and name it in headers_from")
	}
	return text
}

func readHeaders(at cursor, into map[string]string, read func(cursor) (string, bool)) {
	entries := at.entries()
	if len(entries) > maxHeaders {
		at.fail("has %d entries, at most %d are allowed", len(entries), maxHeaders)
	}
	for _, e := range entries {
		value, ok := read(e.value)
		switch {
		case !isHeaderName(e.key):
			at.doc.fail(e.node, e.value.path, "%q is not the name of a header of at most %d bytes", e.key, maxNameBytes)
		case isReservedHeader(e.key):
			at.doc.fail(e.node, e.value.path, "%s is set by Keten or by the connection", e.key)
		case hasHeader(into, e.key):
			at.doc.fail(e.node, e.value.path, "%s is given twice", e.key)
		case ok:
			into[e.key] = value
		}
	}
}

func checkTwice(at cursor, headers map[string]string) {
	for _, e := range at.entries() {
		if hasHeader(headers, e.key) {
			at.doc.fail(e.node, e.value.path, "%s is given twice, also in headers", e.key)
		}
	}
}

func hasHeader(headers map[string]string, name string) bool {
	for other := range headers {
		if strings.EqualFold(other, name) {
			return true
		}
	}
	return false
}

func isReservedHeader(name string) bool {
	return slices.Contains([]string{
		"host", "content-length", "transfer-encoding", "connection", "keep-alive", "proxy-authorization", "proxy-connection", "te", "trailer", "upgrade", "expect",
		"idempotency-key", "traceparent", "tracestate",
	}, strings.ToLower(name))
}

// isHeaderName is RFC 9110's token.
func isHeaderName(s string) bool {
	for i := range len(s) {
		if !isLetterOrDigit(s[i]) && strings.IndexByte("!#$%&'*+-.^_`|~", s[i]) < 0 {
			return false
		}
	}
	return s != "" && len(s) <= maxNameBytes
}

func readHeaderValue(at cursor) (string, bool) {
	value, ok := at.text(0, maxHeaderBytes)
	if ok && strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
		at.fail("has a character that no header can hold")
		return "", false
	}
	return value, ok
}

// readPath reads a file's path, relative to the catalog's directory.
func readPath(at cursor) (string, bool) {
	path, ok := at.text(1, maxPathBytes)
	switch {
	case !ok:
		return "", false
	case filepath.IsAbs(path):
		return filepath.Clean(path), true
	}
	return filepath.Join(at.doc.dir, path), true
}

func readStatus(at cursor, h *HTTP) {
	for _, e := range at.entries() {
		status, err := strconv.Atoi(e.key)
		if err != nil || len(e.key) != 3 || status < 200 || status > 599 {
			at.doc.fail(e.node, e.value.path, "%q is not a status from 200 to 599", e.key)
			continue
		}
		h.Status[status] = e.value.choice(StatusSuccess, StatusRetry, StatusFail, StatusPending)
		if h.Status[status] == StatusPending && !h.Deferred {
			e.value.fail("pending needs deferred: true")
		}
	}
}

func readSleep(at cursor) *Sleep {
	s := &Sleep{}
	fields := at.fields([]string{"duration"}, nil)
	if f, ok := fields["duration"]; ok {
		s.Duration = f.duration(time.Millisecond)
	}
	return s
}

// checkSleep reports a sleep that its own timeout would end.
func checkSleep(t *Type, fields map[string]cursor) {
	if t.Sleep != nil && t.Sleep.Duration >= t.Timeout {
		fields["sleep"].fail("duration %s must be shorter than timeout %s", t.Sleep.Duration, t.Timeout)
	}
}
