import type { NodeState } from '#api/states.ts';
import { nodeStates } from '#api/states.ts';

/** What the gate lets through or not. Reading is never gated. */
export const gateActions = [
  'install',
  'initialize',
  'uninstall',
  'changeIp',
  'reboot',
  'shutdown',
  'connectWifi',
  'changeHost',
  'collectLogs',
  'mountNetwork',
  'umountNetwork',
  'umountUsb',
  'provisionDisk',
  'changeImages',
  'createUpgradeTarget',
  'removeUpgradeTarget',
  'setSshPassword',
  'editHosts',
  'configureNetwork',
] as const;
export type GateAction = (typeof gateActions)[number];

const power = ['reboot', 'shutdown'] as const;
const reach = ['connectWifi', 'changeHost', 'configureNetwork'] as const;
const umount = ['umountUsb', 'umountNetwork'] as const;
const network = ['mountNetwork', ...umount] as const;
const upgrade = ['createUpgradeTarget', 'removeUpgradeTarget'] as const;
/** Images and mirrors stay as they are while installing, upgrading and uninstalling (contract §6). */
const settings = ['changeImages', 'provisionDisk', 'editHosts'] as const;

/**
 * The state gate: one row a state, what it allows. Source: the ancestor's table in its newest form with the
 * corrections of contract §6. This is the table an auditor reads; docs/policy.md is generated from it.
 */
export const gate = {
  checking: [],
  'network-not-ready': [...power, ...reach, ...umount, 'collectLogs', 'editHosts'],
  'not-installed': [
    'install',
    'changeIp',
    ...power,
    ...reach,
    ...network,
    ...settings,
    'collectLogs',
    'setSshPassword',
  ],
  installing: ['uninstall', 'changeIp', ...power, ...umount, 'collectLogs', 'setSshPassword'],
  'install-failed': [
    'uninstall',
    ...power,
    ...network,
    ...settings,
    'connectWifi',
    'changeHost',
    'collectLogs',
    'setSshPassword',
  ],
  uninitialized: [
    'initialize',
    'changeIp',
    'uninstall',
    'createUpgradeTarget',
    'collectLogs',
    'setSshPassword',
    ...power,
    ...reach,
    ...network,
    ...settings,
  ],
  initializing: [
    'changeIp',
    'uninstall',
    ...power,
    ...reach,
    ...network,
    ...settings,
    'collectLogs',
    'setSshPassword',
  ],
  'initialize-failed': [
    'changeIp',
    'uninstall',
    ...power,
    ...reach,
    ...network,
    ...settings,
    'collectLogs',
    'setSshPassword',
  ],
  'terminus-running': [
    'changeIp',
    'uninstall',
    'collectLogs',
    'setSshPassword',
    ...power,
    ...reach,
    ...network,
    ...settings,
    ...upgrade,
  ],
  restarting: [...power, ...umount, 'collectLogs'],
  'invalid-ip-address': [
    'changeIp',
    'uninstall',
    ...power,
    ...reach,
    ...network,
    ...settings,
    'collectLogs',
    'setSshPassword',
  ],
  'ip-changing': [...power, ...umount, 'collectLogs', 'setSshPassword'],
  'ip-change-failed': [
    'uninstall',
    ...power,
    ...umount,
    'connectWifi',
    'changeHost',
    'changeIp',
    'collectLogs',
    'setSshPassword',
  ],
  'system-error': [
    'changeIp',
    'uninstall',
    'collectLogs',
    'setSshPassword',
    ...power,
    ...reach,
    ...network,
    ...settings,
    ...upgrade,
  ],
  'self-repairing': ['uninstall', ...power, ...reach, ...umount, 'collectLogs', 'setSshPassword'],
  'adding-node': [...umount, 'collectLogs'],
  'removing-node': [...umount, 'collectLogs'],
  uninstalling: ['collectLogs'],
  upgrading: [
    'changeIp',
    'uninstall',
    'collectLogs',
    'setSshPassword',
    ...power,
    ...reach,
    ...network,
    ...upgrade,
  ],
  'disk-modifing': [...umount, 'collectLogs'],
  shutdown: [...umount, 'collectLogs'],
} as const satisfies Record<NodeState, readonly GateAction[]>;

/** The states in which an action is allowed: the `allowedIn` of a refusal. */
export function allowedIn(action: GateAction): NodeState[] {
  return nodeStates.filter((state) => isAllowed(action, state));
}

export function isAllowed(action: GateAction, state: NodeState): boolean {
  const allowed: readonly GateAction[] = gate[state];
  return allowed.includes(action);
}
