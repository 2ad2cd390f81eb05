/**
 * What runs between the daemon and a long command, as `sh -c TEXT beosd-run DIR LOG LAUNCHER command…`. A constant:
 * nothing is ever put into the text, all values come as positional parameters.
 *
 * It claims DIR first: link(2) fails when the name is there, and the claim is complete the moment that it has its name.
 * Of any number of runners started for the same run exactly one goes on. A TERM to the group ends the command but not
 * the runner, which must still write how it ended; the trap is a command (not ''), so that the command itself does not
 * inherit an ignored signal (POSIX sh, trap).
 */
export const runnerScript = `
dir=$1; log=$2; launcher=$3; shift 3
trap : TERM INT HUP
set -f
twentyth() { shift 19; field=$1; }
started_at() { read -r line < "$1" && twentyth \${line##*) }; }
field=0
read -r boot < /proc/sys/kernel/random/boot_id || exit 120
started_at /proc/1/stat 2>/dev/null; init=$field
started_at "/proc/$$/stat" || exit 120
printf '%s %s %s-%s %s\\n' "$$" "$field" "$boot" "$init" "$launcher" > "$dir/.claim.$$" || exit 121
ln "$dir/.claim.$$" "$dir/claim" 2>/dev/null; won=$?
rm -f "$dir/.claim.$$"
[ "$won" -eq 0 ] || exit 0
"$@" </dev/null >>"$log" 2>&1
code=$?
printf '%s\\n' "$code" > "$dir/.exit.$$" && mv "$dir/.exit.$$" "$dir/exit"
exit "$code"
`;
