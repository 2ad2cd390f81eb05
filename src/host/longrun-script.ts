/**
 * What runs between the daemon and a long command, as `sh -c TEXT beosd-run DIR LOG LAUNCHER command…`. A constant:
 * nothing is ever put into the text, all values come as positional parameters.
 *
 * It claims DIR first: link(2) fails when the name is there, and the claim is complete the moment that it has its name.
 * Of any number of runners started for the same run exactly one goes on. To stop the run, TERM goes to the runner alone:
 * it passes it on to its group, once, and stays to write how the command ended. A forked shell swallows signals until it
 * has reset its traps, so it looks for the mark of the stop after that and before it becomes the command. wait(1p) returns
 * early for a trapped signal; the child is then still to be waited for, and kill -0 finds it.
 */
export const runnerScript = `
dir=$1; log=$2; launcher=$3; shift 3
told=; sent=
trap 'told=1; : > "$dir/told"' TERM INT HUP
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
(
  trap - TERM INT HUP
  [ -e "$dir/told" ] && exit 143
  exec "$@" </dev/null >>"$log" 2>&1
) &
child=$!
while :; do
  if [ -n "$told" ] && [ -z "$sent" ]; then sent=1; kill -TERM -$$; fi
  wait "$child"; code=$?
  kill -0 "$child" 2>/dev/null || break
done
printf '%s\\n' "$code" > "$dir/.exit.$$" && mv "$dir/.exit.$$" "$dir/exit"
exit "$code"
`;
