import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CertificateRenewal, dueCertificates, renewalMs } from '#cluster/kube/certificates.ts';
import { type KubeRequest, KubeStatusError } from '#cluster/kube/connection.ts';
import type { CertificateRecord } from '#cluster/kube/objects.ts';
import { FakeClock } from '#host/fake/clock.ts';
import type { ReportedCondition } from '#state/facts.ts';

const day = 86_400_000;
const names = {
  configMap: 'zone-ssl-config',
  namespacePrefix: 'user-space-',
  expiryKey: 'expired_at',
  renewal: { name: 'download-user-cert', image: 'example.com/tool:1.28', command: ['wget', '-q'] },
};

const certificate = (user: string, expiresAt: number | undefined): CertificateRecord => ({
  namespace: `user-space-${user}`,
  expiresAt,
  createdAt: 0,
  resourceVersion: '1',
});

/** A cluster that keeps jobs by their path. */
function scene() {
  const clock = new FakeClock();
  const jobs = new Map<string, unknown>();
  const requests: string[] = [];
  const state = {
    certificates: [] as CertificateRecord[],
    conditions: [] as readonly ReportedCondition[],
    down: false,
  };
  const listeners = new Set<() => void>();
  const renewal = new CertificateRenewal({
    clock,
    names,
    onConditions: (conditions) => {
      state.conditions = conditions;
    },
    source: {
      get certificates() {
        return state.certificates;
      },
      onCertificates: (listener) => {
        listeners.add(listener);
        return () => listeners.delete(listener);
      },
      request: async ({ method = 'GET', path, body }: KubeRequest) => {
        requests.push(method);
        if (state.down) throw new Error('the API server is away');
        if (method === 'GET') return jobs.get(path);
        const { metadata } = body as { metadata: { name: string } };
        const id = `${path}/${metadata.name}`;
        if (jobs.has(id)) throw new KubeStatusError(409, 'AlreadyExists');
        jobs.set(id, body);
        return body;
      },
    },
  });
  return { clock, jobs, requests, state, listeners, renewal };
}

test('a certificate is due from 10 days before its end, also after it', () => {
  const now = 1_000 * day;
  const all = [
    certificate('far', now + renewalMs + 1),
    certificate('near', now + renewalMs),
    certificate('ended', now - day),
    certificate('silent', undefined),
  ];
  assert.deepEqual(
    dueCertificates(all, now).map(({ namespace }) => namespace),
    ['user-space-near', 'user-space-ended'],
  );
});

test('one job for one certificate, however often it is looked at and by whom', async () => {
  const { clock, jobs, requests, state, renewal } = scene();
  state.certificates = [certificate('alice', clock.now() + 3 * day)];
  for (let count = 0; count < 5; count++) await renewal.look();
  assert.equal(jobs.size, 1);
  assert.ok(!requests.includes('DELETE'));
  const [[path, job] = []] = [...jobs];
  assert.match(
    path ?? '',
    /^\/apis\/batch\/v1\/namespaces\/user-space-alice\/jobs\/download-user-cert-[0-9a-f]{10}$/,
  );
  assert.match(JSON.stringify(job), /"image":"example.com\/tool:1.28".*"command":\["wget","-q"\]/);
  state.certificates = [certificate('alice', clock.now() + 5 * day)];
  await renewal.look();
  assert.equal(jobs.size, 2, 'another certificate, another job');
});

test('a job that failed is told with its name, and not started again', async () => {
  const { clock, jobs, state, renewal } = scene();
  state.certificates = [certificate('alice', clock.now() + 3 * day)];
  await renewal.look();
  assert.equal(state.conditions[0]?.severity, 'info');
  const [path = ''] = jobs.keys();
  jobs.set(path, { status: { conditions: [{ type: 'Failed', status: 'True' }] } });
  await renewal.look();
  assert.equal(jobs.size, 1);
  const [condition] = state.conditions;
  assert.equal(condition?.code, 'certificate_expiring');
  assert.equal(condition.severity, 'warning');
  assert.match(condition.message, /user-space-alice ends in 3 days; its renewal failed/);
  assert.match(condition.remedy, /delete the job/);
});

test('what could not be started is told, and tried again', async () => {
  const { clock, jobs, state, renewal } = scene();
  state.certificates = [certificate('alice', clock.now() - day)];
  state.down = true;
  assert.equal(await renewal.look(), false);
  assert.match(
    state.conditions[0]?.message ?? '',
    /has ended; its renewal could not be started: the API server is away/,
  );
  assert.equal(state.conditions[0]?.severity, 'error');
  state.down = false;
  assert.equal(await renewal.look(), true);
  assert.equal(jobs.size, 1);
});

test('a renewed certificate has no condition', async () => {
  const { clock, state, renewal } = scene();
  state.certificates = [certificate('alice', clock.now() + day)];
  await renewal.look();
  assert.equal(state.conditions.length, 1);
  state.certificates = [certificate('alice', clock.now() + 90 * day)];
  await renewal.look();
  assert.deepEqual(state.conditions, []);
});

test('it looks when a certificate changes and every hour, not in between', async () => {
  const { clock, requests, state, listeners, renewal } = scene();
  const stop = new AbortController();
  const running = renewal.run(stop.signal);
  const passes = async (ms: number) => {
    await clock.advance(ms);
    await clock.advance(1000);
    await clock.advance(0);
  };
  await passes(0);
  state.certificates = [certificate('alice', clock.now() + day)];
  await passes(600_000);
  assert.deepEqual(requests, []);
  for (const listener of listeners) listener();
  await passes(0);
  assert.deepEqual(requests, ['POST']);
  await passes(3_600_000);
  assert.deepEqual(requests, ['POST', 'POST', 'GET']);
  stop.abort();
  await running;
  assert.equal(listeners.size, 0);
});
