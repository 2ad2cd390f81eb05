import { Type } from 'typebox';
import type { OperationSpec } from '#api/operation.ts';
import { ConditionShape, ipv4, ListQuery, timestamp } from '#api/shapes.ts';
import { StatusShape } from '#api/status.ts';

export const NetworkInterfaceShape = Type.Object({
  iface: Type.String(),
  ip: Type.String({ description: 'IPv4; "" for a Wi-Fi device without an address' }),
  isHostIp: Type.Boolean(),
  isWifi: Type.Boolean(),
  ssid: Type.Optional(Type.String()),
  strength: Type.Optional(Type.Integer({ minimum: 0, maximum: 100 })),
  mtu: Type.Integer(),
  hostname: Type.String(),
  ipv4Gateway: Type.Optional(Type.String()),
  ipv6Gateway: Type.Optional(Type.String()),
  ipv4DNS: Type.Optional(Type.String()),
  ipv6DNS: Type.Optional(Type.String()),
  ipv6Address: Type.Optional(Type.String()),
  ipv4Mask: Type.Optional(Type.String()),
  method: Type.Optional(Type.String()),
  rxRate: Type.Optional(Type.Number({ description: 'bytes per second' })),
  txRate: Type.Optional(Type.Number({ description: 'bytes per second' })),
  internetConnected: Type.Optional(Type.Boolean()),
  ipv6Connectivity: Type.Optional(Type.Boolean()),
});

const HostsEntry = Type.Object({
  ip: ipv4('IPv4 address'),
  host: Type.String({ description: 'host name (RFC 1123)', minLength: 1, maxLength: 253 }),
});

/** What the machine is and how it is (contract §2 `/system`, §4). */
export const systemOperations = {
  'system.status': {
    method: 'GET',
    path: '/system/status',
    summary: 'What the node is and does, from memory',
    origin: 'specified',
    data: StatusShape,
  },
  'system.interfaces': {
    method: 'GET',
    path: '/system/ifs',
    summary: 'Network interfaces with their addresses',
    origin: 'specified',
    query: Type.Object({
      testConnectivity: Type.Optional(
        Type.Boolean({
          description: 'also measure whether each interface reaches the internet (5 s at most)',
        }),
      ),
    }),
    data: Type.Array(NetworkInterfaceShape),
  },
  'system.hostsFile': {
    method: 'GET',
    path: '/system/hosts-file',
    summary: 'The entries of the hosts file that a user may edit',
    origin: 'specified',
    data: Type.Array(HostsEntry),
    statuses: [503],
  },
  'system.setHostsFile': {
    method: 'POST',
    path: '/system/hosts-file',
    summary: 'Replace the editable entries of the hosts file; every other line stays',
    origin: 'specified',
    body: Type.Object({
      items: Type.Array(HostsEntry, { maxItems: 500, description: 'the whole editable set; [] empties it' }),
    }),
    data: Type.Array(HostsEntry),
    message: 'success',
    signedKeys: ['items'],
    dryRun: true,
    statuses: [422, 503],
  },
  'system.checkJws': {
    method: 'POST',
    path: '/system/checkjws',
    summary: 'Verify a signature for another component of the node',
    origin: 'specified',
    body: Type.Object({ jws: Type.String({ minLength: 1, maxLength: 8192, description: 'compact JWS' }) }),
    data: Type.Object({
      name: Type.String(),
      did: Type.String(),
      time: Type.String(),
      domain: Type.Optional(Type.String()),
      challenge: Type.Optional(Type.String()),
      body: Type.Unknown(),
    }),
    statuses: [503],
  },
  'system.resolveName': {
    method: 'GET',
    path: '/system/1.0/name/:name',
    summary: 'The DID document of a name, from the gate or its cache',
    origin: 'specified',
    params: Type.Object({ name: Type.String({ minLength: 3, maxLength: 320 }) }),
    data: Type.Unknown(),
    statuses: [404, 503],
  },
  'system.conditions': {
    method: 'GET',
    path: '/system/conditions',
    summary: 'What is wrong, why, and what mends it (the public sees the codes only)',
    origin: 'added',
    data: Type.Array(Type.Partial(ConditionShape)),
  },
  'system.live': {
    method: 'GET',
    path: '/livez',
    summary: 'The process answers',
    origin: 'added',
    data: Type.Object({ alive: Type.Boolean() }),
  },
  'system.ready': {
    method: 'GET',
    path: '/readyz',
    summary: 'The node can take work (a workload also sees the reasons)',
    origin: 'added',
    data: Type.Object({ ready: Type.Boolean(), reasons: Type.Optional(Type.Array(Type.String())) }),
    statuses: [503],
  },
  'system.metrics': {
    method: 'GET',
    path: '/metrics',
    summary: 'Prometheus text',
    origin: 'added',
    raw: 'text/plain; version=0.0.4; charset=utf-8',
  },
  'system.openapi': {
    method: 'GET',
    path: '/openapi.json',
    summary: 'This contract as OpenAPI 3.1',
    origin: 'added',
    raw: 'application/json; charset=utf-8',
    cli: false,
  },
  'system.docs': {
    method: 'GET',
    path: '/docs',
    summary: 'This contract as a page',
    origin: 'added',
    raw: 'text/html; charset=utf-8',
    cli: false,
  },
  'system.audit': {
    method: 'GET',
    path: '/audit',
    summary: 'Who did what, with which proof, and how it ended',
    origin: 'added',
    query: ListQuery,
    data: Type.Array(
      Type.Object({
        id: Type.Integer(),
        at: timestamp('when'),
        caller: Type.String(),
        proof: Type.String(),
        operation: Type.String(),
        outcome: Type.String({ description: 'done, or the error code' }),
        jobId: Type.Optional(Type.String()),
        detail: Type.Optional(Type.String()),
      }),
    ),
    statuses: [503],
  },
} as const satisfies Record<string, OperationSpec>;
