package ledger_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/ledger"
)

// BenchmarkApplyParsed folds the records of 5-task chains that were parsed
// before: judging alone.
func BenchmarkApplyParsed(b *testing.B) {
	records := chains(b)
	parsed := make([]ledger.Parsed, len(records))
	for i, r := range records {
		parsed[i] = ledger.Parse(r)
	}
	foldAll(b, len(parsed), func(p *ledger.Partition, i int) (ledger.Outcome, error) { return p.ApplyParsed(&parsed[i]) })
}

// BenchmarkSnapshot takes and restores the snapshot of 10,000 active collections
// of five tasks, with a full window.
func BenchmarkSnapshot(b *testing.B) {
	const active, window = 10_000, 65_536
	p := ledger.NewPartition(0)
	apply := func(e ledger.Event) {
		out, err := p.Apply(record(b, 0, p.Position(), e, nil))
		require.NoError(b, err)
		require.Equal(b, ledger.Accepted, out.Verdict, out.Reason)
	}
	apply(ledger.LedgerOpened{LedgerID: uuid.New(), Partitions: 1, Rules: ledger.Rules, Window: window})
	apply(ledger.PartitionClaimed{Queue: "default", Prev: -1, Worker: "w1"})
	id := func(i int) uuid.UUID {
		id := collectionID("A")
		id[9], id[10], id[11] = byte(i>>16), byte(i>>8), byte(i)
		return id
	}
	create := func(i int) {
		list := tasks(id(i), map[string]string{"tasks": "5"})
		for t := range list {
			list[t].Type, list[t].Args = fmt.Sprintf("certificate.step-%d", t), json.RawMessage(`{"domain":"`+strings.Repeat("a", 80)+`.example"}`)
		}
		apply(ledger.CollectionCreated{CollectionID: id(i), Tenant: "default", Name: "request-certificate", RequestHash: strings.Repeat("0", 64), AsOf: p.Position(), Tasks: list})
	}
	hash := strings.Repeat("0", 64)
	for i := range window / 2 {
		create(i)
		apply(ledger.CancelRequested{CollectionID: id(i), Tenant: "default", Run: 1, RequestHash: hash})
	}
	for i := range active {
		create(window + i)
		apply(ledger.TaskStarted{CollectionID: id(window + i), Tenant: "default", Run: 1, TaskID: ledger.TaskID(id(window+i), ledger.KindTask, 0), Attempt: 1, Claim: 1, Worker: "w1"})
	}
	b.ReportAllocs()
	size := 0
	for b.Loop() {
		snapshot := p.Snapshot()
		q, err := ledger.Restore(snapshot)
		if err != nil {
			b.Fatal(err)
		}
		size = len(snapshot)
		require.Equal(b, active, q.Active())
	}
	b.ReportMetric(float64(size)/(1<<20), "MiB")
}
