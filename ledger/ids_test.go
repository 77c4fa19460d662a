package ledger_test

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/ledger"
)

// Golden vectors: ids are part of the contract and never change.
func TestIDsAreGolden(t *testing.T) {
	t.Parallel()
	random := [8]byte{1, 2, 3, 4, 5, 6, 7, 8}
	plain := ledger.NewCollectionID(0xabc, time.UnixMilli(1_700_000_000_000), random)
	require.Equal(t, "018bcfe5-6800-7abc-8102-030405060708", plain.String())

	p, ok := ledger.PartitionFor("default", "", "order-17", 12)
	require.True(t, ok)
	keyed := ledger.KeyedCollectionID("default", "", "order-17", p)
	require.Equal(t, "587131ce-7ee4-8007-b248-49332b8b953b", keyed.String())
	require.Equal(t, "018bcfe5-6800-8abc-919f-1b41779ed621", ledger.TaskID(plain, ledger.KindTask, 3).String())
	require.Equal(t, "018bcfe5-6800-8abc-8779-bfcd2a15baf2", ledger.TaskID(plain, ledger.KindFinally, 3).String())

	hash, err := ledger.RequestHash("POST /v1/collections", []byte(`{"b":1,"a":"\u00e9"}`))
	require.NoError(t, err)
	require.Equal(t, "bbde921684841f10b9548e0879eea7c89fc1e2a9bc24cb916aaa47858b9d83bb", hash)
	same, err := ledger.RequestHash("POST /v1/collections", []byte(`{ "a": "é", "b": 1 }`))
	require.NoError(t, err)
	require.Equal(t, hash, same, "white space, order and escapes do not make another request")
	for _, other := range [][2]string{{`9007199254740993`, `9007199254740992`}, {`0.1`, `0.10000000000000000001`}, {`1`, `1.0`}} {
		a, err := ledger.RequestHash("r", []byte(other[0]))
		require.NoError(t, err)
		b, err := ledger.RequestHash("r", []byte(other[1]))
		require.NoError(t, err)
		require.NotEqual(t, a, b, "%s is not %s", other[0], other[1])
	}
}

func TestIDsCarryTheirPartition(t *testing.T) {
	t.Parallel()
	for _, p := range []int32{0, 1, 255, 256, 4095} {
		for _, id := range []uuid.UUID{
			ledger.NewCollectionID(p, time.UnixMilli(1), [8]byte{0xff}),
			ledger.KeyedCollectionID("t", "o", "i", p),
		} {
			require.NoError(t, ledger.CheckID(id))
			require.Equal(t, p, ledger.PartitionOf(id))
			require.Equal(t, p, ledger.PartitionOf(ledger.TaskID(id, ledger.KindTask, 0)))
		}
	}
	require.Error(t, ledger.CheckID(uuid.New()), "a random UUID carries no partition")
}

func TestPartitionForPrefersTheOrderingKey(t *testing.T) {
	t.Parallel()
	_, ok := ledger.PartitionFor("t", "", "", 12)
	require.False(t, ok)
	a, _ := ledger.PartitionFor("t", "lane", "key-1", 4096)
	b, _ := ledger.PartitionFor("t", "lane", "key-2", 4096)
	require.Equal(t, a, b, "one lane, one partition")
	c, _ := ledger.PartitionFor("t", "", "key-1", 4096)
	require.NotEqual(t, a, c)
}
