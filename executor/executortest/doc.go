// Package executortest runs chains of tasks against the handlers of a registry,
// in milliseconds, without a broker, a network or a database:
//
//	kit := executortest.New(t, registry)
//	run := kit.Run(
//		executortest.Task("key", "certificate.key", KeyArgs{Bits: 2048}),
//		executortest.Task("order", "certificate.order", OrderArgs{Domain: "shop.example"}).MaxAttempts(3),
//	)
//	run.Succeeded()
//	run.Result("order", &order)
//
// What happens is what happens in production: the same fold of the ledger
// decides what comes next, and the same code runs the handlers, with their
// middleware, deadlines and panics. Only the waits are skipped: a back-off of an
// hour passes at once, by the times of the records. The task's timeout is the
// exception, since a handler is real code: it ends the handler's context in real
// time, or in that of a testing/synctest bubble.
//
// A Kit runs one handler at a time. It and its Runs are to be used by the test's
// goroutine only. A run that does not do what the test says ends the test and
// shows every attempt and what came of it.
//
// The package must not know Kafka, nor package testing: what it needs of a test
// is [TB].
package executortest
