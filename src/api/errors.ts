import { Fault, type FaultDetails } from '#lib/fault.ts';

interface ErrorRow {
  readonly status: 400 | 401 | 403 | 404 | 409 | 413 | 415 | 421 | 422 | 429 | 500 | 503;
  readonly meaning: string;
  /** What the caller can do. */
  readonly remedy: string;
}

/**
 * Every code that can reach the wire: part of the contract, rendered to docs/errors.md and into the OpenAPI document.
 * `unproven` is 401 on our own routes and 403 on those that the ancestor has (contract §1); the edge decides.
 */
export const errorCatalogue = {
  invalid_input: {
    status: 400,
    meaning: 'A value is missing or not what the field takes.',
    remedy: 'Correct the field that `field` names and send the request again.',
  },
  unknown_field: {
    status: 400,
    meaning: 'The body has a key that the operation does not know.',
    remedy: 'Remove the key that `field` names.',
  },
  duplicate_field: {
    status: 400,
    meaning: 'One key was sent in two spellings.',
    remedy: 'Send the key that `field` names once.',
  },
  malformed_body: { status: 400, meaning: 'The body is not a JSON object.', remedy: 'Send one JSON object.' },
  invalid_address: {
    status: 400,
    meaning: 'The address is not an IPv4 address of this node, or it is the host address already.',
    remedy: 'Pick an address that GET /system/ifs lists.',
  },
  unproven: {
    status: 401,
    meaning: 'No proof of identity, or one that does not hold.',
    remedy:
      'Sign the request anew (X-Signature) with the key of the owner; compare clocks with `serverTime`.',
  },
  signature_expired: {
    status: 401,
    meaning: 'The signature was made too long ago, or by a clock that is too far ahead.',
    remedy: 'Set the clock of the signing device by `serverTime` and sign again.',
  },
  signature_reused: {
    status: 401,
    meaning: 'This signature has been used before; each is good for one request.',
    remedy: 'Sign the request anew. Use an Idempotency-Key to retry safely.',
  },
  signature_mismatch: {
    status: 401,
    meaning: 'The signature is valid, but was made for another request, body or node.',
    remedy: 'Sign exactly what is sent; `field` names what differs.',
  },
  replay_window: {
    status: 401,
    meaning:
      'The record of used signatures was lost; old signatures cannot be told from new ones for one window.',
    remedy: 'Sign in the bound form, wait for `retryAfter` seconds, or use beosctl on the machine itself.',
  },
  forbidden: {
    status: 403,
    meaning: 'The caller is known, but not allowed to do this.',
    remedy: 'Let the owner do it, or use beosctl on the machine itself as root.',
  },
  not_owner: {
    status: 403,
    meaning: 'The signature is valid, but its name is not the owner of this node.',
    remedy: "Sign with the owner's key. A lost key: `beosctl owner release` on the machine.",
  },
  bound_form_required: {
    status: 403,
    meaning: 'This cannot be undone and needs a signature that is bound to this very request.',
    remedy: 'Sign in the bound form (method, path, bodySha256, nodeId, nonce, expiresAt).',
  },
  not_on_link: {
    status: 403,
    meaning: 'A node is claimed only from its own network, not through a router, tunnel or VPN.',
    remedy: 'Connect to the same network as the node and try again.',
  },
  claim_code_required: {
    status: 403,
    meaning: 'This node asks for the code shown on its console before it lets itself be claimed.',
    remedy: 'Send the code in the X-Claim-Code header.',
  },
  origin_refused: {
    status: 403,
    meaning: 'The request comes from a web page of another origin.',
    remedy:
      'Call from the app, from beosctl or from a pod, not from a foreign page. A pod that acts for a page makes a ' +
      'request of its own, without the Origin of the browser.',
  },
  state_forbids: {
    status: 403,
    meaning: 'The node is in a state in which this is not done.',
    remedy: 'Wait for one of the states in `allowedIn`.',
  },
  sandbox: {
    status: 403,
    meaning: 'The daemon runs without --system and does not touch the machine.',
    remedy: 'Start it with --system to act on the machine.',
  },
  host_not_ours: {
    status: 421,
    meaning: 'The Host header names something that is not this node.',
    remedy:
      "Use an IP address, localhost, the node's name, or add the name to `hostNames` in the configuration.",
  },
  not_found: { status: 404, meaning: 'There is no such thing.', remedy: 'Check the path or the id.' },
  conflict: {
    status: 409,
    meaning: 'Work in progress stands in the way.',
    remedy: 'Wait for the job in `jobId`, or cancel it.',
  },
  not_cancellable: {
    status: 409,
    meaning: 'The job is past the point where it can be cancelled, or has ended.',
    remedy: 'Wait for its end.',
  },
  power_refused: {
    status: 409,
    meaning: 'A program holds the machine back from going down, or logind says no. Found on a job.',
    remedy: 'Let the program that the message names finish, and ask again.',
  },
  body_too_large: { status: 413, meaning: 'The body is larger than 64 KiB.', remedy: 'Send less.' },
  not_json: { status: 415, meaning: 'The body is not JSON.', remedy: 'Send Content-Type: application/json.' },
  impossible: {
    status: 422,
    meaning: 'The request is well formed, but cannot be done here.',
    remedy: 'Read the message; the machine lacks what is asked for.',
  },
  mount_refused: {
    status: 422,
    meaning: 'The server refused the mount: no such share, or not with these credentials.',
    remedy: 'Correct the share, the user or the password; the message holds the words of the mount program.',
  },
  not_our_mount: {
    status: 422,
    meaning: 'Something is mounted there, but not by this daemon, or not of this kind.',
    remedy: 'Unmount it with the tool that mounted it.',
  },
  disk_not_blank: {
    status: 422,
    meaning: 'The disk holds something; the message says what was found.',
    remedy: 'Pick a blank disk, or say `wipe: true` after a look at the dry run.',
  },
  disk_in_use: {
    status: 422,
    meaning: 'The disk is mounted, held by something, or carries the system.',
    remedy:
      'Unmount it first; a USB disk is stopped by that, so set its policy to `ignore` and plug it in again instead. A disk that carries the system is never touched.',
  },
  confirm_mismatch: {
    status: 422,
    meaning: '`confirm` is not the serial number of the disk.',
    remedy: 'Read the serial number from GET /storage/disks or from the label of the disk.',
  },
  disk_changed: {
    status: 409,
    meaning: 'The disk is not the one, or not in the condition, that was planned for.',
    remedy: 'Look at GET /storage/disks and ask again.',
  },
  mount_busy: {
    status: 409,
    meaning: 'Programs still use it; `data` lists them.',
    remedy: 'Close them and try again, or use force=true and accept that it is not safe.',
  },
  idempotency_mismatch: {
    status: 422,
    meaning: 'The Idempotency-Key was used before with another body.',
    remedy: 'Use a new key for a new request.',
  },
  too_many_requests: { status: 429, meaning: 'Too many requests.', remedy: 'Wait for `retryAfter` seconds.' },
  internal: {
    status: 500,
    meaning: 'A fault of beosd itself.',
    remedy: 'Please report it with the log of the daemon (journalctl -u beosd).',
  },
  cluster_unavailable: {
    status: 503,
    meaning: 'The Kubernetes API of the node does not answer.',
    remedy: 'Wait for `cluster_unreachable` to leave GET /system/conditions, or sign the request.',
  },
  store_unavailable: {
    status: 503,
    meaning: 'The store of the daemon cannot be written (full or read-only disk, damaged file).',
    remedy: 'Free space or mend the disk; GET /system/conditions says which.',
  },
  hosts_file_unavailable: {
    status: 503,
    meaning: 'The hosts file of the machine cannot be read or written.',
    remedy: 'Free space or mend the disk; in a container, let the runtime write the file.',
  },
  installer_unavailable: {
    status: 503,
    meaning: 'The node installer is missing or could not be started.',
    remedy: 'Install the program that the message names, or mend what it says kept it from starting.',
  },
  installer_failed: {
    status: 503,
    meaning: 'The node installer ended without having done its work. Found on a job, not in an answer.',
    remedy: 'Read the log of the job; mend what it names, then install again or uninstall.',
  },
  server_unreachable: {
    status: 503,
    meaning: 'The file server does not answer.',
    remedy: 'Check that it is on and in reach; the message holds the words of the mount program.',
  },
  mount_failed: {
    status: 503,
    meaning: 'The machine could not mount or unmount it.',
    remedy: 'The message says what failed: a missing program, a damaged file system, a device that is gone.',
  },
  devices_unknown: {
    status: 503,
    meaning: 'The disks of the machine could not be read.',
    remedy: 'See `systemctl status systemd-udevd` and the log of the daemon.',
  },
  did_gate_unavailable: {
    status: 503,
    meaning: 'The name of the signer could not be looked up.',
    remedy: 'Check the internet connection of the node, or use a key made by `beosctl key new`.',
  },
  runtime_unavailable: {
    status: 503,
    meaning: 'The container runtime did not answer on its socket.',
    remedy: 'See `systemctl status containerd` (or k3s); GET /readyz tells when it is back.',
  },
  runtime_config_damaged: {
    status: 503,
    meaning: 'A configuration file of the container runtime cannot be read.',
    remedy: 'Correct the file that the message names; `containerd config dump` shows the place.',
  },
  file_not_written: {
    status: 503,
    meaning: 'A file of the system could not be written; what stood there is unchanged.',
    remedy: 'Free space, or mount the filesystem that the message names writable.',
  },
  runtime_rolled_back: {
    status: 503,
    meaning: 'The runtime did not answer with its new configuration, so the old one was put back.',
    remedy: 'Read the log of the runtime; the message says what was tried.',
  },
  image_in_use: {
    status: 409,
    meaning: 'The image is used or protected.',
    remedy: 'Stop what the message names first, or leave the image.',
  },
  images_not_judged: {
    status: 503,
    meaning: 'It is not known which images this node still needs, so none is removed.',
    remedy: 'Wait until the cluster answers; GET /system/conditions says what is missing.',
  },
  mirror_managed: {
    status: 409,
    meaning: 'The mirrors of this registry are kept by k3s, which would overwrite the change.',
    remedy: 'Edit /etc/rancher/k3s/registries.yaml and restart k3s.',
  },
  mirror_unreachable: {
    status: 422,
    meaning: 'An endpoint did not answer as a registry.',
    remedy: 'Correct the endpoint, or send the request without requireReachable.',
  },
  systemd_unavailable: {
    status: 503,
    meaning: 'The system manager of the machine did not answer.',
    remedy: 'See `systemctl status`; on the console, run the command by hand.',
  },
} as const satisfies Record<string, ErrorRow>;

export type ErrorCode = keyof typeof errorCatalogue;

/** A refusal in the words of the contract: the code fixes the status, the message says what is wrong here. */
export function fault(
  code: ErrorCode,
  message: string,
  details: FaultDetails & { cause?: unknown } = {},
): Fault<ErrorCode> {
  return new Fault(code, message, details);
}

/** Narrows a code that comes from below (a Fault of any origin) to the catalogue. */
export function isErrorCode(code: string): code is ErrorCode {
  return Object.hasOwn(errorCatalogue, code);
}
