package executor

import (
	"time"

	"github.com/keten-ledger/keten/internal/outcometoken"
	"github.com/keten-ledger/keten/ledger"
)

// tokenSlack is how much longer a token is good than its attempt may be open by
// the clocks of those who made it. A deferral that was recorded late, after the
// broker had been away, makes the attempt end later; the ledger, and not the
// token's time, decides whether an outcome comes too late.
const tokenSlack = 24 * time.Hour

// outcomeToken returns what makes the token of an attempt that begins now. It
// gives the same one whenever it is called: a handler may ask again.
func (x *Executor) outcomeToken(a ledger.Attempt) func() (string, error) {
	began := time.Now()
	return func() (string, error) {
		if x.outcomeKey == nil {
			return "", &Error{Code: ledger.CodeConfig, Message: "this executor has no key for outcome tokens, so no outcome can come from outside"}
		}
		// The handler takes up to the timeout before it defers, and it counts once
		// more from there.
		timeout := time.Duration(a.Task.TimeoutMS) * time.Millisecond
		return x.outcomeKey.Mint(outcometoken.Claims{
			Ledger: x.log.Info().LedgerID, Tenant: a.Tenant, Collection: a.Collection, Run: a.Run,
			Task: a.Task.ID, Type: a.Task.Type, AttemptID: a.ID, Worker: x.worker,
			Issued: began, Expiry: began.Add(2*timeout + tokenSlack),
		}), nil
	}
}
