# Flattens one JSON document: a line "pointer TAB value" for every scalar in it,
# the pointer as in RFC 6901. A string is printed as it stands between its
# quotes, with its escapes, so that no value breaks a line; only \/ becomes /.
# What is not JSON prints nothing and exits with 1.

{ rest = rest $0 "\n" }

END {
	value("")
	space()
	if (rest != "" || bad) exit 1
	printf "%s", lines
}

function value(path) {
	space()
	if (rest ~ /^[{]/) members(path)
	else if (rest ~ /^\[/) elements(path)
	else if (rest ~ /^"/) emit(path, string())
	else if (match(rest, /^(true|false|null)/)) emit(path, take(RLENGTH))
	else if (match(rest, /^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?/)) emit(path, take(RLENGTH))
	else broken()
}

function members(path, key) {
	take(1)
	space()
	if (rest ~ /^}/) { take(1); return }
	while (!bad) {
		space()
		key = string()
		gsub(/~/, "~0", key)
		gsub(/\//, "~1", key)
		space()
		if (rest !~ /^:/) { broken(); return }
		take(1)
		value(path "/" key)
		space()
		if (rest ~ /^}/) { take(1); return }
		if (rest !~ /^,/) { broken(); return }
		take(1)
	}
}

function elements(path, i) {
	take(1)
	space()
	if (rest ~ /^\]/) { take(1); return }
	for (i = 0; !bad; i++) {
		value(path "/" i)
		space()
		if (rest ~ /^\]/) { take(1); return }
		if (rest !~ /^,/) { broken(); return }
		take(1)
	}
}

# string takes a string off the front of rest, and returns it without quotes.
function string(s, out) {
	if (!match(rest, /^"([^"\\\001-\037]|\\["\\\/bfnrt]|\\u[0-9A-Fa-f][0-9A-Fa-f][0-9A-Fa-f][0-9A-Fa-f])*"/)) {
		broken()
		return ""
	}
	s = take(RLENGTH)
	s = substr(s, 2, length(s) - 2)
	while (match(s, /\\./)) {
		out = out substr(s, 1, RSTART - 1)
		out = out (substr(s, RSTART, 2) == "\\/" ? "/" : substr(s, RSTART, 2))
		s = substr(s, RSTART + 2)
	}
	return out s
}

function take(n, s) {
	s = substr(rest, 1, n)
	rest = substr(rest, n + 1)
	return s
}

function space() {
	if (match(rest, /^[ \t\r\n]+/)) take(RLENGTH)
}

function emit(path, scalar) {
	if (!bad) lines = lines path "\t" scalar "\n"
}

function broken() { bad = 1 }
