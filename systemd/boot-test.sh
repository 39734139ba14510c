#!/bin/sh
# Boots a Debian tree with its own systemd, installs the package there, and checks what only a running service manager can show:
# READY, the watchdog, reload, activation by socket, restarts that refuse nobody, the sandbox, upgrade, removal. Takes a minute or two.
# As root, with systemd-nspawn and a tree that boots, for example from
#   debootstrap --variant=minbase --include=systemd-sysv,procps,dbus bookworm TREE
# A copy of the tree is booted; neither the tree nor the machine is changed. It is not part of the tests that run everywhere: it needs
# root, namespaces and control groups.
#
#   systemd/boot-test.sh TREE PACKAGE.deb
set -eu

if [ "${1:-}" = --booted ]; then
    # Inside: the tests. The service furrow-boot-test runs them and then turns the "machine" off.
    unit=furrow-relayd.service
    say() { echo "boot-test: $1"; }
    fail() { say "FAILED: $1"; journalctl --no-pager -n 40 -u furrow-relayd || true; exit 1; }
    get() { systemctl show -P "$1" $unit; }
    # Waits until a command succeeds.
    until_true() {
        tries=0
        until "$@"; do
            tries=$((tries + 1))
            [ $tries -lt 300 ] || return 1
            sleep 0.1
        done
    }
    active() { systemctl is-active --quiet $unit; }
    event() { journalctl -q -u furrow-relayd FURROW_EVENT="$1" | grep -q .; }
    restarted() { [ "$(get NRestarts)" -gt "$1" ]; }

    dpkg --install /root/furrow.deb || fail "the package cannot be installed"
    active || fail "installing does not start the relay"
    event 110 || fail "the journal has no event 110"
    [ "$(get Type)" = notify ] && [ "$(get StatusText)" != "" ] || fail "the relay does not say how it is"
    say "READY came; status: $(get StatusText)"
    # The notes as a stranger copies them: a message, a relay for the network with TLS, the tools.
    notes() { awk -v want="## $1. " '/^## /{on = index($0, want) == 1} on && /^```sh/{code = 1; next} /^```/{code = 0} code' /root/INSTALL.md; }
    cd /root
    echo "127.0.0.1 relay.example.com" >>/etc/hosts
    for section in 3 4; do
        notes $section | sh -eux >/tmp/notes.log 2>&1 || { cat /tmp/notes.log; fail "section $section of INSTALL.md"; }
    done
    active || fail "section 4 of INSTALL.md leaves no relay"
    # `host check` ends with 1 here: this is no tuned machine.
    notes 5 | sh -ux >/tmp/notes.log 2>&1 || true
    grep -Eq 'not found|No such|unknown key|^error' /tmp/notes.log && { cat /tmp/notes.log; fail "section 5 of INSTALL.md"; }
    [ -s tune.sh ] && sh -n tune.sh || fail "the plan of host check is no script"
    say "INSTALL.md, sections 3 to 5, copied into a shell"

    pid=$(get MainPID)
    [ "$(ps -o user= -p "$pid")" = furrow ] || fail "the relay is not its user"
    grep -Eq 'CapEff:\s*0000000000000000' "/proc/$pid/status" && grep -Eq 'Seccomp:\s*2' "/proc/$pid/status" &&
        grep -Eq 'NoNewPrivs:\s*1' "/proc/$pid/status" || fail "the sandbox is not there"
    say "no capability, system calls filtered; $(grep 'open files' "/proc/$pid/limits" | tr -s ' ')"

    cp /etc/furrow/relay-identity.toml /tmp
    for who in alice bob; do
        sstp --dir "/tmp/$who" init --relay /tmp/relay-identity.toml >/dev/null
    done
    sstp --dir /tmp/alice register >/dev/null
    bob=$(sstp --dir /tmp/bob register)
    send() { echo "$1" | sstp --dir /tmp/alice send --to "$bob" >/dev/null; }
    send one || fail "the first message was not taken"

    sed -i 's/^# *level = .*/level = "debug"/' /etc/furrow/furrow.toml
    grep -q '^level = "debug"' /etc/furrow/furrow.toml || printf '\n[log]\nlevel = "debug"\n' >>/etc/furrow/furrow.toml
    sed -i 's/^# *retry_time = .*/retry_time = "7 s"/' /etc/furrow/furrow.toml
    systemctl reload $unit || fail "reload is refused"
    until_true event 7009 || fail "reload obeys no changed key"
    [ "$(get MainPID)" = "$pid" ] || fail "reload has replaced the relay"
    cp /etc/furrow/furrow.toml /tmp/right.toml
    echo 'nonsense = 1' >>/etc/furrow/furrow.toml
    systemctl reload $unit || true
    until_true event 7011 || fail "a wrong file is taken"
    active && send two || fail "a wrong file has hurt the relay"
    say "reload: a changed key is obeyed, a wrong file changes nothing"

    # Nobody may be refused while the relay is restarted: one process knocks all the time.
    cp /tmp/right.toml /etc/furrow/furrow.toml
    (
        refused=0 tried=0
        while [ ! -e /tmp/enough ]; do
            bash -c 'exec 3<>/dev/tcp/127.0.0.1/2492' 2>/dev/null || refused=$((refused + 1))
            tried=$((tried + 1))
        done
        echo "$tried $refused" >/tmp/knocked
    ) &
    knocker=$!
    systemctl restart $unit || fail "the relay does not restart"
    systemctl kill --signal=KILL $unit
    until_true restarted 0 || fail "a killed relay is not started again"
    until_true active || fail "a killed relay does not come back"
    touch /tmp/enough
    wait $knocker
    read -r tried refused </tmp/knocked
    [ "$tried" -gt 20 ] && [ "$refused" = 0 ] || fail "$refused of $tried connections were refused"
    say "restart and kill: $tried connections meanwhile, none refused"

    systemctl stop $unit
    active && fail "the relay does not stop"
    send three || fail "a connection does not start the relay"
    active || fail "a connection does not start the relay"
    say "activated by a connection"

    mkdir -p /run/systemd/system/$unit.d
    printf '[Service]\nWatchdogSec=3\nTimeoutAbortSec=3\n' >/run/systemd/system/$unit.d/watchdog.conf
    systemctl daemon-reload
    systemctl restart $unit
    before=$(get NRestarts)
    sleep 8
    [ "$(get NRestarts)" = "$before" ] || fail "the watchdog ends a healthy relay"
    kill -STOP "$(get MainPID)"
    until_true restarted "$before" || fail "the watchdog does not notice a relay that hangs"
    until_true active || fail "the relay does not come back after the watchdog"
    journalctl -q -u furrow-relayd | grep -qi watchdog || fail "the journal does not say watchdog"
    say "the watchdog has restarted a relay that hung"

    cp /etc/furrow/furrow.toml /tmp/right.toml
    echo 'nonsense = 1' >>/etc/furrow/furrow.toml
    systemctl restart $unit 2>/dev/null && fail "a wrong configuration starts"
    sleep 3
    [ "$(get ExecMainStatus)" = 2 ] && [ "$(get ActiveState)" = failed ] || fail "a wrong configuration is tried again"
    cp /tmp/right.toml /etc/furrow/furrow.toml
    systemctl reset-failed
    systemctl restart furrow-relayd.socket
    systemctl start $unit || fail "the relay does not start after the file was mended"
    say "a wrong configuration ends it with 2, once"

    # A backup of the running relay, and a restore after its disk is gone, as the notes have them.
    notes 7 | sh -eux >/tmp/notes.log 2>&1 || { cat /tmp/notes.log; fail "section 7 of INSTALL.md"; }
    say "INSTALL.md, section 7: backed up while it ran, restored into an empty folder"

    received=$(sstp --dir /tmp/bob receive --stdout --count 3 | sort | tr '\n' ' ')
    [ "$received" = "one three two " ] || fail "of three messages came: $received"
    say "all mail is there after all this"

    pid=$(get MainPID)
    dpkg --install /root/furrow.deb >/dev/null || fail "an upgrade fails"
    active && [ "$(get MainPID)" != "$pid" ] || fail "an upgrade does not restart the relay"
    relayctl host check --config /etc/furrow/furrow.toml >/tmp/host.txt || true
    grep -q io_uring /tmp/host.txt || fail "relayctl host check says nothing of io_uring"
    systemd-analyze verify --man=no /usr/lib/systemd/system/furrow-relayd* || fail "systemd-analyze verify"
    systemctl status --no-pager --lines=5 $unit || true
    systemd-analyze security --no-pager $unit | tail -1
    dpkg --purge furrow-relay >/dev/null || fail "the package cannot be purged"
    [ ! -e /etc/furrow ] && [ ! -e /var/lib/furrow ] || fail "a purge leaves files"
    [ -z "$(systemctl list-units --plain --no-legend 'furrow-relayd*')" ] || fail "a purge leaves units"
    say "upgraded and purged"
    touch /root/passed
    exit 0
fi

[ $# = 2 ] || { sed -n '2,11p' "$0" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -a "$1" "$work/tree"
cp "$2" "$work/tree/root/furrow.deb"
cp "$0" "$work/tree/root/boot-test.sh"
cp "$(dirname "$0")/INSTALL.md" "$work/tree/root/INSTALL.md"
cat >"$work/tree/etc/systemd/system/furrow-boot-test.service" <<'UNIT'
[Unit]
After=multi-user.target
[Service]
Type=oneshot
Environment=PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
ExecStart=/bin/sh /root/boot-test.sh --booted
ExecStopPost=/bin/systemctl --no-block poweroff
StandardOutput=file:/root/boot-test.log
StandardError=file:/root/boot-test.log
TimeoutStartSec=10min
UNIT
# multi-user.target is what is waited for, so graphical.target, the default, has to want the test.
mkdir -p "$work/tree/etc/systemd/system/graphical.target.wants"
ln -sf ../furrow-boot-test.service "$work/tree/etc/systemd/system/graphical.target.wants/furrow-boot-test.service"

# In a mount namespace of its own, since nspawn wants a tmpfs on /run and one hierarchy of control groups, which not every machine
# has. Its filter of system calls knows io_uring not yet.
cat >"$work/boot" <<'BOOT'
set -e
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd
if [ ! -e /sys/fs/cgroup/cgroup.controllers ]; then
    umount -R /sys/fs/cgroup
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
fi
exec systemd-nspawn --quiet --boot --directory="$1" --register=no --keep-unit --private-network --machine=furrow-boot-test \
    --system-call-filter='io_uring_setup io_uring_enter io_uring_register'
BOOT
timeout 600 unshare --mount --propagation private sh "$work/boot" "$work/tree" </dev/null >"$work/console" 2>&1 || true
cat "$work/tree/root/boot-test.log" 2>/dev/null || { tail -50 "$work/console" >&2; echo "boot-test: the tree did not boot" >&2; exit 1; }
[ -e "$work/tree/root/passed" ] || { echo "boot-test: FAILED" >&2; exit 1; }
echo "boot-test: passed"
