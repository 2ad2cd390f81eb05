import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { fault } from '#api/errors.ts';
import { type KubeRequest, KubeStatusError } from '#cluster/kube/connection.ts';
import type { LocalPod } from '#cluster/kube/objects.ts';
import { type WorkloadOptions, Workloads } from '#cluster/kube/workloads.ts';
import { FakeClock } from '#host/fake/clock.ts';

const { signal } = new AbortController();

function token(claims: Record<string, unknown>): string {
  const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');
  return `${part({ alg: 'RS256' })}.${part(claims)}.c2lnbmF0dXJl`;
}

/** An API server that knows some tokens, and the pods of this node. */
function scene(options: Partial<WorkloadOptions> = {}) {
  const clock = new FakeClock();
  const reviews = new Map<string, unknown>();
  const state = {
    asked: 0,
    age: 0,
    down: false,
    answer: undefined as Error | undefined,
    uid: 'uid-1' as string | undefined,
    hold: undefined as Promise<void> | undefined,
  };
  const pods = new Map<string, LocalPod>();
  const listeners = new Set<(key: string) => void>();
  const source = {
    localPods: pods,
    get localPodsAge() {
      return state.age;
    },
    podsKnown: true,
    podUid: () => state.uid,
    onPodGone: (listener: (key: string) => void) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    request: async ({ body }: KubeRequest) => {
      state.asked++;
      await state.hold;
      if (state.answer) throw state.answer;
      if (state.down) throw fault('cluster_unavailable', 'down');
      const { spec } = body as { spec: { token: string; audiences: string[] } };
      assert.deepEqual(spec.audiences, ['beosd']);
      return { status: reviews.get(spec.token) ?? { authenticated: false } };
    },
  };
  const workloads = new Workloads({
    clock,
    source,
    trustedNamespaces: ['os-*', 'user-space-*'],
    comesFromLan: () => false,
    addressProof: true,
    ...options,
  });
  const good = (namespace = 'os-framework', seconds = 3600) => {
    const made = token({
      aud: ['beosd'],
      sub: `system:serviceaccount:${namespace}:files`,
      exp: Math.floor(clock.now() / 1000) + seconds,
    });
    reviews.set(made, {
      authenticated: true,
      audiences: ['beosd'],
      user: {
        username: `system:serviceaccount:${namespace}:files`,
        extra: {
          'authentication.kubernetes.io/pod-name': ['files-0'],
          'authentication.kubernetes.io/pod-uid': ['uid-1'],
        },
      },
    });
    return made;
  };
  const gone = (key: string) => {
    pods.delete(key);
    for (const listener of listeners) listener(key);
  };
  const pod = (name: string, change: Partial<LocalPod> = {}) => {
    const base: LocalPod = {
      uid: name,
      namespace: 'os-framework',
      name,
      serviceAccount: 'files',
      addresses: ['10.42.0.7'],
      hostNetwork: false,
      running: true,
      terminating: false,
      images: [],
    };
    const made = { ...base, ...change };
    pods.set(`${made.namespace}/${name}`, made);
  };
  return { clock, reviews, state, workloads, good, gone, pod };
}

describe('a token', () => {
  test('of a trusted namespace proves the pod', async () => {
    const { workloads, good } = scene();
    assert.deepEqual(await workloads.byToken(good(), signal), {
      namespace: 'os-framework',
      serviceAccount: 'files',
      pod: 'files-0',
    });
  });

  test('is asked about once in 60 s, and never kept beyond its own end', async () => {
    const { workloads, good, clock, state } = scene();
    const [long, short] = [good('os-framework', 3600), good('os-network', 20)];
    for (const each of [long, long, short]) assert.ok(await workloads.byToken(each, signal));
    assert.equal(state.asked, 2);
    await clock.advance(21_000);
    assert.equal(await workloads.byToken(short, signal), undefined, 'expired: not even asked');
    assert.ok(await workloads.byToken(long, signal));
    assert.equal(state.asked, 2);
    await clock.advance(40_000);
    assert.ok(await workloads.byToken(long, signal));
    assert.equal(state.asked, 3);
  });

  test('loses its worth at once when its pod goes', async () => {
    const { workloads, good, gone, reviews } = scene();
    const held = good();
    assert.ok(await workloads.byToken(held, signal));
    reviews.delete(held);
    assert.ok(await workloads.byToken(held, signal), 'kept');
    gone('os-framework/files-0');
    assert.equal(await workloads.byToken(held, signal), undefined);
  });

  for (const [what, uid] of [
    ['has gone', undefined],
    ['has been replaced by another of its name', 'uid-2'],
  ] as const) {
    test(`is refused when its pod ${what}, although the API server still remembers it`, async () => {
      const { workloads, good, state } = scene();
      state.uid = uid;
      assert.equal(await workloads.byToken(good(), signal), undefined);
    });
  }

  test('is not kept when its pod went while it was being checked', async () => {
    const { workloads, good, gone, state } = scene();
    const release = Promise.withResolvers<void>();
    state.hold = release.promise;
    const asked = workloads.byToken(good(), signal);
    gone('os-framework/files-0');
    release.resolve();
    assert.equal(await asked, undefined);
  });

  for (const [what, claims] of [
    ['for another audience', { aud: ['https://kubernetes.default.svc'] }],
    ['without an audience', { aud: undefined }],
    ['that has expired', { exp: 1 }],
    ['without an end', { exp: undefined }],
    ['of a namespace that is not trusted', { sub: 'system:serviceaccount:default:files' }],
    ['of a user', { sub: 'alice' }],
  ] as const) {
    test(`${what} is refused without asking the API server`, async () => {
      const { workloads, state, clock } = scene();
      const base = { aud: ['beosd'], sub: 'system:serviceaccount:os-framework:files', exp: clock.now() };
      assert.equal(await workloads.byToken(token({ ...base, ...claims }), signal), undefined);
      assert.equal(state.asked, 0);
    });
  }

  for (const garbage of ['', 'a.b', 'a.b.c', `a.${'x'.repeat(9000)}.c`, 'temp_signature']) {
    test(`that is none (${garbage.slice(0, 12)}) is refused without asking`, async () => {
      const { workloads, state } = scene();
      assert.equal(await workloads.byToken(garbage, signal), undefined);
      assert.equal(state.asked, 0);
    });
  }

  for (const [what, status] of [
    ['not authenticated', { authenticated: false }],
    ['authenticated for another audience', { authenticated: true, audiences: ['other'], user: {} }],
    [
      'authenticated as another account',
      {
        authenticated: true,
        audiences: ['beosd'],
        user: { username: 'system:serviceaccount:os-framework:other' },
      },
    ],
    ['nothing', undefined],
  ] as const) {
    test(`of which the API server says ${what} proves nothing, and a loop is no load`, async () => {
      const { workloads, good, reviews, state, clock } = scene();
      const forged = good();
      reviews.set(forged, status ?? {});
      for (let count = 0; count < 10; count++)
        assert.equal(await workloads.byToken(forged, signal), undefined);
      assert.equal(state.asked, 1);
      await clock.advance(5001);
      await workloads.byToken(forged, signal);
      assert.equal(state.asked, 2);
    });
  }

  test('cannot be told when the API server is down; what is kept still counts for its minute', async () => {
    const { workloads, good, state, clock } = scene();
    const [kept, fresh] = [good(), good('os-network')];
    assert.ok(await workloads.byToken(kept, signal));
    state.down = true;
    await assert.rejects(workloads.byToken(fresh, signal), { code: 'cluster_unavailable' });
    assert.ok(await workloads.byToken(kept, signal));
    await clock.advance(60_001);
    await assert.rejects(workloads.byToken(kept, signal), { code: 'cluster_unavailable' });
  });

  test('cannot be told when the API server answers that it cannot: 503, not a fault of ours', async () => {
    for (const status of [429, 500, 403]) {
      const { workloads, good, state } = scene();
      state.answer = new KubeStatusError(status, 'overloaded');
      await assert.rejects(workloads.byToken(good(), signal), { code: 'cluster_unavailable' });
    }
  });

  test('a stream of forged ones does not push out what was proved', async () => {
    const { workloads, good, reviews, state } = scene();
    const proved = good();
    assert.ok(await workloads.byToken(proved, signal));
    for (let count = 0; count < 600; count++) {
      const forged = good(`os-${count}`);
      reviews.delete(forged);
      assert.equal(await workloads.byToken(forged, signal), undefined);
    }
    assert.ok(workloads.size <= 1024);
    state.down = true;
    assert.ok(await workloads.byToken(proved, signal), 'still kept');
  });

  test('of a pod that came back under its name counts, however long others are checked', async () => {
    const { workloads, good, gone, state } = scene();
    const release = Promise.withResolvers<void>();
    state.hold = release.promise;
    const held = workloads.byToken(good('os-held'), signal);
    gone('os-framework/files-0');
    state.hold = undefined;
    assert.ok(await workloads.byToken(good(), signal), 'asked after the old one had gone');
    release.resolve();
    assert.ok(await held);
  });

  test('is checked beside at most seven others, and many callers with one token make one question', async () => {
    const { workloads, good, state } = scene();
    const release = Promise.withResolvers<void>();
    state.hold = release.promise;
    const one = good('os-one');
    const many = [one, one, one, ...Array.from({ length: 7 }, (_, index) => good(`os-${index}`))];
    const asked = many.map((each) => workloads.byToken(each, signal));
    await assert.rejects(workloads.byToken(good('os-more'), signal), { code: 'too_many_requests' });
    release.resolve();
    assert.ok((await Promise.all(asked)).every((each) => each !== undefined));
    assert.equal(state.asked, 8);
  });

  test('however many there are, at most 512 answers are kept', async () => {
    const { workloads, good } = scene();
    for (let count = 0; count < 600; count++) await workloads.byToken(good(`os-${count}`), signal);
    assert.equal(workloads.size, 512);
  });
});

describe('an address', () => {
  const ask = (workloads: Workloads, address = '10.42.0.7') =>
    workloads.byAddress(address, 'system.hostsFile', signal);

  test('of a running pod of this node proves it', async () => {
    const { workloads, pod } = scene();
    pod('files-0', { addresses: ['10.42.0.7', 'fd42::7'] });
    const proved = { namespace: 'os-framework', serviceAccount: 'files', pod: 'files-0' };
    assert.deepEqual(await ask(workloads), proved);
    assert.deepEqual(await ask(workloads, '::ffff:10.42.0.7'), proved);
    assert.deepEqual(await ask(workloads, 'fd42::7'), proved);
    assert.equal(await ask(workloads, '10.42.0.8'), undefined);
  });

  for (const [what, change] of [
    ['of the host', { hostNetwork: true }],
    ['of a pod that does not run', { running: false }],
    ['of a namespace that is not trusted', { namespace: 'default' }],
  ] as const) {
    test(`${what} proves nothing`, async () => {
      const { workloads, pod } = scene();
      pod('files-0', change);
      assert.equal(await ask(workloads), undefined);
    });
  }

  test('is worth nothing as soon as its pod has gone', async () => {
    const { workloads, pod, gone } = scene();
    pod('files-0');
    assert.ok(await ask(workloads));
    gone('os-framework/files-0');
    assert.equal(await ask(workloads), undefined);
  });

  test('that was given on means the pod that stays', async () => {
    const { workloads, pod } = scene();
    pod('old', { terminating: true, namespace: 'os-framework' });
    pod('new', { namespace: 'default' });
    assert.equal(await ask(workloads), undefined, 'the new holder is not trusted');
    pod('new', { namespace: 'user-space-alice' });
    pod('third', { namespace: 'user-space-bob' });
    assert.equal(await ask(workloads), undefined, 'two that stay: nobody can tell');
  });

  test("whose new holder does not run yet is nobody's: its init containers call already", async () => {
    const { workloads, pod } = scene();
    pod('old', { terminating: true });
    pod('new', { namespace: 'default', running: false });
    assert.equal(await ask(workloads), undefined);
  });

  test('that comes over the LAN proves nothing', async () => {
    const { workloads, pod } = scene({ comesFromLan: () => true });
    pod('files-0');
    assert.equal(await ask(workloads), undefined);
  });

  test('proves nothing for operations that only newer clients know, or when it is switched off', async () => {
    const { workloads, pod } = scene();
    pod('files-0');
    assert.equal(await workloads.byAddress('10.42.0.7', 'jobs.list', signal), undefined);
    const off = scene({ addressProof: false });
    off.pod('files-0');
    assert.equal(await ask(off.workloads), undefined);
  });

  test('counts for 60 s after the API server fell silent, and no longer', async () => {
    const { workloads, pod, state } = scene();
    pod('files-0');
    state.age = 59_000;
    assert.ok(await ask(workloads));
    state.age = 61_000;
    assert.equal(await ask(workloads), undefined);
  });
});
