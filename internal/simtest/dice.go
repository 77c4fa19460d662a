package simtest

import (
	"math/rand/v2"
	"strconv"

	"github.com/google/uuid"
)

// dice is the only source of chance of a world: one PCG, one seed.
type dice struct{ r *rand.Rand }

func newDice(seed uint64) dice {
	return dice{r: rand.New(rand.NewPCG(seed, 0x6b6574656e))}
}

func (d dice) chance(percent int) bool { return d.r.IntN(100) < percent }

// between draws from [least, most].
func (d dice) between(least, most int) int { return least + d.r.IntN(most-least+1) }

// weighted draws an index, each as often as its weight says.
func (d dice) weighted(weights []int, sum int) int {
	n := d.r.IntN(sum)
	for i, w := range weights {
		if n -= w; n < 0 {
			return i
		}
	}
	return len(weights) - 1
}

func oneOf[T any](d dice, list []T) T { return list[d.r.IntN(len(list))] }

func (d dice) shuffle(n int, swap func(i, j int)) { d.r.Shuffle(n, swap) }

// bytes8 are the random bytes of a plain collection id.
func (d dice) bytes8() [8]byte {
	var b [8]byte
	for i, n := 0, d.r.Uint64(); i < 8; i++ {
		b[i] = byte(n >> (8 * i)) //nolint:gosec // one byte of eight
	}
	return b
}

// eventID makes UUIDv7s that count up.
func eventID(n uint64) uuid.UUID {
	id := uuid.UUID{0: 0x01, 1: 0x8c, 6: 0x70, 8: 0x80}
	for i := range 8 {
		id[15-i] |= byte(n >> (8 * i)) //nolint:gosec // one byte of eight
	}
	id[8] = 0x80
	return id
}

func itoa(n int) string { return strconv.Itoa(n) }
