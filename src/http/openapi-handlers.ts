import { type Handlers, operations } from '#api/operations.ts';
import { docsPage } from '#http/docs-page.ts';
import { openApiDocument } from '#http/openapi.ts';

/** The contract as a document and as a page; both are made when somebody first asks. */
export function openApiHandlers(version: string): Pick<Handlers, 'system.openapi' | 'system.docs'> {
  let json: string | undefined;
  let page: ReturnType<typeof docsPage> | undefined;
  const document = () => openApiDocument(operations, version);
  return {
    'system.openapi': () => {
      json ??= JSON.stringify(document());
      return { raw: json, contentType: 'application/json; charset=utf-8' };
    },
    'system.docs': () => {
      page ??= docsPage(document());
      const headers = { 'content-security-policy': page.contentSecurityPolicy };
      return { raw: page.html, contentType: 'text/html; charset=utf-8', headers };
    },
  };
}
