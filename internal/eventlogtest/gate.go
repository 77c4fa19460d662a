package eventlogtest

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// A Gate is between a client and its brokers: give its Dial to the client as
// dialer. It is open at first. It makes brokers silent, as a network does that
// loses packets, or unreachable.
type Gate struct {
	mu     sync.Mutex
	shut   bool
	hangUp bool
	open   chan struct{} // closed when answers may pass
	conns  map[net.Conn]bool
	dials  int
}

// NewGate returns an open gate.
func NewGate() *Gate {
	open := make(chan struct{})
	close(open)
	return &Gate{open: open, conns: make(map[net.Conn]bool)}
}

// Hold keeps the brokers' answers back until Release: requests still arrive and
// are carried out. Connections stay as they are.
func (g *Gate) Hold() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = make(chan struct{})
}

// Release lets all answers pass that were held back.
func (g *Gate) Release() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.open)
}

// Shut closes all connections and refuses new ones until Unshut.
func (g *Gate) Shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = true
	for conn := range g.conns {
		_ = conn.Close()
	}
	clear(g.conns)
}

// HangUp is Shut by a broker that is starting: new connections succeed and end
// at once.
func (g *Gate) HangUp() {
	g.Shut()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.hangUp = true
}

// Unshut lets connections through again.
func (g *Gate) Unshut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut, g.hangUp = false, false
}

// Dials returns how often a connection was asked for, refused ones included.
func (g *Gate) Dials() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.dials
}

// Dial connects through the gate.
func (g *Gate) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	g.mu.Lock()
	g.dials++
	shut, hangUp := g.shut, g.hangUp
	g.mu.Unlock()
	switch {
	case hangUp:
		near, far := net.Pipe()
		_ = far.Close()
		return endedConn{near}, nil
	case shut:
		return nil, &net.OpError{Op: "dial", Net: network, Err: errors.New("the gate is shut")}
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	gated := &gatedConn{Conn: conn, gate: g, changed: make(chan struct{})}
	g.conns[gated] = true
	return gated, nil
}

// endedConn is a TCP connection that the other side has closed: what is written
// goes nowhere.
type endedConn struct{ net.Conn }

func (endedConn) Read([]byte) (int, error)    { return 0, io.EOF }
func (endedConn) Write(b []byte) (int, error) { return len(b), nil }

// gatedConn holds back what it has read while its gate says so, as long as its
// deadline allows.
type gatedConn struct {
	net.Conn
	gate *Gate

	mu       sync.Mutex
	deadline time.Time
	closed   bool
	changed  chan struct{} // closed when deadline or closed change
}

func (c *gatedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	for {
		c.mu.Lock()
		deadline, closed, changed := c.deadline, c.closed, c.changed
		c.mu.Unlock()
		if closed {
			return 0, net.ErrClosed
		}
		expired, stop := expiry(deadline)
		c.gate.mu.Lock()
		open := c.gate.open
		c.gate.mu.Unlock()
		select {
		case <-open:
			stop()
			return n, err
		case <-expired:
			return 0, os.ErrDeadlineExceeded
		case <-changed:
			stop()
		}
	}
}

// expiry returns a channel that tells when a deadline has passed; none never
// does.
func expiry(deadline time.Time) (<-chan time.Time, func()) {
	if deadline.IsZero() {
		return nil, func() {}
	}
	timer := time.NewTimer(time.Until(deadline))
	return timer.C, func() { timer.Stop() }
}

func (c *gatedConn) change(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *gatedConn) SetDeadline(t time.Time) error {
	c.change(func() { c.deadline = t })
	return c.Conn.SetDeadline(t)
}

func (c *gatedConn) SetReadDeadline(t time.Time) error {
	c.change(func() { c.deadline = t })
	return c.Conn.SetReadDeadline(t)
}

func (c *gatedConn) Close() error {
	c.change(func() { c.closed = true })
	return c.Conn.Close()
}
