import type { Command } from 'commander';

export const shells = ['bash', 'zsh', 'fish'] as const;
export type Shell = (typeof shells)[number];

interface Place {
  /** Words after `beosctl`, joined by spaces; '' for the top. */
  readonly path: string;
  readonly words: readonly { readonly word: string; readonly what: string }[];
}

/** The script that completes every command and flag of this program. */
export function completionScript(program: Command, shell: Shell): string {
  const places = placesOf(program, '');
  return { bash, zsh, fish }[shell](places);
}

function placesOf(command: Command, path: string): Place[] {
  const commands = command.commands.map((each) => ({ word: each.name(), what: each.summary() }));
  const options = command.options
    .filter((option) => option.long !== undefined && !option.hidden)
    .map((option) => ({ word: option.long ?? '', what: option.description }));
  const below = command.commands.flatMap((each) => placesOf(each, `${path} ${each.name()}`.trim()));
  return [{ path, words: [...commands, ...options] }, ...below];
}

function cases(places: readonly Place[]): string {
  return places
    .map(({ path, words }) => `    '${path}') words='${words.map((each) => each.word).join(' ')}' ;;`)
    .join('\n');
}

/** Finds the longest run of words that is a command, and offers what stands there. */
function bash(places: readonly Place[]): string {
  return `# beosctl completion for bash: source <(beosctl completion bash)
_beosctl_words() {
  local words=''
  case "$1" in
${cases(places)}
    *) return 1 ;;
  esac
  printf '%s\\n' "$words"
}
_beosctl() {
  local at='' next word index
  for ((index = 1; index < COMP_CWORD; index++)); do
    word="\${COMP_WORDS[index]}"
    next="\${at:+$at }$word"
    if _beosctl_words "$next" >/dev/null; then at="$next"; fi
  done
  COMPREPLY=($(compgen -W "$(_beosctl_words "$at")" -- "\${COMP_WORDS[COMP_CWORD]}"))
  if [[ \${#COMPREPLY[@]} -eq 0 ]]; then COMPREPLY=($(compgen -f -- "\${COMP_WORDS[COMP_CWORD]}")); fi
}
complete -F _beosctl beosctl
`;
}

function zsh(places: readonly Place[]): string {
  return `#compdef beosctl
# beosctl completion for zsh: beosctl completion zsh > "\${fpath[1]}/_beosctl"
_beosctl_words() {
  local words=''
  case "$1" in
${cases(places)}
    *) return 1 ;;
  esac
  print -r -- "$words"
}
_beosctl() {
  local at='' next index
  for ((index = 2; index < CURRENT; index++)); do
    next="\${at:+$at }$words[index]"
    if _beosctl_words "$next" >/dev/null; then at="$next"; fi
  done
  local -a offered
  offered=(\${=$(_beosctl_words "$at")})
  compadd -- $offered || _files
}
# Loaded by compinit, this file is the function's first call; sourced, it only says who completes.
if [[ \${funcstack[1]:-} == _beosctl ]]; then _beosctl "$@"; else compdef _beosctl beosctl; fi
`;
}

function fish(places: readonly Place[]): string {
  const lines = places.flatMap(({ path, words }) => {
    const here = path === '' ? '__fish_use_subcommand' : `__beosctl_at ${path}`;
    return words.map(({ word, what }) => {
      const offered = word.startsWith('--') ? `-l ${word.slice(2)}` : `-f -a ${word}`;
      return `complete -c beosctl -n '${here}' ${offered} -d '${what.replaceAll("'", "\\'")}'`;
    });
  });
  return `# beosctl completion for fish: beosctl completion fish > ~/.config/fish/completions/beosctl.fish
function __beosctl_at
  set -l typed (commandline -opc)[2..-1]
  set -l plain (string match -v -- '-*' $typed)
  set -l depth (count $argv)
  test "$plain[1..$depth]" = "$argv"
end
${lines.join('\n')}
`;
}
