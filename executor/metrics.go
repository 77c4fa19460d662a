package executor

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/keten-ledger/keten/ledger"
)

// metrics are the measurements of one Executor. Executors that share a
// Registerer share the collectors.
type metrics struct {
	attempts   *prometheus.CounterVec
	failures   *prometheus.CounterVec
	running    *prometheus.GaugeVec
	duration   *prometheus.HistogramVec
	wait       prometheus.Histogram
	slots      *prometheus.GaugeVec
	partitions *prometheus.GaugeVec
	unserved   *prometheus.GaugeVec
	outbox     prometheus.Gauge

	freeSlots, busySlots prometheus.Gauge
}

// The values of the label result of keten_task_attempts_total.
const (
	resultSucceeded = "succeeded"
	resultFailed    = "failed"
	resultCanceled  = "canceled"
	// resultDeferred: the outcome comes from outside.
	resultDeferred = "deferred"
	// resultTakenOver: the outcome came after someone else had ended the
	// attempt, and did not count.
	resultTakenOver = "taken_over"
	// resultAbandoned: interrupted by a shutdown and left to the next owner.
	resultAbandoned = "abandoned"
)

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "keten_task_attempts_total",
			Help: "Attempts that this process ran to their end, by task type and result.",
		}, []string{"type", "result"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "keten_task_failures_total",
			Help: "Attempts whose handler failed in this process, by task type and code. Codes that a handler chose itself count as other.",
		}, []string{"type", "code"}),
		running: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "keten_task_running",
			Help: "Handlers that run in this process now, by task type.",
		}, []string{"type"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "keten_task_duration_seconds",
			Help:    "How long handlers ran, by task type.",
			Buckets: []float64{.001, .005, .025, .1, .5, 1, 5, 15, 60, 300, 1800, 3600},
		}, []string{"type"}),
		wait: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "keten_task_wait_seconds",
			Help:    "From the moment a task could start (its collection was created, the task before it succeeded, its back-off was over) to its start in the log, by the brokers' clock.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300},
		}),
		slots: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "keten_executor_slots",
			Help: "Handler slots, by state: busy (a handler runs, or is about to) or free.",
		}, []string{"state"}),
		partitions: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "keten_executor_partitions",
			Help: "Partitions by state: active (this process holds the claim and starts tasks) or stopped (by an error, until the process is restarted).",
		}, []string{"state"}),
		outbox: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "keten_executor_outbox_records",
			Help: "Outcomes that wait on the local disk because the brokers do not take them.",
		}),
		unserved: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "keten_executor_unserved_tasks",
			Help: "Tasks that could start but whose type has no handler in the process that owns their partition.",
		}, []string{"type"}),
	}
	if reg != nil {
		err := errors.Join(register(reg, &m.attempts), register(reg, &m.failures), register(reg, &m.running),
			register(reg, &m.duration), register(reg, &m.wait),
			register(reg, &m.slots), register(reg, &m.partitions), register(reg, &m.unserved), register(reg, &m.outbox))
		if err != nil {
			return nil, err
		}
	}
	m.freeSlots, m.busySlots = m.slots.WithLabelValues("free"), m.slots.WithLabelValues("busy")
	return m, nil
}

// handlerBegan and handlerEnded measure one handler. Without metrics they do
// nothing.
func (m *metrics) handlerBegan(taskType string) {
	if m != nil {
		m.running.WithLabelValues(taskType).Inc()
	}
}

func (m *metrics) handlerEnded(taskType string, took time.Duration, failure *ledger.TaskError) {
	if m == nil {
		return
	}
	m.running.WithLabelValues(taskType).Dec()
	m.duration.WithLabelValues(taskType).Observe(took.Seconds())
	if failure != nil {
		m.failures.WithLabelValues(taskType, codeLabel(failure.Code)).Inc()
	}
}

// codeHTTPUnreachable is of package handlers, which imports this one.
const codeHTTPUnreachable = "http_unreachable"

// codeLabel keeps the codes that handlers make up out of the labels: nothing
// bounds how many there are.
func codeLabel(code string) string {
	switch code {
	case CodeFailed, CodeInvalidArgs, ledger.CodePanic, ledger.CodeTimeout, ledger.CodeLost, ledger.CodeInterrupted, ledger.CodeCanceled,
		ledger.CodeInvalidResult, ledger.CodeExit, ledger.CodeHTTPStatus, codeHTTPUnreachable, ledger.CodeConfig:
		return code
	}
	return "other"
}

// register registers *c, or sets it to the equal collector that is there.
func register[C prometheus.Collector](reg prometheus.Registerer, c *C) error {
	err := reg.Register(*c)
	if already, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		if existing, ok := already.ExistingCollector.(C); ok {
			*c = existing
			return nil
		}
	}
	return err
}
