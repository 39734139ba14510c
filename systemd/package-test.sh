#!/bin/sh
# Installs, upgrades, removes and purges a package in a Debian tree of its own, and runs the service's start command there.
# As root, with a tree that has dpkg and systemd's tools, for example from
#   debootstrap --variant=minbase --include=systemd,procps bookworm TREE
# The tree is changed; the machine is not.
#
#   systemd/package-test.sh TREE PACKAGE.deb
set -eu
tree=$1 package=$2
inside() { chroot "$tree" "$@"; }
fail() { echo "package-test: $1" >&2; exit 1; }

relay=
trap 'kill $relay 2>/dev/null || true; umount "$tree/proc" "$tree/sys" 2>/dev/null || true' EXIT
for folder in proc sys; do
    mount --bind "/$folder" "$tree/$folder"
done
cp "$package" "$tree/tmp/furrow.deb"
inside dpkg --install /tmp/furrow.deb
for file in /usr/bin/relayd /etc/furrow/furrow.toml /etc/furrow/relay.key /usr/share/man/man1/relayd.1.gz \
    /usr/share/man/man1/relayctl-plan.1.gz /usr/share/furrow-relay/wireshark/furrow-sstp.lua \
    /usr/share/bash-completion/completions/relayctl.bash /etc/systemd/system/multi-user.target.wants/furrow-relayd.service; do
    inside test -e "$file" || inside test -L "$file" || fail "$file is missing"
done
[ "$(inside stat -c '%U %a' /etc/furrow/relay.key)" = "furrow 600" ] || fail "the keys are not their user's alone"
[ "$(inside stat -c '%U %a' /var/lib/furrow)" = "furrow 700" ] || fail "the state folder is not its user's alone"
inside systemd-analyze verify --man=no /usr/lib/systemd/system/furrow-relayd.service || fail "the unit is wrong"

# The command of the unit, as its user; then a message from one client to another.
start=$(sed -n 's/^ExecStart=//p' "$tree/usr/lib/systemd/system/furrow-relayd.service")
chroot --userspec=furrow:furrow "$tree" $start 2>"$tree/tmp/relay.log" &
relay=$!
tries=0
until grep -q "relay serves" "$tree/tmp/relay.log"; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || { cat "$tree/tmp/relay.log" >&2; fail "the relay does not serve"; }
    sleep 0.1
done
for who in alice bob; do
    inside rm -rf "/tmp/$who"
    inside sstp --dir "/tmp/$who" init --relay /etc/furrow/relay-identity.toml >/dev/null
done
inside sstp --dir /tmp/alice register
bob=$(inside sstp --dir /tmp/bob register)
echo hello | inside sstp --dir /tmp/alice send --to "$bob"
[ "$(inside sstp --dir /tmp/bob receive --stdout --count 1)" = hello ] || fail "the message did not arrive"
kill -TERM $relay
wait $relay || fail "the relay ended with $?"

# An upgrade and a removal leave what is the operator's; a purge does not.
keys=$(inside sha256sum /etc/furrow/relay.key /etc/furrow/furrow.toml)
inside dpkg --install /tmp/furrow.deb
[ "$(inside sha256sum /etc/furrow/relay.key /etc/furrow/furrow.toml)" = "$keys" ] || fail "an upgrade changed the keys"
inside dpkg --remove furrow-relay
inside test ! -e /usr/bin/relayd || fail "the programs are still there"
inside test -e /etc/furrow/relay.key || fail "a removal took the keys"
inside dpkg --install /tmp/furrow.deb
[ "$(inside sha256sum /etc/furrow/relay.key /etc/furrow/furrow.toml)" = "$keys" ] || fail "coming back changed the keys"
inside dpkg --purge furrow-relay
for gone in /etc/furrow /var/lib/furrow /etc/systemd/system/multi-user.target.wants/furrow-relayd.service; do
    inside test ! -e "$gone" -a ! -L "$gone" || fail "$gone is left"
done
echo "package-test: installed, ran, upgraded, removed, purged"
