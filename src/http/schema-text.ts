type Json = Record<string, unknown>;

/** A JSON Schema in a few words: `string (1–63)`, `"a" | "b"`, `list of Job`. */
export function typeText(schema: Json): string {
  const ref = schema['$ref'];
  if (typeof ref === 'string') return ref.split('/').at(-1) ?? ref;
  for (const key of ['enum', 'anyOf', 'allOf'] as const) {
    const values = schema[key];
    if (!Array.isArray(values)) continue;
    const parts = values.map((each) => (key === 'enum' ? JSON.stringify(each) : typeText(each as Json)));
    return parts.join(key === 'allOf' ? ' & ' : ' | ');
  }
  if ('const' in schema) return JSON.stringify(schema['const']);
  if (schema['type'] === 'array') return `list of ${typeText((schema['items'] ?? {}) as Json)}`;
  const type = typeof schema['type'] === 'string' ? schema['type'] : 'anything';
  return `${type}${formatText(schema)}${boundsText(schema)}`;
}

function formatText(schema: Json): string {
  return typeof schema['format'] === 'string' ? `, ${schema['format']}` : '';
}

function boundsText(schema: Json): string {
  const low = schema['minLength'] ?? schema['minimum'];
  const high = schema['maxLength'] ?? schema['maximum'];
  if (low === undefined && high === undefined) return '';
  if (low === undefined) return ` (up to ${high})`;
  return high === undefined ? ` (from ${low})` : ` (${low}–${high})`;
}

export interface PropertyText {
  readonly name: string;
  readonly type: string;
  readonly required: boolean;
  readonly description: string;
}

/** The keys of an object schema, also of one that stands under components. */
export function propertiesOf(schema: Json, document: Json): PropertyText[] {
  const resolved = resolve(schema, document);
  const required = new Set(Array.isArray(resolved['required']) ? resolved['required'] : []);
  const properties = Object.entries((resolved['properties'] ?? {}) as Record<string, Json>);
  return properties.map(([name, property]) => ({
    name,
    type: typeText(property),
    required: required.has(name),
    description: String(property['description'] ?? ''),
  }));
}

function resolve(schema: Json, document: Json): Json {
  const ref = schema['$ref'];
  if (typeof ref !== 'string') return schema;
  let at: unknown = document;
  for (const part of ref.replace(/^#\//, '').split('/')) at = (at as Json | undefined)?.[part];
  return (at ?? {}) as Json;
}
