package projector_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/internal/readmodel"
	"github.com/keten-ledger/keten/ledger"
)

// proxy stands between a store and PostgreSQL and can cut the line.
type proxy struct {
	network, address string // of the server

	mu       sync.Mutex
	listener net.Listener
	conns    map[net.Conn]bool
	cut      bool
	dropAt   int // bytes to the server after which every line is cut, once
}

// startProxy returns a proxy and the database's address behind it.
func startProxy(t *testing.T, url string) (*proxy, string) {
	t.Helper()
	cfg, err := pgx.ParseConfig(url)
	require.NoError(t, err)
	p := &proxy{conns: make(map[net.Conn]bool)}
	p.network, p.address = pgconn.NetworkAddress(cfg.Host, cfg.Port)
	p.listener, err = (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var running sync.WaitGroup
	running.Go(func() { p.serve(&running) })
	t.Cleanup(func() {
		_ = p.listener.Close()
		p.setCut(true)
		running.Wait()
	})
	host, port, err := net.SplitHostPort(p.listener.Addr().String())
	require.NoError(t, err)
	return p, "host=" + host + " port=" + port + " user=" + cfg.User + " password='" + cfg.Password + "' dbname=" + cfg.Database + " sslmode=disable"
}

func (p *proxy) serve(running *sync.WaitGroup) {
	for {
		client, err := p.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		server, err := net.Dial(p.network, p.address)
		if err != nil || !p.hold(client, server) {
			_ = client.Close()
			continue
		}
		running.Go(func() { p.pipe(server, client, true) })
		running.Go(func() { p.pipe(client, server, false) })
	}
}

func (p *proxy) hold(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		if p.cut {
			_ = c.Close()
			continue
		}
		p.conns[c] = true
	}
	return !p.cut
}

func (p *proxy) pipe(to io.WriteCloser, from io.ReadCloser, counted bool) {
	defer func() { _, _ = to.Close(), from.Close() }()
	buf := make([]byte, 4096)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if counted {
				n = p.count(n)
			}
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// count lets at most what is left through before the line is cut.
func (p *proxy) count(n int) int {
	p.mu.Lock()
	if p.dropAt == 0 {
		p.mu.Unlock()
		return n
	}
	n = min(n, p.dropAt)
	p.dropAt -= n
	drop := p.dropAt == 0
	p.mu.Unlock()
	if drop {
		p.setCut(true)
		p.setCut(false)
	}
	return n
}

// setCut ends all connections and refuses or takes new ones.
func (p *proxy) setCut(cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = cut
	if cut {
		for c := range p.conns {
			_ = c.Close()
		}
		clear(p.conns)
	}
}

func (p *proxy) dropAfter(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dropAt = n
}

// While PostgreSQL is away the projector waits, says so once, and goes on when
// it is back.
func TestRunWaitsForPostgres(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	direct := w.open(t, w.url, "")
	p, url := startProxy(t, w.url)
	s := w.open(t, url, "")
	logs := w.history(t, troubled(8, 60))
	r := w.start(t, s, nil)
	w.append(t, cutAt(logs, 0, 20))
	w.awaitEnd(t, direct)
	require.Eventually(t, func() bool { return r.Ready() == nil }, patience, pollEvery)

	p.setCut(true)
	w.append(t, cutAt(logs, 20, 40))
	require.Eventually(t, func() bool { return r.Ready() != nil }, patience, pollEvery)
	require.ErrorIs(t, r.Ready(), readmodel.ErrUnreachable)
	hold(t, 500*time.Millisecond)
	require.Positive(t, r.metric(t, "keten_projector_lag_seconds"))
	require.LessOrEqual(t, strings.Count(r.log.String(), "the projection waits"), 2, r.log.String())
	p.setCut(false)
	w.awaitEnd(t, direct)
	require.Eventually(t, func() bool { return r.Ready() == nil }, patience, pollEvery)
	w.append(t, cutAt(logs, 40, 1<<20))
	w.awaitEnd(t, direct)
	equalDumps(t, w.want(t), dump(t, direct))
	require.InDelta(t, 0, r.metric(t, "keten_projector_conflicts_total"), 0, "it met its own transactions")
}

// A connection that breaks at any point of a transaction, also behind its end,
// where nobody knows whether it happened, neither loses nor doubles a row.
func TestRunSurvivesBrokenConnections(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	direct := w.open(t, w.url, "")
	p, url := startProxy(t, w.url)
	r := w.start(t, w.open(t, url, ""), nil)
	logs := w.history(t, troubled(9, 120))
	for i := range 60 {
		p.dropAfter(1 + i*i*3)
		w.append(t, cutAt(logs, 4*i, 4*i+4))
		hold(t, 10*time.Millisecond)
	}
	p.dropAfter(0)
	w.append(t, cutAt(logs, 240, 1<<20))
	w.awaitEnd(t, direct)
	equalDumps(t, w.want(t), dump(t, direct))
	require.Positive(t, strings.Count(r.log.String(), "the projection waits"), "no connection broke")
}

// cutAt returns records from to to of each partition.
func cutAt[T any](logs [][]T, from, to int) [][]T {
	var parts [][]T
	for _, l := range logs {
		parts = append(parts, l[min(from, len(l)):min(to, len(l))])
	}
	return parts
}

// hold lets real time pass, in which something must or must not happen.
func hold(t *testing.T, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	<-ctx.Done()
}

// Tables that another projector left in the middle of what this one holds are
// reached by folding again: a fold cannot go back.
func TestRunFoldsAgainWhereAnotherStopped(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	direct := w.open(t, w.url, "")
	p, url := startProxy(t, w.url)
	logs := w.history(t, troubled(11, 60))[:1]
	r := w.start(t, w.open(t, url, ""), nil)
	w.append(t, cutAt(logs, 0, 10))
	w.awaitEnd(t, direct)
	start := position(t, direct, 0)

	admin, err := pgx.Connect(t.Context(), w.url)
	require.NoError(t, err)
	defer func() { _ = admin.Close(context.WithoutCancel(t.Context())) }()
	lock, err := admin.Begin(t.Context())
	require.NoError(t, err)
	_, err = lock.Exec(t.Context(), `lock table keten.checkpoints in exclusive mode`)
	require.NoError(t, err)
	w.append(t, cutAt(logs, 10, 15))
	const blocked = `select count(*) from pg_locks where not granted`
	require.Eventually(t, func() bool {
		var n int
		require.NoError(t, lock.QueryRow(t.Context(), blocked).Scan(&n))
		return n > 0
	}, patience, pollEvery, "a transaction is under way")
	w.append(t, cutAt(logs, 15, 60))
	require.Eventually(t, func() bool { return r.metric(t, "keten_projector_lag_records", "partition", "0") >= 45 }, patience, pollEvery)
	p.setCut(true)
	require.NoError(t, lock.Rollback(t.Context())) // the server now finishes what it was sent
	require.Eventually(t, func() bool { return position(t, direct, 0) > start }, patience, pollEvery)

	w.project(t, direct, 7)
	p.setCut(false)
	w.awaitEnd(t, direct)
	equalDumps(t, w.want(t), dump(t, direct))
	require.Contains(t, r.log.String(), "folding the ledger again")
}

// project writes n records of partition 0, as another projector would.
func (w *world) project(t *testing.T, s *readmodel.Store, n int) {
	t.Helper()
	id, log, at := w.log.Info().LedgerID, w.read(t)[0], position(t, s, 0)
	fold := ledger.NewPartition(0)
	for _, r := range log[:at] {
		_, err := fold.Apply(r)
		require.NoError(t, err)
	}
	c := readmodel.NewChanges(readmodel.CheckpointOf(id, fold))
	for _, r := range log[at : int(at)+n] {
		o, err := fold.Apply(r)
		require.NoError(t, err)
		c.Add(r, o)
	}
	c.To = readmodel.CheckpointOf(id, fold)
	require.NoError(t, s.Write(t.Context(), []*readmodel.Changes{c}))
}
