import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { CallerClass } from '#api/caller.ts';
import type { Call } from '#api/operation.ts';
import { Files } from '#host/files.ts';
import type { Facts } from '#state/facts.ts';
import { Observatory } from '#state/observatory.ts';
import { type AuditRow, systemHandlers } from '#system/handlers.ts';
import { ProcessMeter } from '#system/metrics.ts';
import { at, facts } from '../../tests/support/machines.ts';

function call(callerClass: CallerClass): Call {
  return {
    caller: { class: callerClass, proof: 'none' },
    signal: new AbortController().signal,
    requestId: 'r1',
    dryRun: false,
  };
}

const nothing = { params: {}, query: {}, body: undefined };

function handlers(some: Facts, rows: AuditRow[] = []) {
  const observatory = new Observatory({
    clock: { now: () => at, monotonic: () => 0 },
    version: '0.1.0',
    nodeId: '0'.repeat(32),
    profile: { defaultFrpServer: '', frpEnable: '0' },
  });
  observatory.update(some);
  const pages: unknown[] = [];
  const all = systemHandlers({
    snapshot: () => observatory.current,
    meter: new ProcessMeter(new Files()),
    tallies: () => ({ jobs: { running: 1, failed: 2 }, lastEventId: 7, processesStarted: 3 }),
    audit: (page) => {
      pages.push(page);
      return rows.slice(0, page.limit);
    },
  });
  return { all, pages };
}

const noBus = facts({ bus: { available: false, reason: 'no "socket"' } });

test('the public sees the codes of the conditions, who has proved something sees all', async () => {
  const { all } = handlers(noBus);
  for (const who of ['public', 'loopback', 'signer', 'peer'] as const) {
    assert.deepEqual(await all['system.conditions'](nothing, call(who)), {
      data: [{ code: 'bus_unavailable' }],
    });
  }
  for (const who of ['root', 'owner', 'workload'] as const) {
    const { data } = await all['system.conditions'](nothing, call(who));
    assert.ok(data[0]?.message?.includes('no "socket"'));
  }
});

test('readiness: the verdict for all, the reasons for who has proved something', async () => {
  const full = facts({ store: { durable: false, reason: 'disk is full', historyLostAt: undefined } });
  const { all } = handlers(full);
  assert.deepEqual(await all['system.ready'](nothing, call('public')), {
    data: { ready: false },
    status: 503,
    message: 'not ready',
  });
  const { data } = await all['system.ready'](nothing, call('workload'));
  assert.deepEqual(data.reasons, ['the store cannot be written: disk is full']);
  assert.deepEqual(await handlers(facts()).all['system.ready'](nothing, call('public')), {
    data: { ready: true },
  });
});

test('the metrics are Prometheus text in which every sample follows its family', async () => {
  const { all } = handlers(noBus);
  const { raw } = await all['system.metrics'](nothing, call('loopback'));
  const lines = String(raw).trimEnd().split('\n');
  assert.ok(lines.includes('beosd_node_state{state="not-installed"} 1'));
  assert.ok(lines.includes('beosd_conditions{code="bus_unavailable"} 1'));
  assert.ok(lines.includes('beosd_jobs{state="failed"} 2'));
  assert.ok(lines.includes('beosd_processes_started_total 3'));
  let family = '';
  for (const line of lines) {
    const help = /^# (?:HELP|TYPE) (\S+) /.exec(line);
    if (help) family = help[1] ?? '';
    else assert.match(line, new RegExp(`^${family}(\\{[a-z]+="[^"]*"\\})? -?[0-9.e+-]+$`));
  }
});

test('the audit is paged: newest first, `next` only while there is more', async () => {
  const row = (id: number): AuditRow => ({
    id,
    at: new Date(at).toISOString(),
    caller: 'root',
    proof: 'socket',
    operation: 'command.install',
    outcome: 'done',
  });
  const { all, pages } = handlers(facts(), [row(9), row(8), row(7)]);
  const page = (query: { limit?: number; before?: string }) =>
    all['system.audit']({ params: {}, query, body: undefined }, call('owner'));
  assert.deepEqual(await page({ limit: 2 }), { data: [row(9), row(8)], beside: { next: '8' } });
  assert.deepEqual(await page({ before: '10' }), { data: [row(9), row(8), row(7)] });
  await assert.rejects(async () => page({ before: 'x' }), { code: 'invalid_input' });
  assert.deepEqual(pages, [
    { limit: 2, before: undefined },
    { limit: 50, before: 10 },
  ]);
});
