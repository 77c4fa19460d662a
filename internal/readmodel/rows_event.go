package readmodel

import (
	"maps"
	"slices"

	"github.com/google/uuid"

	"github.com/keten-ledger/keten/ledger"
)

func insertEvents() statement {
	return statement{"insert events", `
insert into events (partition, log_offset, event_id, type, collection_id, tenant, verdict, reason, recorded_at, data, raw, hash)
select * from unnest($1::integer[], $2::bigint[], $3::uuid[], $4::text[], $5::uuid[], $6::text[], $7::text[], $8::text[],
    $9::timestamptz[], $10::jsonb[], $11::bytea[], $12::bytea[])`}
}

func addEvents(add adder, changes []*Changes) {
	n, size := 0, 0
	for _, c := range changes {
		n += len(c.events)
		size += c.Bytes
	}
	partition, offset, id, typ := newColumn(oidInt4, n), newColumn(oidInt8, n), newColumn(oidUUID, n), newColumn(oidText, 2*n)
	collection, tenant, verdict := newColumn(oidUUID, n), newColumn(oidText, n), newColumn(oidText, n)
	reason, recorded, data := newColumn(oidText, n), newColumn(oidTime, n), newColumn(oidJSON, n+size/24)
	raw, hash := newColumn(oidBytea, n), newColumn(oidBytea, n)
	for _, c := range changes {
		for i := range c.events {
			e := &c.events[i]
			partition.int4(int(c.From.Partition))
			offset.int8(e.offset)
			id.uuidOrNull(e.eventID)
			typ.text(e.typ)
			collection.uuidOrNull(e.collection)
			tenant.textOrNull(e.tenant)
			verdict.text(string(e.verdict))
			reason.text(string(e.reason))
			recorded.time(e.timeMS)
			data.json(e.data)
			raw.bytes(e.raw)
			hash.bytes(e.hash)
		}
	}
	add(insertEvents(), n, partition, offset, id, typ, collection, tenant, verdict, reason, recorded, data, raw, hash)
}

func recordOutcomes() statement {
	return statement{"record command outcomes", `
insert into command_outcomes (event_id, collection_id, tenant, type, verdict, reason, partition, log_offset)
select * from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::integer[], $8::bigint[])
on conflict (event_id) do update set
    collection_id = excluded.collection_id, tenant = excluded.tenant, type = excluded.type, verdict = excluded.verdict,
    reason = excluded.reason, partition = excluded.partition, log_offset = excluded.log_offset
where command_outcomes.verdict <> 'accepted' and excluded.verdict = 'accepted'`}
}

func addOutcomes(add adder, changes []*Changes) {
	rows := gatherOutcomes(changes)
	n := len(rows)
	id, collection, tenant, typ := newColumn(oidUUID, n), newColumn(oidUUID, n), newColumn(oidText, n), newColumn(oidText, 2*n)
	verdict, reason := newColumn(oidText, n), newColumn(oidText, n)
	partition, offset := newColumn(oidInt4, n), newColumn(oidInt8, n)
	for _, o := range rows {
		id.uuid(o.eventID)
		collection.uuidOrNull(o.collection)
		tenant.text(o.tenant)
		typ.text(o.typ)
		verdict.text(string(o.verdict))
		reason.text(string(o.reason))
		partition.int4(int(o.partition))
		offset.int8(o.offset)
	}
	add(recordOutcomes(), id.n, id, collection, tenant, typ, verdict, reason, partition, offset)
}

// gatherOutcomes merges the outcomes of all partitions. An event id stands in
// one partition unless its writer made a mistake; even then a row may be
// written only once.
func gatherOutcomes(changes []*Changes) []*outcomeRow {
	all := make(map[uuid.UUID]*outcomeRow)
	for _, c := range changes {
		for id, o := range c.outcomes {
			if old := all[id]; old == nil || old.verdict != ledger.Accepted && o.verdict == ledger.Accepted {
				all[id] = o
			}
		}
	}
	return slices.SortedFunc(maps.Values(all), func(a, b *outcomeRow) int { return compareID(a.eventID, b.eventID) })
}

// announcements notify who waits for the new positions, once the transaction
// is committed.
func (s *Store) announcements(changes []*Changes) []call {
	positions := make([]Position, len(changes))
	for i, c := range changes {
		positions[i] = Position{Partition: c.To.Partition, Offset: c.To.Next}
	}
	var calls []call
	for _, payload := range formatPositions(positions) {
		calls = append(calls, call{
			statement{"announce positions", `select pg_notify($1, $2)`},
			[][]byte{[]byte(s.channel()), []byte(payload)},
		})
	}
	return calls
}
