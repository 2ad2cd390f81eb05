import type { SwitchJournal, SwitchMark } from '#containerd/config-switch.ts';
import type { KeyValues } from '#store/kv.ts';
import type { Store } from '#store/store.ts';

const key = 'containerd.config-switch';

/** The mark of a switch under way, kept in the store: durable before the file is touched, or the switch is refused. */
export function storedJournal(store: Store, values: Pick<KeyValues, 'get' | 'delete'>): SwitchJournal {
  return {
    get: () => {
      const value = values.get(key);
      return value === undefined ? undefined : { existed: value === 'existed' };
    },
    set: ({ existed }: SwitchMark) =>
      store.commit((db) => {
        db.run('INSERT OR REPLACE INTO kv (key, value) VALUES (?, ?)', key, existed ? 'existed' : 'absent');
      }),
    clear: () => values.delete(key),
  };
}
