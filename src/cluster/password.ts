import { randomInt } from 'node:crypto';

/** No letter or digit that is easily taken for another, and nothing that a shell, YAML or a URL gives a meaning to. */
const alphabet = 'ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789';

/** 32 characters from the system's random source: about 185 bits. */
export function generatePassword(): string {
  return Array.from({ length: 32 }, () => alphabet[randomInt(alphabet.length)]).join('');
}
