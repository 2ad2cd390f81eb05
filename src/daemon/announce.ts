import { isDeepStrictEqual } from 'node:util';
import type { EventHub } from '#jobs/events.ts';
import type { Snapshot } from '#state/observatory.ts';

/** Turns changes of the snapshot into events: one each for state, conditions and network, only when they differ. */
export function announce(events: EventHub, now: Snapshot, before: Snapshot): void {
  if (now.state !== before.state) {
    events.publish('state', { state: now.state, before: before.state, because: now.because });
  }
  const codes = now.conditions.map(({ code }) => code);
  if (
    !isDeepStrictEqual(
      codes,
      before.conditions.map(({ code }) => code),
    )
  ) {
    events.publish('condition', { conditions: now.conditions });
  }
  const network = networkOf(now);
  if (!isDeepStrictEqual(network, networkOf(before))) events.publish('network', network);
}

function networkOf({ facts, status }: Snapshot) {
  const links = facts.network.known ? facts.network.value.links : [];
  const interfaces = links
    .filter((link) => link.kind !== 'container' && link.kind !== 'loopback')
    .map(({ name, kind, up, addresses }) => ({
      name,
      kind,
      up,
      addresses: addresses.map((each) => each.address),
    }));
  return { hostIp: status.hostIp, interfaces };
}
