import { createHash } from 'node:crypto';
import { type KubeRequest, KubeStatusError } from '#cluster/kube/connection.ts';
import type { KubeNames } from '#cluster/kube/names.ts';
import type { CertificateRecord } from '#cluster/kube/objects.ts';
import { asObject } from '#cluster/kube/raw.ts';
import type { Clock } from '#host/clock.ts';
import { messageOf } from '#lib/fault.ts';
import type { ReportedCondition } from '#state/facts.ts';

export interface CertificateSource {
  request(request: KubeRequest): Promise<unknown>;
  readonly certificates: Iterable<CertificateRecord>;
  onCertificates(listener: () => void): () => void;
}

export interface RenewalOptions {
  readonly clock: Clock;
  readonly names: KubeNames['certificates'];
  readonly source: CertificateSource;
  readonly onConditions: (conditions: readonly ReportedCondition[]) => void;
}

const dayMs = 86_400_000;
/** So long before its end a certificate is renewed. */
export const renewalMs = 10 * dayMs;
/** Time passes without events: a certificate comes near its end by itself. */
const lookMs = 3_600_000;
const retryMs = 60_000;
const settleMs = 1000;

/** What became of the renewal of one certificate. */
type Outcome = 'started' | 'running' | 'succeeded' | 'failed' | { readonly error: string };

/**
 * Starts the renewal of user certificates that end within 10 days: one job for one certificate, under a name that is
 * made from the certificate, so that no second daemon, restart or repeated look can start it twice. A job is never
 * deleted; one that failed is reported.
 */
export class CertificateRenewal {
  readonly #options: RenewalOptions;
  #stirred = Promise.withResolvers<void>();

  constructor(options: RenewalOptions) {
    this.#options = options;
  }

  /** Looks when a certificate changes, and every hour; runs until aborted. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, source } = this.#options;
    const stop = source.onCertificates(() => this.#stirred.resolve());
    try {
      while (!signal.aborted) {
        const done = await this.look();
        const cut = new AbortController();
        const nap = clock.sleep(done ? lookMs : retryMs, AbortSignal.any([signal, cut.signal]));
        await Promise.race([nap, this.#stirred.promise]).catch(() => undefined);
        cut.abort();
        nap.catch(() => undefined);
        await clock.sleep(settleMs, signal).catch(() => undefined);
        this.#stirred = Promise.withResolvers();
      }
    } finally {
      stop();
    }
  }

  /** One look at all certificates. False when something could not be done and is to be tried again. */
  async look(): Promise<boolean> {
    const { clock, source, onConditions } = this.#options;
    const due = dueCertificates(source.certificates, clock.now());
    const conditions: ReportedCondition[] = [];
    let complete = true;
    for (const certificate of due) {
      const outcome = await this.#renew(certificate).catch((error: unknown) => ({ error: messageOf(error) }));
      if (typeof outcome === 'object') complete = false;
      conditions.push(conditionOf(certificate, outcome, this.#jobName(certificate), clock.now()));
    }
    onConditions(conditions);
    return complete;
  }

  async #renew(certificate: CertificateRecord): Promise<Outcome> {
    const { source, names } = this.#options;
    const name = this.#jobName(certificate);
    const path = `/apis/batch/v1/namespaces/${certificate.namespace}/jobs`;
    try {
      await source.request({ method: 'POST', path, body: jobOf(name, names.renewal) });
      return 'started';
    } catch (error) {
      if (!(error instanceof KubeStatusError && error.status === 409)) throw error;
    }
    return outcomeOf(await source.request({ path: `${path}/${name}` }));
  }

  #jobName({ namespace, expiresAt }: CertificateRecord): string {
    const hash = createHash('sha256').update(`${namespace}\0${expiresAt}`).digest('hex');
    return `${this.#options.names.renewal.name}-${hash.slice(0, 10)}`;
  }
}

/** Those that end within 10 days, also those that have ended. */
export function dueCertificates(certificates: Iterable<CertificateRecord>, now: number): CertificateRecord[] {
  return [...certificates].filter(({ expiresAt }) => expiresAt !== undefined && expiresAt - now <= renewalMs);
}

function jobOf(name: string, renewal: KubeNames['certificates']['renewal']): unknown {
  const container = {
    name: renewal.name,
    image: renewal.image,
    imagePullPolicy: 'IfNotPresent',
    command: renewal.command,
  };
  return {
    apiVersion: 'batch/v1',
    kind: 'Job',
    metadata: { name, labels: { 'app.kubernetes.io/managed-by': 'beosd' } },
    spec: {
      backoffLimit: 5,
      template: {
        spec: { restartPolicy: 'OnFailure', automountServiceAccountToken: false, containers: [container] },
      },
    },
  };
}

function outcomeOf(job: unknown): Outcome {
  const conditions: unknown = asObject(asObject(job)?.['status'])?.['conditions'];
  const has = (type: string) =>
    Array.isArray(conditions) &&
    conditions.some(
      (each: unknown) => asObject(each)?.['type'] === type && asObject(each)?.['status'] === 'True',
    );
  if (has('Failed')) return 'failed';
  return has('Complete') ? 'succeeded' : 'running';
}

function conditionOf(
  { namespace, expiresAt = 0 }: CertificateRecord,
  outcome: Outcome,
  job: string,
  now: number,
): ReportedCondition {
  const days = Math.floor((expiresAt - now) / dayMs);
  const when = days < 0 ? 'has ended' : days === 0 ? 'ends within a day' : `ends in ${days} days`;
  const failed = outcome === 'failed' || typeof outcome === 'object' || outcome === 'succeeded';
  const how =
    typeof outcome === 'object'
      ? `its renewal could not be started: ${outcome.error}`
      : {
          started: 'its renewal runs',
          running: 'its renewal runs',
          failed: 'its renewal failed',
          succeeded: 'its renewal ended without a new one',
        }[outcome];
  return {
    code: 'certificate_expiring',
    severity: days < 1 ? 'error' : failed ? 'warning' : 'info',
    message: `The certificate of ${namespace} ${when}; ${how} (job ${job}).`,
    remedy: failed
      ? `See the log of job ${job} in ${namespace}; delete the job to have it tried again.`
      : 'Nothing: it is being renewed.',
    fixedBy: [],
  };
}
