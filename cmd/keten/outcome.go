package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"github.com/keten-ledger/keten/internal/outcometoken"
)

// outcomeKeyName is the key's file in the data folder of dev and demo.
const outcomeKeyName = "outcome.key"

// outcomeConfig is how outcomes come from outside.
type outcomeConfig struct {
	outcomeKeyFile string // empty: they don't
	publicURL      string // of the API, as workers outside call it; empty: see server.publicURL
}

func (c *outcomeConfig) addOutcomeFlags(f *pflag.FlagSet) {
	f.StringVar(&c.outcomeKeyFile, "outcome-key-file", "", "key of the tokens with which outcomes are reported from outside, the same file for api and executor: lines of 32 bytes or more in hex, the first signs, all verify")
	f.StringVar(&c.publicURL, "public-url", "", "the API as workers outside call it, e.g. https://keten.example; default its address")
}

func (c *outcomeConfig) checkPublicURL() error {
	if c.publicURL == "" {
		return nil
	}
	u, err := url.Parse(c.publicURL)
	switch {
	case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "":
		return fmt.Errorf("--public-url: is %q, want a URL such as https://keten.example", c.publicURL)
	case u.User != nil, u.RawQuery != "", u.Fragment != "":
		return errors.New("--public-url: must have no user, query or fragment")
	}
	return nil
}

// ensureOutcomeKey gives a data folder a key that outlives the process, unless
// one was named.
func (c *outcomeConfig) ensureOutcomeKey(dir string) error {
	if c.outcomeKeyFile != "" {
		return nil
	}
	c.outcomeKeyFile = filepath.Join(dir, outcomeKeyName)
	_, err := outcometoken.EnsureKeyFile(c.outcomeKeyFile)
	return err
}

// loadOutcomeKey returns nil when no file was named.
func (c *outcomeConfig) loadOutcomeKey(ctx context.Context, logger *slog.Logger) (*outcometoken.Key, error) {
	if c.outcomeKeyFile == "" {
		return nil, nil
	}
	key, err := outcometoken.LoadKey(c.outcomeKeyFile)
	if err != nil {
		return nil, exitWith(exitUsage, fmt.Errorf("--outcome-key-file: %w", err))
	}
	if key.Exposed() {
		logger.WarnContext(ctx, "everybody on this machine may read the key of outcome tokens", slog.String("file", c.outcomeKeyFile))
	}
	return key, nil
}

// apiHosts are the names by which the API may be called: those that were given,
// and that of the public URL.
func (c *serverConfig) apiHosts() []string {
	hosts := append([]string(nil), c.httpHosts...)
	if u, err := url.Parse(c.publicURL); err == nil && u.Hostname() != "" {
		hosts = append(hosts, strings.ToLower(u.Hostname()))
	}
	return hosts
}

// publicURL is the API as it is called from outside, without a slash at its end.
// Where nobody has said, a process with the API takes its own address, which is
// right for workers on this machine.
func (s *server) publicURL() string {
	switch {
	case s.cfg.publicURL != "":
		return strings.TrimRight(s.cfg.publicURL, "/")
	case !s.cfg.has(roleAPI):
		return ""
	}
	host, port, err := net.SplitHostPort(s.listener.Addr().String())
	if ip := net.ParseIP(host); err == nil && ip != nil && ip.IsUnspecified() {
		return "http://" + net.JoinHostPort("127.0.0.1", port)
	}
	return s.url()
}
