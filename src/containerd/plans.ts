import type { DryRun } from '#api/operation.ts';
import { type ImageManager, labelOf } from '#containerd/images.ts';
import type { MirrorStore } from '#containerd/mirrors.ts';
import type { ProbeResult } from '#containerd/probe.ts';
import type { RuntimeImage } from '#containerd/runtime.ts';
import { imageToWire, pruneTotals, toWire } from '#containerd/wire.ts';
import { isFault } from '#lib/fault.ts';

/**
 * What stands in the way of an act is a verdict of its dry run. Only what is wrong with the request itself is an error
 * there too.
 */
export async function asPlan(work: () => Promise<DryRun>): Promise<DryRun> {
  try {
    return await work();
  } catch (error) {
    if (!isFault(error) || error.code === 'invalid_input' || error.code === 'forbidden') throw error;
    const possible = { name: 'possible', ok: false, reason: error.message };
    return { allowed: false, preconditions: [possible], steps: [] };
  }
}

/** What a PUT would write, and what speaks against it. */
export async function setPlan(
  store: MirrorStore,
  registry: string,
  endpoints: readonly string[],
  probes: readonly ProbeResult[],
  required: boolean,
): Promise<DryRun> {
  const preconditions = probes.map(({ endpoint, reachable, reason }) => ({
    name: `${endpoint} answers`,
    ok: reachable || !required,
    reason: reachable || required ? reason : `${reason}; only a warning`,
  }));
  const write = {
    name: 'write',
    does: `writes certs.d/${registry}/hosts.toml with ${endpoints.join(', ')}`,
    reversible: true,
  };
  return {
    allowed: preconditions.every(({ ok }) => ok),
    preconditions,
    steps: [...switchSteps(await store.rehearse(registry)), write],
  };
}

/** What a DELETE of mirrors would take away. */
export async function deletePlan(store: MirrorStore, registry: string): Promise<DryRun> {
  const { mirror, switchNeeded } = await store.rehearseDelete(registry);
  const steps = switchSteps(switchNeeded);
  const remove = {
    name: 'remove',
    does: `takes the mirrors out of certs.d/${registry} (${toWire(mirror).endpoint.join(', ')})`,
    reversible: true,
  };
  return { allowed: true, preconditions: [], steps: [...steps, remove] };
}

function switchSteps(needed: boolean) {
  if (!needed) return [];
  return [
    {
      name: 'config-path',
      does: 'sets config_path in the configuration of the runtime, moves its inline mirrors to certs.d, restarts it once',
      reversible: true,
    },
  ];
}

/** Whether an image may go. */
export async function imagePlan(images: ImageManager, text: string): Promise<DryRun> {
  const image = await images.find(text);
  const reasons = await images.obstacles(image);
  return {
    allowed: reasons.length === 0,
    preconditions: [
      { name: 'nothing needs it', ok: reasons.length === 0, reason: reasons.join('; ') || 'nothing uses it' },
    ],
    steps: reasons.length > 0 ? [] : [removalStep(image, '')],
  };
}

function removalStep(image: RuntimeImage, detail: string) {
  const references = [...image.tags, ...image.digests].join(', ');
  return {
    name: image.id,
    does: `removes ${references || 'an image without a name'} (${image.size} bytes)${detail}`,
    reversible: false,
  };
}

/** The dry run answers in both shapes: the plan of contract §10, and the totals that the run itself would give. */
export async function prunePlan(images: ImageManager, freeBytes: number | undefined) {
  const plan = await images.plan(freeBytes);
  return {
    allowed: true,
    preconditions: [{ name: 'it is known what is needed', ok: true, reason: 'runtime and cluster answer' }],
    steps: plan.remove.map(({ image, lastUsedAt }) =>
      removalStep(image, `, last used ${new Date(lastUsedAt).toISOString()}; nothing needs it`),
    ),
    ...pruneTotals(plan.remove.map(({ image }) => image)),
    kept: plan.keep.map(({ image, reasons }) => ({ ...imageToWire(image), name: labelOf(image), reasons })),
  };
}
