#!/usr/bin/env bash
# Measures every row of the budget and writes the table into benches/README.md. Takes about ten minutes; wants a machine
# that does nothing else, since what else it does is measured too.
#
#     benches/budget.sh            logs of up to 1 GiB
#     benches/budget.sh --large    up to 10 GiB, which takes so much disk more
#     benches/budget.sh append     only this benchmark, and nothing is written
set -euo pipefail
cd "$(dirname "$0")/.."

all=(append producers durable read consume wake open footprint flat)
gib=1
only=()
for argument in "$@"; do
    if [ "$argument" = "--large" ]; then gib=10; else only+=("$argument"); fi
done

scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
rows="$scratch/rows"
: >"$rows"

load() { cut -d' ' -f1 /proc/loadavg 2>/dev/null || echo "unknown"; }

machine() {
    local cpu memory
    cpu="$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo 2>/dev/null | head -n 1)"
    memory="$(awk '/^MemTotal/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo 2>/dev/null)"
    printf 'Measured on %s with %s CPUs and %s of memory, %s %s, %s, %s. ' \
        "${cpu:-an unknown CPU}" "$(nproc 2>/dev/null || echo '?')" "${memory:-an unknown amount}" "$(uname -s)" "$(uname -r)" \
        "$(stat -f -c %T "${TMPDIR:-/tmp}" 2>/dev/null | sed 's|ext2/ext3|ext4|' || echo 'an unknown file system')" \
        "$(rustc --version | cut -d' ' -f1,2)"
    printf 'Load of the machine before: %s, after: %s.\n' "$1" "$2"
}

cargo bench --no-run "${all[@]/#/--bench=}" 2>&1 | grep -v Executable || true
before="$(load)"
for bench in "${only[@]:-${all[@]}}"; do
    PLACEMARK_BENCH_ROWS="$rows" PLACEMARK_BENCH_GIB="$gib" cargo bench --quiet --bench "$bench"
done
if [ ${#only[@]} -gt 0 ]; then exit 0; fi

{
    machine "$before" "$(load)" | fold -s -w 120 | sed 's/ *$//'
    printf '\n| what | measured | must be | met |\n|---|---|---|---|\n'
    cat "$rows"
} >"$scratch/table"

readme=benches/README.md
awk -v table="$scratch/table" '
    /^<!-- budget -->$/ { print; print ""; while ((getline line < table) > 0) print line; print ""; skip = 1 }
    /^<!-- end of budget -->$/ { skip = 0 }
    !skip && !/^<!-- budget -->$/
' "$readme" >"$scratch/readme"
cp "$scratch/readme" "$readme"
printf '\n%s rows, %s of them not met, in %s\n' "$(wc -l <"$rows")" "$(grep -c '\*\*no\*\*' "$rows" || true)" "$readme"
