import { accessOperations } from '#api/access.ts';
import { commandOperations } from '#api/command.ts';
import { containerdOperations } from '#api/containerd.ts';
import { jobOperations } from '#api/jobs.ts';
import type { Handler, OperationSpec } from '#api/operation.ts';
import { diskOperations, mountedOperations, mountOperations } from '#api/storage.ts';
import { systemOperations } from '#api/system.ts';

/** The contract: every operation that this daemon serves. A new one is a row in the file of its subject. */
export const operations = {
  ...accessOperations,
  ...commandOperations,
  ...containerdOperations,
  ...jobOperations,
  ...mountOperations,
  ...mountedOperations,
  ...diskOperations,
  ...systemOperations,
} as const satisfies Record<string, OperationSpec>;

export type Operations = typeof operations;
export type OperationName = keyof Operations;

/** One handler for each operation: an operation without one does not compile. */
export type Handlers = { readonly [Name in OperationName]: Handler<Operations[Name]> };

/** All names, in the order of the contract. */
export const operationNames = Object.keys(operations) as OperationName[];

/** The row of a name, widened so that code can ask for optional keys. */
export function specOf(name: OperationName): OperationSpec {
  return operations[name];
}
