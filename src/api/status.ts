import { type Static, Type } from 'typebox';
import { oneOf, timestamp } from '#api/shapes.ts';
import { nodeStates } from '#api/states.ts';

const processing = (what: string) =>
  oneOf(['', 'in-progress', 'completed', 'failed'] as const, `state of the ${what}`);
const percentText = (what: string) =>
  Type.String({ description: `progress of the ${what}, "42%"; "" when there is none` });

/**
 * The snapshot of contract §7. Clients that exist compare these keys and values; optional ones are left out while
 * unknown, all others are always present. Times without a description are Unix seconds.
 */
export const StatusShape = Type.Object({
  terminusdState: oneOf(['initialize', 'running'] as const, 'state of the daemon itself'),
  terminusState: oneOf(nodeStates, 'state of the node'),
  terminusName: Type.Optional(Type.String({ description: 'name of the owner, user@domain' })),
  terminusVersion: Type.Optional(Type.String()),
  installedTime: Type.Optional(Type.Integer()),
  initializedTime: Type.Optional(Type.Integer()),
  olaresdVersion: Type.Optional(Type.String()),
  beosdVersion: Type.String(),
  device_name: Type.Optional(Type.String()),
  host_name: Type.Optional(Type.String()),
  os_type: Type.String(),
  os_arch: Type.String(),
  os_info: Type.String(),
  os_version: Type.String(),
  cpu_info: Type.String(),
  gpu_info: Type.Optional(Type.String()),
  memory: Type.String({ description: 'e.g. "62 G"' }),
  disk: Type.String({ description: 'e.g. "466 G"' }),
  wifiConnected: Type.Boolean(),
  wifiSSID: Type.Optional(Type.String()),
  wiredConnected: Type.Boolean(),
  hostIp: Type.String(),
  externalIp: Type.String(),
  installingState: processing('install'),
  installingProgress: percentText('install'),
  uninstallingState: processing('uninstall'),
  uninstallingProgress: percentText('uninstall'),
  upgradingTarget: Type.String(),
  upgradingRetryNum: Type.Integer(),
  upgradingNextRetryAt: Type.Optional(timestamp('when the upgrade is tried again')),
  upgradingState: Type.Union([processing('upgrade'), Type.Literal('WaitingForUserConfirm')]),
  upgradingStep: Type.String(),
  upgradingProgress: percentText('upgrade'),
  upgradingError: Type.String(),
  upgradingDownloadState: processing('download'),
  upgradingDownloadStep: Type.String(),
  upgradingDownloadProgress: percentText('download'),
  upgradingDownloadError: Type.String(),
  upgradingOperationId: Type.Optional(Type.String()),
  collectingLogsState: processing('log collection'),
  collectingLogsError: Type.String(),
  defaultFrpServer: Type.String(),
  frpEnable: Type.String(),
  containerMode: Type.Optional(Type.String()),
  pressures: Type.Array(Type.Object({ type: Type.String(), message: Type.String() })),
  conditions: Type.Array(Type.String(), { description: 'codes; GET /system/conditions tells more' }),
  observedAt: timestamp('when this was last confirmed'),
  nodeId: Type.String({ description: '32 hex; signatures in the bound form name it' }),
  owned: Type.Boolean({ description: 'somebody has claimed this node' }),
});

export type Status = Static<typeof StatusShape>;
