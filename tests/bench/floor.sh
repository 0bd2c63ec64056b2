#!/usr/bin/env bash
# What a start and a teardown ask of the engine, and nothing else: as early as each call can begin, by names known
# beforehand, with no look-up, no journal and no check. No launcher can be faster; how near one comes is its figure.
#   floor.sh NAME FOLDER IMAGE SIDECAR_IMAGE SUBNET GATEWAY_SUBNET SLOT
# FOLDER is the image's context and has bottle.tar (what goes into the bottle), pipelock.yaml and values (the session's).
# SLOT is a file that the removals of several take turns at: too many at once have brought a 20.10 to a stop.
set -euo pipefail
name=$1 folder=$2 image=$3 sidecar_image=$4 inside=$5 outside=$6 slot=$7
agent=claude-bottle-$name sidecar=claude-bottle-pipelock-$name
internal=claude-bottle-net-$name egress=claude-bottle-egress-$name
port=8888 hardening=(--cap-drop ALL --security-opt no-new-privileges --pull never)

address() { printf '%s.%d' "${1%.*}" "$((${1##*.} + $2))"; }
inside_base=${inside%/*} outside_base=${outside%/*}

# The sidecar with its networks. A word on stdout tells when the bottle's own is there; the last call lasts as long as
# the sidecar does.
sidecar() {
    docker network create --ipv6=false --subnet "$outside" "$egress" >/dev/null &
    docker network create --ipv6=false --internal --opt com.docker.network.bridge.inhibit_ipv4=true \
        --subnet "$inside" "$internal" >/dev/null
    echo internal
    docker create --name "$sidecar" "${hardening[@]}" -i --read-only --user 65534:65534 --network "$internal" \
        --ip "$(address "$inside_base" 2)" --network-alias claude-bottle-pipelock "$sidecar_image" \
        run --config /dev/stdin --listen "0.0.0.0:$port" >/dev/null
    wait
    docker network connect --ip "$(address "$outside_base" 2)" "$egress" "$sidecar"
    exec docker start -ai "$sidecar" <"$folder/pipelock.yaml" >/dev/null 2>&1
}

start() {
    local look
    { docker image inspect "$image" || docker build -t "$image" "$folder/context"; } >"$folder/build-$name" 2>&1 &
    look=$!
    exec 3< <(sidecar)
    wait "$look"
    read -r -u 3
    docker create --name "$agent" "${hardening[@]}" --network "$internal" --ip "$(address "$inside_base" 3)" \
        --dns 127.0.0.1 --init --tmpfs /run/claude-bottle:rw,noexec,nosuid,nodev,size=4m,uid=1000,gid=1000,mode=0700 \
        -e HTTPS_PROXY=http://claude-bottle-pipelock:$port --sysctl net.ipv6.conf.all.disable_ipv6=1 \
        "$image" sleep infinity >/dev/null
    docker cp - "$agent:/" <"$folder/bottle.tar"
    docker start "$agent" >/dev/null
    docker exec -i "$agent" /usr/local/bin/claude-bottle-seals /run/claude-bottle/environ claude-bottle-pipelock \
        "$port" 120 0.25 "gateway=$(address "$inside_base" 1)" "egress=$(address "$outside_base" 1)" \
        "egress=$(address "$outside_base" 2)" host=172.17.0.1 metadata=169.254.169.254 <"$folder/values" >/dev/null
}

session() {
    docker exec -it "$agent" /usr/local/bin/claude-bottle-session /run/claude-bottle/environ \
        claude --dangerously-skip-permissions
}

teardown() {
    flock "$slot" docker rm -f -v "$agent" "$sidecar" >/dev/null
    flock "$slot" docker network rm "$internal" "$egress" >/dev/null
}

read -rp "floor: launch this agent? [y/N] "
start
session
teardown
