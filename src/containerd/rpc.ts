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

/** A runtime that could not be asked, one that has no CRI to be asked by, and one that answered with a refusal. */
const down = [Code.Unavailable, Code.DeadlineExceeded, Code.Aborted, Code.Canceled, Code.Internal];

/** What a failed call tells a person: what the runtime does, why, and where there is something special to do, what. */
export function explain(error: unknown): { what: string; reason: string; remedy?: string } {
  const { code, rawMessage: reason } = ConnectError.from(error);
  if (code === Code.Unimplemented) {
    const remedy = 'Take "cri" out of disabled_plugins in its configuration and restart it.';
    return { what: 'offers no Kubernetes interface (CRI)', reason, remedy };
  }
  return { what: down.includes(code) ? 'does not answer' : 'refuses', reason };
}
