package chaos_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/keten-ledger/keten/executor/handlers"
)

var (
	full     = flag.Bool("full", false, "run the full numbers instead of a tenth of them")
	seedFlag = flag.Uint64("seed", 0, "the seed of what is random; 0 chooses one")
)

// envWorker makes this binary an executor instead of a test.
const envWorker = "KETEN_CHAOS_WORKER"

func TestMain(m *testing.M) {
	if code, ok := handlers.Supervise(); ok {
		os.Exit(code)
	}
	config := os.Getenv(envWorker)
	if config == "" {
		os.Exit(m.Run())
	}
	var cfg workerConfig
	if err := json.Unmarshal([]byte(config), &cfg); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	os.Exit(runWorker(cfg))
}

// patience is how long anything may take on a busy machine before a test calls
// it stuck.
const patience = 2 * time.Minute

// scaled is a number of the full run, or what make test makes of it.
func scaled(n int) int {
	if *full {
		return n
	}
	return max(n/10, 1)
}

// newDice returns the test's source of chance and says how to repeat it.
func newDice(t *testing.T) *rand.Rand {
	t.Helper()
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano()) % 1_000_000
	}
	again := fmt.Sprintf("go test ./tests/chaos -run '^%s$' -timeout 30m -v -args -seed=%d", t.Name(), seed)
	if *full {
		again += " -full"
	}
	t.Logf("seed %d; once more: %s", seed, again)
	return rand.New(rand.NewPCG(seed, 0))
}

// between draws a duration, both ends included, in milliseconds.
func between(dice *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(dice.Int64N(int64((most-least)/time.Millisecond)+1))*time.Millisecond
}
