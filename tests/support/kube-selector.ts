type Json = { [key: string]: unknown };

/** A field selector as a test of objects: `a.b=c,d.e!=f`. */
export function selector(text: string | null): (object: Json) => boolean {
  const terms = (text ?? '').split(',').filter(Boolean);
  return (object) =>
    terms.every((term) => {
      const [, path = '', operator, value] = /^([^!=]+)(!=|=)(.*)$/.exec(term) ?? [];
      const found =
        path.split('.').reduce<unknown>((at, key) => (at as Json | undefined)?.[key], object) ?? '';
      return (found === value) === (operator === '=');
    });
}
