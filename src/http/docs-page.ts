import { createHash } from 'node:crypto';
import { type ErrorCode, errorCatalogue, isErrorCode } from '#api/errors.ts';
import { docsStyle } from '#http/docs-style.ts';
import { propertiesOf, typeText } from '#http/schema-text.ts';

type Json = Record<string, unknown>;

export interface DocsPage {
  readonly html: string;
  /** Goes out as `Content-Security-Policy`: nothing may load, nothing may run, one style is known by its hash. */
  readonly contentSecurityPolicy: string;
}

/**
 * The contract as one page: no script, no outside asset. It is laid out here, from the OpenAPI document, so that a
 * phone without internet on the node's own Wi-Fi reads it as well as a desktop does.
 */
export function docsPage(document: Json): DocsPage {
  const info = objectOf(document['info']);
  const groups = groupsOf(document);
  const html = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(info['title'])} ${escapeHtml(info['version'])}: the API</title>
<link rel="icon" href="data:,">
<style>${docsStyle}</style>
</head>
<body>
<header>
<h1>${escapeHtml(info['title'])} <small>${escapeHtml(info['version'])}</small></h1>
<p>${prose(info['description'])}</p>
<p>The same contract for programs: <a href="/openapi.json">/openapi.json</a> (OpenAPI 3.1).</p>
</header>
<nav aria-label="Subjects"><ul>${[...groups.keys()].map((name) => `<li><a href="#${slug(name)}">${escapeHtml(name)}</a></li>`).join('')}<li><a href="#proof">who may call</a></li></ul></nav>
<main>
${[...groups].map(([name, entries]) => groupSection(name, entries, document)).join('\n')}
${proofSection(document)}
</main>
<footer>beosd, Apache-2.0</footer>
</body>
</html>
`;
  const hash = createHash('sha256').update(docsStyle).digest('base64');
  return {
    html,
    contentSecurityPolicy: `default-src 'none'; style-src 'sha256-${hash}'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`,
  };
}

interface Entry {
  readonly method: string;
  readonly path: string;
  readonly operation: Json;
}

function groupsOf(document: Json): Map<string, Entry[]> {
  const groups = new Map<string, Entry[]>();
  for (const [path, methods] of Object.entries(objectOf(document['paths']))) {
    for (const [method, value] of Object.entries(objectOf(methods))) {
      const operation = objectOf(value);
      const tag = String(listOf(operation['tags'])[0] ?? 'other');
      groups.set(tag, [...(groups.get(tag) ?? []), { method, path, operation }]);
    }
  }
  return groups;
}

function groupSection(name: string, entries: readonly Entry[], document: Json): string {
  const parts = entries.map((entry) => operationSection(entry, document));
  return `<h2 id="${slug(name)}">${escapeHtml(name)}</h2>\n${parts.join('\n')}`;
}

function operationSection({ method, path, operation }: Entry, document: Json): string {
  return `<details class="op" id="${slug(String(operation['operationId']))}">
<summary><span class="method ${slug(method)}">${escapeHtml(method.toUpperCase())}</span><span class="path">${escapeHtml(path)}</span><span class="what">${prose(operation['summary'])}</span></summary>
<div>
${accessPart(operation)}
${parametersPart(operation)}
${bodyPart(operation, document)}
${answersPart(operation, document)}
</div>
</details>`;
}

function accessPart(operation: Json): string {
  const who = listOf(operation['x-who']).map((each) => `<span class="badge">${escapeHtml(each)}</span>`);
  const gate = operation['x-gate'] === null ? undefined : objectOf(operation['x-gate']);
  const bound = operation['x-bound-form'] === true ? '<p>The signature must be in the bound form.</p>' : '';
  const when =
    gate === undefined
      ? '<p>In every state of the node.</p>'
      : `<p>While the node is ${listOf(gate['allowedIn'])
          .map((state) => `<code>${escapeHtml(state)}</code>`)
          .join(', ')}.</p>`;
  return `<h3>Who and when</h3><p>${who.join('')}</p>${bound}${when}`;
}

function parametersPart(operation: Json): string {
  const rows = listOf(operation['parameters']).map((each) => {
    const parameter = objectOf(each);
    const schema = objectOf(parameter['schema']);
    const needed = parameter['required'] === true ? 'required' : '';
    return row([
      `<code>${escapeHtml(parameter['name'])}</code>`,
      `${escapeHtml(parameter['in'])} ${needed}`,
      escapeHtml(typeText(schema)),
      prose(parameter['description'] ?? schema['description'] ?? ''),
    ]);
  });
  return rows.length === 0 ? '' : `<h3>Parameters</h3>${table(['name', 'in', 'type', 'what'], rows)}`;
}

function bodyPart(operation: Json, document: Json): string {
  const schema = jsonSchemaOf(objectOf(operation['requestBody']));
  if (schema === undefined) return '';
  return `<h3>Body</h3>${propertiesTable(schema, document)}`;
}

function propertiesTable(schema: Json, document: Json): string {
  const rows = propertiesOf(schema, document).map((each) =>
    row([
      `<code>${escapeHtml(each.name)}</code>`,
      escapeHtml(each.type),
      each.required ? 'required' : '',
      prose(each.description),
    ]),
  );
  if (rows.length > 0) return table(['key', 'type', '', 'what'], rows);
  return `<p><code>${escapeHtml(typeText(schema))}</code></p>`;
}

function answersPart(operation: Json, document: Json): string {
  const responses = Object.entries(objectOf(operation['responses']));
  const success = objectOf(responses.find(([status]) => status === '200')?.[1]);
  const schema = jsonSchemaOf(success);
  const rows = responses
    .filter(([status]) => status !== '200')
    .flatMap(([status, value]) =>
      listOf(objectOf(value)['x-error-codes']).map((code) => refusalRow(status, code)),
    );
  const data = schema === undefined ? '' : dataPart(schema, document);
  return `<h3>Answer</h3><p>200: ${prose(success['description'])}</p>${data}<h3>Refusals</h3>${table(['status', 'code', 'what it means', 'what to do'], rows)}`;
}

function refusalRow(status: string, code: unknown): string {
  const known = isErrorCode(String(code)) ? errorCatalogue[code as ErrorCode] : undefined;
  return row([
    escapeHtml(status),
    `<code>${escapeHtml(code)}</code>`,
    prose(known?.meaning),
    prose(known?.remedy),
  ]);
}

/** The `data` of the envelope; of an answer that may also be a plan, the first form. */
function dataPart(schema: Json, document: Json): string {
  const plain = objectOf(listOf(schema['anyOf'])[0] ?? schema);
  const data = objectOf(plain['properties'])['data'];
  if (data === undefined) return '';
  const list = objectOf(data);
  const inner = list['type'] === 'array' ? objectOf(list['items']) : list;
  const many = list['type'] === 'array' ? '<p><code>data</code> is a list of</p>' : '';
  return `${many}${propertiesTable(inner, document)}`;
}

function proofSection(document: Json): string {
  const schemes = objectOf(objectOf(document['components'])['securitySchemes']);
  const rows = Object.entries(schemes).map(([name, value]) =>
    row([`<code>${escapeHtml(name)}</code>`, prose(objectOf(value)['description'])]),
  );
  return `<h2 id="proof">Who may call</h2>${table(['proof', 'what it is'], rows)}`;
}

function jsonSchemaOf(holder: Json): Json | undefined {
  const content = objectOf(holder['content'])['application/json'];
  return content === undefined ? undefined : objectOf(objectOf(content)['schema']);
}

function table(head: readonly string[], rows: readonly string[]): string {
  const cells = head.map((each) => `<th scope="col">${escapeHtml(each)}</th>`).join('');
  return `<div class="scroll"><table><thead><tr>${cells}</tr></thead><tbody>${rows.join('')}</tbody></table></div>`;
}

function row(cells: readonly string[]): string {
  return `<tr>${cells.map((each) => `<td>${each}</td>`).join('')}</tr>`;
}

/** Text with `code` in backticks. */
function prose(text: unknown): string {
  return escapeHtml(text).replace(/`([^`]+)`/g, '<code>$1</code>');
}

function escapeHtml(text: unknown): string {
  return String(text ?? '')
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;');
}

function slug(text: string): string {
  return text.replace(/[^A-Za-z0-9]+/g, '-').toLowerCase();
}

function objectOf(value: unknown): Json {
  return typeof value === 'object' && value !== null ? (value as Json) : {};
}

function listOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}
