import { isIP } from 'node:net';
import { isLoopback } from '#lib/net.ts';
import type { InstallFacts, UpgradeTarget } from '#state/facts.ts';

/** Content of `.installed`: `version kube`; an empty one still says that the installer came to its end. */
export function parseInstalled(
  text: string | undefined,
  modifiedAt: number | undefined,
): InstallFacts['installed'] {
  if (text === undefined) return undefined;
  return { version: text.trim().split(/\s+/)[0] ?? '', at: Math.floor(modifiedAt ?? 0) };
}

const version = /^v?\d+\.\d+\.\d+(?:[-+.][0-9A-Za-z.+-]*)?$/;

/** JSON `{version, downloadOnly, downloaded}` or a bare version; undefined: not (yet) a whole one. */
export function parseTarget(text: string): UpgradeTarget | undefined {
  const trimmed = text.trim();
  if (version.test(trimmed)) return { version: trimmed, downloadOnly: false, downloaded: false };
  let parsed: unknown;
  try {
    parsed = JSON.parse(trimmed);
  } catch {
    return undefined;
  }
  if (typeof parsed !== 'object' || parsed === null || !('version' in parsed)) return undefined;
  if (typeof parsed.version !== 'string' || !version.test(parsed.version)) return undefined;
  return {
    version: parsed.version,
    downloadOnly: 'downloadOnly' in parsed && parsed.downloadOnly === true,
    downloaded: 'downloaded' in parsed && parsed.downloaded === true,
  };
}

/** A dotenv file: `KEY=value`, quotes around the value taken off, `#` lines and `export ` ignored. */
export function parseEnv(text: string): Map<string, string> {
  const values = new Map<string, string>();
  for (const line of text.split('\n')) {
    const match = /^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*?)\s*$/.exec(line);
    const [, key, raw] = match ?? [];
    if (key !== undefined && raw !== undefined) values.set(key, raw.replace(/^(["'])(.*)\1$/, '$2'));
  }
  return values;
}

/** The first address of ETCD_LISTEN_PEER_URLS that is not loopback; undefined where there is none. */
export function etcdAddress(text: string | undefined): string | undefined {
  const urls = parseEnv(text ?? '').get('ETCD_LISTEN_PEER_URLS') ?? '';
  return urls
    .split(',')
    .flatMap((url) => (URL.canParse(url) ? [new URL(url).hostname.replace(/^\[|\]$/g, '')] : []))
    .find((host) => isIP(host) !== 0 && !isLoopback(host));
}
