import type { Files } from '#host/files.ts';

const systemSocket = '/run/containerd/containerd.sock';
const k3sSocket = '/run/k3s/containerd/containerd.sock';

/** Where the runtime listens and where its files are. */
export interface RuntimePlace {
  readonly socket: string;
  /** k3s starts this containerd itself and writes its configuration anew at every start. */
  readonly k3s: boolean;
  readonly configFile: string;
  /** Where mirrors go when the configuration does not name a folder. */
  readonly certsDir: string;
  readonly registriesYaml: string;
}

/**
 * `CONTAINERD_ADDRESS` if given (with or without `unix://`), else containerd's own socket, else that of k3s; the first
 * when neither is there, so that a message names what a person would expect.
 */
export function runtimePlace(files: Files, explicit: string | undefined): RuntimePlace {
  const socket = explicit?.replace(/^unix:\/\//, '') || firstSocket(files);
  const k3s = socket.endsWith(k3sSocket);
  const base = files.systemPath(k3s ? '/var/lib/rancher/k3s/agent/etc/containerd' : '/etc/containerd');
  return {
    socket,
    k3s,
    configFile: `${base}/config.toml`,
    certsDir: `${base}/certs.d`,
    registriesYaml: files.systemPath('/etc/rancher/k3s/registries.yaml'),
  };
}

function firstSocket(files: Files): string {
  const candidates = [files.systemPath(systemSocket), files.systemPath(k3sSocket)];
  return candidates.find((path) => files.exists(path)) ?? files.systemPath(systemSocket);
}
