import type { OperationSpec } from '#api/operation.ts';
import { type Flag, flagsOf, optionKey } from '#cli/flags.ts';
import { readInput, readSecret } from '#cli/local-files.ts';
import { type Terminal, UsageError } from '#cli/terminal.ts';
import type { LooseInput } from '#client/types.ts';

type Values = Readonly<Record<string, unknown>>;

/**
 * The input of an operation from what was typed: flags over the keys of `--file`, secrets from where their flags point.
 * Only what is missing or cannot be read is refused here; whether a value is right is the node's business.
 */
export async function inputFrom(
  spec: OperationSpec,
  positional: readonly string[],
  options: Values,
  terminal: Terminal,
): Promise<LooseInput> {
  const places = { params: {}, query: {}, body: await bodyFromFile(options['file'], terminal) };
  const input: Record<Flag['place'], Record<string, unknown>> = places;
  const params = flagsOf(spec).filter((flag) => flag.place === 'params');
  for (const [index, flag] of params.entries()) input.params[flag.key] = positional[index];
  for (const flag of flagsOf(spec)) {
    if (flag.place === 'params') continue;
    const value = await flagValue(flag, options[optionKey(flag)], input[flag.place][flag.key], terminal);
    if (value !== undefined) input[flag.place][flag.key] = value;
    else if (flag.required) throw new UsageError(`--${flag.name} is needed`, flag.description || undefined);
  }
  return spec.body === undefined ? { params: input.params, query: input.query } : input;
}

async function bodyFromFile(path: unknown, terminal: Terminal): Promise<Record<string, unknown>> {
  if (typeof path !== 'string') return {};
  const value = parseJson(await readInput(terminal, path), `--file ${path}`);
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
    return value as Record<string, unknown>;
  }
  throw new UsageError(`--file ${path} does not hold a JSON object`);
}

async function flagValue(
  flag: Flag,
  given: unknown,
  fromFile: unknown,
  terminal: Terminal,
): Promise<unknown> {
  if (given === undefined) {
    const ask = flag.kind === 'secret' && flag.required && fromFile === undefined && terminal.inIsTty;
    return ask ? await readSecret(terminal, '-', flag.key) : fromFile;
  }
  if (flag.kind === 'secret') return await readSecret(terminal, String(given), flag.key);
  return typed(flag, given);
}

function typed(flag: Flag, given: unknown): unknown {
  switch (flag.kind) {
    case 'number': {
      const value = Number(given);
      if (String(given).trim() !== '' && Number.isFinite(value)) return value;
      throw new UsageError(`--${flag.name} takes a number, not ${String(given)}`);
    }
    case 'boolean':
      if (given === true || given === 'true') return true;
      if (given === false || given === 'false') return false;
      throw new UsageError(`--${flag.name} takes true or false, not ${String(given)}`);
    case 'json':
      return parseJson(String(given), `--${flag.name}`);
    case 'text':
    case 'list':
    case 'secret':
      return given;
  }
}

function parseJson(text: string, where: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new UsageError(`${where} is not valid JSON`);
  }
}
