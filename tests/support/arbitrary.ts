import fc from 'fast-check';

interface SchemaNode {
  readonly type?: string;
  readonly enum?: readonly unknown[];
  readonly const?: unknown;
  readonly anyOf?: readonly SchemaNode[];
  readonly properties?: Readonly<Record<string, SchemaNode>>;
  readonly required?: readonly string[];
  readonly items?: SchemaNode;
  readonly pattern?: string;
  readonly minLength?: number;
  readonly maxLength?: number;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly maxItems?: number;
}

/** Strings that have hurt root daemons before. */
const nasty = [
  '',
  ' ',
  '..',
  '../../etc/passwd',
  '/',
  '-rf',
  '--help',
  'a,uid=0',
  'a\nb',
  'a\0b',
  '$(reboot)',
  '`id`',
  '%2e%2e%2f',
  '{{7*7}}',
  '__proto__',
  'constructor',
  'localhost',
  '127.0.0.1',
  '0.0.0.0',
  '::1',
  '169.254.169.254',
  '999.999.999.999',
  'é\u202e\ufeff',
  'x'.repeat(300),
];

/** Values that fit the schema. Patterns are left to chance and to fc's own generator where it knows the syntax. */
export function fitting(schema: SchemaNode): fc.Arbitrary<unknown> {
  if (schema.const !== undefined) return fc.constant(schema.const);
  if (schema.enum !== undefined) return fc.constantFrom(...schema.enum);
  if (schema.anyOf !== undefined) return fc.oneof(...schema.anyOf.map(fitting));
  switch (schema.type) {
    case 'string':
      return schema.pattern === undefined
        ? fc.string({ minLength: schema.minLength ?? 0, maxLength: Math.min(schema.maxLength ?? 64, 64) })
        : fc
            .stringMatching(new RegExp(schema.pattern))
            .map((text) => text.slice(0, schema.maxLength ?? 1000));
    case 'integer':
      return fc.integer({ min: schema.minimum ?? -1000, max: schema.maximum ?? 1000 });
    case 'number':
      return fc.double({ min: schema.minimum ?? -1e6, max: schema.maximum ?? 1e6, noNaN: true });
    case 'boolean':
      return fc.boolean();
    case 'null':
      return fc.constant(null);
    case 'array':
      return fc.array(fitting(schema.items ?? {}), { maxLength: Math.min(schema.maxItems ?? 5, 5) });
    case 'object':
      return fittingObject(schema);
    default:
      return fc.jsonValue({ maxDepth: 2 });
  }
}

function fittingObject(schema: SchemaNode): fc.Arbitrary<unknown> {
  const properties = Object.entries(schema.properties ?? {}).map(
    ([name, node]) => [name, fitting(node)] as const,
  );
  return fc.record(Object.fromEntries(properties), { requiredKeys: [...(schema.required ?? [])] });
}

/** Bodies that do not fit: wrong types, nulls, nasty strings, other spellings, strange keys, things that are no object. */
export function broken(schema: SchemaNode): fc.Arbitrary<unknown> {
  const junk = fc.oneof(
    fc.constantFrom<unknown>(null, true, -1, 1e308, [], {}, [null], [[]], ...nasty),
    fc.jsonValue({ maxDepth: 3 }),
  );
  const names = Object.keys(schema.properties ?? { x: {} });
  const oneWrong = fc
    .tuple(fitting(schema), fc.constantFrom(...names, 'extra', '__proto__', 'toString'), junk)
    .map(([value, name, wrong]) => withKey(value, name, wrong));
  const otherSpelling = fc
    .tuple(fitting(schema), fc.constantFrom(...names), junk)
    .map(([value, name, wrong]) => withKey(value, name.toUpperCase(), wrong));
  return fc.oneof(junk, oneWrong, otherSpelling);
}

function withKey(value: unknown, name: string, item: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries([...Object.entries(value).filter(([key]) => key !== name), [name, item]]);
}
