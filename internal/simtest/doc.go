// Package simtest runs a whole ledger in one goroutine: one partition's log and
// the network before it, API processes, projections, executors with their
// handlers, and the outside that reports deferred outcomes. Everybody folds with
// the real package ledger; all else is a model that follows the rules written in
// DESIGN, and breaks down in every way that the real things do.
//
// One seed is one history: chance comes from one generator, time from one clock
// that steps take along, and no map's order decides anything. The same seed gives
// the same history, whose hash says so. A violation is repeated by its seed.
//
// # What is checked
//
// After every record an [oracle] that shares no code with the fold says whether
// it may be accepted and what it must have ended; after every step the model of
// each process checks what it is about to do; at the end all trouble stops, and
// everything must come to rest. Invariants bear the names of what is promised
// (G2 to G13) or of the rule they guard:
//
//	G2        folds at one position agree, restored ones too
//	G3        one outcome per attempt, one success per task and run, one end per run
//	G4        a handler runs for an accepted start only, once; a fail task once per run
//	G5        order of tasks; a handler's input is the result before it
//	G6        one retry per run, of what did not succeed, numbered without gaps
//	G7        one collection per id
//	G8        nothing of a run starts after its cancel
//	G9        finally tasks of every run come to their end
//	G10       rows say what the records say
//	G12       a healthy system comes to rest with nothing left to do
//	G13       what cannot be judged stops the reader
//	CLAIM     starts, and outcomes on behalf of others, only under the current claim
//	LEASE     no handler starts on knowledge older than the lease
//	HELD      nobody calls lost what he holds himself
//	LANE      one collection of a lane at a time, in log order
//	DEFERRED  a deferred attempt is neither superseded nor lost
//	TENANT    nobody touches another tenant's collection
//	NEXT      what Next proposes at the log's end is accepted
//	TOUCHED   an outcome names every run whose next step it changes
//	REFUSED   nothing is refused without cause
//	NOEFFECT  refused and foreign records change nothing
//	BOUND     nothing is remembered but what is active, pending, claimed or within the window
//	VERDICT   honest writers write nothing invalid
//	TOTAL     no record makes the fold panic or stop
//	MODEL     the simulation itself is sound
//
// In three of ten runs a careless writer breaks every promise an author can
// break. What rests on honest authors is then left out; the rest must hold
// against anybody.
package simtest
