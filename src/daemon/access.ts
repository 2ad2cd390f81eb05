import { isIP } from 'node:net';
import { Authenticator } from '#auth/authenticator.ts';
import { DidGate, gateUrl } from '#auth/did-gate.ts';
import { isOnLink } from '#auth/on-link.ts';
import { OwnerFile } from '#auth/owner.ts';
import { ReplayGuard } from '#auth/replay.ts';
import { Sessions } from '#auth/sessions.ts';
import { Signatures } from '#auth/signatures.ts';
import type { WorkloadProver } from '#auth/workloads.ts';
import type { Config } from '#daemon/config.ts';
import { isOwnAddress } from '#daemon/own-names.ts';
import type { Profile } from '#daemon/profiles.ts';
import type { Clock } from '#host/clock.ts';
import type { Files } from '#host/files.ts';
import { GapNote } from '#host/gap-note.ts';
import { valueOr } from '#lib/observed.ts';
import type { NetworkFacts } from '#state/facts.ts';
import type { Observatory } from '#state/observatory.ts';
import type { AuditLog } from '#store/audit.ts';
import type { Store } from '#store/store.ts';

/** While the links are not known, nobody is a neighbour. */
const noNetwork: NetworkFacts = { links: [], defaultRoutes: [] };

export interface AccessOptions {
  readonly config: Config;
  readonly profile: Profile;
  readonly clock: Clock;
  readonly files: Files;
  readonly store: Store;
  readonly audit: AuditLog;
  readonly observatory: Observatory;
  readonly workloads: WorkloadProver;
  readonly nodeId: string;
  readonly signal: AbortSignal;
}

/** Everything that decides who calls, wired to this node. */
export interface Access {
  readonly owners: OwnerFile;
  readonly gate: DidGate;
  readonly signatures: Signatures;
  readonly sessions: Sessions;
  readonly authenticator: Authenticator;
}

export function openAccess(options: AccessOptions): Access {
  const { config, clock, store, observatory, nodeId, signal } = options;
  const owners = ownerFile(options);
  // Without --system nothing outside is asked, unless a gate was named explicitly (contract §10).
  const url = config.didGateUrl ?? (config.sandbox ? undefined : options.profile.didGateUrl);
  const gate = new DidGate({ store, clock, url: url === undefined ? undefined : gateUrl(url), signal });
  const signatures = new Signatures(gate);
  const sessions = new Sessions({ store, clock });
  const facts = () => observatory.current.facts;
  const authenticator = new Authenticator({
    clock,
    owners,
    signatures,
    replay: new ReplayGuard({ store, clock, gap: new GapNote(config.dataDir) }),
    sessions,
    workloads: options.workloads,
    nodeId,
    legacySignatures: config.file.auth?.legacySignatures ?? true,
    claimCode: config.file.auth?.claimCode,
    isOwnAddress: (address) => isIP(address) !== 0 && isOwnAddress(facts(), address),
    isOnLink: (address) => isOnLink(valueOr(facts().network, noNetwork), address, config.sandbox),
  });
  return { owners, gate, signatures, sessions, authenticator };
}

function ownerFile({ config, clock, files, audit, observatory }: AccessOptions): OwnerFile {
  const owners: OwnerFile = new OwnerFile({
    dataDir: config.dataDir,
    files,
    clock,
    releaseName: () => {
      const { release } = observatory.current.facts;
      return release.known ? { ...release, value: release.value.name } : release;
    },
    claimIsOpen: () => {
      const { state, jobs } = observatory.current;
      const isOpen = ({ operation, state }: (typeof jobs)[number]) =>
        operation === 'command.install' && (state === 'queued' || state === 'running');
      return state === 'not-installed' && !jobs.some(isOpen);
    },
    changed: ({ what, name, before }) => {
      const detail = before === undefined || before === name ? name : `${before} → ${name}`;
      audit.append({
        at: clock.now(),
        caller: name,
        proof: 'none',
        operation: 'owner',
        outcome: what,
        detail,
      });
      tellOwner(owners, observatory);
    },
  });
  return owners;
}

/** Whose node it is, for the snapshot. What cannot be read counts as owned: nobody is told that a node is free to take. */
export function tellOwner(owners: OwnerFile, observatory: Observatory): void {
  const now = owners.current();
  const name = now.kind === 'pinned' ? now.owner.name : now.kind === 'named' ? now.name : undefined;
  observatory.setOwner({ name, owned: now.kind !== 'none' });
}
