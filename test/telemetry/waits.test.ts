import { expect, it } from "vitest";
import { openTelemetry } from "../../shared/telemetry/domain-events.ts";
import { openMetrics } from "../../shared/telemetry/metrics.ts";

it("a caller who gave up after ten seconds counts as one that waited longer, and one that gave up sooner does not count", async () => {
  const metrics = openMetrics();
  const telemetry = openTelemetry(() => {}, metrics);
  telemetry.submitWaited({ ms: 300, isDone: true });
  telemetry.submitWaited({ ms: 2_005, isDone: false });
  telemetry.submitWaited({ ms: 10_005, isDone: false });
  const text = await metrics.registry.getSingleMetricAsString("aau_sync_delivery_seconds");
  const of = (le: string) =>
    Number(
      text
        .split("\n")
        .find((line) => line.includes(`le="${le}"`))
        ?.split(" ")
        .at(-1),
    );
  expect(["0.2", "0.4", "10", "30", "+Inf"].map(of)).toEqual([0, 1, 1, 2, 2]);
});
