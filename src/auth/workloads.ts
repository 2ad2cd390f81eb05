import type { OperationName } from '#api/operations.ts';

/** A pod of this cluster, in a namespace that we trust. */
export interface WorkloadIdentity {
  readonly namespace: string;
  readonly serviceAccount?: string;
  readonly pod?: string;
}

/** Proofs that only the cluster can give (contract §5, workload). Undefined: not proved; a Fault: it cannot be told now. */
export interface WorkloadProver {
  /** A ServiceAccount token for our audience. */
  byToken(token: string, signal: AbortSignal): Promise<WorkloadIdentity | undefined>;
  /** A source address of a running, not-hostNetwork pod of this node; asked only for what today's pods call. */
  byAddress(
    address: string,
    operation: OperationName,
    signal: AbortSignal,
  ): Promise<WorkloadIdentity | undefined>;
}

/** A node without a cluster: nobody is a workload. */
export const noWorkloads: WorkloadProver = {
  byToken: () => Promise.resolve(undefined),
  byAddress: () => Promise.resolve(undefined),
};
