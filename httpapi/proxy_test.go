package httpapi_test

import (
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"
)

const (
	waitLong = 30 * time.Second
	waitTick = 20 * time.Millisecond
)

// A proxy stands before PostgreSQL and can cut it off.
type proxy struct {
	listener net.Listener
	target   func() (net.Conn, error)

	mu    sync.Mutex
	down  bool
	conns []net.Conn
}

// database returns the address of a database as it is reached through p.
func (p *proxy) database(t *testing.T, address string) string {
	t.Helper()
	cfg, err := pgx.ParseConfig(address)
	require.NoError(t, err)
	network, target := pgconn.NetworkAddress(cfg.Host, cfg.Port)
	p.target = func() (net.Conn, error) { return (&net.Dialer{}).DialContext(t.Context(), network, target) }
	p.listener, err = net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = p.listener.Close()
		p.cut()
	})
	go p.accept()
	through := url.URL{
		Scheme: "postgres", User: url.UserPassword(cfg.User, cfg.Password), Host: p.listener.Addr().String(),
		Path: "/" + cfg.Database, RawQuery: "sslmode=disable",
	}
	return through.String()
}

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		go p.join(client)
	}
}

func (p *proxy) join(client net.Conn) {
	p.mu.Lock()
	if p.down {
		p.mu.Unlock()
		_ = client.Close()
		return
	}
	server, err := p.target()
	if err != nil {
		p.mu.Unlock()
		_ = client.Close()
		return
	}
	p.conns = append(p.conns, client, server)
	p.mu.Unlock()
	go func() {
		_, _ = io.Copy(server, client)
		_ = server.Close()
	}()
	_, _ = io.Copy(client, server)
	_ = client.Close()
}

func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = true
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
}

func (p *proxy) mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = false
}
