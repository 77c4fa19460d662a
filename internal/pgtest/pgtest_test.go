package pgtest_test

import (
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/internal/pgtest"
)

// Two tests never see each other's tables, and a database goes with its test
// even when a pool is still open.
//
//nolint:paralleltest // the databases are looked at after the tests that had them
func TestEachTestHasADatabaseOfItsOwn(t *testing.T) {
	t.Parallel()
	var urls []string
	for range 2 {
		t.Run("create", func(t *testing.T) {
			url := pgtest.URL(t)
			urls = append(urls, url)
			pool, err := pgxpool.New(t.Context(), url)
			require.NoError(t, err)
			t.Cleanup(pool.Close)
			_, err = pool.Exec(t.Context(), "create table same_name ()")
			require.NoError(t, err)
		})
	}
	require.NotEqual(t, urls[0], urls[1])

	for _, url := range urls {
		pool, err := pgxpool.New(t.Context(), url)
		require.NoError(t, err)
		require.ErrorContains(t, pool.Ping(t.Context()), "does not exist")
		pool.Close()
	}
}
