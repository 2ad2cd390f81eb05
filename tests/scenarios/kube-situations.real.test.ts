import { KubeApiServer, whyNoKube } from '../support/kube-apiserver.ts';
import { situationSuite } from '../support/kube-situation-suite.ts';

situationSuite(
  'situations of a cluster (kube-apiserver and etcd)',
  () => KubeApiServer.start(),
  100,
  await whyNoKube(),
);
