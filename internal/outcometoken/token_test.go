package outcometoken_test

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/keten-ledger/keten/internal/outcometoken"
)

func key(t *testing.T, secrets ...string) *outcometoken.Key {
	t.Helper()
	k, err := outcometoken.ParseKey(strings.Join(secrets, "\n"))
	require.NoError(t, err)
	return k
}

var (
	one = strings.Repeat("01", 32)
	two = strings.Repeat("02", 32)
	now = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
)

func claims() outcometoken.Claims {
	return outcometoken.Claims{
		Ledger: uuid.MustParse("01890a5d-ac96-774b-bcce-b302099a8057"), Tenant: "default",
		Collection: uuid.MustParse("01890a5d-ac96-7001-bcce-b302099a8057"), Run: 2,
		Task: uuid.MustParse("01890a5d-ac96-8001-bcce-b302099a8057"), Type: "approval", AttemptID: 1 << 40,
		Worker: "default/host-7-\"é", Issued: now, Expiry: now.Add(time.Hour),
	}
}

// A token gives back all it was made for, goes through a URL as it is, and is
// good until its time has come.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	k := key(t, one)
	token := k.Mint(claims())
	require.Regexp(t, `^keten-outcome-1\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{43}$`, token)
	require.Equal(t, token, k.Mint(claims()))
	got, err := k.Verify(token, now.Add(time.Hour-time.Nanosecond))
	require.NoError(t, err)
	require.Equal(t, claims(), got)

	_, err = k.Verify(token, now.Add(time.Hour))
	require.ErrorIs(t, err, outcometoken.ErrInvalid)
	require.ErrorContains(t, err, "expired at 2026-11-26T13:00:00Z")
}

// The format is one that is kept: a token that was handed out is good also after
// an upgrade. This one was made by another program (HMAC-SHA256 of the part
// before the last dot).
func TestTokenOfVersion1(t *testing.T) {
	t.Parallel()
	const token = "keten-outcome-1.eyJsZWRnZXIiOiIwMTg5MGE1ZC1hYzk2LTc3NGItYmNjZS1iMzAyMDk5YTgwNTciLCJ0ZW5hbnQiOiJkZWZhdWx0IiwiY29sbGVjdGlvbiI6IjAxODkwYTVkLWFjOTYtNzAwMS1iY2NlLWIzMDIwOTlhODA1NyIsInJ1biI6MiwidGFzayI6IjAxODkwYTVkLWFjOTYtODAwMS1iY2NlLWIzMDIwOTlhODA1NyIsInR5cGUiOiJhcHByb3ZhbCIsImF0dGVtcHRfaWQiOjEwOTk1MTE2Mjc3NzYsIndvcmtlciI6ImRlZmF1bHQvaG9zdC03LVwiw6kiLCJpYXQiOjE3OTU2OTQ0MDAsImV4cCI6MTc5NTY5ODAwMH0.57g4xFK4saILoVF3eXg8ZZPOfqJJdvetqw9ZerWa8xY"
	got, err := key(t, one).Verify(token, now)
	require.NoError(t, err)
	require.Equal(t, claims(), got)
}

// Whatever is changed in a token, it is no token any more.
func TestTamperedTokens(t *testing.T) {
	t.Parallel()
	k := key(t, one)
	token := k.Mint(claims())
	for i := range token {
		for _, c := range []byte("A-.\x00") {
			if changed := token[:i] + string(c) + token[i+1:]; changed != token {
				_, err := k.Verify(changed, now)
				require.ErrorIs(t, err, outcometoken.ErrInvalid, changed)
			}
		}
	}
	parts := strings.Split(token, ".")
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	require.NoError(t, err)
	other := base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(string(raw), `"run":2`, `"run":3`, 1)))
	require.NotEqual(t, parts[1], other)
	for name, forged := range map[string]string{
		"nothing": "", "the prefix": "keten-outcome-1.", "no signature": parts[0] + "." + parts[1] + ".",
		"one part": parts[0] + "." + parts[1], "another run": parts[0] + "." + other + "." + parts[2],
		"another version": "keten-outcome-2." + parts[1] + "." + parts[2], "padded": token + "=", "a part more": token + ".AA",
		"a byte more": token + "AA", "a short signature": token[:len(token)-2], "a line more": token + "\n",
		"no claims": parts[0] + ".." + parts[2], "another form of the last digit": token[:len(token)-1] + nextDigit(token[len(token)-1]),
		"too long": parts[0] + "." + strings.Repeat("A", 16<<10) + "." + parts[2],
	} {
		_, err := k.Verify(forged, now)
		require.ErrorIs(t, err, outcometoken.ErrInvalid, name)
	}
	_, err = key(t, two).Verify(token, now)
	require.ErrorIs(t, err, outcometoken.ErrInvalid)
}

// nextDigit differs from a base64 digit in the lowest bits only, which the last
// one of a signature has to spare.
func nextDigit(d byte) string {
	const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return string(digits[strings.IndexByte(digits, d)^1])
}

// While a key is changed, tokens of the old and of the new secret are good; only
// the first signs.
func TestRotation(t *testing.T) {
	t.Parallel()
	old, both, changed := key(t, one), key(t, two, one), key(t, two)
	before, during := old.Mint(claims()), both.Mint(claims())
	require.Equal(t, changed.Mint(claims()), during)
	for _, token := range []string{before, during} {
		_, err := both.Verify(token, now)
		require.NoError(t, err)
	}
	_, err := changed.Verify(before, now)
	require.ErrorIs(t, err, outcometoken.ErrInvalid)
	_, err = old.Verify(during, now)
	require.ErrorIs(t, err, outcometoken.ErrInvalid)
}

// The longest names that the ledger allows fit into a token.
func TestLongestClaims(t *testing.T) {
	t.Parallel()
	k, c := key(t, one), claims()
	c.Tenant, c.Worker, c.Type = strings.Repeat("\x01", 255), strings.Repeat("\x01", 255), strings.Repeat("<", 200)
	got, err := k.Verify(k.Mint(c), now)
	require.NoError(t, err)
	require.Equal(t, c, got)
}
