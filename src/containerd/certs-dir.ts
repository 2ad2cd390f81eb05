import { createHash } from 'node:crypto';
import { parseHost, registryName } from '#containerd/reference.ts';

/*
 * Names in certs.d (containerd docs/hosts.md; hostPaths in remotes/docker/config/hosts.go).
 */

export const hostsFileName = 'hosts.toml';

/** A CA of a PUT, beside the hosts.toml that names it. */
export const ourCa = /^beosd-ca-[0-9a-f]{12}\.pem$/;

/** The names that containerd gives a registry's folder, the one it prefers first: `host_5000_` before `host:5000`. */
export function folderNames(registry: string): [string, ...string[]] {
  const port = parseHost(registry)?.port;
  if (port === undefined) return [registry];
  return [`${registry.slice(0, registry.lastIndexOf(':'))}_${port}_`, registry];
}

/** undefined: containerd looks into this folder for no registry, whatever its name reminds of (`GHCR.io`). */
export function registryOfFolder(folder: string): string | undefined {
  const registry = registryName(folder.replace(/^(.+)_(\d{1,5})_$/, '$1:$2'));
  return registry !== undefined && folderNames(registry).includes(folder) ? registry : undefined;
}

/** By its content: a new CA never stands where an endpoint still reads the old one. */
export function caFileName(pem: string): string {
  return `beosd-ca-${createHash('sha256').update(pem).digest('hex').slice(0, 12)}.pem`;
}
