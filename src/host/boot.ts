import { readdirSync, readFileSync } from 'node:fs';

/**
 * Identity of this start of the machine: the kernel's boot id and when process 1 began. The second half tells two
 * starts of a container apart, where the kernel's id stays (proc(5): field 22 of stat, in ticks since the kernel began).
 */
export function bootIdentity(): string {
  const kernel = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  return `${kernel}-${startOf(1) ?? 0}`;
}

/** When a process began, in clock ticks; undefined when there is none, or only its remains (a zombie). */
export function startOf(pid: number): string | undefined {
  const fields = statOf(pid);
  return fields === undefined || fields[0] === 'Z' || fields[0] === 'X' ? undefined : fields[19];
}

/** Living processes of a session, by a look through /proc; `strays`: only those outside the group of its leader. */
export function livingIn(session: number, which: 'all' | 'strays' = 'all'): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      const [state, , group, of] = statOf(pid) ?? ['X'];
      if (state === 'Z' || state === 'X' || Number(of) !== session) return false;
      return which === 'all' || Number(group) !== session;
    });
}

/** Fields of /proc/PID/stat from the third on: the second, the name, may itself hold blanks and brackets. */
function statOf(pid: number): string[] | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return text
      .slice(text.lastIndexOf(')') + 2)
      .trim()
      .split(' ');
  } catch {
    return undefined; // it ended between being named and being asked
  }
}
