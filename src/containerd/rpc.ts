import { timestampMs } from '@bufbuild/protobuf/wkt';
import { Code, ConnectError, createClient } from '@connectrpc/connect';
import { createGrpcTransport, Http2SessionManager } from '@connectrpc/connect-node';
import { Containers } from '#containerd/generated/containers_pb.ts';
import { ImageService, RuntimeService } from '#containerd/generated/cri_pb.ts';
import { Images } from '#containerd/generated/images_pb.ts';
import { openLocalSocket } from '#host/local-socket.ts';

/** Twice what a kubelet takes from a runtime (16 MiB): nothing larger is collected. */
const longestAnswer = 32 * 1024 * 1024;

/**
 * Typed clients of one runtime socket. Heavy (HTTP/2, protobuf): import it only when the first call is made.
 * The connection is opened by the first call, and again by the next one after it broke.
 */
export function openRpc(socketPath: string, timeoutMs: number) {
  const baseUrl = 'http://localhost';
  const sessionManager = new Http2SessionManager(
    baseUrl,
    { idleConnectionTimeoutMs: 120_000 },
    { createConnection: () => openLocalSocket(socketPath) },
  );
  const transport = createGrpcTransport({
    baseUrl,
    sessionManager,
    defaultTimeoutMs: timeoutMs,
    readMaxBytes: longestAnswer,
  });
  return {
    runtime: createClient(RuntimeService, transport),
    images: createClient(ImageService, transport),
    imageStore: createClient(Images, transport),
    containerStore: createClient(Containers, transport),
    close: () => sessionManager.abort(),
  };
}

export type Rpc = ReturnType<typeof openRpc>;

/** containerd keeps what Kubernetes uses in a namespace of its own. */
export const kubernetesNamespace = { headers: { 'containerd-namespace': 'k8s.io' } } as const;

export const timestampToMs = timestampMs;

/** The runtime could not be asked, as opposed to one that answered with a refusal. */
export function isDown(error: unknown): boolean {
  const { code } = ConnectError.from(error);
  return [Code.Unavailable, Code.DeadlineExceeded, Code.Aborted, Code.Canceled, Code.Internal].includes(code);
}
