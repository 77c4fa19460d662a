package chaos_test

import (
	"context"
	"encoding/json"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/executor"
	"github.com/keten-ledger/keten/executor/handlers"
	"github.com/keten-ledger/keten/internal/kafkatest"
	"github.com/keten-ledger/keten/ledger"
)

// stubborn is how long a handler goes on after its context has ended.
const stubborn = time.Second

// badHandlers are task types whose handlers misbehave in this process, and
// badCommands commands that do.
func badHandlers() map[string]executor.RawHandler {
	return map[string]executor.RawHandler{
		"panics":   func(context.Context, executor.RawTask) (json.RawMessage, error) { panic("on purpose") },
		"vanishes": func(context.Context, executor.RawTask) (json.RawMessage, error) { runtime.Goexit(); return nil, nil },
		"hangs": func(ctx context.Context, _ executor.RawTask) (json.RawMessage, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		},
		"does not listen": func(ctx context.Context, _ executor.RawTask) (json.RawMessage, error) {
			<-ctx.Done()
			<-time.After(stubborn)
			return nil, ctx.Err()
		},
		"returns no JSON": func(context.Context, executor.RawTask) (json.RawMessage, error) { return json.RawMessage("{"), nil },
		"returns too much": func(context.Context, executor.RawTask) (json.RawMessage, error) {
			return json.RawMessage(`"` + strings.Repeat("x", 10<<20) + `"`), nil
		},
	}
}

func badCommands() map[string]string {
	return map[string]string{
		"writes too much":        "head -c 10000000 /dev/zero | tr '\\0' x",
		"complains too much":     "head -c 10000000 /dev/zero | tr '\\0' x >&2; exit 1",
		"dies of a signal":       "kill -KILL $$",
		"hangs in a command":     "trap '' TERM; sleep 1000",
		"leaves children behind": "for i in 1 2 3; do sleep 1000 & done; printf '{\"index\":0}'",
		"leaves a deaf child":    "sh -c 'trap \"\" TERM HUP; sleep 1000; :' & printf '{\"index\":0}'",
	}
}

// expectedCode is the code with which a task fails that does what it is asked
// to, "" for one that succeeds.
func expectedCode(task *ledger.Task) string {
	if taskArgsOf(task).Refuse {
		return planned
	}
	return map[string]string{
		"panics": ledger.CodePanic, "vanishes": ledger.CodePanic,
		"hangs": ledger.CodeTimeout, "does not listen": ledger.CodeTimeout, "hangs in a command": ledger.CodeTimeout,
		"returns no JSON": ledger.CodeInvalidResult, "returns too much": ledger.CodeInvalidResult, "writes too much": ledger.CodeInvalidResult,
		"complains too much": ledger.CodeExit, "dies of a signal": ledger.CodeExit,
	}[task.Type]
}

// registerBad adds the types that misbehave.
func registerBad(r *executor.Registry, cfg workerConfig, note func(executor.RawHandler) executor.RawHandler) error {
	for name, h := range badHandlers() {
		r.HandleRaw(name, note(h))
	}
	for name, script := range badCommands() {
		h, err := command(cfg, script)
		if err != nil {
			return err
		}
		r.HandleRaw(name, note(h))
	}
	return nil
}

// command is the handler of a shell script, which carries the test's mark.
func command(cfg workerConfig, script string) (executor.RawHandler, error) {
	return handlers.Exec(handlers.ExecConfig{
		Command: []string{"sh", "-c", script}, Dir: cfg.Dir, Env: []string{"PATH=" + os.Getenv("PATH"), envMark + "=" + cfg.Mark},
	})
}

// Handlers panic, hang, die, flood and fork. Each fails as it should or does no
// harm, the processes stay, and what comes after them runs.
func TestHandlersMisbehave(t *testing.T) {
	t.Parallel()
	dice := newDice(t)
	w := newWorld(t, kafkatest.Brokers(t), partitions)
	var types []string
	for name := range badHandlers() {
		types = append(types, name)
	}
	for name := range badCommands() {
		types = append(types, name)
	}
	var plans []plan
	for range scaled(100) {
		for _, name := range types {
			p := drawPlan(dice, partitions)
			p.tasks = p.tasks[:1]
			task := &p.tasks[0]
			setWork(task, 0)
			task.Type, task.MaxAttempts, task.TimeoutMS = name, 1, 1000
			if expectedCode(task) == "" || strings.Contains(name, "much") {
				task.TimeoutMS = 60_000
			}
			task.Args = json.RawMessage(`{"step":0}`)
			plans = append(plans, p, drawPlan(dice, partitions))
		}
	}
	dice.Shuffle(len(plans), func(i, k int) { plans[i], plans[k] = plans[k], plans[i] })
	f := newFleet(t, 2, w, nil)
	seen := w.startWitness(t)
	f.startAll(t)
	pids := []int{f.members[0].proc.PID(), f.members[1].proc.PID()}
	require.NoError(t, w.createAll(t, plans))
	require.NoError(t, seen.awaitAll(plans))
	for i, m := range f.members {
		require.True(t, m.running(), "executor %d has ended:\n%s", i, m.lastWords())
		require.Equal(t, pids[i], m.proc.PID())
		require.NoError(t, m.ready())
	}
	// what handlers leave behind goes with them, not with the executor
	require.Eventually(t, func() bool { return len(f.commands()) == 0 }, goneWithin, 100*time.Millisecond, "commands are left behind")
	f.stopAll(t)
	f.requireNoRaces(t)
	j := w.judge(t, plans)
	j.checkUninterrupted()
	j.checkLeftBehind(f.mark)
	j.require(t)
}
