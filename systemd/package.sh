#!/bin/sh
# Makes a Debian package of the relay: programs, units, manual pages, completions, notes. Nothing but cargo and dpkg-deb is
# needed, and no root. Run it from anywhere:
#
#   systemd/package.sh                       builds for release, and writes target/furrow-relay_VERSION_ARCH.deb
#   systemd/package.sh --static              the same, linked with no library at all: for any Linux of the architecture
#   systemd/package.sh --programs DIR        takes relayd, relayctl and sstp from DIR instead of building them
#   systemd/package.sh --output DIR          writes the package there
set -eu

top=$(cd "$(dirname "$0")/.." && pwd)
programs=
link=
output=$top/target
while [ $# -gt 0 ]; do
    case "$1" in
    --static) link="-C target-feature=+crt-static"; shift ;;
    --programs) programs=$2; shift 2 ;;
    --output) output=$2; shift 2 ;;
    *) sed -n '2,9p' "$0" >&2; exit 2 ;;
    esac
done

if [ -z "$programs" ]; then
    cd "$top"
    for program in shard:relayd tuning:relayctl client:sstp; do
        # The flag is for the last step, linking, alone: no macro has to be built anew for it.
        # shellcheck disable=SC2086
        cargo rustc --release -p "${program%:*}" --bin "${program#*:}" -- $link
    done
    programs=${CARGO_TARGET_DIR:-$top/target}/release
fi

tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
chmod 755 "$tree"
put() { install -D -m "$1" "$2" "$tree/$3"; }

for program in relayd relayctl sstp; do
    put 755 "$programs/$program" "usr/bin/$program"
    strip --strip-unneeded "$tree/usr/bin/$program"
    "$programs/$program" manual "$tree/usr/share"
done
find "$tree/usr/share/man" -name '*.1' -exec gzip -9n {} +
for unit in furrow-relayd.service furrow-relayd.socket furrow-relayd-tls.socket \
    furrow-relayd-http.socket; do
    put 644 "$top/systemd/$unit" "usr/lib/systemd/system/$unit"
done
put 644 "$top/systemd/furrow.sysusers.conf" usr/lib/sysusers.d/furrow.conf
put 644 "$top/systemd/furrow.tmpfiles.conf" usr/lib/tmpfiles.d/furrow.conf
put 644 "$top/systemd/furrow.sysctl.conf" usr/lib/sysctl.d/60-furrow.conf
put 644 "$top/tuning/REFERENCE.md" usr/share/doc/furrow-relay/REFERENCE.md
put 644 "$top/systemd/INSTALL.md" usr/share/doc/furrow-relay/INSTALL.md
put 644 "$top/systemd/RUNBOOK.md" usr/share/doc/furrow-relay/RUNBOOK.md
put 644 "$top/systemd/grafana-dashboard.json" usr/share/doc/furrow-relay/grafana-dashboard.json
put 644 "$top/PROTOCOL.md" usr/share/doc/furrow-relay/PROTOCOL.md
put 644 "$top/wireshark/furrow-sstp.lua" usr/share/furrow-relay/wireshark/furrow-sstp.lua
put 644 "$top/wireshark/README.md" usr/share/furrow-relay/wireshark/README.md
put 644 "$top/SECURITY.md" usr/share/doc/furrow-relay/SECURITY.md
put 644 "$top/LICENSE-MIT" usr/share/doc/furrow-relay/copyright

# What the programs are linked with: the C library and the compiler's own, or nothing where the build is static.
needed=$(objdump -p "$tree"/usr/bin/* | awk '$1 == "NEEDED" { print $2 }' | sort -u)
unknown=$(echo "$needed" | grep -Ev '^(libc|libm|libgcc_s|ld-linux.*)\.so' || true)
if [ -n "$unknown" ]; then
    echo "package.sh: no package known for $unknown" >&2
    exit 1
fi
depends=base-files
if [ -n "$needed" ]; then
    glibc=$(objdump -T "$tree"/usr/bin/* | sed -n 's/.*GLIBC_\([0-9.]*\).*/\1/p' | sort -Vu | tail -1)
    depends="libc6 (>= $glibc), libgcc-s1"
fi

version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$top/Cargo.toml" | head -1)
architecture=$(dpkg --print-architecture)
mkdir "$tree/DEBIAN"
sed -e "s/@VERSION@/$version/; s/@ARCHITECTURE@/$architecture/; s/@DEPENDS@/$depends/" \
    -e "s/@SIZE@/$(du -sk --exclude=DEBIAN "$tree" | cut -f1)/" \
    "$top/systemd/debian/control.in" >"$tree/DEBIAN/control"
for script in postinst prerm postrm; do
    install -m 755 "$top/systemd/debian/$script" "$tree/DEBIAN/$script"
done
mkdir -p "$output"
dpkg-deb --root-owner-group -Zxz --build "$tree" "$output/furrow-relay_${version}_$architecture.deb"
