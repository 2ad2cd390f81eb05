import { connect, isIPv6 } from 'node:net';
import type { Exec } from '#host/exec.ts';

/** Asks file servers, by smbclient(1), showmount(8), and a plain connection. */
export class SystemNetworkTools {
  readonly #exec: Exec;

  constructor(exec: Exec) {
    this.#exec = exec;
  }

  /** True when something accepts a connection there. Never rejects, never takes longer than `timeoutMs`. */
  answers(host: string, port: number, timeoutMs: number): Promise<boolean> {
    return new Promise((resolve) => {
      const socket = connect({ host, port });
      const timer = setTimeout(() => end(false), timeoutMs);
      const end = (answer: boolean) => {
        clearTimeout(timer);
        socket.destroy();
        resolve(answer);
      };
      socket.once('connect', () => end(true));
      socket.once('error', () => end(false));
    });
  }

  /** `smbclient -g -L`; throws ExecError with its words. */
  async smbShares(server: string, port: number | undefined, authFile: string | undefined): Promise<string> {
    const login = authFile === undefined ? ['--no-pass'] : [`--authentication-file=${authFile}`];
    const where = port === undefined ? [] : [`--port=${port}`];
    const address = isIPv6(server) ? [`--ip-address=${server}`] : [];
    const args = ['--grepable', ...login, ...where, ...address, `--list=${server}`];
    const { stdout, stderr } = await this.#exec.run('smbclient', args, { timeoutMs: 25_000 });
    // Every server has at least IPC$: success without any share is a server that hung up, not an empty list.
    if (!/^\w+\|/m.test(stdout))
      throw new Error(`timed out: smbclient listed nothing ${stderr.trim()}`.trim());
    return stdout;
  }

  async nfsExports(server: string): Promise<string> {
    const args = ['--no-headers', '--exports', server];
    return (await this.#exec.run('showmount', args, { timeoutMs: 15_000 })).stdout;
  }
}
