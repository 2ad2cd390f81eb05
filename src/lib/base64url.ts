/** Base64url without padding (RFC 4648 §5), as compact JWS wants it. */
export function encodeBase64url(bytes: Uint8Array | string): string {
  return (typeof bytes === 'string' ? Buffer.from(bytes, 'utf8') : Buffer.from(bytes)).toString('base64url');
}

/**
 * The bytes, or undefined for anything but the one canonical spelling: Node's decoder forgives padding, the other
 * alphabet, stray characters and loose trailing bits, and each of these would give a token a twin.
 */
export function decodeBase64url(text: string): Buffer | undefined {
  const bytes = Buffer.from(text, 'base64url');
  return bytes.toString('base64url') === text ? bytes : undefined;
}
