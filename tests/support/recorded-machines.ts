import type { NodeState } from '#api/states.ts';
import type { Facts, JobFacts } from '#state/facts.ts';
import { clusterMachines } from './recorded-clusters.ts';
import { freshMachines } from './recorded-fresh.ts';
import { workingMachines } from './recorded-working.ts';

/** A machine as it was seen, and what a person who looks at it would say. */
export interface RecordedMachine {
  readonly name: string;
  readonly facts: Facts;
  readonly jobs?: readonly JobFacts[];
  readonly state: NodeState;
  readonly conditions: readonly string[];
  /** undefined: there is none to name. */
  readonly hostIp: string | undefined;
}

export const recordedMachines: readonly RecordedMachine[] = [
  ...freshMachines,
  ...workingMachines,
  ...clusterMachines,
];
