import { Type } from 'typebox';
import type { OperationSpec } from '#api/operation.ts';
import { timestamp } from '#api/shapes.ts';

/** Who owns the node, and short-lived rights (contract §4, §8). */
export const accessOperations = {
  'auth.session': {
    method: 'POST',
    path: '/auth/session',
    summary: 'A token for reading, good for 15 minutes from this address',
    origin: 'added',
    data: Type.Object({ token: Type.String(), expiresAt: timestamp('when it ends') }),
    statuses: [503],
  },
  'owner.transfer': {
    method: 'POST',
    path: '/owner/transfer',
    summary: 'Hand the node to another owner',
    origin: 'added',
    body: Type.Object({
      name: Type.String({
        description: 'name of the new owner',
        maxLength: 320,
        pattern: '^[a-z0-9._-]+@[a-z0-9.-]+$',
      }),
      did: Type.Optional(
        Type.String({
          description: 'did:key of the new owner; needed where no gate knows the name',
          maxLength: 256,
        }),
      ),
    }),
    data: Type.Object({ name: Type.String(), did: Type.String() }),
    message: 'the node has a new owner',
    dryRun: true,
    statuses: [422, 503],
  },
  'owner.release': {
    method: 'POST',
    path: '/owner/release',
    summary: 'Forget the owner; the next signer of an install claims the node (root only)',
    origin: 'added',
    data: Type.Object({
      released: Type.Optional(Type.String({ description: 'the name that was released' })),
    }),
    message: 'the node has no owner now',
    dryRun: true,
    statuses: [503],
  },
} as const satisfies Record<string, OperationSpec>;
