package httpapi

import (
	"log/slog"
	"net/http"
	"time"
)

// Bounds of a connection. The write timeout leaves room for the longest
// long-poll; reading a body has a shorter bound of its own.
const (
	readHeaderTimeout = 5 * time.Second
	writeTimeout      = maxWait + 30*time.Second
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 64 << 10
)

// NewServer returns a server for the API with timeouts that fit it. The caller
// listens, serves and shuts down.
func (a *API) NewServer() *http.Server {
	return &http.Server{
		Handler:           a.handler,
		ReadHeaderTimeout: readHeaderTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(a.logger.Handler(), slog.LevelDebug),
	}
}
