#!/bin/sh
# `make run`: the box on this machine. Starts kotobakod on loopback with the default model, pairs the
# local command line, asks one question, says how to go on and stays up until Ctrl-C.
# ONCE=1, or no terminal: leaves after the answer. PORT=N: another port than 8443.
set -eu
cd "$(dirname "$0")/.."
bin=build/release
state=build/state
client=build/client
model=smollm2-135m-instruct
port=${PORT:-8443}
question=${QUESTION:-In two sentences: why is the sky blue?}

say() { printf '\033[2m%s\033[0m\n' "$*" | if [ -t 2 ]; then cat >&2; else sed 's/\x1b\[[0-9]*m//g' >&2; fi; }
fail() { printf 'run: %s\n' "$*" >&2; exit 1; }

mkdir -p "$state" && chmod 700 "$state"
if [ ! -f "$state/models/$model.kbm" ]; then
	image/fetch_model.sh smollm2-135m-instruct-q4_1
	"$bin/kotobako" --state "$state" import build/downloads/smollm2-135m-instruct-q4_1.gguf --name "$model"
fi

say "starting kotobakod on 127.0.0.1:$port"
"$bin/kotobakod" --state "$state" --listen "127.0.0.1:$port" --model "$model" 2>"$state/kotobakod.log" &
daemon=$!
stop() { kill "$daemon" 2>/dev/null || true; wait "$daemon" 2>/dev/null || true; }
trap stop EXIT
trap 'exit 130' INT TERM

tries=0
until "$bin/kotobako" --state "$state" status >/dev/null 2>&1; do
	kill -0 "$daemon" 2>/dev/null || { tail -5 "$state/kotobakod.log" >&2; fail "kotobakod stopped; its log is $state/kotobakod.log"; }
	tries=$((tries + 1))
	[ "$tries" -le 300 ] || fail "kotobakod did not come up within 30 s; its log is $state/kotobakod.log"
	sleep 0.1
done

# A client is paired with one box and one port; another port means pairing anew.
if [ ! -f "$client/cert.pem" ] || [ "$(cat "$client/port" 2>/dev/null)" != "$port" ]; then
	rm -rf "$client"
	"$bin/kotobako" --state "$state" --box "127.0.0.1:$port" pair --name "local-$(date +%s)" --out "$client" >&2
	echo "$port" >"$client/port"
fi

printf '> %s\n' "$question"
"$bin/kotobako" --client "$client" run --stats --max-tokens 120 --temperature 0 "$question"

if [ -n "${ONCE:-}" ] || [ ! -t 0 ] || [ ! -t 1 ]; then
	exit 0
fi
cat <<EOF

The box is up. From another terminal, in this directory:
  chat       $bin/kotobako --client $client chat
  one shot   $bin/kotobako --client $client run "..."
  curl       curl --cacert $client/ca.pem --cert $client/cert.pem --key $client/key.pem \\
               https://127.0.0.1:$port/v1/models
  python     openai.OpenAI(base_url="https://127.0.0.1:$port/v1", api_key="unused", http_client=httpx.Client(
               verify=ssl_context))   # a whole example: docs/clients.md
  log        tail -f $state/kotobakod.log
(The programs need Debian 13's libraries: on another host put image/buildroot.sh exec before them.)
Ctrl-C stops it.
EOF
wait "$daemon"
