import { KubeFake } from '../support/kube-fake.ts';
import { situationSuite } from '../support/kube-situation-suite.ts';

situationSuite('situations of a cluster (wire fake)', () => KubeFake.start(), 100, false);
