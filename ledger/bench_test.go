package ledger_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/ledger"
)

// chain is the history of one collection of five tasks: 11 records.
func chain(b *testing.B, offset *int64, id uuid.UUID) []ledger.Record {
	b.Helper()
	var list []ledger.Record
	add := func(e ledger.Event) {
		list = append(list, record(b, 0, *offset, e, nil))
		*offset++
	}
	add(ledger.CollectionCreated{CollectionID: id, Tenant: "default", Name: "bench", RequestHash: strings.Repeat("0", 64), AsOf: *offset, Tasks: tasks(id, map[string]string{"tasks": "5"})})
	for i := range 5 {
		task := ledger.TaskID(id, ledger.KindTask, i)
		add(ledger.TaskStarted{CollectionID: id, Tenant: "default", Run: 1, TaskID: task, Attempt: 1, Claim: 1, Worker: "default/host-1234-abcdef"})
		add(ledger.TaskSucceeded{
			CollectionID: id, Tenant: "default", Run: 1, TaskID: task, AttemptID: *offset - 1, Worker: "default/host-1234-abcdef",
			Result: json.RawMessage(`{"text":"` + strings.Repeat("r", 100) + `"}`),
		})
	}
	return list
}

// BenchmarkApply folds the records of 5-task chains: decode, judge, hash.
func BenchmarkApply(b *testing.B) {
	offset := int64(0)
	records := []ledger.Record{record(b, 0, offset, ledger.LedgerOpened{LedgerID: uuid.New(), Partitions: 1, Rules: ledger.Rules, Window: 65_536}, nil)}
	offset++
	records = append(records, record(b, 0, offset, ledger.PartitionClaimed{Queue: "default", Prev: -1, Worker: "default/host-1234-abcdef"}, nil))
	offset++
	for i := range 1000 {
		id := collectionID("A")
		id[9], id[10] = byte(i>>8), byte(i)
		records = append(records, chain(b, &offset, id)...)
	}
	b.ReportAllocs()
	n, accepted := 0, 0
	for b.Loop() {
		p := ledger.NewPartition(0)
		for _, r := range records {
			out, err := p.Apply(r)
			if err != nil {
				b.Fatal(err)
			}
			if out.Verdict == ledger.Accepted {
				accepted++
			}
			n++
		}
	}
	require.Equal(b, n, accepted)
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "records/s")
}
