import type { OperationSpec } from '#api/operation.ts';

/** The name of the parameter that `*` at the end of a path stands for: the one key of `params` that no `:name` takes. */
export function wildcardKey(spec: OperationSpec): string | undefined {
  if (!spec.path.endsWith('*')) return undefined;
  const named = new Set([...spec.path.matchAll(/:(\w+)/g)].map((match) => match[1]));
  return Object.keys(spec.params?.properties ?? {}).find((key) => !named.has(key)) ?? '*';
}

/** The path in the notation of OpenAPI: `/jobs/{id}`. */
export function templatePath(spec: OperationSpec): string {
  const named = spec.path.replace(/:(\w+)/g, '{$1}');
  const rest = wildcardKey(spec);
  return rest === undefined ? named : named.replace(/\*$/, `{${rest === '*' ? 'rest' : rest}}`);
}

/** The path with its parameters filled in, each URL-encoded; throws when one is missing. */
export function fillPath(spec: OperationSpec, params: Readonly<Record<string, unknown>>): string {
  const take = (key: string) => {
    const value = params[key];
    if (value === undefined || value === '') throw new TypeError(`${spec.path} needs the parameter ${key}`);
    return encodeURIComponent(String(value));
  };
  const named = spec.path.replace(/:(\w+)/g, (_, key: string) => take(key));
  const rest = wildcardKey(spec);
  return rest === undefined ? named : named.replace(/\*$/, () => take(rest));
}
