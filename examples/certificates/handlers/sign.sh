#!/bin/sh
# Signs the request with the local certificate authority, which is created when
# it is first needed. The certificate is filed under the task's id: run again,
# the task finds the one it made and makes no second.
handlers=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$handlers/lib.sh"
read_task
key=keys/$domain.key
previous key "$key"
csr=$(previous_file csr requests csr)
days=$(field /args/days)
case ${days:=90} in
*[!0-9]* | 0* | ????*) die "days is $days, want a whole number from 1 to 397" ;;
esac

# One file holds the authority's key and certificate, so that they appear
# together: no reader and no other creator ever sees half an authority.
authority=ca/authority.pem
if [ ! -f "$state/$authority" ]; then
	log "creating the certificate authority"
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -sha256 -days 3650 \
		-subj "/O=Keten example/CN=Keten example authority" -extensions authority \
		-keyout "$scratch/ca.key" -out "$scratch/ca.crt" >&2 || die "openssl cannot create an authority"
	cat "$scratch/ca.key" "$scratch/ca.crt" >"$scratch/authority"
	publish_once authority "$authority"
fi
# Whoever trusts the authority needs the certificate only. It is always the
# same, so it does not matter who writes it last.
openssl x509 -in "$state/$authority" -out "$scratch/ca.crt" || die "$state/$authority holds no certificate"
chmod 644 "$scratch/ca.crt"
publish ca.crt ca/ca.crt

certificate=certificates/$task_id.crt
if [ ! -f "$state/$certificate" ] || ! same_key "$state/$key" "$state/$certificate"; then
	openssl req -in "$state/$csr" -verify -noout >&2 || die "$state/$csr is not a request that its own key signed"
	cat >"$scratch/extensions" <<-END
		basicConstraints = critical, CA:FALSE
		keyUsage = critical, digitalSignature
		extendedKeyUsage = serverAuth
		subjectKeyIdentifier = hash
		authorityKeyIdentifier = keyid
		subjectAltName = DNS:$domain
	END
	log "signing for $days days"
	openssl x509 -req -in "$state/$csr" -CA "$state/$authority" -CAkey "$state/$authority" \
		-set_serial "0x$(openssl rand -hex 16)" -sha256 -days "$days" \
		-extfile "$scratch/extensions" -out "$scratch/crt" >&2 || die "openssl cannot sign $state/$csr"
	publish crt "$certificate"
fi

printf '{"domain":"%s","key":"%s","certificate":"%s"}\n' "$domain" "$key" "$certificate"
