package httpapi

import (
	"context"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humamux"

	"github.com/keten-ledger/keten/ledger"
)

const (
	maxBodyBytes = 1 << 20 // protects memory; a ledger event is smaller
	// bodyWait bounds how long a slow sender holds a goroutine.
	bodyWait = 15 * time.Second
)

// readBody reads the body into the request's info. It stands in for huma's own
// reading, which decodes with encoding/json: that takes duplicate members and
// names in another case, and rounds large numbers.
func (a *API) readBody(required bool) func(huma.Context, func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) {
		r, w := humamux.Unwrap(ctx)
		body, p := takeBody(w, r)
		switch {
		case p != nil:
		case len(body) == 0 && !required && r.Header.Get("Content-Type") == "":
			body = []byte("{}")
		case !isJSON(r.Header):
			p = mediaType()
		}
		if p != nil {
			a.write(w, r, p)
			return
		}
		infoOf(ctx.Context()).body = body
		next(ctx)
	}
}

func takeBody(w http.ResponseWriter, r *http.Request) ([]byte, *Problem) {
	control := http.NewResponseController(w)
	// A writer without deadlines, as in a test, is not held up either.
	_ = control.SetReadDeadline(time.Now().Add(bodyWait))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBodyBytes))
	_ = control.SetReadDeadline(time.Time{})
	if err == nil {
		return body, nil
	}
	var tooLarge *http.MaxBytesError
	var timeout net.Error
	switch {
	case errors.As(err, &tooLarge):
		return nil, bodyTooLarge()
	case errors.As(err, &timeout) && timeout.Timeout():
		return nil, bodyTimeout()
	}
	return nil, bodyBroken()
}

func isJSON(h http.Header) bool {
	typ, params, err := mime.ParseMediaType(h.Get("Content-Type"))
	charset := params["charset"]
	return err == nil && typ == "application/json" && h.Get("Content-Encoding") == "" &&
		(charset == "" || strings.EqualFold(charset, "utf-8"))
}

// decode reads the body of the request in ctx.
func decode[T any](ctx context.Context) (*T, error) {
	var v T
	if err := ledger.DecodeStrict(infoOf(ctx).body, &v); err != nil {
		return nil, badBody("", err)
	}
	return &v, nil
}
