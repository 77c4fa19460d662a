package main_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

// All synthetic records are accepted, and what the fold remembers is as large
// after all of them as after a part.
func TestBenchFold(t *testing.T) {
	t.Parallel()
	stdout, stderr, code := keten(t, "bench", "fold", "--records", "300000")
	require.Zero(t, code, stderr)
	var line struct {
		Scenario string
		Memory   struct {
			Snapshots []float64 `json:"snapshot_at_each_tenth"`
			Resident  []float64 `json:"resident_at_each_tenth"`
		} `json:"memory_mib"`
	}
	require.NoError(t, json.Unmarshal([]byte(stdout), &line))
	require.Equal(t, "fold", line.Scenario)
	require.Len(t, line.Memory.Snapshots, 10)
	require.Len(t, line.Memory.Resident, 10)
	require.InEpsilon(t, line.Memory.Snapshots[5], line.Memory.Snapshots[9], 0.12) // chains go in step: their ends come in heaps
}
