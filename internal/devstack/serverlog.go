package devstack

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
)

// lastWordsMax bounds the lines kept for an error message.
const lastWordsMax = 10

// lineMax bounds one line of a server that writes no newline.
const lineMax = 16 << 10

// serverLog turns the server's output into log records. What a statement got
// wrong is told to the client and is debug here; what ends a session or the
// server is not.
type serverLog struct {
	logger   *slog.Logger
	stopping *atomic.Bool

	mu    sync.Mutex
	line  []byte
	words []string
}

func newServerLog(logger *slog.Logger, stopping *atomic.Bool) *serverLog {
	return &serverLog{logger: logger, stopping: stopping}
}

// Write takes any cut of the output and never fails.
func (l *serverLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.line = append(l.line, p...)
	for {
		end := bytes.IndexByte(l.line, '\n')
		if end < 0 && len(l.line) > lineMax {
			end = lineMax
		}
		if end < 0 {
			return len(p), nil
		}
		l.emit(strings.TrimSpace(string(l.line[:end])))
		l.line = l.line[min(end+1, len(l.line)):]
	}
}

func (l *serverLog) emit(line string) {
	if line == "" {
		return
	}
	if len(l.words) == lastWordsMax {
		l.words = l.words[1:]
	}
	l.words = append(l.words, line)
	detail := slog.String("detail", line)
	severity, _, _ := strings.Cut(line, ":")
	switch {
	case severity == "PANIC":
		l.logger.Error("postgres", detail)
	case (severity == "FATAL" || severity == "WARNING") && !l.stopping.Load():
		l.logger.Warn("postgres", detail)
	default:
		l.logger.Debug("postgres", detail)
	}
}

// last returns the newest lines in one.
func (l *serverLog) last() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.words) == 0 {
		return "none"
	}
	return strings.Join(l.words, "; ")
}
