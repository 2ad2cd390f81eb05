/** What the stream of GET /events carries (contract §10). `reset` answers an id that is too old, with a snapshot. */
export const eventTypes = ['state', 'job', 'mount', 'network', 'image', 'condition', 'reset'] as const;
export type EventType = (typeof eventTypes)[number];

export interface StoredEvent {
  /** Only grows, also across restarts. */
  readonly id: number;
  readonly type: EventType;
  /** Always carries `at` (RFC 3339). */
  readonly data: Readonly<Record<string, unknown>>;
}
