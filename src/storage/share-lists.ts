import { fault } from '#api/errors.ts';
import { ExecError } from '#host/exec.ts';
import { wordsOf } from '#host/mounts.ts';
import { SingleFlight } from '#lib/mutex.ts';
import { nfsIdentity, parseExports } from '#storage/nfs.ts';
import type { Machine } from '#storage/ports.ts';
import type { Registry } from '#storage/registry.ts';
import { recordedAs } from '#storage/share-names.ts';
import {
  isTakenForGuest,
  type Login,
  listFault,
  parseSmbShares,
  type SmbTarget,
  smbclientFile,
  smbIdentity,
  smbPathOf,
} from '#storage/smb.ts';

interface Choice {
  readonly path: string;
  readonly mounted: boolean;
}

/** What file servers offer, for a person to choose from. */
export class ShareLists {
  readonly #machine: Pick<Machine, 'network' | 'secrets'>;
  readonly #registry: Registry;
  readonly #flights = new SingleFlight<string>();

  constructor(machine: Pick<Machine, 'network' | 'secrets'>, registry: Registry) {
    this.#machine = machine;
    this.#registry = registry;
  }

  async smb(target: SmbTarget, login: Login | undefined): Promise<{ path: string; mounted: boolean }[]> {
    // Each try with a wrong password counts at the server.
    const likeness = JSON.stringify([target.server, target.port, login]);
    const output = await this.#flights.run(likeness, () => askForShares(this.#machine, target, login));
    return parseSmbShares(output).map((share) => {
      const identity = smbIdentity({ ...target, share, path: share });
      return { path: smbPathOf(target, share), mounted: this.#isMounted(identity) } satisfies Choice;
    });
  }

  async nfs(server: string): Promise<{ path: string; acl: string; mounted: boolean }[]> {
    const { network } = this.#machine;
    const output = await this.#flights.run(JSON.stringify([server]), () =>
      asked(() => network.nfsExports(server)),
    );
    return parseExports(output).map((each) => ({
      ...each,
      mounted: this.#isMounted(nfsIdentity({ server, path: each.path })),
    }));
  }

  #isMounted(identity: string): boolean {
    const rows = this.#registry.all();
    return rows.find((row) => row.identity === recordedAs(identity, rows))?.phase === 'mounted';
  }
}

/** What smbclient lists with this login; throws a refusal in the words of mount.cifs when the server does not take it. */
function askForShares(
  { network, secrets }: Pick<Machine, 'network' | 'secrets'>,
  { server, port }: Pick<SmbTarget, 'server' | 'port'>,
  login: Login | undefined,
): Promise<string> {
  if (login === undefined) return asked(() => network.smbShares(server, port, undefined));
  return asked(() => secrets.withFile(smbclientFile(login), (file) => network.smbShares(server, port, file)));
}

/**
 * Resolves when this login opens the share itself, else throws a refusal in the words of mount.cifs. That the server
 * lists its shares proves nothing: it does so for everybody whom it takes for a guest (`map to guest = Bad User`), and
 * for users who may not enter this one. Whom it takes for a guest is refused, also where guests may enter.
 */
export function enterShare(
  { network, secrets }: Pick<Machine, 'network' | 'secrets'>,
  { server, port, path }: Pick<SmbTarget, 'server' | 'port' | 'path'>,
  login: Login,
): Promise<void> {
  const enter = (file: string) => network.smbEnter(server, port, path, file);
  return asked(() => secrets.withFile(smbclientFile(login), enter));
}

async function asked<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof ExecError && error.reason === 'start') {
      throw fault('mount_failed', `${error.file} is not installed.`, { cause: error });
    }
    if (error instanceof ExecError && error.reason === 'timeout') {
      throw fault('server_unreachable', 'mount error(115): the server did not answer in time', {
        cause: error,
      });
    }
    if (error instanceof ExecError && isTakenForGuest(`${error.stderr}\n${error.stdout}`)) {
      const words = 'mount error(13): Permission denied (the server takes this user for a guest)';
      throw fault('mount_refused', words, { cause: error });
    }
    throw listFault(wordsOf(error));
  }
}
