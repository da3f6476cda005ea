import * as semver from "semver";

/**
 * The highest release that fits all ranges; a pre-release only where a range asks for one, or where there is nothing else and no range. Null: none fits.
 * `versions` are those that run now.
 */
export function pickVersion(versions: readonly string[], ranges: readonly string[]): string | null {
  const fitting = versions.filter((version) => ranges.every((range) => semver.satisfies(version, range)));
  const candidates = ranges.length === 0 ? versions : fitting;
  const releases = candidates.filter((version) => semver.prerelease(version) === null);
  return (releases.length > 0 ? releases : candidates).reduce<string | null>((best, version) => (best === null || semver.gt(version, best) ? version : best), null);
}
