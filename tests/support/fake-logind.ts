import dbus, { type MessageBus } from 'dbus-native';

export interface FakeLogind {
  /** Methods called, in order. */
  readonly calls: string[];
  /** Rows of ListInhibitors: what, who, why, mode, uid, pid. */
  inhibitors: [string, string, string, string, number, number][];
  /** The error that Reboot and PowerOff answer with. */
  refuseWith: { name: string; text: string } | undefined;
  preparing: boolean;
}

class RefusedError extends Error {
  readonly dbusName: string;
  constructor(name: string, text: string) {
    super(text);
    this.dbusName = name;
  }
}

/** logind as far as power goes, on a bus of the test's own. */
export async function fakeLogind(peer: MessageBus): Promise<FakeLogind> {
  const state: FakeLogind = { calls: [], inhibitors: [], refuseWith: undefined, preparing: false };
  const power = (method: string) => ({
    in: { interactive: 'b' },
    handler: ({ interactive }: { interactive: boolean }) => {
      if (state.refuseWith) throw new RefusedError(state.refuseWith.name, state.refuseWith.text);
      state.calls.push(`${method}(${interactive})`);
      state.preparing = true;
    },
  });
  const definition = dbus.defineInterface({
    name: 'org.freedesktop.login1.Manager',
    methods: {
      Reboot: power('Reboot'),
      PowerOff: power('PowerOff'),
      ListInhibitors: { out: { inhibitors: 'a(ssssuu)' }, handler: () => state.inhibitors },
    },
    properties: { PreparingForShutdown: { type: 'b', access: 'read', get: () => state.preparing } },
    signals: { PrepareForShutdown: { args: { start: 'b' } } },
  });
  await peer.export('/org/freedesktop/login1', definition);
  return state;
}
