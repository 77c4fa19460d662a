package ledger_test

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/ledger"
)

// eventBytes is the size of the values that the benchmarks decode.
const eventBytes = 500

// chain is the history of one collection of five tasks: 11 records. A start is
// small by nature, so the outcome behind it is as much larger than eventBytes.
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
		started := len(list[len(list)-1].Value)
		add(padded(b, 2*eventBytes-started, func(pad string) ledger.Event {
			return ledger.TaskSucceeded{
				CollectionID: id, Tenant: "default", Run: 1, TaskID: task, AttemptID: *offset - 1, Worker: "default/host-1234-abcdef",
				Result: benchResult(pad),
			}
		}))
	}
	return list
}

// benchResult is a result such as handlers return: nested, of all kinds.
func benchResult(pad string) json.RawMessage {
	return json.RawMessage(`{"status":200,"ok":true,"host":"node-17.example","ports":[80,443,8443],"load":-0.25e1,"owner":{"name":"Zoë","id":null},"log":"` + pad + `"}`)
}

// padded returns the event whose value has size bytes.
func padded(b *testing.B, size int, event func(pad string) ledger.Event) ledger.Event {
	b.Helper()
	n := size - len(record(b, 0, 1, event(""), nil).Value)
	return event(strings.Repeat("the quick brown fox ", 1+n/20)[:n])
}

// BenchmarkDecode reads single events, all but the creation of eventBytes.
func BenchmarkDecode(b *testing.B) {
	id := collectionID("A")
	task := ledger.TaskID(id, ledger.KindTask, 0)
	events := map[string]ledger.Event{
		"CollectionCreated": ledger.CollectionCreated{CollectionID: id, Tenant: "default", Name: "bench", RequestHash: strings.Repeat("0", 64), Tasks: tasks(id, map[string]string{"tasks": "5"})},
		"TaskStarted": padded(b, eventBytes, func(pad string) ledger.Event {
			return ledger.TaskStarted{CollectionID: id, Tenant: "default/" + pad[:len(pad)/2], Run: 1, TaskID: task, Attempt: 1, Claim: 1, Worker: "default/" + pad[len(pad)/2:]}
		}),
		"TaskSucceeded": padded(b, eventBytes, func(pad string) ledger.Event {
			return ledger.TaskSucceeded{CollectionID: id, Tenant: "default", Run: 1, TaskID: task, AttemptID: 3, Worker: "default/host-1234-abcdef", Result: benchResult(pad)}
		}),
		"TaskFailed": padded(b, eventBytes, func(pad string) ledger.Event {
			return ledger.TaskFailed{
				CollectionID: id, Tenant: "default", Run: 1, TaskID: task, AttemptID: 3, Worker: "default/host-1234-abcdef",
				Error: ledger.TaskError{Code: "exit", Message: "exit status 1", Detail: pad, Audience: ledger.AudienceUser, Retryable: true},
			}
		}),
	}
	for _, name := range slices.Sorted(maps.Keys(events)) {
		r := record(b, 0, 1, events[name], nil)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := ledger.Decode(r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	r := record(b, 0, 1, events["TaskSucceeded"], nil)
	b.Run("RecordHash", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			ledger.RecordHash(r)
		}
	})
}

// chains are the records of 1,000 chains, behind the opening and the claim.
func chains(b *testing.B) []ledger.Record {
	b.Helper()
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
	return records
}

// foldAll folds n records again and again, each of which apply hands to a fold.
func foldAll(b *testing.B, n int, apply func(p *ledger.Partition, i int) (ledger.Outcome, error)) {
	b.Helper()
	b.ReportAllocs()
	folded, accepted := 0, 0
	for b.Loop() {
		p := ledger.NewPartition(0)
		for i := range n {
			out, err := apply(p, i)
			if err != nil {
				b.Fatal(err)
			}
			if out.Verdict == ledger.Accepted {
				accepted++
			}
			folded++
		}
	}
	require.Equal(b, folded, accepted)
	b.ReportMetric(float64(folded)/b.Elapsed().Seconds(), "records/s")
}

// BenchmarkApply folds the records of 5-task chains: decode, judge, hash.
func BenchmarkApply(b *testing.B) {
	records := chains(b)
	size := 0
	for _, r := range records {
		size += len(r.Value)
	}
	foldAll(b, len(records), func(p *ledger.Partition, i int) (ledger.Outcome, error) { return p.Apply(records[i]) })
	b.ReportMetric(float64(size)/float64(len(records)), "B/value")
}
