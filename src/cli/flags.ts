import type { TObject } from 'typebox';
import type { OperationSpec } from '#api/operation.ts';

/** How the text of a flag becomes a value. `secret` comes from a file, standard input or a prompt, never from argv. */
export type FlagKind = 'text' | 'number' | 'boolean' | 'list' | 'json' | 'secret';

export interface Flag {
  /** The key in the contract. */
  readonly key: string;
  readonly place: 'params' | 'query' | 'body';
  /** Without dashes: `smb-path`. A secret's ends in `-file`. */
  readonly name: string;
  readonly kind: FlagKind;
  readonly required: boolean;
  readonly description: string;
  readonly choices?: readonly string[];
}

interface SchemaNode {
  readonly type?: string;
  readonly description?: string;
  readonly enum?: readonly unknown[];
  readonly items?: SchemaNode;
}

/** Flags that every command has; a key of the same name gets its place in front (`--body-node`). */
const reserved: ReadonlySet<string> = new Set(
  'node key socket legacy json file dry-run wait follow help'.split(' '),
);
const secretKey = /password|passphrase|secret|token|^jws$/i;

/** The flags of an operation: its path parameters first, then its query, then its body. */
export function flagsOf(spec: OperationSpec): Flag[] {
  return [...flagsIn('params', spec.params), ...flagsIn('query', spec.query), ...flagsIn('body', spec.body)];
}

function flagsIn(place: Flag['place'], schema: TObject | undefined): Flag[] {
  const required = new Set<string>(schema?.required ?? []);
  return Object.entries(schema?.properties ?? {}).map(([key, node]) =>
    toFlag(place, key, node as SchemaNode, required.has(key)),
  );
}

function toFlag(place: Flag['place'], key: string, node: SchemaNode, required: boolean): Flag {
  const secret = place === 'body' && secretKey.test(key);
  const plain = kebab(key === '*' ? 'name' : key);
  const name = reserved.has(plain) ? `${place}-${plain}` : plain;
  const choices = node.enum?.filter((each) => typeof each === 'string');
  return {
    key,
    place,
    name: secret ? `${name}-file` : name,
    kind: secret ? 'secret' : kindOf(node),
    required,
    description: node.description ?? '',
    ...(choices === undefined || choices.length === 0 ? {} : { choices }),
  };
}

function kindOf(node: SchemaNode): FlagKind {
  if (node.type === 'boolean') return 'boolean';
  if (node.type === 'integer' || node.type === 'number') return 'number';
  if (node.type === 'array') return node.items?.type === 'string' ? 'list' : 'json';
  return node.type === 'string' || node.enum !== undefined ? 'text' : 'json';
}

/** `testConnectivity` and `override_path` as a person types them. */
export function kebab(name: string): string {
  return name
    .replace(/([a-z0-9])([A-Z])/g, '$1-$2')
    .replaceAll('_', '-')
    .toLowerCase();
}

/** The name under which commander keeps the value of a flag. */
export function optionKey(flag: Pick<Flag, 'name'>): string {
  return flag.name.replace(/-(\w)/g, (_, letter: string) => letter.toUpperCase());
}
