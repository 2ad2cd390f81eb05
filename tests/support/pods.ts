import { connect } from 'node:net';
import { createClient } from '@connectrpc/connect';
import { createGrpcTransport, Http2SessionManager } from '@connectrpc/connect-node';
import { RuntimeService } from './generated/pods_pb.ts';

/** A pod on the network of the node (so that no CNI is needed) with one container, made as kubelet makes it. */
export class TestPod implements AsyncDisposable {
  readonly containerId: string;
  readonly #sandbox: string;
  readonly #session: Http2SessionManager;

  private constructor(session: Http2SessionManager, sandbox: string, containerId: string) {
    this.#session = session;
    this.#sandbox = sandbox;
    this.containerId = containerId;
  }

  /** Throws what the runtime says when this machine cannot run pods. */
  static async run(socket: string, namespace: string, name: string, image: string): Promise<TestPod> {
    const session = new Http2SessionManager(
      'http://localhost',
      {},
      { createConnection: () => connect(socket) },
    );
    const client = clientOf(session);
    const config = {
      metadata: { name, namespace, uid: `uid-${name}` },
      linux: { securityContext: { namespaceOptions: { network: 2 } } },
    };
    try {
      const { podSandboxId } = await client.runPodSandbox({ config });
      const { containerId } = await client.createContainer({
        podSandboxId,
        config: { metadata: { name: 'main' }, image: { image } },
        sandboxConfig: config,
      });
      await client.startContainer({ containerId });
      return new TestPod(session, podSandboxId, containerId);
    } catch (error) {
      session.abort();
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const client = clientOf(this.#session);
    await client.stopPodSandbox({ podSandboxId: this.#sandbox });
    await client.removePodSandbox({ podSandboxId: this.#sandbox });
    this.#session.abort();
  }
}

function clientOf(sessionManager: Http2SessionManager) {
  const transport = createGrpcTransport({
    baseUrl: 'http://localhost',
    sessionManager,
    defaultTimeoutMs: 30_000,
  });
  return createClient(RuntimeService, transport);
}
