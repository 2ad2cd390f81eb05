import { randomBytes } from 'node:crypto';
import { fault } from '#api/errors.ts';
import type { Handlers } from '#api/operations.ts';
import type { InstallInput } from '#cluster/install.ts';
import { generatePassword } from '#cluster/password.ts';
import type { InstallerOptions } from '#cluster/ports.ts';
import type { UninstallInput } from '#cluster/uninstall.ts';
import type { JobDefinition, Jobs } from '#jobs/definition.ts';

export interface ClusterHandlerOptions {
  readonly jobs: Jobs;
  readonly installer: Pick<InstallerOptions, 'secrets' | 'profile'>;
  readonly install: JobDefinition<InstallInput>;
  readonly uninstall: JobDefinition<UninstallInput>;
}

/** POST /command/install and /command/uninstall. */
export function clusterHandlers(
  options: ClusterHandlerOptions,
): Pick<Handlers, 'command.install' | 'command.uninstall'> {
  const { jobs } = options;
  return {
    'command.install': async ({ body }, { caller, dryRun }) => {
      const given = body.password === undefined || body.password === '' ? undefined : body.password;
      if (given !== undefined) refuseUnfit(options.installer.profile.password, given);
      const input = {
        username: body.username,
        email: body.email ?? '',
        domain: body.domain ?? '',
        secret: `password-${randomBytes(8).toString('hex')}`,
      };
      if (dryRun) return { plan: await jobs.plan(options.install, input) };
      const password = given ?? generatePassword();
      const jobId = await startWithSecret(options, input, password, caller);
      if (given !== undefined) return { data: { jobId } };
      // Said this once: a retry under the same Idempotency-Key learns the job, not the password.
      return { data: { jobId, initialPassword: password }, kept: { jobId } };
    },
    'command.uninstall': async (_input, { caller, dryRun }) => {
      if (dryRun) return { plan: await jobs.plan(options.uninstall, {}) };
      return { data: { jobId: await jobs.start(options.uninstall, { input: {}, caller }) } };
    },
  };
}

/** The password is in place before the job is journalled, so that a crash between the two cannot lose it. */
async function startWithSecret(
  { jobs, installer, install }: ClusterHandlerOptions,
  input: InstallInput,
  password: string,
  caller: Parameters<Jobs['start']>[1]['caller'],
): Promise<string> {
  try {
    installer.secrets.put(input.secret, password);
  } catch (cause) {
    installer.secrets.remove(input.secret); // a part of it may be there
    throw fault('store_unavailable', 'The password cannot be kept for the installer.', { cause });
  }
  try {
    return await jobs.start(install, { input, caller });
  } catch (error) {
    installer.secrets.remove(input.secret);
    throw error;
  }
}

function refuseUnfit(rule: InstallerOptions['profile']['password'], password: string): void {
  if (/\p{Cc}/u.test(password)) {
    throw fault('invalid_input', 'password must not hold control characters.', { field: 'password' });
  }
  if (rule.exactLength !== undefined && password.length !== rule.exactLength) {
    throw fault(
      'impossible',
      `The installer of this profile takes a password of exactly ${rule.exactLength} characters (the app sends a hash), not ${password.length}.`,
      { field: 'password' },
    );
  }
}
