package handlers

import (
	"bytes"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	// maxLineBytes bounds a line of the log as it is shown: what the executor
	// takes of one.
	maxLineBytes = 4 << 10
	// progressMark begins a line that reports progress.
	progressMark = "::progress "
)

// output is what of [executor.Output] a log needs.
type output interface {
	Progress(percent int, text string)
	Line(text string)
}

// commandLog takes a command's standard error: lines and progress are shown
// while it runs, and the end is kept for a failure.
type commandLog struct {
	out  output
	kept []byte
	line []byte // begun, at most maxLineBytes and what is needed to see that it is cut
}

func (l *commandLog) Write(p []byte) (int, error) {
	l.keep(p)
	for rest := p; len(rest) > 0; {
		piece, behind, ended := bytes.Cut(rest, []byte{'\n'})
		l.line = append(l.line, piece[:min(len(piece), maxLineBytes+1-len(l.line))]...)
		if ended {
			l.show()
		}
		rest = behind
	}
	return len(p), nil
}

// flush shows a last line that has no end. Nothing may be written afterwards.
func (l *commandLog) flush() {
	if len(l.line) > 0 {
		l.show()
	}
}

func (l *commandLog) show() {
	text := lineText(l.line)
	l.line = l.line[:0]
	if percent, doing, ok := progressOf(text); ok {
		l.out.Progress(percent, doing)
		return
	}
	l.out.Line(text)
}

// lineText makes a line one that can be stored and shown: valid UTF-8 without
// U+0000, marked where it was cut.
func lineText(line []byte) string {
	text := strings.TrimSuffix(string(line), "\r")
	if len(text) > maxLineBytes {
		const mark = "…"
		end := maxLineBytes - len(mark)
		for end > maxLineBytes-len(mark)-utf8.UTFMax && !utf8.RuneStart(text[end]) {
			end--
		}
		text = text[:end] + mark
	}
	return safe(text)
}

func safe(text string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(text, "?"), "\x00", "?")
}

// progressOf reads "::progress 40 text". Anything else is a line like any other.
func progressOf(line string) (percent int, text string, ok bool) {
	rest, ok := strings.CutPrefix(line, progressMark)
	if !ok {
		return 0, "", false
	}
	number, text, _ := strings.Cut(rest, " ")
	percent, err := strconv.Atoi(number)
	return percent, strings.TrimSpace(text), err == nil
}

func (l *commandLog) keep(p []byte) {
	l.kept = append(l.kept, p...)
	if len(l.kept) > 2*keptErrorBytes { // seldom, so that it does not copy at every write
		l.kept = append(l.kept[:0], l.kept[len(l.kept)-keptErrorBytes:]...)
	}
}

// String returns the end of the log, at most keptErrorBytes less what is added
// to it.
func (l *commandLog) String() string {
	const room = keptErrorBytes - 256
	b := bytes.TrimSpace(l.kept)
	return safe(string(b[max(len(b)-room, 0):]))
}

// lastLine returns the last line that says something and is not about progress.
func (l *commandLog) lastLine() string {
	text := l.String()
	for text != "" {
		before, line, found := cutLast(text)
		line = strings.TrimSpace(line)
		if _, _, progress := progressOf(line); line != "" && !progress {
			return line
		}
		if !found {
			break
		}
		text = before
	}
	return ""
}

func cutLast(text string) (before, last string, found bool) {
	i := strings.LastIndexByte(text, '\n')
	if i < 0 {
		return "", text, false
	}
	return text[:i], text[i+1:], true
}
