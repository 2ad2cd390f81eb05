import type { TSchema } from 'typebox';
import { Compile } from 'typebox/compile';
import { fault } from '#api/errors.ts';
import type { OperationSpec } from '#api/operation.ts';

type Json = Readonly<Record<string, unknown>>;

/** The part of JSON Schema that the walk over keys needs; TypeBox schemas are JSON Schema. */
interface SchemaNode {
  readonly type?: string;
  readonly properties?: Readonly<Record<string, SchemaNode>>;
  readonly items?: SchemaNode;
}

interface Validator {
  Check(value: unknown): boolean;
  Errors(
    value: unknown,
  ): readonly { readonly instancePath: string; readonly message: string; readonly params: object }[];
}

/** Validators by schema, compiled when first used: most of a boot never needs most of them. */
export class Validators {
  readonly #compiled = new WeakMap<TSchema, Validator>();

  /** Throws `invalid_input` naming the first field that is wrong. */
  check(schema: TSchema, value: unknown): void {
    let validator = this.#compiled.get(schema);
    if (validator === undefined) {
      validator = Compile(schema) as unknown as Validator;
      this.#compiled.set(schema, validator);
    }
    if (validator.Check(value)) return;
    const [first] = validator.Errors(value);
    throw refusalOf(first);
  }
}

function refusalOf(error: { instancePath: string; message: string; params: object } | undefined) {
  const field = fieldOf(error);
  const isMissing = error !== undefined && 'requiredProperties' in error.params;
  const what = isMissing ? 'is missing' : (error?.message ?? 'is not valid');
  return fault('invalid_input', `${field || 'The input'} ${what}.`, field ? { field } : {});
}

function fieldOf(error: { instancePath: string; params: object } | undefined): string {
  const path = error?.instancePath.slice(1).replaceAll('/', '.') ?? '';
  const missing =
    error !== undefined && 'requiredProperties' in error.params ? error.params.requiredProperties : undefined;
  const name = Array.isArray(missing) ? String(missing[0]) : '';
  return [path, name].filter((part) => part !== '').join('.');
}

/** A JSON object from the raw body; undefined for an empty one. */
export function parseBody(raw: Uint8Array, contentType: string | undefined): Json | undefined {
  if (raw.length === 0) return undefined;
  const mediaType = contentType?.split(';')[0]?.trim().toLowerCase();
  if (mediaType !== 'application/json') {
    throw fault('not_json', `The body is ${mediaType ?? 'of no declared type'}, not application/json.`);
  }
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(raw));
  } catch (cause) {
    throw fault('malformed_body', 'The body is not valid JSON.', { cause });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw fault('malformed_body', 'The body must be a JSON object.');
  }
  return value as Json;
}

/**
 * The body with the keys that the operation knows. On specified routes keys match in any case and unknown ones are
 * dropped, as the ancestor's clients need it; on ours an unknown key is refused by name (contract §1).
 */
export function knownKeys(spec: OperationSpec, body: Json | undefined): Json | undefined {
  if (spec.body === undefined) {
    const stray = body === undefined ? undefined : Object.keys(body)[0];
    if (stray !== undefined && spec.origin === 'added') {
      throw fault('unknown_field', `${stray} is not a field of this operation.`, { field: stray });
    }
    return undefined;
  }
  return pick(spec.body as SchemaNode, body ?? {}, spec.origin === 'specified', '') as Json;
}

function pick(schema: SchemaNode, value: unknown, lenient: boolean, path: string): unknown {
  if (schema.items !== undefined && Array.isArray(value)) {
    const items = schema.items;
    return value.map((item, index) => pick(items, item, lenient, `${path}${index}.`));
  }
  if (schema.properties === undefined || typeof value !== 'object' || value === null || Array.isArray(value))
    return value;
  const names = new Map(
    Object.keys(schema.properties).map((name) => [lenient ? name.toLowerCase() : name, name]),
  );
  const picked: Record<string, unknown> = {};
  for (const [key, item] of Object.entries(value)) {
    const name = names.get(lenient ? key.toLowerCase() : key);
    const field = `${path}${key}`;
    if (name === undefined) {
      if (lenient) continue;
      throw fault('unknown_field', `${field} is not a field of this operation.`, { field });
    }
    if (Object.hasOwn(picked, name))
      throw fault('duplicate_field', `${field} was sent in two spellings.`, { field });
    picked[name] = pick(schema.properties[name] ?? {}, item, lenient, `${field}.`);
  }
  return picked;
}

/** Query and path parameters are text; the schema says which of them are numbers or switches. */
export function fromText(schema: TSchema | undefined, text: Readonly<Record<string, unknown>>): Json {
  const properties = (schema as SchemaNode | undefined)?.properties ?? {};
  const typed: Record<string, unknown> = {};
  for (const [name, node] of Object.entries(properties)) {
    if (Object.hasOwn(text, name)) typed[name] = typedValue(node.type, text[name]);
  }
  return typed;
}

function typedValue(type: string | undefined, value: unknown): unknown {
  if (typeof value !== 'string') return value;
  if (type === 'boolean' && (value === 'true' || value === 'false')) return value === 'true';
  if ((type === 'integer' || type === 'number') && /^-?\d{1,15}(\.\d{1,15})?$/.test(value))
    return Number(value);
  return value;
}
