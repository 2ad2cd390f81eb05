/** One object as the API server sends it. Nothing of it is believed without a look. */
export type RawObject = Readonly<Record<string, unknown>>;

export function asObject(value: unknown): RawObject | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as RawObject)
    : undefined;
}

/** The objects of a list; what is no object is left out, no list is []. */
export function listOf(value: unknown): RawObject[] {
  if (!Array.isArray(value)) return [];
  return value.map((each: unknown) => asObject(each)).filter((each) => each !== undefined);
}

/** The string, or ''. */
export function textOf(value: unknown): string {
  return typeof value === 'string' ? value : '';
}
