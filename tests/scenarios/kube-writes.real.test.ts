import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { CertificateRenewal } from '#cluster/kube/certificates.ts';
import { NodeLabels } from '#cluster/kube/node-labels.ts';
import { systemClock } from '#host/clock.ts';
import { KubeApiServer, whyNoKube } from '../support/kube-apiserver.ts';
import { eventually, type Followed, follow } from '../support/kube-harness.ts';
import { arrangeRunning } from '../support/kube-situations.ts';
import { KubeWorld, testNames } from '../support/kube-world.ts';

describe('what is written into a real API server', { skip: await whyNoKube() }, () => {
  let server: KubeApiServer;
  let world: KubeWorld;
  let followed: Followed;

  before(async () => {
    server = await KubeApiServer.start();
    world = new KubeWorld(server);
    await world.define(testNames);
    await arrangeRunning(world);
    followed = follow(server.kubeconfig());
    await followed.until('connected', ({ clusterLink }) => clusterLink === 'connected');
  });

  after(async () => {
    await followed?.stop();
    await server?.stop();
  });

  test('labels: applied once, under our own name, and taken back', async () => {
    const { watch } = followed;
    const prefix = testNames.nodeLabelPrefix;
    let mountsReady: boolean | undefined = true;
    const labels = new NodeLabels({
      clock: systemClock,
      prefix,
      request: (request) => watch.request(request),
      seen: () => watch.thisNode && { ...watch.thisNode, node: watch.thisNode.name },
      wanted: () => ({ version: '0.1.0', mountsReady, mounts: mountsReady ? 'usb 1' : undefined }),
      onError: (message) => assert.fail(message),
    });
    assert.equal(await labels.apply(), true);
    await eventually('the label', () => watch.thisNode?.labels[`${prefix}/mounts-ready`] === 'true');
    assert.equal(await labels.apply(), false, 'nothing to write');
    mountsReady = undefined;
    assert.equal(await labels.apply(), true);
    await eventually(
      'the label is gone',
      () => watch.thisNode?.labels[`${prefix}/mounts-ready`] === undefined,
    );
    const node = (await server.must('GET', '/api/v1/nodes/node-1')) as {
      metadata: { labels: Record<string, string>; managedFields: { manager: string; operation: string }[] };
    };
    assert.equal(node.metadata.labels[`${prefix}/version`], '0.1.0');
    assert.equal(node.metadata.labels['node-role.kubernetes.io/master'], 'true', 'what others wrote stays');
    assert.ok(
      node.metadata.managedFields.some((each) => each.manager === 'beosd' && each.operation === 'Apply'),
    );
  });

  test('a certificate near its end: one job, kept, with the image of the profile', async () => {
    const { watch } = followed;
    await world.certificate(testNames, 'alice', new Date(Date.now() + 3 * 86_400_000).toISOString());
    await eventually('the certificate', () => [...watch.certificates].length === 1);
    const told: string[] = [];
    const renewal = () =>
      new CertificateRenewal({
        clock: systemClock,
        names: testNames.certificates,
        source: watch,
        onConditions: (conditions) => told.push(...conditions.map(({ code }) => code)),
      });
    for (let count = 0; count < 3; count++) assert.equal(await renewal().look(), true);
    const { items } = (await server.must('GET', '/apis/batch/v1/namespaces/user-space-alice/jobs')) as {
      items: {
        metadata: { uid: string };
        spec: { template: { spec: { containers: { image: string }[] } } };
      }[];
    };
    assert.equal(items.length, 1);
    assert.equal(items[0]?.spec.template.spec.containers[0]?.image, 'example.com/tool:1.0');
    assert.deepEqual(told, ['certificate_expiring', 'certificate_expiring', 'certificate_expiring']);
  });

  test('a client certificate is as good as a token', async (context) => {
    const kubeconfig = server.certificateKubeconfig();
    if (kubeconfig === undefined) return context.skip('no openssl to make a client certificate with');
    const other = follow(kubeconfig);
    try {
      await other.until('connected', ({ clusterLink }) => clusterLink === 'connected');
    } finally {
      await other.stop();
    }
  });
});
