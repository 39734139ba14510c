#!/bin/sh
# Captures `relayd demo` in a network of its own, and checks what the dissector makes of it: every carrier is recognised, and nothing is
# malformed. As root (for the network), with tcpdump and tshark.
#
#   wireshark/demo-test.sh [RELAYD]        target/release/relayd, if nothing is said
set -eu
here=$(cd "$(dirname "$0")" && pwd)
relayd=${1:-$here/../target/release/relayd}
if [ "${2:-}" != inside ]; then
    exec unshare --net "$0" "$relayd" inside
fi
capture=$(mktemp -d) tcpdump=
trap '[ -z "$tcpdump" ] || kill "$tcpdump" 2>/dev/null || true; rm -rf "$capture"' EXIT
fail() { echo "demo-test: $1" >&2; exit 1; }

ip link set lo up
tcpdump -q -i lo -B 65536 -w "$capture/demo.pcap" 2>"$capture/tcpdump.log" &
tcpdump=$!
until grep -q listening "$capture/tcpdump.log"; do sleep 0.1; done
"$relayd" demo --json >"$capture/demo.log" || { cat "$capture/demo.log"; fail "the demonstration went wrong"; }
sleep 1
kill -INT "$tcpdump"
wait "$tcpdump" || true

# The demonstration's ports are chosen by the system: the one that got the carriers' requests is that of HTTP.
look() { tshark -n -r "$capture/demo.pcap" -X "lua_script:$here/furrow-sstp.lua" "$@" 2>/dev/null; }
http=$(look -Y 'http.request.uri contains "ConnType="' -T fields -e tcp.dstport | sort | uniq -c | sort -rn |
    awk 'NR == 1 { print $2 }')
[ -n "$http" ] || fail "no request of an HTTP carrier"
look_at_all() { look -o "ghenc.ports:$http" "$@"; }
wrong=$(look_at_all -Y 'gsstp.malformed or gsstp.not_a_command or gsstp.unknown_session or gsstp.over_count or gsstps.malformed or
    ghenc.malformed or ghenc.checksum_wrong or wandpp.malformed or _ws.lua.error')
[ -z "$wrong" ] || { echo "$wrong" >&2; fail "these packets are not understood"; }
for carrier in LongLived KeepAlive Polling; do
    packets=$(look_at_all -Y "ghenc.carrier == \"$carrier\"" | wc -l)
    [ "$packets" -ge 4 ] || fail "$carrier was not seen"
    echo "demo-test: $carrier: $packets packets"
done
echo "demo-test: commands by number, in all:"
look_at_all -Y gsstp -T fields -e gsstp.command | tr ',' '\n' | sort | uniq -c
