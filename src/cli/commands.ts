import { type OperationName, operationNames, specOf } from '#api/operations.ts';
import { kebab } from '#cli/flags.ts';

export interface OperationCommand {
  /** `['command', 'change-host']`, or one word for a short name. */
  readonly words: readonly string[];
  readonly operation: OperationName;
}

/** Short names beside the ones that every `command.*` operation has by itself. */
const shortNames: Readonly<Record<string, OperationName>> = {
  status: 'system.status',
  conditions: 'system.conditions',
  ifs: 'system.interfaces',
  'hosts-file': 'system.hostsFile',
  job: 'jobs.get',
  cancel: 'jobs.cancel',
  audit: 'system.audit',
};

/** Subjects that do something when no more is said: `beosctl jobs` lists them. */
export const defaultOf: Readonly<Record<string, string>> = { jobs: 'list' };

/** Every operation under its full name: `beosctl command change-host`. */
export function fullCommands(): OperationCommand[] {
  return operationNames
    .filter((name) => specOf(name).cli !== false)
    .map((operation) => ({ words: operation.split('.').map(kebab), operation }));
}

/** What is typed most, in one word: `beosctl change-host`. */
export function shortCommands(): OperationCommand[] {
  const own = Object.entries(shortNames).map(([word, operation]) => ({ words: [word], operation }));
  const commands = fullCommands()
    .filter(({ words }) => words[0] === 'command' && words.length === 2)
    .map(({ words, operation }) => ({ words: words.slice(1), operation }));
  return [...own, ...commands];
}
