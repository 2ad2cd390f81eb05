import { Type } from 'typebox';
import type { OperationSpec } from '#api/operation.ts';
import { ipv4, JobStarted } from '#api/shapes.ts';

/** Routes that change the node as a whole (contract §2 `/command`). */
export const commandOperations = {
  'command.install': {
    method: 'POST',
    path: '/command/install',
    summary: 'Install the node; the first valid signer becomes its owner',
    origin: 'specified',
    body: Type.Object({
      username: Type.String({
        description: 'name of the first user',
        minLength: 1,
        maxLength: 63,
        pattern: '^[a-zA-Z0-9]([a-zA-Z0-9._-]*[a-zA-Z0-9])?$',
      }),
      password: Type.Optional(
        Type.String({ description: 'left out: one is generated and returned once', maxLength: 128 }),
      ),
      email: Type.Optional(
        Type.String({
          description: 'e-mail of the first user',
          maxLength: 254,
          pattern: '^[^\\s\\x00-\\x1f]*$',
        }),
      ),
      domain: Type.Optional(
        Type.String({ description: 'domain of the first user', maxLength: 253, pattern: '^[A-Za-z0-9.-]*$' }),
      ),
    }),
    data: Type.Object({ ...JobStarted.properties, initialPassword: Type.Optional(Type.String()) }),
    message: 'start to install',
    signedKeys: ['username'],
    dryRun: true,
    statuses: [409, 422, 503],
  },
  'command.uninstall': {
    method: 'POST',
    path: '/command/uninstall',
    summary: 'Uninstall the node; a running install is stopped first',
    origin: 'specified',
    data: JobStarted,
    message: 'start to uninstall',
    signedKeys: ['username'],
    dryRun: true,
    statuses: [409, 503],
  },
  'command.reboot': {
    method: 'POST',
    path: '/command/reboot',
    summary: 'Reboot the machine; cancellable for about two seconds',
    origin: 'specified',
    data: JobStarted,
    message: 'success to exec command',
    signedKeys: ['username'],
    dryRun: true,
    statuses: [409],
  },
  'command.shutdown': {
    method: 'POST',
    path: '/command/shutdown',
    summary: 'Power the machine off; cancellable for about two seconds',
    origin: 'specified',
    data: JobStarted,
    message: 'success to exec command',
    signedKeys: ['username'],
    dryRun: true,
    statuses: [409],
  },
  'command.changeHost': {
    method: 'POST',
    path: '/command/change-host',
    summary: 'Bind the name of the node to one of its IPv4 addresses',
    origin: 'specified',
    body: Type.Object({ ip: ipv4('an IPv4 address of this node') }),
    data: Type.Object({
      jobId: Type.Optional(Type.String({ description: 'the change-ip job, on an installed node' })),
    }),
    message: 'success to change host',
    signedKeys: ['ip'],
    dryRun: true,
    statuses: [409, 503],
  },
} as const satisfies Record<string, OperationSpec>;
