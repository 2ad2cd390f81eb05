import { addressOf } from '#storage/options.ts';
import type { Standing } from '#storage/own.ts';
import type { NetworkTools } from '#storage/ports.ts';
import type { MountRow } from '#storage/registry.ts';

/** How long a connection may take, ms. */
const dialTimeout = 4000;

/** Asks file servers for a connection, each of them once. */
export class Dials {
  readonly #network: NetworkTools;
  readonly #dials = new Map<string, Promise<boolean>>();

  constructor(network: NetworkTools) {
    this.#network = network;
  }

  /**
   * Whether the server of a share takes connections: by its name, or at the address by which it was mounted, which is
   * all that the kernel needs. A name that cannot be resolved for a while makes no share dead.
   */
  answers(row: MountRow, at: Standing): Promise<boolean> {
    const port = row.kind === 'nfs' ? 2049 : (row.extra.port ?? 445);
    const mounted =
      at.kind === 'ours' || at.kind === 'covered' ? addressOf(at.entry.superOptions) : undefined;
    const hosts = [row.extra.server ?? '', ...(mounted === undefined ? [] : [mounted])];
    const dials = hosts.map((host) => this.#dial(host, port));
    return new Promise((resolve) => {
      for (const dial of dials) void dial.then((answers) => answers && resolve(true));
      void Promise.all(dials).then((answers) => resolve(answers.includes(true)));
    });
  }

  #dial(host: string, port: number): Promise<boolean> {
    const key = `${host} ${port}`;
    const dial = this.#dials.get(key) ?? this.#network.answers(host, port, dialTimeout);
    this.#dials.set(key, dial);
    return dial;
  }
}
