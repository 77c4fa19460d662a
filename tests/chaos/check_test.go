package chaos_test

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/keten-ledger/keten/ledger"
)

// A finding is a promise that was broken, and where.
type finding struct {
	collection uuid.UUID // uuid.Nil: of no collection
	text       string
}

// A judgement is the whole ledger and the whole journal, held to each other.
type judgement struct {
	records  map[int32][]*kgo.Record
	audits   map[int32]*audit
	notes    []note
	findings []finding
	counts   map[string]int // of refused records, and of what is allowed but worth knowing
}

func (j *judgement) broken(collection uuid.UUID, format string, a ...any) {
	j.findings = append(j.findings, finding{collection, fmt.Sprintf(format, a...)})
}

// readAll reads every record with a consumer that knows nothing of the ledger.
func (w *world) readAll(t *testing.T) map[int32][]*kgo.Record {
	t.Helper()
	topic := w.prefix + ".ledger"
	ends, err := w.admin.ListEndOffsets(t.Context(), topic)
	require.NoError(t, err)
	require.NoError(t, ends.Error())
	from := make(map[int32]kgo.Offset)
	left := make(map[int32]int64)
	ends.Each(func(o kadm.ListedOffset) {
		from[o.Partition] = kgo.NewOffset().AtStart()
		left[o.Partition] = o.Offset
	})
	cl, err := kgo.NewClient(kgo.SeedBrokers(w.brokers...), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}))
	require.NoError(t, err)
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	records := make(map[int32][]*kgo.Record)
	maps.DeleteFunc(left, func(_ int32, end int64) bool { return end == 0 })
	for len(left) > 0 {
		fetches := cl.PollFetches(ctx)
		require.NoError(t, fetches.Err())
		fetches.EachRecord(func(r *kgo.Record) {
			if r.Offset+1 >= left[r.Partition] {
				delete(left, r.Partition)
			}
			records[r.Partition] = append(records[r.Partition], r)
		})
	}
	return records
}

// judge reads everything and looks for broken promises.
func (w *world) judge(t *testing.T, plans []plan) *judgement {
	t.Helper()
	return judge(w.readAll(t), w.journal.all(), plans)
}

func judge(records map[int32][]*kgo.Record, notes []note, plans []plan) *judgement {
	j := &judgement{records: records, audits: make(map[int32]*audit), notes: notes, counts: make(map[string]int)}
	for _, p := range slices.Sorted(maps.Keys(j.records)) {
		j.fold(p)
	}
	j.checkAttempts()
	j.checkJournal()
	for i := range plans {
		j.checkPlan(&plans[i])
	}
	return j
}

// fold judges every record of a partition by both folds.
func (j *judgement) fold(partition int32) {
	fold, second := ledger.NewPartition(partition), newAudit()
	j.audits[partition] = second
	for _, r := range j.records[partition] {
		out, err := fold.Apply(ledgerRecord(r))
		if err != nil {
			j.broken(uuid.Nil, "the fold of partition %d stops: %v", partition, err)
			return
		}
		if out.Verdict != ledger.Accepted {
			j.counts[strings.TrimPrefix(out.Type, "keten.v1.")+" "+string(out.Verdict)+" "+string(out.Reason)]++
		}
		if out.Verdict == ledger.Invalid || out.Verdict == ledger.Foreign {
			j.broken(uuid.Nil, "%d:%d is %s: %s", partition, r.Offset, out.Verdict, out.Reason)
			continue
		}
		accepted, err := second.judge(r)
		if err != nil || accepted != (out.Verdict == ledger.Accepted) {
			j.broken(uuid.Nil, "%d:%d is %s %s, the second fold says %t %v", partition, r.Offset, out.Verdict, out.Reason, accepted, err)
		}
	}
	if n := fold.Active(); n != 0 {
		j.broken(uuid.Nil, "partition %d has %d collections that have not ended", partition, n)
	}
}

func ledgerRecord(r *kgo.Record) ledger.Record {
	rec := ledger.Record{
		Partition: r.Partition, Offset: r.Offset, LeaderEpoch: r.LeaderEpoch, TimeMS: r.Timestamp.UnixMilli(), Key: r.Key, Value: r.Value,
	}
	for _, h := range r.Headers {
		rec.Headers = append(rec.Headers, ledger.Header(h))
	}
	return rec
}

// checkAttempts: one accepted outcome per attempt, one accepted success per
// task, and no start before the success of the task before (I3, I5).
func (j *judgement) checkAttempts() {
	for _, a := range j.audits {
		successes := make(map[uuid.UUID]int)
		for _, id := range slices.Sorted(maps.Keys(a.attempts)) {
			attempt := a.attempts[id]
			task := &attempt.run.tasks[attempt.task]
			j.counts["attempt "+cmp.Or(attempt.status, "open")]++
			if attempt.outcomes > 1 {
				j.broken(attempt.run.collection, "attempt %d has %d accepted outcomes", id, attempt.outcomes)
			}
			if attempt.status == "succeeded" {
				successes[task.ID]++
			}
			if attempt.task > 0 {
				if before := &attempt.run.tasks[attempt.task-1]; before.succeeded == 0 || before.succeeded >= id {
					j.broken(attempt.run.collection, "attempt %d of task %d began before task %d succeeded", id, attempt.task, attempt.task-1)
				}
			}
			if attempt.status == "" {
				j.broken(attempt.run.collection, "attempt %d is still open", id)
			}
		}
		for task, n := range successes {
			if n > 1 {
				j.broken(uuid.Nil, "task %s has %d accepted successes", task, n)
			}
		}
	}
}

// lost counts attempts whose worker did not bring them to an end.
func (j *judgement) lost() (n int) {
	for _, a := range j.audits {
		for _, attempt := range a.attempts {
			if attempt.abandoned {
				n++
			}
		}
	}
	return n
}

// A handlerKey is one attempt in the journal.
type handlerKey struct {
	partition int32
	fence     int64
}

// checkJournal: every handler names an accepted start, begins behind it and at
// most once; a task that may run once does; in one process a task's handlers do
// not overlap (I4).
func (j *judgement) checkJournal() {
	starts := make(map[handlerKey]int)
	once := make(map[uuid.UUID]int)
	running := make(map[string]int64) // by process and task: the attempt
	for _, n := range j.notes {
		key := handlerKey{ledger.PartitionOf(n.Collection), n.Fence}
		inProcess := n.Worker + " " + n.Task.String()
		if n.Phase != phaseStart {
			if running[inProcess] == n.Fence {
				delete(running, inProcess)
			}
			if strings.Contains(n.Text, "the result of") {
				j.broken(n.Collection, "a handler got a wrong input: %s", n.Text)
			}
			continue
		}
		if other, ok := running[inProcess]; ok {
			j.broken(n.Collection, "attempt %d began while attempt %d of the same task ran in the same process", n.Fence, other)
		}
		running[inProcess] = n.Fence
		if starts[key]++; starts[key] > 1 {
			j.broken(n.Collection, "the handler of attempt %d began %d times", n.Fence, starts[key])
		}
		j.checkStart(key, &n, once)
	}
}

func (j *judgement) checkStart(key handlerKey, n *note, once map[uuid.UUID]int) {
	audit := j.audits[key.partition]
	if audit == nil || audit.attempts[n.Fence] == nil {
		j.broken(n.Collection, "a handler began for attempt %d, which was never accepted", n.Fence)
		return
	}
	attempt := audit.attempts[n.Fence]
	task := &attempt.run.tasks[attempt.task]
	if task.ID != n.Task || attempt.number != n.Attempt || n.Run != 1 || attempt.worker != n.Worker {
		j.broken(n.Collection, "a handler began as attempt %d (no. %d) of %s for %s; the record says no. %d of %s for %s",
			n.Fence, n.Attempt, n.Task, n.Worker, attempt.number, task.ID, attempt.worker)
	}
	at := n.at.UnixMilli()
	if at < attempt.openedMS {
		j.broken(n.Collection, "the handler of attempt %d began %d ms before its record", n.Fence, attempt.openedMS-at)
	}
	if attempt.task > 0 && at < attempt.run.tasks[attempt.task-1].succeededMS {
		j.broken(n.Collection, "the handler of attempt %d began before task %d had succeeded", n.Fence, attempt.task-1)
	}
	if attempt.status != "" && at > attempt.closedMS {
		j.counts["handlers that began late, their attempt was closed"]++
		if attempt.status == "not_started" {
			j.broken(n.Collection, "a handler began for attempt %d, which its worker had given back as not started", n.Fence)
		}
	}
	if task.OnInterrupt == "fail" {
		if once[task.ID]++; once[task.ID] > 1 {
			j.broken(n.Collection, "the handler of task %s, which may run once, began %d times", task.ID, once[task.ID])
		}
	}
}

// checkPlan: the collection has ended as it must (I12).
func (j *judgement) checkPlan(p *plan) {
	var run *auditRun
	if a := j.audits[ledger.PartitionOf(p.id)]; a != nil {
		run = a.runs[p.id]
	}
	if run == nil {
		j.broken(p.id, "the collection is not in the ledger")
		return
	}
	refused := slices.IndexFunc(p.tasks, func(d ledger.Task) bool { return expectedCode(&d) != "" })
	switch {
	case run.status == "succeeded" && refused < 0:
		j.counts["collections succeeded"]++
	case run.status == "failed" && run.at == refused && run.code == expectedCode(&p.tasks[refused]):
		j.counts["collections failed as planned"]++
	case run.status == "failed" && run.code == ledger.CodeInterrupted && p.tasks[run.at].OnInterrupt == ledger.OnInterruptFail:
		j.counts["collections failed as interrupted"]++
	default:
		j.broken(p.id, "the collection ended as %q (%s) at task %d", run.status, run.code, run.at)
	}
}

// goneWithin is how soon what an executor started is to be gone after it.
const goneWithin = 10 * time.Second

// checkLeftBehind: no process of a fleet that has ended is left.
func (j *judgement) checkLeftBehind(mark string) {
	left := marked(mark)
	for deadline := time.Now().Add(goneWithin); len(left) > 0 && time.Now().Before(deadline); left = marked(mark) {
		<-time.After(100 * time.Millisecond)
	}
	if len(left) > 0 {
		j.broken(uuid.Nil, "%d processes are left behind: %v", len(left), left)
	}
}

// findingsShown bounds what a failed test prints.
const findingsShown = 5

// require fails with what was found, and with the records and the journal of
// the collections concerned.
func (j *judgement) require(t *testing.T) {
	t.Helper()
	for _, what := range slices.Sorted(maps.Keys(j.counts)) {
		t.Logf("%6d %s", j.counts[what], what)
	}
	if len(j.findings) == 0 {
		return
	}
	var b strings.Builder
	for _, f := range j.findings[:min(len(j.findings), findingsShown)] {
		fmt.Fprintf(&b, "\n%s (collection %s)\n", f.text, f.collection)
		if f.collection != uuid.Nil {
			b.WriteString(j.story(f.collection))
		}
	}
	require.Fail(t, fmt.Sprintf("%d promises broken", len(j.findings)), b.String())
}

// story is the records and the notes about a collection, by time, with the
// claims of its partition between them.
func (j *judgement) story(collection uuid.UUID) string {
	type line struct {
		at   time.Time
		text string
	}
	var lines []line
	for _, r := range j.records[ledger.PartitionOf(collection)] {
		name := strings.TrimPrefix(header(r, "ce_type"), "keten.v1.")
		if string(r.Key) == collection.String() || strings.HasPrefix(name, "Partition") {
			lines = append(lines, line{r.Timestamp, fmt.Sprintf("%s record %d:%d %s %s", r.Timestamp.Format(clock), r.Partition, r.Offset, name, r.Value)})
		}
	}
	for _, n := range j.notes {
		if n.Collection == collection {
			lines = append(lines, line{n.at, n.String()})
		}
	}
	slices.SortStableFunc(lines, func(a, b line) int { return a.at.Compare(b.at) })
	var b strings.Builder
	for _, l := range lines {
		b.WriteString("  " + l.text + "\n")
	}
	return b.String()
}
