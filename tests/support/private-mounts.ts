import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import type { TestContext } from 'node:test';

interface Outcome {
  readonly ok: boolean;
  readonly name: string;
  readonly skipped: string | undefined;
  readonly words: string;
}

/**
 * Runs a file of tests in a mount namespace of its own, where nothing that it mounts is seen by anybody else and from
 * which nothing is left behind, and reports each of its tests as one of ours.
 */
export async function testsInPrivateMounts(
  t: TestContext,
  file: string,
  env: Readonly<Record<string, string>>,
  timeoutMs: number,
): Promise<void> {
  const { NODE_TEST_CONTEXT: _, ...inherited } = process.env;
  // Processes of its own too: whatever it starts (file systems in user space) ends with it.
  const alone = ['--mount', '--propagation', 'private', '--pid', '--fork', '--kill-child', '--mount-proc'];
  const argv = [...alone, process.execPath, '--test-reporter=tap', file];
  const child = spawn('unshare', argv, { env: { ...inherited, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
  const timer = setTimeout(() => child.kill('SIGKILL'), timeoutMs);
  const ended = once(child, 'close') as Promise<[number | null, string | null]>;
  const [out, err, [code, signal]] = await Promise.all([text(child.stdout), text(child.stderr), ended]);
  clearTimeout(timer);
  const outcomes = parseTap(out);
  for (const { ok, name, skipped, words } of outcomes) {
    await t.test(name, { skip: skipped ?? false }, () => assert.ok(ok, words));
  }
  for (const line of out.matchAll(
    /^# ((?!Subtest|tests|suites|pass|fail|cancelled|skipped|todo|duration_ms).*)$/gm,
  ))
    t.diagnostic(line[1] ?? '');
  assert.ok(outcomes.length > 0, `no test ran: ${code ?? signal} ${out}${err}`);
  const failed = outcomes.some((each) => !each.ok);
  assert.equal(code, failed ? 1 : 0, `ended by ${code ?? signal}: ${err}`);
}

/** The tests at the top level, with what follows each as its words. */
function parseTap(tap: string): Outcome[] {
  const parts = tap.split(/^(?=(?:not )?ok \d+ - )/m).slice(1);
  return parts.map((part) => {
    const [, not, title = ''] = /^(not )?ok \d+ - (.*)$/m.exec(part) ?? [];
    const [name = '', skipped] = title.split(/ # SKIP ?/);
    return { ok: not === undefined, name, skipped, words: part };
  });
}
