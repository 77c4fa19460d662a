package executor_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keten-ledger/keten/executor"
	"github.com/keten-ledger/keten/ledger"
)

type orderArgs struct {
	Domain string `json:"domain"`
}

type order struct {
	URL string `json:"url"`
}

// A handler decodes its args, does its work under the context, and returns a
// result that the next task gets.
func ExampleHandle() {
	registry := executor.NewRegistry()
	registry.Use(executor.Logging())
	registry.Limit("certificate.order", 4) // the CA takes no more at a time
	executor.Handle(registry, "certificate.order", func(ctx context.Context, t executor.Task[orderArgs]) (order, error) {
		t.Output.Progress(10, "asking the CA")
		// t.TaskID is the same in every attempt: the CA makes one order of it.
		return order{URL: "https://ca.example/" + t.TaskID.String()}, ctx.Err()
	})
	fmt.Println(registry.Types())
	// Output: [certificate.order]
}

// Fail is for what the user or an operator must mend before a retry.
func ExampleFail() {
	err := executor.Fail("domain_not_yours", ledger.AudienceUser, "shop.example is not registered to you")
	fmt.Println(err)
	// Output: shop.example is not registered to you
}

// Permanent keeps the message and stops automatic attempts.
func ExamplePermanent() {
	refused := errors.New("403 Forbidden")
	err := executor.Permanent(fmt.Errorf("order certificate: %w", refused))
	fmt.Println(err)
	fmt.Println(errors.Is(err, refused), executor.Permanent(nil) == nil)
	// Output:
	// order certificate: 403 Forbidden
	// true true
}

// RetryAfter takes the place of the task's back-off.
func ExampleRetryAfter() {
	err := executor.RetryAfter(90*time.Second, errors.New("503, Retry-After: 90"))
	failure, _ := errors.AsType[*executor.Error](err)
	fmt.Println(failure.Retryable, failure.RetryAfter)
	// Output: true 1m30s
}

// An Error says all that can be said of a failure.
func ExampleError() {
	err := fmt.Errorf("publish the record: %w", &executor.Error{
		Code: "dns_busy", Message: "the DNS server is busy", Detail: "answer: SERVFAIL", Audience: ledger.AudienceOperator, Retryable: true,
	})
	fmt.Println(err)
	// Output: publish the record: the DNS server is busy
}

// A task whose answer comes later hands out a token and returns ErrPending: its
// attempt then waits, without a slot or a process, until the outcome is reported
// with the token, or the task's timeout is over.
func ExampleErrPending() {
	registry := executor.NewRegistry()
	executor.Handle(registry, "approval", func(_ context.Context, t executor.Task[struct{}]) (struct{}, error) {
		if t.OutcomeToken == nil {
			return struct{}{}, executor.Fail(ledger.CodeConfig, ledger.AudienceOperator, "this executor has no key for tokens")
		}
		token, err := t.OutcomeToken()
		if err != nil {
			return struct{}{}, err
		}
		fmt.Println("mail the approver a link with", token)
		return struct{}{}, executor.ErrPending
	})
	fmt.Println(registry.Types())
	// Output: [approval]
}
