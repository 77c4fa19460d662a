#!/bin/sh
# Publishes the challenge of a domain: what the people who run its name server
# would do, and nobody else could.
set -eu
if [ "$#" -ne 1 ]; then
	echo "usage: $0 DOMAIN" >&2
	exit 2
fi
handlers=$(CDPATH='' cd -- "$(dirname -- "$0")/handlers" && pwd)
# shellcheck source-path=SCRIPTDIR source=handlers/lib.sh
. "$handlers/lib.sh"
check_domain "$1"
challenge "$1"
printf '%s\n' "$content" >"$scratch/challenge"
publish challenge "challenges/$1/$token"
echo "published $state/challenges/$1/$token"
