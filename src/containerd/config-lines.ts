import { isDeepStrictEqual } from 'node:util';
import { parse } from 'smol-toml';
import { isTable } from '#containerd/hosts-toml.ts';

/*
 * The configuration of the runtime as lines. None of this understands TOML as a whole (a line of a text over several lines
 * may look like a header): who uses it parses the result and compares what it means.
 */

/** The text with `config_path` set in the table of registries: its line changed, or one added. */
export function withConfigPath(text: string, plugin: string, certsDir: string): string {
  const lines = text.split('\n');
  const value = JSON.stringify(certsDir);
  const end = text.includes('\r\n') ? '\r' : '';
  let inTable = false;
  let header: number | undefined;
  for (const [at, line] of lines.entries()) {
    const path = headerPath(line);
    if (path !== undefined) inTable = isDeepStrictEqual(path, ['plugins', plugin, 'registry']);
    if (path !== undefined && inTable) header = at;
    const [, start, rest] = /^(\s*config_path\s*=\s*)(?:"[^"]*"|'[^']*')(.*)$/.exec(line) ?? [];
    if (!inTable || start === undefined) continue;
    lines[at] = `${start}${value}${rest}`;
    return lines.join('\n');
  }
  if (header !== undefined) {
    const indent = /^\s*/.exec(lines[header] ?? '')?.[0] ?? '';
    lines.splice(header + 1, 0, `${indent}  config_path = ${value}${end}`);
    return lines.join('\n');
  }
  const table = `[plugins.${JSON.stringify(plugin)}.registry]${end}\n  config_path = ${value}${end}\n`;
  return `${text}${text === '' || text.endsWith('\n') ? '' : `${end}\n`}${table}`;
}

/** Cuts the sections of inline mirrors and of their TLS; comments that follow the last setting of one stay. */
export function withoutInlineMirrors(text: string, plugin: string): string {
  const kept: string[] = [];
  let pending: string[] = [];
  let cutting = false;
  for (const line of text.split('\n')) {
    const path = headerPath(line);
    if (path !== undefined) {
      kept.push(...pending);
      pending = [];
      cutting = isInlineMirrorSection(path, plugin);
    }
    if (!cutting) kept.push(line);
    else if (/^\s*(#|$)/.test(line)) pending.push(line);
    else pending = [];
  }
  return [...kept, ...pending].join('\n');
}

/** The keys of a `[table.header]`, none for one of `[[several]]`; undefined: the line is no header. */
function headerPath(line: string): string[] | undefined {
  if (/^\s*\[\[/.test(line)) return [];
  if (!/^\s*\[[^[].*\]\s*(#.*)?$/.test(line)) return undefined;
  try {
    const path: string[] = [];
    for (let here: unknown = parse(line); isTable(here); ) {
      const [key] = Object.keys(here);
      if (key === undefined) break;
      path.push(key);
      here = here[key];
    }
    return path;
  } catch {
    return undefined; // part of an array over several lines
  }
}

function isInlineMirrorSection(path: readonly string[], plugin: string): boolean {
  const [top, name, registry, kind, , last] = path;
  if (top !== 'plugins' || name !== plugin || registry !== 'registry') return false;
  return kind === 'mirrors' || (kind === 'configs' && last === 'tls');
}

/**
 * Second guard, on bytes: comments and layout mean nothing to a parser. Lines may only come for `config_path`, and only
 * those may go that hold it, or mirrors and their TLS.
 */
export function keepsEveryOtherLine(before: string, after: string): boolean {
  const old = before.split('\n');
  const mayGo = (line: string | undefined) => line !== undefined && /config_path|mirrors|configs/.test(line);
  let next = 0;
  for (const line of after.split('\n')) {
    let at = next;
    while (old[at] !== line && mayGo(old[at])) at++;
    if (old[at] === line) next = at + 1;
    else if (!/config_path|configs|^\s*\[plugins/.test(line) && line.trim() !== '') return false;
  }
  return old.slice(next).every((line) => mayGo(line) || line === '');
}
