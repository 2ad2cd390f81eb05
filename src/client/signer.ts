/** What a signature is made over. */
export interface RequestToSign {
  readonly method: string;
  /** The raw request target, with its query. */
  readonly path: string;
  /** The raw body; '' when there is none. */
  readonly body: string;
  /** From /system/status; the bound form names the node that it is for. */
  readonly nodeId: string;
  /** The base URL that is called, as the legacy form names it. */
  readonly domain: string;
  /** Keys that the legacy form has to cover on this route, also when the request has no body. */
  readonly signedKeys: readonly string[];
}

/** Makes the value of X-Signature. Each call gives a new one: a signature is good for one request. */
export interface Signer {
  sign(request: RequestToSign): string | Promise<string>;
}
