package main_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Every scenario runs to its end, small and on the embedded broker, and says
// what it measured.
func TestBenchExecutor(t *testing.T) {
	t.Parallel()
	stdout, stderr, code := keten(t, "bench", "executor", "--chains", "200", "--warmup", "100", "--rounds", "1", "--idle", "10",
		"--takeover", "20", "--history", "1000,2000", "--restarts", "1", "--memory", "100")
	require.Zero(t, code, stderr)
	type line struct {
		Scenario   string
		Throughput map[string]any
		Latency    map[string]map[string]float64 `json:"latency_ms"`
		Histories  []struct {
			Records     int
			FirstTaskMS float64 `json:"first_task_ms"`
		}
		Memory map[string]map[string]float64 `json:"memory_mib"`
	}
	lines := make(map[string]line)
	for text := range strings.Lines(stdout) {
		var l line
		require.NoError(t, json.Unmarshal([]byte(text), &l), text)
		lines[l.Scenario] = l
	}
	require.Len(t, lines, 5)
	require.Positive(t, lines["executor_throughput"].Throughput["chains_per_s"])
	require.Positive(t, lines["executor_throughput"].Throughput["bare_log_chains_per_s"])
	require.Positive(t, lines["executor_idle"].Latency["task_to_task"]["p50"])
	require.Positive(t, lines["executor_takeover"].Latency["killed_to_running_again"]["max"])
	histories := lines["executor_restart"].Histories
	require.Len(t, histories, 2)
	require.InDelta(t, 1000, histories[0].Records, 12*13) // whole chains in twelve partitions
	require.Greater(t, histories[1].Records, histories[0].Records)
	require.Positive(t, histories[1].FirstTaskMS)
	require.Positive(t, lines["executor_memory"].Memory["of_running_collections"]["heap"])
}

func TestBenchExecutorFlags(t *testing.T) {
	t.Parallel()
	_, stderr, code := keten(t, "bench", "executor", "--scenarios", "idle,sleep", "--history", "20,10", "--chains", "0")
	require.Equal(t, 2, code)
	require.Contains(t, stderr, `--scenarios: unknown scenario "sleep"`)
	require.Contains(t, stderr, "--history: want growing numbers")
	require.Contains(t, stderr, "--chains: is 0, want 1 to 50000")
}
