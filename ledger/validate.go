package ledger

import (
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"
)

// checkEvent judges an event by itself: limits, the payload gate, ids and
// partition. value is what it is encoded as.
func checkEvent(partition int32, e Event, value []byte) error {
	if len(value) > MaxEventBytes {
		return invalid("", "is %d bytes long, at most %d are allowed", len(value), MaxEventBytes)
	}
	switch e.(type) {
	case LedgerOpened, RulesActivated, PartitionClaimed, PartitionReleased: // of the whole partition
	default:
		if err := checkCollectionID(partition, e.collection()); err != nil {
			return err
		}
	}
	switch e := e.(type) {
	case LedgerOpened:
		return checkOpened(e)
	case RulesActivated:
		return atLeast("/rules", int64(e.Rules), 0)
	case CollectionCreated:
		return checkCreated(partition, e, value)
	case RetryRequested:
		return checkRetry(e, value)
	case CancelRequested:
		return checkCancel(e)
	case PartitionClaimed:
		return first(checkName("/queue", e.Queue, MaxKeyBytes), checkName("/worker", e.Worker, MaxKeyBytes),
			atLeast("/prev", e.Prev, -1))
	case PartitionReleased:
		return checkReleased(e)
	case TaskStarted:
		return checkStarted(e)
	case TaskSucceeded:
		return checkSucceeded(e)
	case TaskFailed:
		return checkFailed(e)
	case TaskDeferred:
		return checkDeferred(e)
	}
	return errors.New("unhandled event " + e.EventName())
}

func checkReleased(e PartitionReleased) error {
	for i, id := range e.Running {
		if err := atLeast("/running/"+strconv.Itoa(i), id, 0); err != nil {
			return err
		}
	}
	return first(checkName("/queue", e.Queue, MaxKeyBytes), checkName("/worker", e.Worker, MaxKeyBytes),
		atLeast("/claim", e.Claim, 0), within("/grace_ms", e.GraceMS, 0, MaxTimeoutMS))
}

func checkCollectionID(partition int32, id uuid.UUID) error {
	if err := CheckID(id); err != nil {
		return invalid("/collection_id", "%v", err)
	}
	if p := PartitionOf(id); p != partition {
		return invalid("/collection_id", "carries partition %d, the record is in %d", p, partition)
	}
	return nil
}

func checkOpened(e LedgerOpened) error {
	if e.LedgerID == uuid.Nil {
		return invalid("/ledger_id", "is the nil UUID")
	}
	return first(atLeast("/rules", int64(e.Rules), 0), within("/partitions", int64(e.Partitions), 1, MaxPartitions), within("/window", e.Window, 1, 1<<40))
}

func checkCreated(partition int32, e CollectionCreated, value []byte) error {
	err := first(
		checkName("/tenant", e.Tenant, MaxKeyBytes),
		checkName("/name", e.Name, MaxNameBytes),
		CheckText("/template", e.Template, MaxNameBytes),
		CheckText("/description", e.Description, MaxMessageBytes),
		CheckLabels("/labels", e.Labels),
		CheckText("/ordering_key", e.OrderingKey, MaxKeyBytes),
		CheckText("/idempotency_key", e.IdempotencyKey, MaxKeyBytes),
		checkHash(e.RequestHash),
		atLeast("/as_of", e.AsOf, 0),
		checkActor(e.Actor),
		checkRoute(partition, e),
		checkTasks("/tasks", e.CollectionID, KindTask, e.Tasks, 0, len(e.Tasks)),
		checkUnstarted("/tasks", e.Tasks),
		checkFinally(e.CollectionID, e.Finally),
	)
	if err != nil {
		return err
	}
	return checkDefinitionSize(value)
}

// checkRoute recomputes what the id of a keyed collection must be.
func checkRoute(partition int32, e CollectionCreated) error {
	keyed := e.CollectionID.Version() == 8
	if keyed != (e.IdempotencyKey != "") {
		return invalid("/collection_id", "is of version %d, which does not fit the idempotency key", e.CollectionID.Version())
	}
	if keyed && e.CollectionID != KeyedCollectionID(e.Tenant, e.OrderingKey, e.IdempotencyKey, partition) {
		return invalid("/collection_id", "is not the one of tenant, ordering key and idempotency key")
	}
	return nil
}

func checkRetry(e RetryRequested, value []byte) error {
	err := first(
		checkName("/tenant", e.Tenant, MaxKeyBytes),
		within("/run", int64(e.Run), 2, MaxCount),
		atLeast("/as_of", e.AsOf, 0),
		checkName("/name", e.Name, MaxNameBytes),
		CheckText("/template", e.Template, MaxNameBytes),
		CheckLabels("/labels", e.Labels),
		CheckText("/ordering_key", e.OrderingKey, MaxKeyBytes),
		CheckText("/idempotency_key", e.IdempotencyKey, MaxKeyBytes),
		checkHash(e.RequestHash),
		CheckText("/reason", e.Reason, MaxMessageBytes),
		checkActor(e.Actor),
		checkOptionalPayload("/input", e.Input),
		checkSuffix(e),
		checkFinally(e.CollectionID, e.Finally),
	)
	if err != nil {
		return err
	}
	return checkDefinitionSize(value)
}

func checkSuffix(e RetryRequested) error {
	if err := within("/task_count", int64(e.TaskCount), 1, MaxTasks); err != nil {
		return err
	}
	if len(e.Tasks) == 0 || len(e.Tasks) > e.TaskCount {
		return invalid("/tasks", "has %d entries, want 1 to %d", len(e.Tasks), e.TaskCount)
	}
	err := checkTasks("/tasks", e.CollectionID, KindTask, e.Tasks, e.TaskCount-len(e.Tasks), e.TaskCount)
	if err != nil {
		return err
	}
	for i, id := range e.Amended {
		switch {
		case !slices.ContainsFunc(e.Tasks, func(t Task) bool { return t.ID == id }):
			return invalid("/amended/"+strconv.Itoa(i), "is not a task of the suffix")
		case slices.Contains(e.Amended[:i], id):
			return invalid("/amended/"+strconv.Itoa(i), "is there twice")
		}
	}
	return nil
}

func checkCancel(e CancelRequested) error {
	return first(
		checkName("/tenant", e.Tenant, MaxKeyBytes),
		within("/run", int64(e.Run), 1, MaxCount),
		CheckText("/idempotency_key", e.IdempotencyKey, MaxKeyBytes),
		checkHash(e.RequestHash),
		CheckText("/reason", e.Reason, MaxMessageBytes),
		checkActor(e.Actor),
	)
}

func checkTaskEvent(id uuid.UUID, tenant string, run int, task uuid.UUID, worker string) error {
	if err := first(checkName("/tenant", tenant, MaxKeyBytes), checkName("/worker", worker, MaxKeyBytes),
		within("/run", int64(run), 1, MaxCount)); err != nil {
		return err
	}
	if task.Version() != 8 || task.Variant() != uuid.RFC4122 || PartitionOf(task) != PartitionOf(id) {
		return invalid("/task_id", "is not a task of the collection")
	}
	return nil
}

func checkStarted(e TaskStarted) error {
	return first(
		checkTaskEvent(e.CollectionID, e.Tenant, e.Run, e.TaskID, e.Worker),
		within("/attempt", int64(e.Attempt), 1, MaxCount),
		atLeast("/claim", e.Claim, 0),
	)
}

func checkDeferred(e TaskDeferred) error {
	return first(
		checkTaskEvent(e.CollectionID, e.Tenant, e.Run, e.TaskID, e.Worker),
		atLeast("/attempt_id", e.AttemptID, 0),
	)
}

func checkSucceeded(e TaskSucceeded) error {
	return first(
		checkTaskEvent(e.CollectionID, e.Tenant, e.Run, e.TaskID, e.Worker),
		atLeast("/attempt_id", e.AttemptID, 0),
		checkOptionalPayload("/result", e.Result),
		CheckText("/message", e.Message, MaxMessageBytes),
	)
}

func checkFailed(e TaskFailed) error {
	err := first(
		checkTaskEvent(e.CollectionID, e.Tenant, e.Run, e.TaskID, e.Worker),
		atLeast("/attempt_id", e.AttemptID, 0),
		checkName("/error/code", e.Error.Code, MaxNameBytes),
		CheckText("/error/message", e.Error.Message, MaxMessageBytes),
		CheckText("/error/detail", e.Error.Detail, MaxDetailBytes),
		within("/retry_after_ms", e.RetryAfterMS, 0, MaxBackoffMS),
	)
	if err != nil {
		return err
	}
	if a := e.Error.Audience; a != AudienceUser && a != AudienceOperator {
		return invalid("/error/audience", "is %.32q, want user or operator", a)
	}
	if e.ByClaim != nil {
		return atLeast("/by_claim", *e.ByClaim, 0)
	}
	return nil
}

// checkTasks checks definitions with the indexes [from, to).
func checkTasks(path string, id uuid.UUID, kind Kind, tasks []Task, from, to int) error {
	if n := to - from; n < 1 || to > MaxTasks {
		return invalid(path, "has %d entries, want 1 to %d", n, MaxTasks)
	}
	names := make(map[string]bool, len(tasks))
	for i := range tasks {
		t, at := &tasks[i], path+"/"+strconv.Itoa(i)
		if t.Index == missing {
			return invalid(at+"/index", "is missing")
		}
		if t.Index != from+i {
			return invalid(at+"/index", "is %d, want %d", t.Index, from+i)
		}
		if t.ID != TaskID(id, kind, t.Index) {
			return invalid(at+"/id", "is not the id of this task")
		}
		if names[t.Name] {
			return invalid(at+"/name", "%q is there twice", t.Name)
		}
		names[t.Name] = true
		if err := checkTask(t); err != nil {
			if inv, ok := errors.AsType[*InvalidError](err); ok {
				return &InvalidError{Path: at + inv.Path, Rule: inv.Rule}
			}
			return err
		}
	}
	return nil
}

func checkFinally(id uuid.UUID, tasks []Task) error {
	if len(tasks) == 0 {
		return nil
	}
	return first(
		checkTasks("/finally", id, KindFinally, tasks, 0, len(tasks)),
		checkUnstarted("/finally", tasks),
	)
}

// checkUnstarted refuses earlier attempts where there can be none: in a
// creation, and of finally tasks, which count them within their run.
func checkUnstarted(path string, tasks []Task) error {
	for i := range tasks {
		if tasks[i].Attempts != 0 {
			return invalid(path+"/"+strconv.Itoa(i)+"/attempts", "is %d, want 0", tasks[i].Attempts)
		}
	}
	return nil
}

func checkTask(t *Task) error {
	err := first(
		checkName("/name", t.Name, MaxNameBytes),
		checkName("/type", t.Type, MaxNameBytes),
		checkName("/queue", t.Queue, MaxKeyBytes),
		CheckText("/description", t.Description, MaxMessageBytes),
		within("/max_attempts", int64(t.MaxAttempts), 1, MaxAttempts),
		within("/backoff/initial_ms", t.Backoff.InitialMS, 0, MaxBackoffMS),
		within("/backoff/multiplier", t.Backoff.Multiplier, 1, MaxMultiplier),
		within("/backoff/max_ms", t.Backoff.MaxMS, t.Backoff.InitialMS, MaxBackoffMS),
		within("/timeout_ms", t.TimeoutMS, 1, MaxTimeoutMS),
		within("/attempts", int64(t.Attempts), 0, MaxEarlierAttempts),
		checkOptionalPayload("/args", t.Args),
	)
	if err != nil {
		return err
	}
	switch t.OnInterrupt {
	case OnInterruptRestart:
		return nil
	case OnInterruptFail:
		if t.MaxAttempts != 1 {
			return invalid("/max_attempts", "is %d, on_interrupt fail requires 1", t.MaxAttempts)
		}
		return nil
	}
	return invalid("/on_interrupt", "is %.32q, want restart or fail", t.OnInterrupt)
}

// CheckTask returns an *[InvalidError] whose path starts at the definition,
// unless t may stand in a collection. Its id and index are not looked at.
func CheckTask(t Task) error { return checkTask(&t) }

// checkDefinitionSize measures the definitions as they stand in the event: what
// the encoder of this build would make of them must not decide.
func checkDefinitionSize(value []byte) error {
	if len(value) <= MaxDefinitionBytes {
		return nil // the whole event is smaller than its part may be
	}
	if n := definitionBytes(value); n > MaxDefinitionBytes {
		return invalid("/tasks", "definitions are %d bytes long, at most %d are allowed", n, MaxDefinitionBytes)
	}
	return nil
}

func checkOptionalPayload(path string, p json.RawMessage) error {
	if len(p) == 0 {
		return nil
	}
	err := CheckPayload(p)
	if inv, ok := errors.AsType[*InvalidError](err); ok {
		return &InvalidError{Path: path + inv.Path, Rule: inv.Rule}
	}
	return err
}

func checkActor(a Actor) error {
	return first(
		CheckText("/actor/kind", a.Kind, MaxKeyBytes),
		CheckText("/actor/id", a.ID, MaxKeyBytes),
		CheckText("/actor/name", a.Name, MaxKeyBytes),
		CheckText("/actor/address", a.Address, MaxKeyBytes),
		CheckText("/actor/request_id", a.RequestID, MaxKeyBytes),
	)
}

func checkHash(h string) error {
	if len(h) != 64 || strings.Trim(h, "0123456789abcdef") != "" {
		return invalid("/request_hash", "is not SHA-256 in lower-case hex")
	}
	return nil
}

func within(path string, n, least, most int64) error {
	if n == missing {
		return invalid(path, "is missing")
	}
	if n < least || n > most {
		return invalid(path, "is %d, want %d to %d", n, least, most)
	}
	return nil
}

func atLeast(path string, n, least int64) error {
	if n == missing {
		return invalid(path, "is missing")
	}
	if n < least {
		return invalid(path, "is %d, want at least %d", n, least)
	}
	return nil
}

func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
