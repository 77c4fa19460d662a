package handlers_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/executor"
	"github.com/keten-ledger/keten/executor/handlers"
	"github.com/keten-ledger/keten/ledger"
)

func sleeping(t *testing.T, cfg handlers.SleepConfig) executor.RawHandler {
	t.Helper()
	h, err := handlers.Sleep(cfg)
	require.NoError(t, err)
	return h
}

func TestSleepTakesItsTimeAndPassesTheResultOn(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]time.Duration{
		``:                                      10 * time.Minute,
		`{}`:                                    10 * time.Minute,
		`{"seconds":1.5}`:                       1500 * time.Millisecond,
		`{"seconds":0}`:                         0,
		`{"until":"2000-01-01T06:00:00Z"}`:      6 * time.Hour, // bubbles begin at midnight
		`{"until":"1999-12-31T06:00:00Z"}`:      0,
		`{"until":"2000-01-01T03:00:00+02:00"}`: time.Hour,
	} {
		synctest.Test(t, func(t *testing.T) {
			h := sleeping(t, handlers.SleepConfig{Duration: 10 * time.Minute})
			began := time.Now()
			task := executor.RawTask{Args: json.RawMessage(args), TaskInfo: executor.TaskInfo{
				Previous: json.RawMessage(`{"a": 1.0}`), Deadline: began.Add(24 * time.Hour),
			}}
			result, err := h(t.Context(), task)
			require.NoError(t, err, args)
			require.Equal(t, want, time.Since(began), args)
			require.Equal(t, `{"a": 1.0}`, string(result), "byte for byte")
		})
	}
}

func TestSleepEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := sleeping(t, handlers.SleepConfig{Duration: time.Hour})
		cause := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Minute, func() { cancel(cause) })
		began := time.Now()
		_, err := h(ctx, executor.RawTask{})
		require.ErrorIs(t, err, cause)
		require.Equal(t, time.Minute, time.Since(began))
	})
}

// What cannot be is said at once, not at the timeout.
func TestSleepRefusesAtOnce(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		`{}`:                "seconds or until is missing, and the type has no duration",
		`{"seconds":-1}`:    "seconds is -1, want 0 to 86400",
		`{"seconds":86401}`: "seconds is 86401, want 0 to 86400",
		`{"seconds":"1"}`:   "the args are not those of a sleep",
		`{"minutes":1}`:     "the args are not those of a sleep",
		`[]`:                "the args are not those of a sleep",
		`{"until":"soon"}`:  "the args are not those of a sleep",
		`{"seconds":3601}`:  "the task would sleep until 2000-01-01T01:00:01Z, beyond its timeout",
		`{"seconds":1,"until":"2000-01-01T00:00:00Z"}`: "seconds and until cannot both be given",
	} {
		synctest.Test(t, func(t *testing.T) {
			h := sleeping(t, handlers.SleepConfig{Audience: ledger.AudienceUser})
			began := time.Now()
			_, err := h(t.Context(), executor.RawTask{Args: json.RawMessage(args), TaskInfo: executor.TaskInfo{Deadline: began.Add(time.Hour)}})
			failed := failure(t, err)
			require.Contains(t, failed.Message, want, args)
			require.Equal(t, executor.CodeInvalidArgs, failed.Code)
			require.Equal(t, ledger.AudienceUser, failed.Audience)
			require.False(t, failed.Retryable)
			require.Zero(t, time.Since(began))
		})
	}
}

func TestSleepConfigIsChecked(t *testing.T) {
	t.Parallel()
	for _, d := range []time.Duration{-1, 24*time.Hour + 1} {
		_, err := handlers.Sleep(handlers.SleepConfig{Duration: d})
		require.Error(t, err)
	}
}
