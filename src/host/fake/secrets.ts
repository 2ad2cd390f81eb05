import type { Secrets } from '#host/sealing.ts';

/** Seals by turning the text around, so that a test can tell sealed from plain. */
export class FakeSecrets implements Secrets {
  readonly #files: string[] = [];

  seal(name: string, secret: string): Promise<string> {
    return Promise.resolve(`sealed:${Buffer.from(`${name}\0${secret}`).toString('base64')}`);
  }

  open(name: string, sealed: string): Promise<string> {
    const [sealedFor, secret] = Buffer.from(sealed.slice(7), 'base64').toString('utf8').split('\0');
    if (sealedFor !== name || secret === undefined)
      return Promise.reject(new Error('sealed for another name'));
    return Promise.resolve(secret);
  }

  async withFile<T>(secret: string, use: (path: string) => Promise<T>): Promise<T> {
    this.#files.push(secret);
    return await use(`/run/fake/${this.#files.length}`);
  }

  /** What was written to files so far. */
  get written(): readonly string[] {
    return this.#files;
  }
}
