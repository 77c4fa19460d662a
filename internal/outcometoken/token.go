package outcometoken

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
)

const (
	// prefix opens every token and is signed with it: another version, or
	// something else that the same key signs one day, is never taken for this. It
	// also lets secret scanners find tokens.
	prefix = "keten-outcome-1."
	// maxTokenBytes bounds what is hashed for who has no token: with the longest
	// names the ledger allows a real one has less.
	maxTokenBytes = 8 << 10
)

// Claims is what a token stands for: one attempt, until a time.
type Claims struct {
	Ledger     uuid.UUID // keys may be shared by several ledgers, tokens are not
	Tenant     string
	Collection uuid.UUID
	Run        int
	Task       uuid.UUID
	Type       string // of the task
	AttemptID  int64
	Worker     string
	Issued     time.Time // to the second
	Expiry     time.Time // to the second; the token is not valid from then on
}

// wire is how claims stand in a token. Times are Unix seconds.
type wire struct {
	Ledger     uuid.UUID `json:"ledger"`
	Tenant     string    `json:"tenant"`
	Collection uuid.UUID `json:"collection"`
	Run        int       `json:"run"`
	Task       uuid.UUID `json:"task"`
	Type       string    `json:"type"`
	AttemptID  int64     `json:"attempt_id"`
	Worker     string    `json:"worker"`
	Issued     int64     `json:"iat"`
	Expiry     int64     `json:"exp"`
}

// ErrInvalid reports a token that this key has not made, or that has expired.
var ErrInvalid = errors.New("the token is not valid")

// Mint makes a token of letters, digits, and the characters - _ and dot. Equal
// claims give equal tokens. Texts in c must be valid UTF-8, as the ledger's are.
func (k *Key) Mint(c Claims) string {
	claims, err := json.Marshal(wire{
		c.Ledger, c.Tenant, c.Collection, c.Run, c.Task, c.Type, c.AttemptID, c.Worker, c.Issued.Unix(), c.Expiry.Unix(),
	})
	if err != nil { // ids, texts and numbers only: cannot be
		panic(err)
	}
	signed := prefix + base64.RawURLEncoding.EncodeToString(claims)
	return signed + "." + sign(k.secrets[0], signed)
}

// Verify returns what a token stands for, whichever of the key's secrets made
// it. The error wraps [ErrInvalid].
func (k *Key) Verify(token string, now time.Time) (Claims, error) {
	dot := strings.LastIndexByte(token, '.')
	if len(token) > maxTokenBytes || !strings.HasPrefix(token, prefix) || dot < len(prefix) {
		return Claims{}, fmt.Errorf("%w: it is not an outcome token", ErrInvalid)
	}
	signed := token[:dot]
	if !k.made(signed, token[dot+1:]) {
		return Claims{}, fmt.Errorf("%w: no key here has made it", ErrInvalid)
	}
	// From here on the token is one of ours.
	var w wire
	claims, err := base64.RawURLEncoding.DecodeString(signed[len(prefix):])
	if err == nil {
		err = json.Unmarshal(claims, &w)
	}
	if err != nil {
		return Claims{}, fmt.Errorf("%w: its claims cannot be read", ErrInvalid)
	}
	c := Claims{
		w.Ledger, w.Tenant, w.Collection, w.Run, w.Task, w.Type, w.AttemptID, w.Worker,
		time.Unix(w.Issued, 0).UTC(), time.Unix(w.Expiry, 0).UTC(),
	}
	if !now.Before(c.Expiry) {
		return Claims{}, fmt.Errorf("%w: it expired at %s", ErrInvalid, c.Expiry.Format(time.RFC3339))
	}
	return c, nil
}

// made compares with every secret, in a time that does not tell how much of a
// forged signature is right. It compares texts: of the bytes of a signature there
// is more than one.
func (k *Key) made(signed, signature string) bool {
	for _, secret := range k.secrets {
		if hmac.Equal([]byte(signature), []byte(sign(secret, signed))) {
			return true
		}
	}
	return false
}

func sign(secret []byte, text string) string {
	h := hmac.New(sha256.New, secret)
	h.Write([]byte(text))
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}
