/**
 * A process to be killed: puts mirrors into the folder that it is given, the first of which edits the configuration.
 * Says `go` when the next microsecond may be its last, `done` when it has lived through it.
 */
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { storedJournal } from '#containerd/journal.ts';
import { KeyValues } from '#store/kv.ts';
import { Store } from '#store/store.ts';
import { mirrorsIn } from './fake-containerd.ts';

const folder = process.argv[2];
if (folder === undefined) throw new Error('which folder?');
const store = new Store(join(folder, 'store'), Date.now);
const { store: mirrors } = mirrorsIn(folder, { journal: storedJournal(store, new KeyValues(store)) });
await mirrors.list();
// Everything is loaded and warm, so that the moments of the crash lie in the work itself.
const rehearsal = mirrorsIn();
writeFileSync(rehearsal.place.configFile, readFileSync(join(folder, 'etc', 'config.toml')));
await rehearsal.store.put('quay.io', { endpoints: ['https://new'] });
rmSync(rehearsal.folder, { recursive: true });
console.log('go');
await mirrors.put('quay.io', { endpoints: ['https://new'] });
console.log('done');
