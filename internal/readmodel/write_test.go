package readmodel_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/internal/readmodel/history"
	"github.com/keten-ledger/keten/ledger"
)

// It does not matter where a history is cut into batches: one record per
// transaction gives the rows of any other cut, whatever the records were.
func TestWriteIsTheSameForEveryCut(t *testing.T) {
	t.Parallel()
	f := setup(t)
	for seed := range uint64(4) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			t.Parallel()
			logs := f.history(t, history.Options{Seed: seed, Partitions: 3, Chains: 60, Tasks: 5, Concurrent: 5, Trouble: true})
			one := f.open(t, fmt.Sprintf("one_%d", seed))
			newWriter(t, one, f.ledgerID, logs).all(t, always(1))
			want := dump(t, one)
			require.Equal(t, []string{"accepted", "duplicate", "foreign", "invalid", "stale"}, verdicts(want))
			rng := rand.New(rand.NewPCG(seed, 1))
			for _, most := range []int{3, 40, 1_000_000} {
				some := f.open(t, fmt.Sprintf("cut_%d_%d", seed, most))
				newWriter(t, some, f.ledgerID, logs).all(t, upTo(rng, most))
				equalDumps(t, want, dump(t, some), fmt.Sprintf("seed %d, batches of up to %d records", seed, most))
			}
		})
	}
}

// verdicts returns which verdicts a dump has.
func verdicts(dump string) []string {
	seen := map[string]bool{}
	for _, m := range regexp.MustCompile(`"verdict": "([a-z]+)"`).FindAllStringSubmatch(dump, -1) {
		seen[m[1]] = true
	}
	return slices.Sorted(maps.Keys(seen))
}

// Of a record that is not one of ours the beginning is kept, and a hash of all
// of it.
func TestWriteKeepsWhatIsForeign(t *testing.T) {
	t.Parallel()
	f := setup(t)
	s := newStory(t, f, 1)
	value := bytes.Repeat([]byte{0, 0xff}, 1000)
	require.Equal(t, ledger.Foreign, s.send(ledger.Message{Value: value}).Verdict)
	var row struct{ Verdict, Raw, Hash string }
	for line := range strings.SplitSeq(dump(t, f.Store), "\n") {
		if table, object, _ := strings.Cut(line, "\t"); table == "events" && strings.Contains(object, "foreign") {
			require.NoError(t, json.Unmarshal([]byte(object), &row))
		}
	}
	require.Equal(t, `\x`+hex.EncodeToString(value[:1024]), row.Raw)
	hash := sha256.Sum256(value)
	require.Equal(t, `\x`+hex.EncodeToString(hash[:]), row.Hash)
}
