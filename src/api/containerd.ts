import { Type } from 'typebox';
import type { OperationSpec } from '#api/operation.ts';

/** An image as the Kubernetes runtime interface describes it (CRI `Image`, in the JSON that Go makes of it). */
export const ImageShape = Type.Object({
  id: Type.String({ description: 'digest of the image configuration, sha256:…' }),
  repo_tags: Type.Array(Type.String()),
  repo_digests: Type.Array(Type.String()),
  size: Type.Number({ description: 'bytes, as the runtime counts them' }),
  uid: Type.Optional(Type.Object({ value: Type.Number() })),
  username: Type.String(),
  spec: Type.Optional(
    Type.Object({ image: Type.String(), annotations: Type.Record(Type.String(), Type.String()) }),
  ),
  pinned: Type.Boolean(),
});

export const MirrorShape = Type.Object({
  endpoint: Type.Array(Type.String(), { description: 'in the order in which they are tried' }),
  problem: Type.Optional(Type.String({ description: 'why the file of this registry cannot be read' })),
});

const ProbeShape = Type.Object({
  endpoint: Type.String(),
  reachable: Type.Boolean(),
  reason: Type.String({ description: 'what GET /v2/ saw' }),
});

const Registry = Type.Object({
  registry: Type.String({ description: 'host[:port], docker.io or _default', minLength: 1 }),
});

/** Images and registry mirrors of the container runtime (contract §2 `/containerd`). */
export const containerdOperations = {
  'containerd.registries': {
    method: 'GET',
    path: '/containerd/registries',
    summary: 'Registries that have mirrors, or images on this node',
    origin: 'specified',
    data: Type.Array(
      Type.Object({
        name: Type.String(),
        endpoints: Type.Array(Type.String()),
        image_count: Type.Integer(),
        image_size: Type.Number({ description: 'bytes' }),
      }),
    ),
    statuses: [503],
  },
  'containerd.mirrors': {
    method: 'GET',
    path: '/containerd/registry/mirrors/',
    summary: 'Mirrors of all registries',
    origin: 'specified',
    data: Type.Record(Type.String(), MirrorShape),
    statuses: [503],
  },
  'containerd.mirror': {
    method: 'GET',
    path: '/containerd/registry/mirrors/:registry',
    summary: 'Mirrors of one registry',
    origin: 'specified',
    params: Registry,
    data: MirrorShape,
    statuses: [404, 503],
  },
  'containerd.setMirror': {
    method: 'PUT',
    path: '/containerd/registry/mirrors/:registry',
    summary: 'Set the mirrors of a registry; each endpoint is asked whether it answers',
    origin: 'specified',
    params: Registry,
    query: Type.Object({
      requireReachable: Type.Optional(
        Type.Boolean({ description: 'refuse instead of warning when an endpoint does not answer' }),
      ),
    }),
    body: Type.Object({
      endpoint: Type.Array(Type.String({ minLength: 1, maxLength: 2048 }), {
        description: 'http or https URLs, the first is tried first; plain http only by the owner',
        minItems: 1,
        maxItems: 16,
      }),
      skipVerify: Type.Optional(
        Type.Boolean({
          description: 'do not verify TLS; only by the owner. Left out: endpoints keep what they have',
        }),
      ),
      override_path: Type.Optional(
        Type.Boolean({ description: 'the path of the endpoint is the root of its API; nothing is added' }),
      ),
      ca: Type.Optional(
        Type.String({
          description: 'PEM certificates that the endpoints are verified with; "" takes them away',
          maxLength: 49_152,
        }),
      ),
    }),
    data: Type.Object({
      endpoint: Type.Array(Type.String()),
      probes: Type.Array(ProbeShape),
      warnings: Type.Array(Type.String({ description: 'endpoints that did not answer, and why' })),
    }),
    message: 'success',
    signedKeys: ['endpoint'],
    dryRun: true,
    statuses: [409, 422, 503],
  },
  'containerd.deleteMirror': {
    method: 'DELETE',
    path: '/containerd/registry/mirrors/:registry',
    summary: 'Remove the mirrors of a registry; how the registry itself is verified stays',
    origin: 'specified',
    params: Registry,
    message: 'success',
    dryRun: true,
    statuses: [404, 409, 422, 503],
  },
  'containerd.images': {
    method: 'GET',
    path: '/containerd/images/',
    summary: 'Images on this node',
    origin: 'specified',
    query: Type.Object({
      registry: Type.Optional(Type.String({ description: 'only images of this registry' })),
    }),
    data: Type.Array(ImageShape),
    statuses: [503],
  },
  'containerd.deleteImage': {
    method: 'DELETE',
    path: '/containerd/images/*',
    summary: 'Remove an image with all its references',
    origin: 'specified',
    params: Type.Object({ image: Type.String({ description: 'id, digest or any reference', minLength: 1 }) }),
    data: ImageShape,
    message: 'success',
    dryRun: true,
    statuses: [404, 409, 503],
  },
  'containerd.prune': {
    method: 'POST',
    path: '/containerd/images/prune',
    summary: 'Remove images that nothing needs; a dry run explains every one',
    origin: 'specified',
    query: Type.Object({
      freeBytes: Type.Optional(
        Type.Integer({
          description:
            'stop at this many bytes, least recently used first; counted by the sizes of the images, a layer that several share with each',
          minimum: 1,
          maximum: Number.MAX_SAFE_INTEGER,
        }),
      ),
    }),
    data: Type.Object({
      images: Type.Array(ImageShape),
      count: Type.Integer(),
      size: Type.Number({ description: 'bytes' }),
      failed: Type.Optional(Type.Array(Type.Object({ id: Type.String(), reason: Type.String() }))),
    }),
    message: 'success',
    dryRun: true,
    statuses: [503],
  },
} as const satisfies Record<string, OperationSpec>;
