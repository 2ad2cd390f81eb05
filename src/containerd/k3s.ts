import { parse } from 'yaml';
import { asRead } from '#containerd/config-toml.ts';
import { type HostSettings, type HostsFile, isTable } from '#containerd/hosts-toml.ts';
import { hostOf, registryName } from '#containerd/reference.ts';
import { syntaxProblem } from '#lib/syntax-place.ts';

/**
 * Registries of k3s' `registries.yaml` (docs.k3s.io/installation/private-registry): `mirrors` with their endpoints,
 * `configs` with the TLS of a host; k3s makes a hosts.toml of either (getHostConfigs). Credentials in it are not read, and
 * no error quotes them.
 */
export function k3sMirrors(text: string): Map<string, HostsFile> {
  const found = new Map<string, HostsFile>();
  const document = parsed(text);
  if (!isTable(document)) return found;
  const configs = isTable(document['configs']) ? document['configs'] : {};
  const mirrors = isTable(document['mirrors']) ? document['mirrors'] : {};
  for (const [name, mirror] of Object.entries(mirrors)) {
    const urls = isTable(mirror) && Array.isArray(mirror['endpoint']) ? mirror['endpoint'] : [];
    const endpoints = urls
      .filter((url) => typeof url === 'string')
      .map((url) => ({ url: asRead(url), settings: tlsOf(configs, hostOf(url)) }));
    found.set(name === '*' ? '_default' : (registryName(name) ?? name), { server: {}, endpoints });
  }
  for (const host of Object.keys(configs)) {
    const name = registryName(host) ?? host;
    if (!found.has(name)) found.set(name, { server: tlsOf(configs, host), endpoints: [] });
  }
  return found;
}

function parsed(text: string): unknown {
  try {
    // Its warnings quote the text too, and would go to the log of the process.
    return parse(text, { logLevel: 'error' });
  } catch (error) {
    throw new Error(syntaxProblem(error, 'YAML')); // no cause: that one quotes the lines around
  }
}

function tlsOf(configs: Record<string, unknown>, host: string): HostSettings {
  const config = configs[host];
  const tls = isTable(config) && isTable(config['tls']) ? config['tls'] : {};
  const { insecure_skip_verify: skip, ca_file: ca } = tls;
  return {
    ...(skip === true ? { skip_verify: true } : {}),
    ...(typeof ca === 'string' && ca !== '' ? { ca } : {}),
  };
}
