import type { TSchema } from 'typebox';
import type { CallerClass } from '#api/caller.ts';
import { type ErrorCode, errorCatalogue } from '#api/errors.ts';
import { eventTypes } from '#api/events.ts';
import type { OperationSpec } from '#api/operation.ts';
import type { OperationName } from '#api/operations.ts';
import { templatePath, wildcardKey } from '#api/paths.ts';
import { refusalsOf, statusOf } from '#api/refusals.ts';
import { ConditionShape, DryRunShape, ErrorShape, JobShape, PhaseShape } from '#api/shapes.ts';
import { StatusShape } from '#api/status.ts';
import { NetworkInterfaceShape } from '#api/system.ts';
import { allowedIn } from '#state/gate.ts';
import { type Rule, ruleOf } from '#state/policy.ts';

type Json = Record<string, unknown>;

/** Shapes that stand on their own in the document; the others are written out where they are used. */
const named: ReadonlyMap<unknown, string> = new Map<TSchema, string>([
  [StatusShape, 'Status'],
  [JobShape, 'Job'],
  [PhaseShape, 'JobPhase'],
  [ErrorShape, 'Error'],
  [ConditionShape, 'Condition'],
  [DryRunShape, 'DryRun'],
  [NetworkInterfaceShape, 'NetworkInterface'],
]);

const reference = (name: string): Json => ({ $ref: `#/components/schemas/${name}` });

/** The schema with every named shape replaced by a reference to it. */
function linked(schema: unknown, itself = false): unknown {
  const name = named.get(schema);
  if (name !== undefined && !itself) return reference(name);
  if (Array.isArray(schema)) return schema.map((each) => linked(each));
  if (typeof schema !== 'object' || schema === null) return schema;
  return Object.fromEntries(Object.entries(schema).map(([key, value]) => [key, linked(value)]));
}

/**
 * The contract as OpenAPI 3.1, made from the tables alone: the JSON Schemas as they are, the envelope around them, the
 * error codes that each route can answer with, and who may call it when (`x-who`, `x-gate`). Pure: the same tables and
 * version give the same bytes.
 */
export function openApiDocument(operations: Readonly<Record<string, OperationSpec>>, version: string): Json {
  const paths: Record<string, Json> = {};
  for (const [name, spec] of Object.entries(operations)) {
    const path = templatePath(spec);
    paths[path] = {
      ...paths[path],
      [spec.method.toLowerCase()]: operationObject(name as OperationName, spec),
    };
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'beosd',
      version,
      description:
        'The system daemon of beOS Pro. Every JSON answer is an envelope {code, message, data?}; HTTP status equals `code`. Errors add `error` with a stable `code` and what the caller can do.',
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
    },
    servers: [
      {
        url: 'http://{node}:{port}',
        description: 'the node; the same API is on the unix socket /run/beosd/beosd.sock',
        variables: { node: { default: '127.0.0.1' }, port: { default: '18088' } },
      },
    ],
    tags: [...new Set(Object.keys(operations).map(groupOf))].map((group) => ({ name: group })),
    paths,
    components: { schemas: componentSchemas(), securitySchemes },
  };
}

/** The subject of an operation: what stands before the dot of its name. */
export function groupOf(name: string): string {
  return name.split('.')[0] ?? name;
}

const securitySchemes = {
  signature: {
    type: 'apiKey',
    in: 'header',
    name: 'X-Signature',
    description:
      'Compact JWS (EdDSA or ES256K) by the key of the owner, or, while the node has no owner, of any signer. Good for one request.',
  },
  session: {
    type: 'http',
    scheme: 'bearer',
    description: 'A token of POST /auth/session: 15 minutes, from the address that asked, for reading.',
  },
  workload: {
    type: 'http',
    scheme: 'bearer',
    bearerFormat: 'JWT',
    description:
      'The ServiceAccount token (audience `beosd`) of a pod in a trusted namespace of this cluster.',
  },
  unixSocket: {
    type: 'http',
    scheme: 'unix-peer',
    description: 'The unix socket of the daemon, mode 0600: whoever can connect is root. No header is sent.',
  },
} as const;

function componentSchemas(): Json {
  const schemas = Object.fromEntries([...named].map(([shape, name]) => [name, linked(shape, true)]));
  const code = { enum: Object.keys(errorCatalogue).sort(), description: 'stable; docs/errors.md' };
  return {
    ...schemas,
    ErrorEnvelope: {
      type: 'object',
      required: ['code', 'message', 'error'],
      properties: {
        code: { type: 'integer', description: 'the HTTP status' },
        message: { type: 'string', description: 'what is wrong here, for a person' },
        error: { allOf: [reference('Error'), { type: 'object', properties: { code } }] },
        data: { description: 'a list that belongs to the refusal (holders, shares, versions)' },
      },
    },
  };
}

function operationObject(name: OperationName, spec: OperationSpec): Json {
  const rule = ruleOf(name);
  return {
    operationId: name,
    tags: [groupOf(name)],
    summary: spec.summary,
    security: securityOf(spec, rule),
    'x-who': [...rule.who],
    'x-gate': rule.when === undefined ? null : { action: rule.when, allowedIn: allowedIn(rule.when) },
    ...(rule.lane === undefined ? {} : { 'x-lane': rule.lane }),
    ...(rule.boundForm ? { 'x-bound-form': true } : {}),
    ...(spec.signedKeys === undefined ? {} : { 'x-signed-keys': [...spec.signedKeys] }),
    parameters: parametersOf(name, spec),
    ...(spec.body === undefined
      ? {}
      : {
          requestBody: {
            required: spec.bodyOptional !== true,
            content: { 'application/json': { schema: bodySchema(spec) } },
          },
        }),
    responses: { ...successOf(spec), ...refusalResponses(spec, rule) },
  };
}

/** Our own routes refuse unknown keys; those of the ancestor ignore them (contract §1). */
function bodySchema(spec: OperationSpec): unknown {
  const schema = linked(spec.body) as Json;
  return spec.origin === 'added' ? { ...schema, additionalProperties: false } : schema;
}

function securityOf(spec: OperationSpec, rule: Rule): Json[] {
  const has = (caller: CallerClass) => rule.who.includes(caller);
  const schemes: Json[] = has('public') ? [{}] : [];
  if (has('owner') || has('signer')) schemes.push({ signature: [] });
  if (has('owner') && spec.method === 'GET' && !rule.noSession) schemes.push({ session: [] });
  if (has('workload')) schemes.push({ workload: [] });
  if (has('root')) schemes.push({ unixSocket: [] });
  return schemes;
}

function parametersOf(name: OperationName, spec: OperationSpec): Json[] {
  const rest = wildcardKey(spec);
  const list: Json[] = [];
  for (const [key, schema] of Object.entries(spec.params?.properties ?? {})) {
    const shown = key === rest && rest === '*' ? 'rest' : key;
    list.push({ name: shown, in: 'path', required: true, schema: linked(schema) });
  }
  for (const [key, schema] of Object.entries(spec.query?.properties ?? {})) {
    const required = spec.query?.required?.includes(key) ?? false;
    list.push({ name: key, in: 'query', required, schema: linked(schema) });
  }
  if (spec.dryRun) {
    const description = 'true: answer with what would be done, and change nothing';
    list.push({ name: 'dryRun', in: 'query', required: false, description, schema: { type: 'boolean' } });
  }
  if (spec.method !== 'GET') {
    const description = 'the same key gives the first answer again, for 24 h, also after a restart';
    list.push({
      name: 'Idempotency-Key',
      in: 'header',
      required: false,
      description,
      schema: { type: 'string', minLength: 1, maxLength: 255 },
    });
  }
  if (name === 'events.stream') {
    const description = 'resume after this event; an id that is too old is answered with `reset`';
    list.push({
      name: 'Last-Event-ID',
      in: 'header',
      required: false,
      description,
      schema: { type: 'integer' },
    });
  }
  return list;
}

function successOf(spec: OperationSpec): Json {
  if (spec.raw !== undefined) {
    const type = spec.raw.split(';')[0] ?? spec.raw;
    return { 200: { description: spec.summary, content: { [type]: { schema: rawSchema(type) } } } };
  }
  const plain = envelope(spec, linked(spec.data));
  const schema = spec.dryRun ? { anyOf: [plain, envelope(spec, reference('DryRun'))] } : plain;
  return { 200: { description: spec.message ?? 'success', content: { 'application/json': { schema } } } };
}

function rawSchema(type: string): Json {
  if (type === 'application/json') return { type: 'object' };
  if (type !== 'text/event-stream') return { type: 'string' };
  return {
    type: 'string',
    description: `Server-sent events: \`id\` an integer that only grows, \`event\` one of ${eventTypes.join(', ')}, \`data\` JSON with \`at\`.`,
  };
}

function envelope(spec: OperationSpec, data: unknown): Json {
  const listed = spec.query?.properties?.['before'] !== undefined;
  return {
    type: 'object',
    required: ['code', 'message', ...(data === undefined ? [] : ['data'])],
    properties: {
      code: { const: 200 },
      message: { type: 'string' },
      ...(data === undefined ? {} : { data }),
      ...(listed
        ? { next: { type: 'string', description: '`before` of the next page; absent on the last' } }
        : {}),
    },
  };
}

function refusalResponses(spec: OperationSpec, rule: Rule): Json {
  const byStatus = new Map<number, ErrorCode[]>();
  for (const code of refusalsOf(spec, rule)) {
    const status = statusOf(code, spec);
    byStatus.set(status, [...(byStatus.get(status) ?? []), code]);
  }
  const sorted = [...byStatus].sort(([a], [b]) => a - b);
  return Object.fromEntries(sorted.map(([status, codes]) => [status, refusalResponse(codes)]));
}

function refusalResponse(codes: readonly ErrorCode[]): Json {
  return {
    description: codes.map((code) => `\`${code}\``).join(', '),
    content: { 'application/json': { schema: reference('ErrorEnvelope') } },
    'x-error-codes': codes,
  };
}
