import { ApiError, type ErrorDetails } from '#client/api-error.ts';
import type { WireResponse } from '#client/transport.ts';
import type { FullAnswer } from '#client/types.ts';

/** The envelope of a success, opened; throws {@link ApiError} for anything else. */
export function toAnswer(response: WireResponse, raw: boolean): FullAnswer {
  const good = response.status >= 200 && response.status < 300;
  if (!good) throw toRefusal(response);
  if (raw) return { status: response.status, message: '', data: response.text, beside: {} };
  const envelope = parseEnvelope(response.text);
  if (envelope === undefined) throw toRefusal(response);
  const { code: _code, message, data, ...beside } = envelope;
  return { status: response.status, message: String(message), data, beside };
}

/** The refusal that an answer carries; of an answer that is no envelope, one that says so. */
export function toRefusal(response: WireResponse): ApiError {
  const envelope = parseEnvelope(response.text);
  if (envelope === undefined) {
    const message = `What answered (HTTP ${response.status}) does not speak the language of beosd.`;
    return new ApiError(response.status, 'invalid_answer', message);
  }
  const { code, ...details } = (envelope['error'] ?? {}) as ErrorDetails & { code?: string };
  const name = code ?? (response.status === 300 ? 'choose' : `http_${response.status}`);
  return new ApiError(response.status, name, String(envelope['message']), details, envelope['data']);
}

function parseEnvelope(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    const isEnvelope = typeof value === 'object' && value !== null && 'code' in value && 'message' in value;
    return isEnvelope ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}
