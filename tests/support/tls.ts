import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Key and certificate (PEM) of a server at an IP address that vouches for itself; undefined: openssl is not installed. */
export function selfSigned(address: string): { key: string; cert: string } | undefined {
  if (!existsSync('/usr/bin/openssl')) return undefined;
  const folder = mkdtempSync(join(tmpdir(), 'beosd-tls-'));
  const [key, cert] = [join(folder, 'key'), join(folder, 'cert')];
  try {
    const made = ['-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'];
    const subject = ['-subj', `/CN=${address}`, '-addext', `subjectAltName=IP:${address}`];
    execFileSync('openssl', ['req', ...made, '-keyout', key, '-out', cert, ...subject], { stdio: 'ignore' });
    return { key: readFileSync(key, 'utf8'), cert: readFileSync(cert, 'utf8') };
  } finally {
    rmSync(folder, { recursive: true });
  }
}
