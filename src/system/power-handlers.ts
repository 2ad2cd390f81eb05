import type { Handlers } from '#api/operations.ts';
import type { JobDefinition, Jobs } from '#jobs/definition.ts';
import type { PowerInput } from '#system/power.ts';

export interface PowerHandlerOptions {
  readonly jobs: Jobs;
  readonly reboot: JobDefinition<PowerInput>;
  readonly shutdown: JobDefinition<PowerInput>;
}

/** POST /command/reboot and /command/shutdown. */
export function powerHandlers(
  options: PowerHandlerOptions,
): Pick<Handlers, 'command.reboot' | 'command.shutdown'> {
  const { jobs } = options;
  const handler =
    (definition: JobDefinition<PowerInput>): Handlers['command.reboot'] =>
    async (_input, { caller, dryRun }) =>
      dryRun
        ? { plan: await jobs.plan(definition, {}) }
        : { data: { jobId: await jobs.start(definition, { input: {}, caller }) } };
  return { 'command.reboot': handler(options.reboot), 'command.shutdown': handler(options.shutdown) };
}
