import { expect, vi } from "vitest";
import type { TestTenant } from "../support/platform.ts";

export const HANDBOOK = `# Handbook

Welcome to the company. This handbook says how we work together.

## Leave

### Vacation

Every employee has 28 days of paid vacation a year. Ask your lead two weeks ahead.

### Sick days

Tell the office before ten in the morning. From the third day on a doctor's note is needed.

## Laptops

Disks are encrypted. A lost laptop is reported to the security desk at once, and it is wiped from afar.
`;

/** The document as soon as nobody works on it any more. */
export async function settled(tenant: TestTenant, documentId: string) {
  return vi.waitFor(
    async () => {
      const { body } = await tenant.api("GET", `/v1/knowledge/${documentId}`);
      expect(["ready", "failed"]).toContain(body.status);
      return body;
    },
    { timeout: 30_000, interval: 50 },
  );
}
