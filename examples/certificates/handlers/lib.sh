# shellcheck shell=sh
# What the handlers have in common. A handler sets handlers to the directory it
# is in, then sources this file.
#
# A handler gets one JSON document on standard input and writes its result as
# JSON to standard output. Standard error is the task's log; when the handler
# fails, the last line there is the message people read. Exit code 75 says that
# trying again may help, any other but 0 that it will not.

set -eu
umask 077
LC_ALL=C
export LC_ALL
# The configuration beside this file, so that the machine's changes nothing.
OPENSSL_CONF=${handlers:?}/openssl.cnf
export OPENSSL_CONF

log() { printf '%s\n' "$*" >&2; }

# die MESSAGE: a failure that will not go away by itself.
die() {
	log "$@"
	exit 1
}

# retry_later MESSAGE: a failure that may be gone the next time.
retry_later() {
	log "$@"
	exit 75
}

command -v openssl >/dev/null 2>&1 || die "openssl is not installed; on Debian and Ubuntu: apt-get install openssl"

# All files are below $state, which results never name: their paths start there.
state=${KETEN_CERT_STATE:-$handlers/../state}
mkdir -p "$state" || die "cannot create the state directory $state"
state=$(CDPATH='' cd -- "$state" && pwd) || die "cannot enter the state directory $state"

# scratch is a directory of this process for half-written files. It is on the
# same file system as what they become, so that a rename makes them appear whole.
scratch=$(mktemp -d "$state/tmp.XXXXXXXX") || die "cannot write to the state directory $state"
trap 'rm -rf "$scratch"' EXIT
trap 'exit 143' HUP INT TERM

# publish FILE PATH: FILE from the scratch directory appears at PATH, whole, in
# place of what is there.
publish() {
	mkdir -p "$(dirname "$state/$2")"
	mv -f "$scratch/$1" "$state/$2"
}

# publish_once FILE PATH: the same, unless something is there already. A hard
# link is made or refused in one step: of any number of processes that publish
# at once exactly one wins, and a killed one leaves no lock behind.
publish_once() {
	mkdir -p "$(dirname "$state/$2")"
	ln "$scratch/$1" "$state/$2" 2>/dev/null || [ -f "$state/$2" ] || die "cannot write $state/$2"
}

# read_task reads standard input. It sets domain and task_id.
read_task() {
	document=$(awk -f "$handlers/json.awk") || die "standard input is not JSON"
	domain=$(field /args/domain)
	check_domain "$domain"
	task_id=$(field /task_id)
	case $task_id in
	'' | *[!0-9a-f-]*) die "task_id is not a UUID" ;;
	esac
}

# field POINTER prints a scalar of the input, or nothing.
field() {
	printf '%s\n' "$document" | awk -v pointer="$1" '
		!found && index($0, pointer "\t") == 1 { print substr($0, length(pointer) + 2); found = 1 }'
}

# check_domain DOMAIN: only what this lets pass becomes part of a path or of a
# certificate. The catalog says the same; whoever calls a handler by hand does not.
check_domain() {
	case $1 in
	'' | *[!a-z0-9.-]* | .* | -* | *. | *- | *..* | *.-* | *-.*) die "not a domain: $1" ;;
	*.*) ;;
	*) die "not a domain: $1" ;;
	esac
	[ "${#1}" -le 64 ] || die "not a domain: it is longer than 64 characters"
}

# previous FIELD PATH: the result of the task before must name PATH as FIELD.
previous() {
	[ "$(field "/previous/$1")" = "$2" ] || die "the previous task's result does not have $2 as its $1"
}

# previous_file FIELD FOLDER SUFFIX prints the path in FIELD of the previous
# task's result, which must be a file of some task in that folder.
previous_file() {
	path=$(field "/previous/$1")
	name=${path#"$2/"}
	name=${name%".$3"}
	case $name in
	'' | *[!0-9a-f-]*) die "the previous task's result has no $1" ;;
	esac
	[ "$path" = "$2/$name.$3" ] || die "the previous task's result has no $1"
	printf '%s\n' "$path"
}

# challenge DOMAIN sets token and content: what must be found, and where, for
# the domain to be proven. Both follow from the account, as in ACME, so they can
# be published before anyone asks for a certificate.
challenge() {
	if [ ! -f "$state/account.secret" ]; then
		openssl rand -hex 32 >"$scratch/account.secret" || die "cannot create the account secret"
		publish_once account.secret account.secret
	fi
	secret=$(cat "$state/account.secret")
	token=$(printf 'token %s %s' "$secret" "$1" | sha256 | cut -c 1-32)
	# shellcheck disable=SC2034 # whoever calls reads it
	content=$token.$(printf 'thumbprint %s' "$secret" | sha256 | cut -c 1-43)
}

sha256() { openssl dgst -sha256 -r | cut -d ' ' -f 1; }

# same_key PRIVATE_KEY CERTIFICATE: do they belong together?
same_key() {
	public=$(openssl pkey -in "$1" -pubout 2>/dev/null) &&
		[ "$public" = "$(openssl x509 -in "$2" -noout -pubkey 2>/dev/null)" ]
}
