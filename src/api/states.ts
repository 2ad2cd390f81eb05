/**
 * The 21 states of a node, as clients compare them. `disk-modifing` is spelt as the wire has always spelt it.
 * Source: contract §6, §7. `self-repairing`, `adding-node` and `removing-node` are reserved.
 */
export const nodeStates = [
  'checking',
  'network-not-ready',
  'not-installed',
  'installing',
  'install-failed',
  'uninitialized',
  'initializing',
  'initialize-failed',
  'terminus-running',
  'restarting',
  'invalid-ip-address',
  'ip-changing',
  'ip-change-failed',
  'system-error',
  'self-repairing',
  'adding-node',
  'removing-node',
  'uninstalling',
  'upgrading',
  'disk-modifing',
  'shutdown',
] as const;

export type NodeState = (typeof nodeStates)[number];

/** How far a long piece of work is, as the status snapshot tells it. */
export type Processing = '' | 'in-progress' | 'completed' | 'failed';
