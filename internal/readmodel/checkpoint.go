package readmodel

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/keten-ledger/keten/ledger"
)

// A Checkpoint is where the projection stands in one partition, and the proof
// of which history led there.
type Checkpoint struct {
	Partition   int32
	LedgerID    uuid.UUID
	Next        int64 // offset of the first record that is not in the tables
	LeaderEpoch int32 // of the last record, -1 before the first
	ChainHash   [32]byte
	LastHash    [32]byte // of the last record
}

// CheckpointOf returns the checkpoint at which a fold stands. A partition that
// is not opened yet belongs to the ledger all the same.
func CheckpointOf(ledgerID uuid.UUID, p *ledger.Partition) Checkpoint {
	return Checkpoint{
		Partition: p.Index(), LedgerID: ledgerID, Next: p.Position(), LeaderEpoch: p.LeaderEpoch(),
		ChainHash: p.ChainHash(), LastHash: p.LastHash(),
	}
}

// Checkpoints returns the checkpoints of partitions 0 to partitions-1 in their
// order; one that was not there yet is made, at offset 0. The error wraps
// [ErrOtherLedger] when the tables were made from another ledger.
func (s *Store) Checkpoints(ctx context.Context, ledgerID uuid.UUID, partitions int32) ([]Checkpoint, error) {
	start := CheckpointOf(ledgerID, ledger.NewPartition(0))
	const insert = `
insert into checkpoints (partition, ledger_id, next_offset, leader_epoch, chain_hash, last_hash)
select p, $1, $2, $3, $4, $5 from generate_series(0, $6::integer - 1) p order by p
on conflict (partition) do nothing`
	const sel = `
select partition, ledger_id, next_offset, leader_epoch, chain_hash, last_hash from checkpoints
where partition < $1 order by partition`
	var b pgx.Batch
	b.Queue(insert, ledgerID, start.Next, start.LeaderEpoch, start.ChainHash[:], start.LastHash[:], partitions)
	b.Queue(sel, partitions)
	r := s.reads.SendBatch(ctx, &b)
	list, err := readCheckpoints(r)
	if closeErr := r.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return nil, failed("read the checkpoints", err)
	}
	for _, c := range list {
		if c.LedgerID != ledgerID {
			return nil, fmt.Errorf("schema %s was made from ledger %s, this is ledger %s: %w", s.schema, c.LedgerID, ledgerID, ErrOtherLedger)
		}
	}
	return list, nil
}

func readCheckpoints(r pgx.BatchResults) ([]Checkpoint, error) {
	if _, err := r.Exec(); err != nil {
		return nil, err
	}
	rows, err := r.Query()
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (Checkpoint, error) {
		var c Checkpoint
		var chain, last []byte
		err := row.Scan(&c.Partition, &c.LedgerID, &c.Next, &c.LeaderEpoch, &chain, &last)
		copy(c.ChainHash[:], chain)
		copy(c.LastHash[:], last)
		return c, err
	})
}
