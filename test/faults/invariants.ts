/** What must hold, and the book in which the auditor writes what it looked at and where it does not. */
export const INVARIANTS = {
  I1: "no loss: every accepted submit exists and ends by its deadline and two leases",
  I2: "no ghosts: one key gives one task; a refusal left nothing",
  I3: "one settlement: one terminal write, all rows of one attempt",
  I4: "no revival: what has ended stays as it is; cancelled is not billed",
  I5: "billed is real: every billed call is one call in the provider's ledger, with its tokens",
  I6: "real is known: every call in the ledger is settled, or listed and billed to nobody",
  I7: "no double bill: one usage row per step, one answer per question, one invoice per month, sums agree",
  I8: "reservations return: nothing is reserved at rest, and no quota is exceeded",
  I9: "webhooks: every healthy endpoint was told every event, signed, under one id, with a fresh time",
  I10: "side effects: what a plugin did outside reached the tool, under one key per task, and each issue has one ticket",
  I11: "isolation: nothing of one tenant reached another, another's prompt, or a log",
  I12: "erasure: after a certificate nothing of the person is left, also not in a backup that came back",
  I13: "liveness: after the faults, tasks are as fast as before, and nobody restarted anything by hand",
  I14: "no leak: sockets, sessions, streams and pending entries are back where they were",
  D: "deserved: every task, and all around it, ended as its fault deserves",
} as const;
export type Invariant = keyof typeof INVARIANTS;

export interface Finding {
  invariant: Invariant;
  /** How many things were looked at. */
  checked: number;
  violations: string[];
}

export const holds = (findings: readonly Finding[]): boolean => findings.every(({ violations }) => violations.length === 0);

export class Book {
  readonly #findings = new Map(Object.keys(INVARIANTS).map((invariant) => [invariant, { checked: 0, violations: [] as string[] }]));

  check(invariant: Invariant, isKept: boolean, violation: () => string): void {
    const finding = this.#findings.get(invariant);
    if (!finding) return;
    finding.checked += 1;
    if (!isKept) finding.violations.push(violation());
  }

  findings(): Finding[] {
    return [...this.#findings].map(([invariant, finding]) => ({ invariant: invariant as Invariant, ...finding }));
  }
}

export function groupBy<T>(rows: readonly T[], key: (row: T) => string): ReadonlyMap<string, readonly T[]> {
  const groups = new Map<string, T[]>();
  for (const row of rows) groups.set(key(row), [...(groups.get(key(row)) ?? []), row]);
  return groups;
}
