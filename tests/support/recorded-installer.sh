#!/bin/sh
# The ancestor's node installer as recorded: same arguments, environment, working directory, log lines, pid behaviour and
# marker files; nothing is installed. Beside this program (through links: beside its name) it reads
#   mode   success (default) | fail | fail-late | hang (install only) | crash | stubborn | no-mark;
#          slow; several words allowed:
#          `progress` writes JSON lines to $BEOS_PROGRESS_FILE, `own-log` cuts and writes the log itself
#   pause  seconds between two lines (default 0.01)
# and writes what a test wants to know:
#   starts one line a start: pid and arguments
#   seen   how the password came: `environment`, `file 600`, `none`; `argv` when it stands there too
here=$(dirname "$0")
mode=" $(cat "$here/mode" 2>/dev/null || echo success) "
pause=$(cat "$here/pause" 2>/dev/null || echo 0.01)
command=$1
case "$mode" in *" slow "*) pause=0.12 ;; esac
is() { case "$mode" in *" $1 "*) return 0 ;; *) return 1 ;; esac; }

if [ "$command" = "-v" ]; then echo "olares-cli version 1.12.1"; exit 0; fi

base=
version=
previous=
for argument in "$@"; do
  [ "$previous" = "--base-dir" ] && base=$argument
  [ "$previous" = "--version" ] && version=$argument
  previous=$argument
done
printf '%s %s\n' "$$" "$*" >> "$here/starts"

note_password() {
  password=
  how=none
  if [ -n "${TERMINUS_OS_PASSWORD_FILE:-}" ]; then
    password=$(cat "$TERMINUS_OS_PASSWORD_FILE") && how="file $(stat -c %a "$TERMINUS_OS_PASSWORD_FILE")"
  fi
  if [ -n "${TERMINUS_OS_PASSWORD:-}" ]; then password=$TERMINUS_OS_PASSWORD; how=environment; fi
  case " $* " in *" ${password:-/} "*) how="$how argv" ;; esac
  printf '%s\n' "$how" >> "$here/seen"
  # The ancestor takes a hash of 32 characters or nothing.
  if [ "$how" = environment ] && [ ${#password} -ne 32 ]; then echo "invalid TERMINUS_OS_PASSWORD"; exit 1; fi
}

log() {
  if is own-log; then printf '%s\t%s\n' "$(date -u +%Y-%m-%dT%H:%M:%S.000Z)" "$1" >> "logs/$command.log"
  else printf '%s\t%s\n' "$(date -u +%Y-%m-%dT%H:%M:%S.000Z)" "$1"; fi
}

# say PERCENT TEXT: a step of the recording
say() {
  sleep "$pause"
  log "$2"
  if is progress && [ -n "${BEOS_PROGRESS_FILE:-}" ]; then
    printf '{"t":"2026-11-23T06:00:00Z","phase":"%s","percent":%s,"message":"%s","level":"info"}\n' "$command" "$1" "$2" >> "$BEOS_PROGRESS_FILE"
  fi
}

# Where the recording of a run that went wrong differs.
turn() {
  if is fail; then log "[A] master: Task failed: wait for pods: timed out"; exit 1; fi
  if is crash; then kill -KILL $$; fi
  if is hang && [ "$command" = install ]; then while :; do sleep 3600; done; fi
  if is stubborn; then trap '' TERM; while :; do sleep 0.1; done; fi
}

install() {
  note_password "$@"
  [ -e "$base/.installed" ] && { log "already installed"; exit 1; }
  log "[Job] [Install Olares] start ..."
  say 3 "[A] master: time synchronization is normal"
  say 10 "k8s and kubesphere installation is complete"
  say 15 "Installing account ..."
  say 20 "Installing settings ..."
  say 25 "Installing appservice ..."
  say 30 "waiting for appservice"
  turn
  say 35 "Installing launcher ..."
  say 40 "[A] LocalHost: CheckLauncherStatus success (1.002s)"
  say 45 "Installing built-in apps ..."
  say 65 "Performing the final configuration ..."
  say 70 "Installing backup component ..."
  say 80 "Waiting for Vault ..."
  say 90 "Starting Olares ..."
  is no-mark || printf '%s k3s\n' "$version" > "$base/.installed"
  say 95 "Installation wizard is complete"
  log "Username: $TERMINUS_OS_USERNAME Password: ${password:-}"
  if is fail-late; then exit 1; fi
  say 100 "All done"
}

uninstall() {
  log "[Job] [Uninstall Olares] start ..."
  say 5 "[Module] GetStorage"
  say 15 "[Module] DeleteClusterModule"
  say 35 "[Module] ClearOSModule"
  turn
  say 50 "[Module] UninstallAutoRenewCertsModule"
  say 60 "[A] master: KillContainerdProcess success (2.001s)"
  say 80 "[A] master: DeleteUserData success (1.002s)"
  is no-mark || rm -f "$base/.installed" "$base/.prepared"
  say 95 "[A] master: DeletePhaseFlag success (0.002s)"
  say 100 "[Job] [Uninstall Olares] execute successfully!!! (12.3s)"
  log "Uninstall Olares execute successfully!!!"
}

is own-log && : > "logs/$command.log"
case "$command" in
  install) install "$@" ;;
  uninstall) uninstall ;;
  *) echo "unknown command $command" >&2; exit 2 ;;
esac
