#!/usr/bin/env bash
# Instructions of one append, of one scanned record, and of one that is read and committed, counted by callgrind: figures
# that do not depend on how busy the machine is. Compared with benches/counts.txt, and taken as a failure when one grew by
# more than a tenth, or when an append through a producer takes more than 1.3 times as many as a plain one.
#
#     benches/count.sh            compare
#     benches/count.sh --accept   write the new figures to benches/counts.txt
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v valgrind >/dev/null; then
    echo "instructions are not counted: valgrind is not installed"
    exit 0
fi
if [ "$(uname -sm)" != "Linux x86_64" ]; then
    echo "instructions are not counted: the figures are those of Linux on x86_64"
    exit 0
fi

accepted=benches/counts.txt
program="$(cargo bench --bench counts --no-run 2>&1 | sed -n 's/.*Executable.*(\(.*\))$/\1/p')"
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT

# What the program takes for so many operations. The CPU that valgrind shows has no AVX-512, on any machine.
instructions() { # kind of work, count
    TMPDIR="$scratch" valgrind --tool=callgrind --callgrind-out-file=/dev/null "$program" "$1" "$2" 2>&1 |
        sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}

few=100000
failed=0
for kind in append-100 append-1024 produce-100 batch-100 scan-100 scan-single-100 consume-100; do
    once="$(instructions "$kind" "$few")"
    twice="$(instructions "$kind" $((2 * few)))"
    found=$(((twice - once) / few))
    known="$(awk -v kind="$kind" '$1 == kind { print $2 }' "$accepted" 2>/dev/null || true)"
    printf '%-16s %5d instructions, accepted %s\n' "$kind" "$found" "${known:-none}"
    echo "$kind $found" >>"$scratch/found"
    if [ -z "$known" ] || [ $((found * 10)) -gt $((known * 11)) ]; then failed=1; fi
done

found() { awk -v kind="$1" '$1 == kind { print $2 }' "$scratch/found"; }
plain="$(found append-100)" produced="$(found produce-100)"
printf 'through a producer %d.%02d x a plain append\n' $((produced / plain)) $((produced * 100 / plain % 100))
if [ $((produced * 10)) -gt $((plain * 13)) ]; then
    echo "An append through a producer takes more than 1.3 times the instructions of a plain one." >&2
    exit 1
fi

if [ "${1:-}" = "--accept" ]; then
    cp "$scratch/found" "$accepted"
elif [ "$failed" = 1 ]; then
    echo "More than a tenth over what was accepted. If it must be so: benches/count.sh --accept, and say why in the commit." >&2
    exit 1
fi
