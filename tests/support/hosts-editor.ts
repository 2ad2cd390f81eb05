/**
 * Edits a hosts file without end, to be killed at any moment: `hosts-editor.ts FILE LOCK SEED`. Prints a line when it
 * starts an edit, with what the file shall hold then, so that the killer can count and knows the old file and the new one.
 */
import { writeSync } from 'node:fs';
import { systemClock } from '#host/clock.ts';
import { Files } from '#host/files.ts';
import { HostsFile } from '#network/hosts-file.ts';
import type { HostsEntry } from '#network/hosts-text.ts';

const [path = '', lockPath = '', seedText = '1'] = process.argv.slice(2);

/** Park–Miller, so that a run can be repeated from its seed. */
let seed = Number(seedText);
function random(below: number): number {
  seed = (seed * 48_271) % 2_147_483_647;
  return seed % below;
}

const hosts = new HostsFile({
  files: new Files(),
  clock: systemClock,
  path,
  lockPath,
  hostName: () => 'node1',
  protectedNames: [],
  onFacts: () => undefined,
});

for (;;) {
  const items = new Map<string, HostsEntry>();
  for (let left = random(12); left > 0; left--) {
    // Few enough to choose from that most edits keep a line of the one before.
    const entry = { ip: `10.7.0.${random(8)}`, host: `host-${random(5)}.lan` };
    items.set(`${entry.ip} ${entry.host}`, entry);
  }
  const entries = [...items.values()];
  writeSync(1, `${entries.map(({ ip, host }) => `${ip}\t${host}`).join(' ')}\n`);
  await hosts.replace(entries, undefined);
}
