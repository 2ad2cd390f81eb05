/**
 * What is wrong with a text that a parser refused, without a letter of the text. The messages of the parsers quote the
 * lines around the fault, and in a configuration those may be passwords.
 */
export function syntaxProblem(error: unknown, format: 'TOML' | 'YAML'): string {
  const place = placeIn(error) ?? yamlPlace(error);
  return place === undefined ? `not ${format}` : `not ${format} (line ${place.line}, column ${place.column})`;
}

interface Place {
  readonly line: number;
  readonly column: number;
}

/** yaml gives the beginning and the end; smol-toml puts the place on the error itself. */
function yamlPlace(error: unknown): Place | undefined {
  if (typeof error !== 'object' || error === null || !('linePos' in error)) return undefined;
  return Array.isArray(error.linePos) ? placeIn(error.linePos[0]) : undefined;
}

function placeIn(value: unknown): Place | undefined {
  if (typeof value !== 'object' || value === null) return undefined;
  const line: unknown = 'line' in value ? value.line : undefined;
  const column: unknown = 'column' in value ? value.column : 'col' in value ? value.col : undefined;
  return typeof line === 'number' && typeof column === 'number' ? { line, column } : undefined;
}
