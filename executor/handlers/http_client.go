package handlers

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"time"

	"code.dny.dev/ssrf"

	"github.com/keten-ledger/keten/executor"
)

// Bounds of connections: how many one type keeps open idle (slots bound those at
// work), and how long the steps before a request may take that the task's deadline
// would bound too late.
const (
	maxIdleConnsPerHost = 8
	idleConnTimeout     = 90 * time.Second
	dialTimeout         = 10 * time.Second
	tlsTimeout          = 10 * time.Second
	maxResponseHeader   = 64 << 10
)

// newTransport makes what goes where it is told and nowhere else. It is used without
// an http.Client, which looks at where a redirect leads to even if it does not
// follow, and says so when it cannot read it.
func newTransport(cfg HTTPConfig) *http.Transport {
	dialer := &net.Dialer{Timeout: dialTimeout}
	if !cfg.AllowPrivate {
		dialer.Control = guard(cfg.Allowed).Safe
	}
	return &http.Transport{
		Proxy:                  nil, // the environment of an executor is not the catalog
		DialContext:            dialer.DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2:      true,
		TLSHandshakeTimeout:    tlsTimeout,
		MaxIdleConnsPerHost:    maxIdleConnsPerHost,
		IdleConnTimeout:        idleConnTimeout,
		MaxResponseHeaderBytes: maxResponseHeader,
		DisableCompression:     true, // the bound is on what was sent
	}
}

// guard looks at the address that a connection is made to, after names are
// resolved: a name that leads elsewhere the next time gains nothing.
func guard(allowed []netip.Prefix) *ssrf.Guardian {
	var v4, v6 []netip.Prefix
	for _, p := range allowed {
		if p.Addr().Is4() {
			v4 = append(v4, p)
		} else {
			v6 = append(v6, p)
		}
	}
	return ssrf.New(ssrf.WithAnyPort(), ssrf.WithAllowedV4Prefixes(v4...), ssrf.WithAllowedV6Prefixes(v6...))
}

// unanswered says why there is no answer. URLs are left out of it: a path may be
// a secret.
func (r *request) unanswered(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if errors.Is(err, ssrf.ErrProhibitedIP) || errors.Is(err, ssrf.ErrProhibitedNetwork) {
		return misconfigured("the address of %s is not a public one, and neither the type nor the executor allows it", r.host)
	}
	return &executor.Error{
		Code: CodeHTTPUnreachable, Message: r.host + " gave no answer: " + err.Error(), Audience: r.cfg.Audience, Retryable: true, Err: err,
	}
}
