package eventlog

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/keten-ledger/keten/ledger"
)

const (
	// DefaultPartitions is the partition count of a new ledger unless another
	// is asked for.
	DefaultPartitions = 12
	// initTimeout bounds Init when ctx does not. Electing the leaders of a new
	// topic takes longer than finding them.
	initTimeout = 30 * time.Second
	// genesisFetchBytes is what is fetched of a partition at once to find its
	// genesis, which is the first record unless somebody else wrote there.
	genesisFetchBytes = 64 << 10
	// genesisPoll is the most records taken at once while looking for it.
	genesisPoll = 1000
)

// InitConfig says which ledger to create.
type InitConfig struct {
	Config
	// Partitions is the count of a new ledger, 1 to ledger.MaxPartitions; 0
	// means DefaultPartitions. An existing ledger keeps its own, and a different
	// count asked for is an error.
	Partitions int32
	// Window is W, in offsets; 0 means ledger.DefaultWindow. As for Partitions,
	// an existing ledger keeps its own.
	Window int64
	// ReplicationFactor of a new topic; 0 means 3, or with AllowSingleReplica
	// as many as there are brokers, at most 3.
	ReplicationFactor int16
}

// Init creates the ledger's topics unless they are there and opens every
// partition that is not. It may be called at any time and by several processes at once:
// all return the same ledger. Errors are those of [Open].
func Init(ctx context.Context, cfg InitConfig) (Info, error) {
	base, err := cfg.withDefaults()
	if err != nil {
		return Info{}, fmt.Errorf("init ledger: %w", err)
	}
	if cfg.Partitions < 0 || cfg.Partitions > ledger.MaxPartitions || cfg.Window < 0 || cfg.ReplicationFactor < 0 {
		return Info{}, fmt.Errorf("init ledger: partitions must be 1 to %d, window and replication factor not negative", ledger.MaxPartitions)
	}
	ctx, cancel := context.WithTimeout(ctx, initTimeout)
	defer cancel()
	l, err := newLog(ctx, base)
	if err != nil {
		return Info{}, fmt.Errorf("init ledger: %w", err)
	}
	defer l.client.Close()
	if err := l.init(ctx, cfg); err != nil {
		return Info{}, fmt.Errorf("init ledger %s: %w", l.topic, l.explain(ctx, err))
	}
	return l.info, nil
}

func (l *Log) init(ctx context.Context, cfg InitConfig) error {
	if err := l.ping(ctx); err != nil {
		return err
	}
	t, err := l.ensureTopic(ctx, cfg)
	if err != nil {
		return err
	}
	if cfg.Partitions != 0 && cfg.Partitions != t.count() {
		return partitionsError(t.count(), cfg.Partitions)
	}
	if err := l.preflight(ctx, t); err != nil {
		return err
	}
	opened, err := l.complete(ctx, cfg.Window)
	if err != nil {
		return err
	}
	if err := l.adopt(opened); err != nil {
		return err
	}
	if cfg.Window != 0 && cfg.Window != l.info.Window {
		return &PreflightError{
			"window", strconv.FormatInt(l.info.Window, 10),
			strconv.FormatInt(cfg.Window, 10) + " as asked for: the window of a ledger never changes",
		}
	}
	return l.preflightBeside(ctx, t)
}

// ensureTopic describes the topic, created before when it was missing.
func (l *Log) ensureTopic(ctx context.Context, cfg InitConfig) (*topicState, error) {
	t, err := l.awaitLedger(ctx, false)
	if !errors.Is(err, ErrNotInitialized) {
		return t, err
	}
	if l.cfg.LedgerID != uuid.Nil {
		return nil, fmt.Errorf("%w; a copy of ledger %s cannot be created, only found", err, l.cfg.LedgerID)
	}
	replicas, err := l.replicationFactor(ctx, cfg.ReplicationFactor)
	if err != nil {
		return nil, err
	}
	partitions := cfg.Partitions
	if partitions == 0 {
		partitions = DefaultPartitions
	}
	if err := l.createTopic(ctx, l.topic, partitions, replicas, map[string]*string{"cleanup.policy": new("delete")}); err != nil {
		return nil, err
	}
	return l.awaitLedger(ctx, true)
}

// replicationFactor decides how many copies a new topic gets.
func (l *Log) replicationFactor(ctx context.Context, asked int16) (int16, error) {
	brokers, err := l.admin.ListBrokers(ctx)
	if err != nil {
		return 0, err
	}
	available := int16(min(len(brokers), ledger.MaxPartitions))
	factor := asked
	switch {
	case asked == 0 && l.cfg.AllowSingleReplica:
		factor = min(available, safeReplicas)
	case asked == 0:
		factor = safeReplicas
	}
	if factor > available || (factor < safeReplicas && !l.cfg.AllowSingleReplica) {
		return 0, &PreflightError{
			"replication factor", fmt.Sprintf("%d with a broker count of %d", min(factor, available), available),
			fmt.Sprintf("at least %d, or a single replica must be allowed", max(factor, safeReplicas)),
		}
	}
	return factor, nil
}

// genesis is the accepted LedgerOpened of one partition.
type genesis struct {
	ledgerID   uuid.UUID
	partitions int32
	window     int64
}

// complete opens the partitions that are not. Partition 0 goes first and lends
// its window to the others: two processes that disagree about it cannot open
// half of the ledger each.
func (l *Log) complete(ctx context.Context, window int64) (map[int32]genesis, error) {
	if window == 0 {
		window = ledger.DefaultWindow
	}
	opened, err := l.openPartitions(ctx, []int32{0}, window)
	if err != nil {
		return nil, err
	}
	if err := l.checkFirst(opened); err != nil {
		return nil, err
	}
	rest, err := l.openPartitions(ctx, allPartitions(l.info.Partitions)[1:], opened[0].window)
	if err != nil {
		return nil, err
	}
	rest[0] = opened[0]
	return rest, nil
}

// openPartitions appends a genesis where there is none and reads back which one
// was accepted: another process may do the same at this moment.
func (l *Log) openPartitions(ctx context.Context, partitions []int32, window int64) (map[int32]genesis, error) {
	opened, err := l.readGenesis(ctx, partitions)
	if err != nil {
		return nil, err
	}
	if err := l.appendGenesis(ctx, partitions, opened, window); err != nil {
		return nil, err
	}
	if len(opened) == len(partitions) {
		return opened, nil
	}
	return l.readGenesis(ctx, partitions)
}

// appendGenesis opens those of the partitions that are not opened yet.
func (l *Log) appendGenesis(ctx context.Context, partitions []int32, opened map[int32]genesis, window int64) error {
	id := l.expectedID()
	results := make(chan error, len(partitions))
	sent := 0
	for _, partition := range partitions {
		if _, ok := opened[partition]; ok {
			continue
		}
		eventID, err := uuid.NewV7()
		if err != nil {
			return err
		}
		msg, err := ledger.Encode(partition,
			ledger.Meta{EventID: eventID, Source: ledger.Source(id, "init"), Time: time.Now()},
			ledger.LedgerOpened{LedgerID: id, Partitions: l.info.Partitions, Rules: ledger.Rules, Window: window})
		if err != nil {
			return err
		}
		l.Append(msg, func(_ int64, err error) { results <- err }) //nolint:contextcheck // a record under way cannot be called back
		sent++
	}
	for range sent {
		select {
		case err := <-results:
			if err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// readGenesis folds partitions from their beginning until they are opened. Those
// that never are up to their present end are missing in the result.
func (l *Log) readGenesis(ctx context.Context, partitions []int32) (map[int32]genesis, error) {
	ends, err := l.Ends(ctx)
	if err != nil {
		return nil, err
	}
	folds := make(map[int32]*ledger.Partition)
	from := make(map[int32]Start)
	for _, p := range partitions {
		if ends[p] > 0 {
			folds[p], from[p] = ledger.NewPartition(p), Start{LeaderEpoch: -1}
		}
	}
	opened := make(map[int32]genesis, len(partitions))
	if len(folds) == 0 {
		return opened, nil
	}
	r, err := l.newReader(from, genesisFetchBytes) //nolint:contextcheck // a client lives until it is closed
	if err != nil {
		return nil, err
	}
	defer r.Close()
	for len(folds) > 0 {
		fetched, err := r.Poll(ctx, genesisPoll)
		if err != nil {
			return nil, err
		}
		for _, f := range fetched {
			if err := foldGenesis(f, folds, ends, opened); err != nil {
				return nil, err
			}
			if folds[f.Partition] == nil {
				r.stop(f.Partition)
			}
		}
	}
	return opened, nil
}

// foldGenesis folds what was read of one partition and takes its fold away when
// it is opened or at its end.
func foldGenesis(f Fetched, folds map[int32]*ledger.Partition, ends map[int32]int64, opened map[int32]genesis) error {
	fold := folds[f.Partition]
	if fold == nil {
		return nil
	}
	if f.Err != nil {
		return f.Err
	}
	for _, r := range f.Records {
		if _, err := fold.Apply(r); err != nil {
			return err
		}
		if id, n, window, ok := fold.Opened(); ok {
			opened[f.Partition] = genesis{ledgerID: id, partitions: n, window: window}
			delete(folds, f.Partition)
			return nil
		}
	}
	if fold.Position() >= ends[f.Partition] {
		delete(folds, f.Partition)
	}
	return nil
}

// expectedID is the id that the genesis must name.
func (l *Log) expectedID() uuid.UUID {
	if l.cfg.LedgerID != uuid.Nil {
		return l.cfg.LedgerID
	}
	return l.topicID
}

// checkFirst checks that partition 0 was opened as this ledger, with as many
// partitions as the topic has.
func (l *Log) checkFirst(opened map[int32]genesis) error {
	first, ok := opened[0]
	switch {
	case !ok:
		return fmt.Errorf("%w: partition 0 of %d is not opened", ErrNotInitialized, l.info.Partitions)
	case first.ledgerID != l.expectedID():
		return l.wrongLedger(first.ledgerID)
	case first.partitions != l.info.Partitions:
		return partitionsError(l.info.Partitions, first.partitions)
	}
	return nil
}

// adopt checks that all partitions were opened as this one ledger and makes it
// the Log's.
func (l *Log) adopt(opened map[int32]genesis) error {
	if err := l.checkFirst(opened); err != nil {
		return err
	}
	n, first := l.info.Partitions, opened[0]
	if len(opened) < int(n) {
		return fmt.Errorf("%w: %d of %d partitions are not opened", ErrNotInitialized, int(n)-len(opened), n)
	}
	for p := range n {
		if opened[p] != first {
			return &PreflightError{
				fmt.Sprintf("genesis of partition %d", p), opened[p].String(),
				"that of partition 0: " + first.String(),
			}
		}
	}
	l.info.LedgerID, l.info.Window = first.ledgerID, first.window
	return nil
}

func (g genesis) String() string {
	return fmt.Sprintf("ledger %s of %d partitions with window %d", g.ledgerID, g.partitions, g.window)
}

// wrongLedger says that the topic holds another ledger than expected.
func (l *Log) wrongLedger(is uuid.UUID) error {
	if l.cfg.LedgerID != uuid.Nil {
		return &PreflightError{"ledger id", is.String(), l.cfg.LedgerID.String() + " as configured"}
	}
	return &PreflightError{
		"ledger id", is.String(),
		l.topicID.String() + ", the topic's own id; if the topic is a copy of that ledger, configure its ledger id",
	}
}

func allPartitions(n int32) []int32 {
	all := make([]int32, n)
	for p := range n {
		all[p] = p
	}
	return all
}

// ping asks any broker for a sign of life.
func (l *Log) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	return l.client.Ping(ctx)
}
