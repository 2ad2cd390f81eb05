import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { parse } from 'smol-toml';
import type { Caller } from '#api/caller.ts';
import { systemClock } from '#host/clock.ts';
import { SystemExec } from '#host/exec.ts';
import { Files } from '#host/files.ts';
import { TestContainerd, theContainerd, whyNot } from '../../tests/support/containerd.ts';
import { call, pull, serviceOver, workload } from '../../tests/support/containerd-service.ts';
import { MemoryJournal } from '../../tests/support/fake-containerd.ts';
import { makeImage } from '../../tests/support/oci.ts';
import { TestRegistry } from '../../tests/support/registry.ts';
import { selfSigned } from '../../tests/support/tls.ts';

const root: Caller = { class: 'root', proof: 'socket' };

/** Everything that beosd may change of this runtime, by path: its configuration and the folder of mirrors. */
function configured(containerd: TestContainerd): Record<string, string> {
  const etc = join(containerd.folder, 'etc');
  const files = readdirSync(etc, { recursive: true, withFileTypes: true }).filter((each) => each.isFile());
  return Object.fromEntries(
    files.map((each) => {
      const path = join(each.parentPath, each.name);
      return [path.slice(etc.length + 1), readFileSync(path, 'utf8')];
    }),
  );
}

/** One that containerd verifies TLS for; what is sent there stays on this machine. */
function addressOfThisMachine(): string | undefined {
  const all = Object.values(networkInterfaces()).flatMap((each) => each ?? []);
  return all.find(({ internal, family }) => !internal && family === 'IPv4')?.address;
}

/** As people did it before certs.d; 2.x does not know this any more. */
function trustInline(containerd: TestContainerd, registry: string, authority: string): void {
  const table = `plugins."io.containerd.grpc.v1.cri".registry.configs."${registry}".tls`;
  writeFileSync(
    containerd.configFile,
    `${containerd.version2Config()}[${table}]\nca_file = "${authority}"\n`,
  );
}

function trustInHostsFile(containerd: TestContainerd, registry: string, authority: string): void {
  containerd.lookInCertsDir();
  const folder = join(containerd.certsDir, registry);
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'hosts.toml'), `ca = "${authority}"\n[host]\n`);
}

for (const major of [1, 2] as const) {
  const skip = whyNot(major);

  describe(`a real containerd ${major}.x`, () => {
    // One test that says why: the runner counts tests, not suites.
    if (skip !== false) {
      test('all of this', { skip }, () => undefined);
      return;
    }
    test('a pull goes to the mirror, falls back when that is off; only its own folder changes, nothing is restarted', async () => {
      await using containerd = new TestContainerd(theContainerd(major));
      await using upstream = await TestRegistry.start();
      await using mirror = await TestRegistry.start();
      containerd.lookInCertsDir();
      const { handlers, service } = serviceOver(containerd);
      await containerd.start();
      const { pid } = containerd;
      const image = makeImage('mirrored');
      upstream.add('team/app', '1', image);
      mirror.add('team/app', '1', image);
      const put = async (registry: string, endpoint: string[], caller: Caller = root) =>
        await handlers['containerd.setMirror'](
          { params: { registry }, query: {}, body: { endpoint } },
          call({ caller }),
        );
      await put('quay.io', ['https://other.invalid']);
      const before = configured(containerd);
      await assert.rejects(put(upstream.host, [`http://${mirror.host}`], workload), { code: 'forbidden' });
      assert.deepEqual(configured(containerd), before);
      const answer = await put(upstream.host, [`http://${mirror.host}`]);
      assert.ok('data' in answer);
      assert.deepEqual(answer.data.warnings.length, 0);
      const { [`certs.d/${upstream.host}/hosts.toml`]: own, ...others } = configured(containerd);
      assert.ok(own?.includes(mirror.host));
      assert.deepEqual(others, before);
      mirror.asked.length = 0;
      await pull(containerd, `${upstream.host}/team/app:1`);
      assert.ok(
        mirror.asked.some((each) => each.includes('/v2/team/app/blobs/')),
        'layers came from the mirror',
      );
      assert.equal(upstream.asked.length, 0);
      await service.images.remove(`${upstream.host}/team/app:1`);
      await mirror.stop();
      await pull(containerd, `${upstream.host}/team/app:1`);
      assert.ok(upstream.asked.some((each) => each.includes('/v2/team/app/manifests/')));
      const after = await handlers['containerd.deleteMirror'](
        { params: { registry: upstream.host }, query: {}, body: undefined },
        call(),
      );
      assert.ok(!('plan' in after));
      assert.deepEqual(configured(containerd), before);
      assert.deepEqual([containerd.starts, containerd.pid], [1, pid], 'it is the process of before');
      service.close();
    });

    test('endpoints are tried in their order; _default is for registries without mirrors of their own', async () => {
      await using containerd = new TestContainerd(theContainerd(major));
      await using first = await TestRegistry.start();
      await using second = await TestRegistry.start();
      await using fallback = await TestRegistry.start();
      containerd.lookInCertsDir();
      await containerd.start();
      const { service } = serviceOver(containerd);
      const store = await service.mirrors();
      const [app, other] = [makeImage('app'), makeImage('other')];
      second.add('deep/team/app', '1', app);
      fallback.add('team/other', '1', other);
      const url = (registry: TestRegistry) => `http://${registry.host}`;
      const endpoints = [url(first), `${url(second)}/v2/deep`];
      await store.put('ghcr.io', { endpoints, overridePath: true });
      await store.put('_default', { endpoints: [url(fallback)] });
      // Nobody outside is asked: the mirrors have both, and ghcr.io is the last in the order.
      await pull(containerd, 'ghcr.io/team/app:1');
      assert.ok(first.asked.length > 0, 'the first was tried');
      assert.ok(second.asked.some((each) => each.includes('/v2/deep/team/app/blobs/')));
      await store.put('ghcr.io', { endpoints: endpoints.reverse() });
      await service.images.remove('ghcr.io/team/app:1');
      first.asked.length = 0;
      await pull(containerd, 'ghcr.io/team/app:1');
      assert.deepEqual(first.asked, [], 'now it is the second, and that is enough');
      await pull(containerd, 'registry.invalid/team/other:1');
      assert.ok(fallback.asked.some((each) => each.includes('/v2/team/other/blobs/')));
      assert.ok(fallback.asked.every((each) => !each.includes('app')));
      service.close();
    });

    test('how a private registry is verified survives the switch, and the DELETE of its mirrors', async (t) => {
      const address = addressOfThisMachine();
      const tls = address === undefined ? undefined : selfSigned(address);
      if (address === undefined || tls === undefined) {
        return t.skip('no address but loopback, which containerd does not verify, or no openssl');
      }
      await using containerd = new TestContainerd(theContainerd(major));
      await using registry = await TestRegistry.start({ address, tls });
      const image = makeImage('private');
      registry.add('team/app', '1', image);
      const authority = join(containerd.folder, 'ca.pem');
      writeFileSync(authority, tls.cert);
      if (major === 1) trustInline(containerd, registry.host, authority);
      else trustInHostsFile(containerd, registry.host, authority);
      await containerd.start();
      const { service } = serviceOver(containerd);
      const store = await service.mirrors();
      const pulls = async (when: string) => {
        assert.equal(await pull(containerd, `${registry.host}/team/app:1`), image.id, when);
        await service.images.remove(`${registry.host}/team/app:1`);
      };
      await pulls('before');
      await store.put('quay.io', { endpoints: ['https://q.invalid'] });
      assert.ok(!readFileSync(containerd.configFile, 'utf8').includes('ca_file'));
      await pulls('after the switch');
      await store.put(registry.host, { endpoints: ['https://m.invalid'] });
      await store.delete(registry.host);
      await pulls('after the mirrors went');
      service.close();
    });

    test('the one edit of the configuration: made once, by the real binary found good, mirrors effective after it', async () => {
      await using containerd = new TestContainerd(theContainerd(major));
      const before = readFileSync(containerd.configFile, 'utf8');
      await containerd.start();
      const { service, journal } = serviceOver(containerd);
      const store = await service.mirrors();
      const started = containerd.starts;
      await store.put('quay.io', { endpoints: ['https://q.invalid'] });
      assert.equal(containerd.starts, started + 1);
      assert.equal(journal.mark, undefined);
      const after = readFileSync(containerd.configFile, 'utf8');
      const added = after.split('\n').filter((line) => !before.split('\n').includes(line));
      assert.ok(
        added.every((line) => /config_path|^\s*\[plugins/.test(line)),
        added.join('\n'),
      );
      assert.ok(before.split('\n').every((line) => after.split('\n').includes(line)));
      await store.put('quay.io', { endpoints: ['https://r.invalid'] });
      await store.delete('quay.io');
      assert.equal(containerd.starts, started + 1, 'no restart any more');
      const { version } = await service.runtime.version();
      assert.ok(version.replace(/^v/, '').startsWith(`${major}.`));
      service.close();
    });

    test('inline mirrors of a version 2 configuration work before and after their migration', async () => {
      await using containerd = new TestContainerd(theContainerd(major));
      await using upstream = await TestRegistry.start();
      await using mirror = await TestRegistry.start();
      const image = makeImage('inline');
      mirror.add('team/app', '1', image);
      const registry = 'plugins."io.containerd.grpc.v1.cri".registry';
      const inline = `\n# mirrors of old\n[${registry}.mirrors."${upstream.host}"]\nendpoint = ["http://${mirror.host}"]\n# the end\n`;
      writeFileSync(containerd.configFile, `${containerd.version2Config()}${inline}`);
      await containerd.start();
      const { service } = serviceOver(containerd);
      const store = await service.mirrors();
      assert.equal((await store.get(upstream.host))?.source, 'config.toml');
      await pull(containerd, `${upstream.host}/team/app:1`);
      await service.images.remove(`${upstream.host}/team/app:1`);
      await store.put('quay.io', { endpoints: ['https://q.invalid'] });
      const after = readFileSync(containerd.configFile, 'utf8');
      assert.ok(!after.includes('registry.mirrors') && after.includes('# the end'));
      assert.equal((await store.get(upstream.host))?.source, 'certs.d');
      mirror.asked.length = 0;
      assert.equal(await pull(containerd, `${upstream.host}/team/app:1`), image.id);
      assert.ok(mirror.asked.some((each) => each.includes('/v2/team/app/blobs/')));
      service.close();
    });

    test("containerd's own default configuration is edited in one line and read back as intended", async () => {
      await using containerd = new TestContainerd(theContainerd(major));
      const { service } = serviceOver(containerd);
      const defaults = (await new SystemExec().run(containerd.installed.binary, ['config', 'default']))
        .stdout;
      writeFileSync(containerd.configFile, `# a comment at the top\n${defaults}# and one at the end\n`);
      // Only prepared: with these paths the default would not start beside a real one.
      const { ConfigSwitch } = await import('#containerd/config-switch.ts');
      const config = new ConfigSwitch({
        ...{ files: new Files(), exec: new SystemExec(), clock: systemClock, journal: new MemoryJournal() },
        runtime: service.runtime,
        unit: { check: async () => undefined, restart: async () => undefined },
        place: () => service.place(),
        binary: containerd.installed.binary,
      });
      const pending = await config.prepare();
      assert.ok(pending?.before !== undefined);
      const old = pending.before.split('\n');
      const now = pending.after.split('\n');
      assert.equal(now.length, old.length);
      const changed = now.filter((line, at) => line !== old[at]);
      assert.equal(changed.length, 1);
      assert.match(changed[0] ?? '', /^\s*config_path = /);
      assert.ok(parse(pending.after));
      assert.deepEqual(readdirSync(join(containerd.folder, 'etc')), ['config.toml']);
      service.close();
    });

    test('a configuration that the binary refuses to run with is rolled back by itself', async () => {
      await using containerd = new TestContainerd(theContainerd(major));
      const before = readFileSync(containerd.configFile, 'utf8');
      await containerd.start();
      const { service } = serviceOver(containerd);
      const place = service.place();
      const broken = new Map<string, string>();
      const { ConfigSwitch } = await import('#containerd/config-switch.ts');
      let restarts = 0;
      const config = new ConfigSwitch({
        ...{ files: new Files(), exec: new SystemExec(), clock: systemClock, journal: new MemoryJournal() },
        runtime: service.runtime,
        // The first start with the new file fails, as it would for a reason that only shows when it runs.
        unit: {
          check: async () => undefined,
          restart: async () => {
            await containerd.stop();
            if (++restarts > 1) await containerd.start();
            else broken.set('config', readFileSync(containerd.configFile, 'utf8'));
          },
        },
        place: () => place,
        binary: containerd.installed.binary,
        answerWithinMs: 1500,
      });
      const pending = await config.prepare();
      assert.ok(pending);
      await assert.rejects(config.commit(pending), { code: 'runtime_rolled_back' });
      assert.notEqual(broken.get('config'), before);
      assert.equal(readFileSync(containerd.configFile, 'utf8'), before);
      assert.equal((await service.runtime.status()).ready, true);
      service.close();
    });
  });
}
